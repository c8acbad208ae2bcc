"""What stands on a page beside its text: numbers and running titles cut no sentence, join none, and answer once."""

from __future__ import annotations

import pytest
from fixtures_growth import assert_work_grows_with_length
from test_units import assert_split, units

from ctxprune.text import split_sentences
from ctxprune.text.quiet import hushed
from ctxprune.text.structure import structure
from ctxprune.types import Span

HALVES = (
    "Kim dressed the upper stones in spring and sent the worn ones by cart to a mason",
    "in the next valley. She was content.\nThe wheel got new paddles.\nNo flour was lost",
    "to damp. The eels were let.\nNobody drowned.\nThe race was cleared by the men of the lower",
    "town. It took a week.",
)


def paged(*furniture: str) -> str:
    """The halves with what stands between the pages."""
    parts = [HALVES[0]]
    for between, half in zip(furniture, HALVES[1:], strict=True):
        parts += [between, half]
    return "".join(parts)


SENTENCES = [
    "She was content.",
    "The wheel got new paddles.",
    "The eels were let.",
    "Nobody drowned.",
    "It took a week.",
]


@pytest.mark.parametrize(
    "title",
    [
        "\nMill Book of Weir Town          {}\n",
        "\n{}          Mill Book of Weir Town\n",
        "\n\nMill Book of Weir Town {}\n\n",
        "\n\nThe Mill Book\n{}\n\n",
        "\n\n{}\n\nThe Mill Book\n\n",
        "\n— {} —\n",
        "\n{}\n",
        "\n\nWeir Town     Page {}\n\nMill Book, 1744\n\n",
    ],
)
def test_a_sentence_goes_on_over_the_foot_and_the_head_of_a_page(title: str) -> None:
    found = units(paged(*(title.format(number) for number in (17, 18, 19))))
    assert [each for each in found if each[-12:] in {sentence[-12:] for sentence in SENTENCES}] == SENTENCES
    assert len(found) == len(SENTENCES) + 3
    assert all(each[0].isupper() and each.endswith(".") for each in found)


def test_running_titles_of_facing_pages_are_one_title_with_its_number_on_either_side() -> None:
    left, right = "{}          Mill Book", "Mill Book          {}"
    found = units(paged(*(f"\n{title.format(number)}\n" for title, number in ((left, 8), (right, 9), (left, 10)))))
    assert [each for each in found if each[-12:] in {sentence[-12:] for sentence in SENTENCES}] == SENTENCES
    body = "The mill turns.\nKim keeps it.\nLou helps.\nThey rest.\n"
    text = "".join(f"{title}\n{body}" for title in (left.format(8), right.format(9), left.format(10)))
    spans = [Span(unit.start, unit.end, 0.4) for unit in split_sentences(text)]
    quiet = [text[span.start : span.end] for span in hushed(text, spans) if span.score == 0]
    assert quiet == [right.format(9), left.format(10)]


@pytest.mark.parametrize(
    "marked",
    [
        "The mill turns.\nA book of mills     3¶\nIt has three stones.¶\nKim keeps it.¶\nLou helps.¶\nThey rest.¶\n"
        "A book of mills     4¶\nThe weir is old.¶",
        "The mill turns.¶\n3¶\nIt has three stones.¶\nKim keeps it.¶\nLou helps.¶\nThey rest.¶\n4¶\nThe weir is old.¶",
        "The mill turns.¶\n\fA book of mills¶\nIt has three stones.¶\n\fA book of mills¶\nThe weir is old.¶",
    ],
)
def test_a_running_title_is_no_part_of_a_sentence(marked: str) -> None:
    assert_split(marked.replace("turns.\nA", "turns.¶\nA"))


@pytest.mark.parametrize(
    "marked",
    [
        "Exercise 1¶\n\nDress a stone.¶ Let it dry.¶\n\nThen rest.¶\n\nExercise 2¶\n\nOil the wheel.¶",
        "| 1     | oak |¶\n| 2     | elm |¶\n| 3     | ash |¶",
        '#: src/mill.c:41\nmsgid "oak"\nmsgstr "Eiche"¶\n\n#: src/mill.c:42\nmsgid "elm"\nmsgstr "Ulme"¶',
        "Oak 12\nlogs and elm 13\nlogs lie by the mill.¶",
    ],
)
def test_other_numbers_at_the_edge_of_a_line_are_no_pages(marked: str) -> None:
    assert_split(marked)


def test_nothing_leans_on_a_running_title() -> None:
    text = "The mill turns.\n\fMILL BOOK 3\nIt has three stones. It is old.\n\fMILL BOOK 4\nKim keeps it."
    spans = split_sentences(text)
    kinds = {
        text[span.start : span.end].strip(): (role.kind, role.leans_on)
        for span, role in zip(spans, structure(text, spans), strict=True)
    }
    assert kinds["MILL BOOK 3"] == kinds["MILL BOOK 4"] == ("prose", None)
    assert kinds["It has three stones."] == ("prose", 0) and kinds["Kim keeps it."] == ("prose", None)


def test_a_running_title_scores_on_its_first_page_alone() -> None:
    page = "The Mill Book, 1744     {}\nThe mill turns.\nKim keeps it.\nLou helps.\nThey rest.\n"
    text = "".join(page.format(number) for number in (3, 4, 5))
    spans = [Span(unit.start, unit.end, 0.4) for unit in split_sentences(text)]
    assert [text[span.start : span.end] for span in hushed(text, spans) if span.score == 0] == [
        "The Mill Book, 1744     4",
        "The Mill Book, 1744     5",
    ]


@pytest.mark.parametrize("piece", ["a b   1\n", "1\n", "1\na\n", "a b c 1\nx\nx\nx\nx\n", "\f1\n", "\n\n\n7\n\n\n\n\n"])
def test_work_grows_with_the_length_of_odd_pages(piece: str) -> None:
    assert_work_grows_with_length(lambda text: hushed(text, split_sentences(text)), piece)
