"""The text as it is read, and the way back to the source."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ctxprune.text import split_sentences
from ctxprune.text.normal import normalise, readable

PIECES = [
    *(
        "re-\n",
        "co-\r\n",
        "\u00ad",
        "\u00ad\n",
        "¬\n",
        "- ",
        "ﬁ",
        "ﬄ",
        "e\u0301",
        "か\u3099",
        "\u1112\u1161\u11ab",
        "क\u093c",
    ),
    *(
        "\u200b",
        "\x00",
        "\x93",
        "&nbsp;",
        "&quot;",
        "&lt;",
        "<br>",
        "\ufeff",
        "\u00a0",
        "\u3000",
        "\r\n",
        "\r",
        "\u2028",
        "\u2029",
        "  ",
        "   ",
        "\n\n",
        "\t",
        "Ａ１",
        "ｶﾞ",
        "²",
        "₂",
    ),
    *(
        "word",
        "Word",
        "42",
        "𝒜",
        "😀",
        "👩\u200d🚀",
        "字",
        "。",
        ".",
        ". ",
        "-",
        "`a b`",
        "\ud800",
        "|",
        "ß",
        "ı",
        "İ",
        "ﷺ",
    ),
]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=40).map("".join)


@settings(deadline=None)
@given(texts)
def test_every_span_of_the_normal_text_has_its_place_in_the_source(text: str) -> None:
    normal = normalise(text)
    places = np.arange(len(normal.text), dtype=np.int64)
    spans = normal.sources(np.column_stack([places, places + 1]))
    assert (spans[:, 0] < spans[:, 1]).all()
    assert (np.diff(spans, axis=0) >= 0).all()
    assert not len(spans) or (spans[0, 0] >= 0 and spans[-1, 1] <= len(text))
    normal.text.encode()


@settings(deadline=None)
@given(texts, st.data())
def test_reading_a_stretch_and_finding_it_again(text: str, data: st.DataObject) -> None:
    normal = normalise(text)
    assert normal.read([(0, len(text))]) == [normal.text]
    end = data.draw(st.integers(0, len(normal.text)))
    start = data.draw(st.integers(0, end))
    (left, right) = normal.sources(np.array([[start, end]], np.int64))[0].tolist()
    assert start == end or normal.text[start:end] in normal.read([(left, right)])[0]


@settings(deadline=None)
@given(texts)
def test_cuts_never_go_back(text: str) -> None:
    normal = normalise(text)
    cuts = normal.cuts(range(len(normal.text) + 1))
    assert cuts == sorted(cuts)
    assert all(0 <= cut <= len(text) for cut in cuts)


@settings(deadline=None)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="-"), max_size=80))
def test_clean_ascii_is_returned_itself(text: str) -> None:
    spaced = " ".join(text)
    normal = normalise(spaced)
    assert normal.text is spaced
    assert not normal.joints
    spans = np.array([[0, len(spaced)]], np.int64)
    assert normal.sources(spans) is spans


@settings(deadline=None)
@given(texts)
@example("\ufeff# Head\n\nOne. \u200bTwo.\u00a0Three-\nfold ﬁn.")
def test_units_of_any_text_cover_it_and_are_slices_of_it(text: str) -> None:
    units = split_sentences(text)
    last = 0
    for unit in units:
        assert not text[last : unit.start].strip()
        assert unit.start < unit.end <= len(text)
        assert text[unit.start : unit.end] == text[unit.start : unit.end].strip()
        last = unit.end
    assert not text[last:].strip()


@pytest.mark.parametrize(
    ("source", "read"),
    [
        ("The lantern was extin-\nguished at dusk.", "The lantern was extinguished at dusk."),
        ("ein Fernseh-  \r\n   turm steht", "ein Fernsehturm steht"),
        ("l'arron-\ndissement", "l'arrondissement"),
        ("Διεύ-\nθυνση и пере-\nход", "Διεύθυνση и переход"),
        ("THE COM-\nMITTEE MET", "THE COMMITTEE MET"),
        ("a long-\nterm plan of a well-\nknown man", "a long-term plan of a well-known man"),
        ("up-to-\ndate, merry-\ngo-round", "up-to-date, merry-go-round"),
        ("a sea-\nsnail. The sea-snail", "a sea-snail. The sea-snail"),
        ("a sea-\nsnail. The seasnail", "a seasnail. The seasnail"),
        ("he lives in a part of Rhône-\nAlpes", "he lives in a part of Rhône-Alpes"),
        ("they counted the years 1914-\n1918 twice", "they counted the years 1914-1918 twice"),
        ("see https://a.org/big-\nfile.html", "see https://a.org/big-file.html"),
        ("the resto- ration of it", "the restoration of it"),
        ("vor- und nachher, pre- and post-war", "vor- und nachher, pre- and post-war"),
        ("- one\n- two -\nthree\n-\nfour", "- one\n- two -\nthree\n-\nfour"),
        ("soft\u00adhyphen, co\u00ad\nmma, ver¬\nbs", "softhyphen, comma, verbs"),
        ("\ufeffzero\u200bwidth\u2060", "zerowidth"),
        ("می\u200cخواهم क\u094d\u200dष 👩\u200d🚀", "می\u200cخواهم क\u094d\u200dष 👩\u200d🚀"),
        ("ﬁne oﬀers, ſo ĳs", "fine offers, so ijs"),
        ("ＡＢｃ９，！？", "ABc9，！？"),
        ("H₂O, river³ and 5 m², 10⁶", "H2O, river and 5 m², 10⁶"),
        ("ｶﾞｿﾘﾝ ⼈ ﻣﺮﺣﺒﺎ", "ガソリン 人 مرحبا"),
        ("a\u00a0b\u2009c\u3000d", "a b c d"),
        ("Cafe\u0301, か\u3099, \u1112\u1161\u11ab, Å", "Café, が, 한, Å"),
        ("a\r\nb\rc\u2028d\u2029e", "a\nb\nc\nd\n\ne"),
        ("It   is  set to   the margin  here", "It is set to the margin here"),
        ("name     age   town\nAnn      5     Ulm", "name     age   town\nAnn      5     Ulm"),
        ("non\u2011breaking\u2010hyphen", "non-breaking-hyphen"),
        ("½ ™ № … “q” −5 ℃ 😀\ud800", "½ ™ № … “q” −5 ℃ 😀\ufffd"),
    ],
)
def test_what_is_undone(source: str, read: str) -> None:
    assert readable(source) == read


def test_empty_lines_of_a_manuscript_with_double_spacing() -> None:
    lines = [
        "The keeper of the lighthouse wrote down every ship that",
        "passed the cape, with its name and the hour at which it",
        "was seen. In the winter of that year he saw only nine of",
        "them, and the last one was the mail steamer from Bergen,",
        "which ran aground. The crew was saved by the villagers.",
        "They stayed until spring.",
    ]
    spaced = "\n\n".join(lines)
    assert readable(spaced).count("\n\n") <= 1
    assert [spaced[unit.start : unit.end].replace("\n\n", "\n") for unit in split_sentences(spaced)] == [
        "\n".join(lines)[unit.start : unit.end] for unit in split_sentences("\n".join(lines))
    ]
    paragraphs = "\n\n".join(f"{line}." for line in lines)
    assert readable(paragraphs) is paragraphs


def test_a_broken_word_is_one_joint_of_the_source() -> None:
    source = "A ﬁne exam-\nple, and an\u00adother exam\u00ad\nple."
    assert [source[start:end] for start, end in normalise(source).joints] == ["m-\np", "m\u00ad\np"]


def test_reading_is_linear() -> None:
    for piece in ("a-\nb ", "ﬁ", "e\u0301", "a  b ", "\u200b", "a- b ", "\r\n", "x\n\ny", "-\n", "\u00ad"):
        text = piece * 30_000
        assert len(readable(text)) <= 2 * len(text)


def test_already_normal_text_in_any_script_is_the_source_itself() -> None:
    for text in ("Größe und Straße.", "これは本です。", "यह हिन्दी है।", "هذا كتاب.", "Ещё раз.", "한국어입니다."):
        assert unicodedata.is_normalized("NFC", text)
        assert readable(text) is text


@pytest.mark.parametrize(
    ("source", "read"),
    [
        ("The bar\x00ley\x07 is ripe.\x01 Cut it.\x7f", "The barley is ripe. Cut it."),
        ("Die Gerste\x00 ist schön reif.\x1b Mäht sie.", "Die Gerste ist schön reif. Mäht sie."),
        ("\x93It\x92s ripe\x94 \x97 he said.", "“It’s ripe” — he said."),
        ("A&amp;B&nbsp;is&#160;&#xe9;t&eacute; &mdash; &ldquo;so&rdquo; &amp; more.", "A&B is été — “so” & more."),
        ("soft&shy;ly", "softly"),
    ],
)
def test_controls_and_references_are_read_as_they_are_meant(source: str, read: str) -> None:
    assert readable(source) == read


@pytest.mark.parametrize(
    "text",
    [
        "Write &nbsp; for a blank and `&amp;` for the sign, or (&quot;) for the mark.",
        "a &lt;b&gt;c&#124;d&#x60;e &unheard; f; AT&T; x&y",
        "Set <br> where a line ends, and `<br>` in a cell.",
        "\t\n\x0b\x0c\x1c words",
    ],
)
def test_what_is_spoken_of_or_would_be_markup_stays(text: str) -> None:
    assert normalise(text).text == text
