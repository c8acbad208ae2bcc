"""Items stand below others by their marks, at one and the same margin."""

from __future__ import annotations

import pytest
from fixtures_growth import assert_structure_grows_with_length
from test_units_field import leaning


@pytest.mark.parametrize(
    ("text", "item", "leans_on"),
    [
        ("(1) Nets may be set by\n(a) the keeper;\n(b) his men.\n(2) Nobody else fishes.", "(b) his men.", 0),
        (
            "(1) Nets may be set by\n(a) the keeper;\n(b) his men.\n(2) Nobody else fishes.",
            "(2) Nobody else fishes.",
            None,
        ),
        ("1. Netze darf setzen\n\na) der Wärter,\n\nb) sein Knecht.\n\n2. Sonst keiner.", "b) sein Knecht.", 0),
        ("1. Dry the net.\n- Keep it out of the sun.\n- Turn it.\n2. Mend it.", "- Turn it.", 0),
        ("1. Dry the net.\n- Keep it out of the sun.\n- Turn it.\n2. Mend it.", "2. Mend it.", None),
        ("- Before the season:\n1. tar the boat\n2. mend the net\n- After it:\n1. dry the net", "2. mend the net", 0),
        ("* 3 May, Kim\n- tarred the boat\n- mended\n\n* 2 May, Lou\n- dried the net", "- dried the net", 3),
        ("* 3 May, Kim\n- tarred the boat\n- mended\n\n* 2 May, Lou\n- dried the net", "* 2 May, Lou", None),
        ("a) Nets:\n(i) of hemp\n(ii) of cotton\nb) Lines", "(ii) of cotton", 0),
        ("1. Dry the net.\n2. Mend it.\n\n- Hemp rots.\n- Cotton shrinks.", "- Hemp rots.", None),
        ("- Hemp rots.\n- Cotton shrinks.\n1. Dry the net.\n2. Mend it.", "2. Mend it.", None),
        ("2. Dry the net.\nc) Hemp rots.\nd) Cotton shrinks.", "c) Hemp rots.", None),
    ],
)
def test_an_item_is_below_one_with_another_mark_that_leads_to_it(text: str, item: str, leans_on: int | None) -> None:
    found = leaning(text)
    assert found[item] == (None if leans_on is None else list(found)[leans_on])


def test_items_below_a_heading_begin_anew() -> None:
    assert leaning("1. Nets by\na) Kim\n\n# Lines\n\na) of hemp\nb) of gut")["b) of gut"] == "# Lines"


@pytest.mark.parametrize(
    "piece",
    [
        "1. a\na) b\n- c\n",
        "(a) b:\n(i) c\n",
        "a\n: b\n",
        "a::\nb\n",
        "====\nA\n====\n",
        "\n |  a\n |",
        "A: b. C.\nD: e.\n",
        "A:\n  b: c:\n",
        "BEGIN:VCARD\n",
        "GET /a\nb:\n\n  c\n\n",
    ],
)
def test_work_grows_with_the_length_of_odd_marks(piece: str) -> None:
    assert_structure_grows_with_length(piece)
