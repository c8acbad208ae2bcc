"""Sentence and word units: offsets, coverage, and what no boundary may cut."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ctxprune.errors import InputError
from ctxprune.text import atomic_spans, model_text, split_sentences, split_words

# Fragments that meet every rule, so that random joins of them reach the corners that random characters do not.
# fmt: off
FRAGMENTS = [
    "He left. ", "Dr. ", "J. R. Smith ", "U.S. ", "e.g. ", "born in 1920 . ", '" Why ? " ', '"Go now." ', "(Yes. No.) ",
    "(", '"', "“", "”", "\n", "\n\n", "\r\n", "- item one. Two\n", "1. first\n", "# Heading. Two\n", "| a. B | c |\n",
    "|---|---|\n", "Grad B: OK. So\n", "`x = 1. Y` ", "```python\nx. Y\n\nz = 1\n```\n", "```\n", "~~~\n",
    "`", "=====\n", "https://x.org/a.b?c=D. ", "a.b@c.org ", "$1,000,000 ", "25 °C. ", "3.14 ", "foo.bar_baz() ",
    "v1.2.3 ", "...", "… ", "你好。", "我是谁？", "「そうだ。」と", "ما هذا؟ ", "यह है। ", "😀 ", "\ud800", "\u200b",
    "\x00", "\u2028", "\t",
    " ", "<b>", "Word", "word ",
]
# fmt: on
texts = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join))
limits = st.sampled_from([1, 7, 40, 2000])
CAPITALS = re.compile(r"[A-Z]\w* [A-Z]\w*")


def sentences(text: str, **options: object) -> list[str]:
    return [text[unit.start : unit.end] for unit in split_sentences(text, **options)]  # type: ignore[arg-type]


def words(text: str) -> list[str]:
    return [text[unit.start : unit.end] for unit in split_words(text)]


def assert_covers(text: str, spans: list[tuple[int, int]]) -> None:
    """In order, without overlap, trimmed, and nothing but white space outside."""
    assert all(left[1] <= right[0] for left, right in pairwise(spans))
    covered = {place for start, end in spans for place in range(start, end)}
    assert all(place in covered or text[place].isspace() for place in range(len(text)))
    assert all(start < end and text[start:end] == text[start:end].strip() for start, end in spans)


@settings(deadline=None)
@given(texts, limits)
@example("a" * 5000, 2000)
@example("\n \t\n", 2000)
def test_sentences_cover_the_text_in_order(text: str, limit: int) -> None:
    units = split_sentences(text, max_characters=limit)
    assert_covers(text, [(unit.start, unit.end) for unit in units])
    assert all(unit.end - unit.start <= limit for unit in units)


@settings(deadline=None)
@given(texts)
def test_words_cover_the_text_in_order(text: str) -> None:
    assert_covers(text, [(unit.start, unit.end) for unit in split_words(text)])


@settings(deadline=None)
@given(texts, limits, st.sampled_from([(), (CAPITALS, re.compile(r"\w+\W+")), (re.compile(r"\(.*?\)", re.DOTALL),)]))
def test_no_sentence_end_cuts_an_atom_that_fits(text: str, limit: int, atoms: tuple[re.Pattern[str], ...]) -> None:
    cuts = {unit.end for unit in split_sentences(text, atoms=atoms, max_characters=limit)}
    for start, end in atomic_spans(text, extra=atoms):
        assert end - start > limit or not cuts & set(range(start + 1, end)), text[start:end]


@settings(deadline=None)
@given(texts)
def test_atoms_are_in_order_and_apart(text: str) -> None:
    spans = atomic_spans(text)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(left[1] <= right[0] for left, right in pairwise(spans))


@settings(deadline=None)
@given(texts)
def test_model_text_keeps_offsets_and_encodes(text: str) -> None:
    safe = model_text(text)
    safe.encode()
    assert len(safe) == len(text)
    assert all(
        new == old or (new == "\ufffd" and "\ud800" <= old <= "\udfff") for new, old in zip(safe, text, strict=True)
    )


def test_offsets_count_code_points() -> None:
    text = "𝒜 😀 ends. \ud800 Next 𠀀 one. Third"
    assert sentences(text) == ["𝒜 😀 ends.", "\ud800 Next 𠀀 one.", "Third"]


# Each case is written with "|" where a unit ends; the text itself is the same without it.
@pytest.mark.parametrize(
    "marked",
    [
        "He was born in 1920.| He died in 1990.| So it is.",
        "He was born in 1920 .| He died in Rome , Italy .| ( Really . )| Ok",
        "He said , \" I am here . \"| Then he left .| Bob said `` Hi . ''| Then he left .",
        'He said "Go now."| Then he left.| (It was so.)| Yes!| “Well.”| No.',
        "“What? No!” he said.| He asked: 'Why?'| Then he left.",
        'He had "one pipe. Two pipes." and left.| An unclosed "quote.| And (another one.| More.| More.',
        "Dr. J. R. Smith and Mr. Jones met Lt. Col. Brown at St. Paul's.| He left.",
        "The U.S. Army and the U.S . Navy met non-U.S. Kings.| In the U.S.| He lived well.",
        "See e.g. Smith et al. (2010), i.e. The Times, vs. The Sun, cf. That.| Next.",
        "See Fig. 3, vol. 3, Eq. 5 and pp. 12-15.| No. 5 is it.| It was in May.| Smith said no.| Kennedy left.",
        "He lives in DC.| Kennedy ran for 5 min.| Brown ran for 6.",
        "It cost $1,000,000 at 25 °C.| That is v1.2.3 of foo.bar_baz() in file.py.| So",
        "See https://x.org/a.b?c=D.| Next one is a@b.com.| And www.x.com/A.| Last.",
        "It was known.[1][2]| Then came more.[12, 13]| **Bold.**| Last.",
        "He left...| Then?!| He came . . . and so on",
        'One.| <p class="x">Two.</p>| He said . " and left . </b>',
        "1. One thing.| 2. Two things.| The steps are: 1. Wash; 2. Dry, and 3. Go.",
        "is it so.| yes it is!| and then?| no",
        "He wrapped a line in\nthe middle of it.| Then he\nleft Dr.\nSmith.|\nThe end",
        "A paragraph without a mark|\n\nAnother one|\n \t\nThird",
        "The list:|\n- one thing.| And two\n  goes on here|\n* three|\n2) four|\n(b) five",
        "Title of it\n=====|\nText one.| Text two.|\n## Head. Ing|\nText|\n**Head. Ing**|\nText",
        "Grad B: So what is|\nGrad D: Right.| Well|\n[00:12:03] Bob: Hi|\nQ: Why?|\nA: So",
        "Text before:|\n```python\nx = 1. Y\n\n# No. Heading\n```|\nAfter it.| End",
        "Text|\n~~~\na. B\n~~~|\n```|\nstray.| Fence",
        "Text|\n```js\nunclosed. Code\n\nmore",
        "Run `a. B` and ``c ` d. E`` now.| The `` quote '' ends .| Next `` one '' is .",
        "你好。|我是谁？|对！|他说：“走。”|好吗?|好的",
        "「そうだ。いや。」と言った。|次の文。",
        "ما هذا؟| هذا كتاب.| نعم",
        "यह है।| वह है।|यह",
        "Это т. е. да.| А. С. Пушкин жил.| Да",
    ],
)
def test_where_sentences_end(marked: str) -> None:
    assert sentences(marked.replace("|", "")) == [part.strip() for part in marked.split("|")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "| Name. A | B |\n|---|---|\n| One. Two | 3 |\nAfter. End",
            ["| Name. A | B |\n|---|---|", "| One. Two | 3 |", "After.", "End"],
        ),
        (
            " | 2019 | 2018\nFixed Price | $ 1,452.4\nSt. Sales | 3",
            ["| 2019 | 2018", "Fixed Price | $ 1,452.4", "St. Sales | 3"],
        ),
        ("a\tb. C\td\ne\tf\tg", ["a\tb. C\td", "e\tf\tg"]),
        ("The value P(A | B) is large. But it falls", ["The value P(A | B) is large.", "But it falls"]),
    ],
)
def test_a_table_row_is_one_unit(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_callers_atoms_hold_across_sentences_and_paragraphs() -> None:
    text = "One. <think>Two. Three.\n\nFour</think> Five. Six"
    assert sentences(text, atoms=[re.compile("<think>.*?</think>", re.DOTALL)]) == ["One.", text[5:-4], "Six"]


def test_white_space_around_a_callers_atom_is_not_part_of_it() -> None:
    assert sentences("One two. Three. Four", atoms=[re.compile(r"two\.\s+"), re.compile(r"\s+")]) == [
        "One two.",
        "Three.",
        "Four",
    ]


def test_language_gives_the_abbreviations() -> None:
    assert sentences("Am 5. Mai kam z. B. Herr Müller. Er ging.", language="de") == [
        "Am 5. Mai kam z. B. Herr Müller.",
        "Er ging.",
    ]


def test_endless_text_is_cut_at_white_space() -> None:
    pieces = sentences("word " * 2000, max_characters=100)
    assert set(pieces) == {" ".join(["word"] * 20)}


def test_endless_text_is_cut_at_a_line_end_where_one_is_near() -> None:
    assert sentences("aaaa bbbb\ncccc dddd eeee", max_characters=16) == ["aaaa bbbb", "cccc dddd eeee"]


def test_scripts_without_blanks_are_cut_at_the_limit() -> None:
    assert [len(piece) for piece in sentences("字" * 250, max_characters=100)] == [100, 100, 50]


def test_an_atom_moves_whole_to_the_next_piece() -> None:
    assert sentences("aaaa bbbb `cccc dddd` eeee", max_characters=14) == ["aaaa bbbb", "`cccc dddd`", "eeee"]


def test_an_atom_longer_than_the_limit_is_cut_at_its_lines() -> None:
    text = "```py\n" + "x = 1 + 2\n" * 4 + "```"
    assert sentences(text, max_characters=20) == ["```py\nx = 1 + 2", "x = 1 + 2\nx = 1 + 2", "x = 1 + 2\n```"]


def test_limit_must_be_positive() -> None:
    with pytest.raises(InputError, match="max_characters must be at least 1, got 0"):
        split_sentences("text", max_characters=0)


@pytest.mark.parametrize(
    ("text", "atoms"),
    [
        (
            "$1,000,000 or € 5.2 million at -5 °C, 25°C, ±0.5%",
            ["$1,000,000", "€ 5.2 million", "-5 °C", "25°C", "±0.5%"],
        ),
        ("on 2020-01-05 at 12:30, 1914–1918, 5–10 mg", ["2020-01-05", "12:30", "1914–1918", "5–10 mg"]),
        ("call foo.bar_baz() or foo() of v1.2.3 in ./a/file.py", ["foo.bar_baz()", "foo()", "v1.2.3", "./a/file.py"]),
        (
            "see https://x.org/Foo_(bar), www.x.com. Mail a.b@c.org!",
            ["https://x.org/Foo_(bar)", "www.x.com", "a.b@c.org"],
        ),
        ("(see https://x.org/a) and 访问https://x.org/a看3.14元", ["https://x.org/a", "https://x.org/a", "3.14"]),
        ("the U.S. Army, e.g. CVE-2021-44228", ["U.S.", "e.g.", "CVE-2021-44228"]),
        ("`a b` and ``c ` d``, not `so' nor `this'", ["`a b`", "``c ` d``"]),
        ("a\n```\nb\n```\nc", ["```\nb\n```"]),
        ("~~~ py\nb\n```\nc\n~~~\nd", ["~~~ py\nb\n```\nc\n~~~"]),
        ("closing\n```\nprose\n```py\ncode\n```", ["```py\ncode\n```"]),
        ("plain words (s) only", []),
    ],
)
def test_atoms(text: str, atoms: list[str]) -> None:
    assert [text[start:end] for start, end in atomic_spans(text)] == atoms


def test_overlapping_atoms_are_merged() -> None:
    text = "a v1.2.3 b"
    assert atomic_spans(text, extra=[re.compile("a v1"), re.compile("3 b"), re.compile(r"x*|\s+")]) == [(0, len(text))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He won $ 5 million, twice.", ["He", "won", "$ 5 million,", "twice."]),
        ("at 25 °C see `a b`, (https://x.org/a)", ["at", "25 °C", "see", "`a b`,", "(https://x.org/a)"]),
        ("我是GPT-4的3.14元。好", ["我", "是", "GPT-4", "的", "3.14", "元", "。", "好"]),
        ("か\u3099𠀀", ["か\u3099", "𠀀"]),
        ("안녕 하세요", ["안녕", "하세요"]),
        ("```\na b\n```", ["```", "a", "b", "```"]),
        (" \n", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_plain_text_is_returned_as_it_is() -> None:
    text = "plain"
    assert model_text(text) is text
    assert model_text("a\ud800b😀") == "a\ufffdb😀"


@pytest.mark.parametrize(
    "piece",
    [
        "( ",
        '" ',
        "“a. ",
        "`",
        "``` ",
        "~~~x\n",
        "```\n",
        "1.",
        "a.b",
        "- ",
        "| ",
        "U.S. ",
        "www.",
        "a@",
        "。",
        ". " * 2,
    ],
)
def test_repeated_openers_end_in_time(piece: str) -> None:
    text = piece * 4_000
    units = split_sentences(text)
    assert sum(unit.end - unit.start for unit in units) <= len(text)
    assert "".join(text[unit.start : unit.end] for unit in units).replace(" ", "").replace("\n", "") == text.replace(
        " ", ""
    ).replace("\n", "")


def test_import_is_light() -> None:
    code = "import sys, ctxprune.text; print([m for m in ('torch', 'transformers', 'onnxruntime') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
