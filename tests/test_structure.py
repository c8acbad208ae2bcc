"""What each unit is, and what it leans on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxprune.text import split_sentences
from ctxprune.text.structure import companions, structure

SEPARATOR = "¦"


def described(text: str) -> list[tuple[str, str, str | None, str]]:
    """(unit, kind, the unit it leans on, strength) of each unit."""
    units = split_sentences(text)
    texts = [text[unit.start : unit.end] for unit in units]
    roles = structure(text, units)
    return [
        (each, role.kind, None if role.leans_on is None else texts[role.leans_on], role.strength)
        for each, role in zip(texts, roles, strict=True)
    ]


def test_sections_lists_and_tables() -> None:
    text = """\
# Mills

The upper mill turns. However, it has no roof.

## Visits

Bring with you:

- boots
  - of rubber
- a coat

| Day | Hours |
|---|---|
| Monday | 9 to 5 |

Dogs stay outside.
"""
    assert described(text) == [
        ("# Mills", "heading", None, "helpful"),
        ("The upper mill turns.", "prose", "# Mills", "helpful"),
        ("However, it has no roof.", "prose", "The upper mill turns.", "helpful"),
        ("## Visits", "heading", "# Mills", "helpful"),
        ("Bring with you:", "list intro", "## Visits", "helpful"),
        ("- boots", "list item", "Bring with you:", "needed"),
        ("- of rubber", "list item", "- boots", "needed"),
        ("- a coat", "list item", "Bring with you:", "needed"),
        ("| Day | Hours |\n|---|---|", "table header", "Bring with you:", "helpful"),
        ("| Monday | 9 to 5 |", "table row", "| Day | Hours |\n|---|---|", "needed"),
        ("Dogs stay outside.", "prose", "## Visits", "helpful"),
    ]


@pytest.mark.parametrize(
    ("text", "unit", "kind", "leans_on"),
    [
        ("mill,built,stones\nUpper,1701,2\nLower,1744,3\n", "Lower,1744,3", "table row", "mill,built,stones"),
        ("mill\tbuilt\nUpper\t1701\nLower\t1744\n", "Lower\t1744", "table row", "mill\tbuilt"),
        (
            "NAME      READY   AGE\nupper-0   1/1     3d\nlower-1   0/1     2h\n",
            "lower-1   0/1     2h",
            "table row",
            "NAME      READY   AGE",
        ),
        (
            "OPTIONS\n       -q, --quiet\n              Say nothing.\n\n       -v     Say more.\n",
            "Say nothing.",
            "definition",
            "-q, --quiet",
        ),
        ("OPTIONS\n       -q, --quiet\n              Say nothing.\n", "-q, --quiet", "term", "OPTIONS"),
        ("Visits\n------\n\nCome at nine.", "Come at nine.", "prose", "Visits\n------"),
        ("3.1 Visits\n\nCome at nine.", "Come at nine.", "prose", "3.1 Visits"),
        ("<h2>Visits</h2><p>Come at nine</p><p>Or not</p>", "<p>Or not</p>", "prose", "<h2>Visits</h2>"),
        ("<h2>V</h2><ul><li>One</li><li>Two</li></ul>", "<li>Two</li></ul>", "list item", "<h2>V</h2>"),
        (
            "<table><tr><th>Mill</th></tr><tr><td>Upper</td></tr><tr><td>Lower</td></tr></table>",
            "<tr><td>Upper</td></tr>",
            "table row",
            "<table><tr><th>Mill</th></tr>",
        ),
        ("a:\n  b:\n    - name: x\n      size: 2\n", "- name: x\n      size: 2", "record", "a:\n  b:"),
        ("Run it:\n\n```sh\ngrind\n```\n", "```sh\ngrind\n```", "code", "Run it:"),
        ("2023-11-30 08:00:00 one\n2023-11-30 08:00:01 two\n", "2023-11-30 08:00:01 two", "record", None),
        ("[gate]\nopens = 7\nshuts = 9\n\n[race]\ndrop = 2\n", "drop = 2", "record", "[race]"),
        ("[gate]\nopens = 7\n\nshuts = 9\ntoll = 2\nkeeper = kim\n", "toll = 2", "record", "[gate]"),
        (
            "<h2>Tolls</h2><table><caption>Pence a boat</caption><tr><th>Boat</th></tr><tr><td>Two</td></tr></table>",
            "<tr><th>Boat</th></tr>",
            "table header",
            "<table><caption>Pence a boat</caption>",
        ),
        (
            "Use:\n  -q, --quiet   hush\n  -v, --loud    more\n  -x, --fast    run\n",
            "-v, --loud    more",
            "table row",
            "Use:",
        ),
        ("Die Mühle steht still. Sie ist alt.", "Sie ist alt.", "prose", "Die Mühle steht still."),
        ("The mill turns. Kim keeps it.", "Kim keeps it.", "prose", None),
    ],
)
def test_what_a_unit_leans_on(text: str, unit: str, kind: str, leans_on: str | None) -> None:
    found = {each: (role, lean) for each, role, lean, _ in described(text)}
    assert found[unit] == (kind, leans_on)


def test_a_blob_is_a_blob() -> None:
    blob = "![wheel](data:image/png;base64," + "iVBORw0KGgoAAAANSUhEUgA5" * 20 + ")"
    assert [kind for _, kind, _, _ in described(f"The wheel.\n\n{blob}\n")] == ["prose", "blob"]


@pytest.mark.parametrize("tag", ["<!DOCTYPE html>", "<html lang='en'>\n<head>", "<p><img src='weir.png'></p>"])
def test_bare_tags_are_blobs_and_what_a_browser_shows_is_none(tag: str) -> None:
    page = "{}\n\n<div><h1>Weirs</h1><p>They leak.</p><p>They last.</p></div>"
    kinds = [kind for _, kind, _, _ in described(page.format(tag))]
    assert kinds == [*["blob"] * (len(kinds) - 3), "heading", "prose", "prose"] and len(kinds) > 3
    shown = "<p><img src='weir.png' alt='The upper weir in May'></p>"
    assert described(page.format(shown))[0][:2] == (shown, "prose")


def test_definitions_that_begin_with_a_colon_lean_on_their_term() -> None:
    text = (
        "Race\n: The way of the water. It is narrow.\n: A wheel's bed.\n\nSluice\n\n:   A gate.\n\n    Of oak.\n\nDone."
    )
    assert [(unit, kind, lean) for unit, kind, lean, _ in described(text)] == [
        ("Race", "term", None),
        (": The way of the water.", "definition", "Race"),
        ("It is narrow.", "definition", "Race"),
        (": A wheel's bed.", "definition", "Race"),
        ("Sluice", "term", None),
        (":   A gate.", "definition", "Sluice"),
        ("Of oak.", "definition", "Sluice"),
        ("Done.", "prose", None),
    ]


def test_code_that_is_set_in_leans_on_the_line_that_introduces_it() -> None:
    text = "The weir leaks. To shut it, run:\n\n    weir shut\n\nThen wait:\n\nNobody passes."
    found = {unit: lean for unit, _, lean, _ in described(text)}
    assert found["weir shut"] == "To shut it, run:"
    assert found["Nobody passes."] is None


def test_arguments_of_a_docstring_are_items_below_their_title() -> None:
    text = """\
Shut a weir.

Args:
    gate: Which one. The upper is 1.
    *hours (int): For so long.
        None means for ever.

Raises:
    Flood: If it is too high.
"""
    found = {unit: (kind, lean) for unit, kind, lean, _ in described(text)}
    assert found["*hours (int): For so long."] == ("list item", "Args:")
    assert found["None means for ever."] == ("prose", "*hours (int): For so long.")
    assert found["The upper is 1."] == ("prose", "gate: Which one.")


def test_an_entry_of_a_calendar_or_an_address_book_is_one_record() -> None:
    event = "BEGIN:VEVENT\nSUMMARY:Shut the weir\n\nLOCATION:Gate. Two\nEND:VEVENT"
    card = "begin:vcard\nfn:Kim Bell\nend:vcard"
    text = f"BEGIN:VCALENDAR\n{event}\n{card}\nEND:VCALENDAR\nBEGIN:VEVENT\nSUMMARY:never closed"
    assert [unit for unit, kind, _, _ in described(text) if kind == "record"] == [event, card]


def test_what_asciidoc_and_restructuredtext_count_and_define() -> None:
    adoc = (
        "= Weir\n\n. Shut it:\n+\n[source,sh]\n----\nshut 1\n----\n. Drain it.\n\n"
        "race::\n  The way of the water.\nsluice::\n  A gate.\n"
    )
    kinds = {unit: (kind, lean) for unit, kind, lean, _ in described(adoc)}
    assert kinds[". Drain it."] == ("list item", "= Weir")
    assert kinds["[source,sh]\n----\nshut 1\n----"] == ("record", ". Shut it:\n+")
    assert kinds["A gate."] == ("definition", "sluice::")
    rst = ".. _weir:\n\n====\nWeir\n====\n\n#. Shut it. Slowly.\n#. Drain it.\n"
    assert [(unit, kind, lean) for unit, kind, lean, _ in described(rst)] == [
        (".. _weir:", "prose", None),
        ("====\nWeir\n====", "heading", None),
        ("#. Shut it.", "list item", "====\nWeir\n===="),
        ("Slowly.", "prose", "#. Shut it."),
        ("#. Drain it.", "list item", "====\nWeir\n===="),
    ]


def test_what_somebody_goes_on_to_say_leans_on_who_speaks() -> None:
    text = "KIM: Shut the weir. The flood comes.\nLOU: When? Nobody told me.\nKIM: At noon.\n\nThen the flood came."
    found = {unit: lean for unit, _, lean, _ in described(text)}
    assert found["The flood comes."] == "KIM: Shut the weir."
    assert found["Nobody told me."] == "LOU: When?"
    assert found["Then the flood came."] is None
    labels = {unit: lean for unit, _, lean, _ in described("Note: Weirs leak. Mend them.\n\nTip: Use tar. It lasts.")}
    assert labels["Mend them."] is None


def test_a_subtitle_within_a_sentence_leans_on_the_one_before() -> None:
    text = "1\n00:01,0 --> 00:02,0\nThe weir\n\n2\n00:03,0 --> 00:04,0\nleaks.\n\n3\n00:05,0 --> 00:06,0\nso what?"
    assert [None if lean is None else lean[0] for _, _, lean, _ in described(text)] == [None, "1", None]


def test_a_note_in_a_quotation_is_no_heading_of_the_steps_below() -> None:
    text = "## Weir\n\n1. Shut it.\n\n> **Note**\n> It sticks.\n\n2. Drain it."
    found = {unit: lean for unit, _, lean, _ in described(text)}
    assert found["2. Drain it."] == "## Weir"
    assert "> **Note**\n> It sticks." in found


def test_methods_of_pydoc_are_terms_behind_its_bars() -> None:
    text = """\
class Weir(Gate)
 |  A gate.
 |
 |  drain(self, hours=2)
 |      Let the water out.
 |
 |      Raises Flood when it is too high.
 |
 |  shut(self)
 |      Close it.
"""
    found = {unit.strip(" |\n"): (kind, lean) for unit, kind, lean, _ in described(text)}
    assert found["Raises Flood when it is too high."] == ("definition", "|  drain(self, hours=2)")
    assert not any(unit.strip() == "|" for unit, *_ in described(text))


def test_companions_follow_the_chain_and_stop_where_asked() -> None:
    text = "# Mills\n\nBring:\n\n- boots\n  - of rubber\n"
    roles = structure(text, split_sentences(text))
    assert companions(roles, 3) == [2, 1, 0]
    assert companions(roles, 3, depth=1) == [2]
    assert companions(roles, 3, needed_only=True) == [2, 1]


LINES = (
    "# A¦## B¦- one¦  - two¦    - three¦Text. It is.¦Text:¦| a | b |¦|---|---|¦| 1 | 2 |¦¦k: v¦       -x¦          y."
)


@settings(deadline=None)
@given(st.lists(st.sampled_from(LINES.split(SEPARATOR)), max_size=16).map("\n".join), st.booleans())
def test_roles_lean_backwards_for_any_cut(text: str, halves: bool) -> None:
    units = split_sentences(text, max_characters=3) if halves else split_sentences(text)
    roles = structure(text, units)
    assert len(roles) == len(units)
    assert all(role.leans_on is None or 0 <= role.leans_on < place for place, role in enumerate(roles))
    assert all(companions(roles, place) == companions(roles, place, depth=99)[:4] for place in range(len(roles)))


def test_a_letter_that_addresses_its_reader_says_you_and_not_she() -> None:
    letter = "Vielen Dank, dass Sie uns schreiben. Ihr Paket liegt in Ulm. Sie holen es dort ab. Es ist schwer."
    leaning = {unit: leans for unit, _, leans, _ in described(letter)}
    assert leaning["Ihr Paket liegt in Ulm."] is None
    assert leaning["Sie holen es dort ab."] is None
    assert leaning["Es ist schwer."] == "Sie holen es dort ab."
    story = "Mira Holt wurde 1911 geboren. Sie malte in Ulm. Ihr Bruder sang."
    assert {unit: leans for unit, _, leans, _ in described(story)}[
        "Sie malte in Ulm."
    ] == "Mira Holt wurde 1911 geboren."


@pytest.mark.parametrize("title", ["**Lunch.**", "*Opening hours.*", "__Dogs.__"])
def test_a_title_in_bold_at_the_beginning_of_its_paragraph_is_the_term_of_it(title: str) -> None:
    text = f"We serve guests.\n\n{title} From noon on. Ask for Mira.\n\nThe garden is closed."
    assert {unit: leans for unit, _, leans, _ in described(text)} == {
        "We serve guests.": None,
        title: None,
        "From noon on.": title,
        "Ask for Mira.": title,
        "The garden is closed.": None,
    }


@pytest.mark.parametrize(
    "text",
    [
        "*He had walked all night through the rain and the dark wood.* Nobody saw him.",
        "Eat **Lunch.** with us. It is good.",
        "**Lunch.**\nFrom noon on.",
    ],
)
def test_other_words_in_bold_are_no_terms(text: str) -> None:
    assert "term" not in {kind for _, kind, _, _ in described(text)}


@pytest.mark.parametrize("text", ["\x00", "0\x08", "\x01\x02"])
def test_control_characters_alone_have_no_structure_and_break_nothing(text):
    units = split_sentences(text)
    assert [role.kind for role in structure(text, units)] == ["prose"] * len(units)
