"""The one result shape and its HTML: complete, JSON-safe, escaped."""

import base64
import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest
from fixtures_scoring import LetterCompressor
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxprune.html import render_html, render_page
from ctxprune.pipeline import Pipeline
from ctxprune.result import CompressionResult
from ctxprune.select import Policy
from ctxprune.tokens import WordCounter
from ctxprune.types import Context, Document, Extract, SoftTokens, Span, Summary

WORDS = WordCounter()


def compress(context, **options):
    policy = Policy(order=options.pop("order", "document"))
    return Pipeline([LetterCompressor(counter=WORDS, policy=policy)]).run([context], **options)[0]


def result_of(*pieces, query="q", **options):
    context = Context(query, pieces)
    values = {"tokens_before": 0, "tokens_after": 0, "compressor": "c", "status": "compressed"} | options
    return CompressionResult(before=context, after=context, tokenizer="words", exact=True, **values)


def round_trip(result):
    return json.loads(json.dumps(result.to_dict(), allow_nan=False))


def test_the_shape():
    document = Document("a b. c d. a.", id="7", title="T", metadata={"x": object()})
    row = round_trip(compress(Context.of("why", [document, "c."], id="n1"), budget=4, threshold=0.5))
    assert row.pop("seconds").keys() == {"tokenize", "infer", "select", "total"}
    assert row == {
        "id": "n1",
        "query": "why",
        "compressor": "letter",
        "status": "compressed",
        "documents": [
            {
                "index": 0,
                "id": "7",
                "title": "T",
                "text": "a b. a.",
                "score": 1.0,
                "dropped": False,
                "kept_spans": [{"start": 0, "end": 4, "score": 0.5}, {"start": 10, "end": 12, "score": 1.0}],
                "removed_spans": [{"start": 5, "end": 9, "score": 0.0}],
            },
            {
                "index": 1,
                "id": "",
                "title": "",
                "text": "",
                "score": 0.0,
                "dropped": True,
                "kept_spans": [],
                "removed_spans": [{"start": 0, "end": 2, "score": 0.0}],
            },
        ],
        "text": "T\na b. a.",
        "tokens_before": 7,
        "tokens_after": 4,
        "tokenizer": "words",
        "exact": True,
        "budget": 4,
        "over_budget": False,
    }


def test_optional_keys_come_only_with_a_value():
    plain = compress(Context.of("q", ["a."])).to_dict()
    assert not {"id", "budget", "over_budget", "warnings"} & plain.keys()
    assert plain["reason"] == "nothing to remove at this threshold"
    warned = compress(Context.of("q", ["a. c."]).warn("cut")).to_dict()
    assert warned["warnings"] == ["cut"]
    assert "reason" not in warned


@settings(deadline=None)
@given(st.lists(st.text("ab. \n\ud800😀\x00", max_size=30), max_size=4), st.none() | st.integers(1, 9))
def test_spans_cover_the_units_and_survive_json(texts, budget):
    result = compress(Context.of("why \udfff", texts), budget=budget)
    row = round_trip(result)
    assert row["query"] == "why \udfff"
    assert row["text"] == result.text
    for text, document, extract in zip(texts, row["documents"], result.after.extracts, strict=True):
        spans = sorted((s["start"], s["end"]) for s in document["kept_spans"] + document["removed_spans"])
        assert spans == [(unit.start, unit.end) for unit in extract.units]
        assert "".join("".join(text[start:end] for start, end in spans).split()) == "".join(text.split())
        assert document["dropped"] == (not document["kept_spans"])


def test_documents_are_in_input_order_and_the_text_in_rank_order():
    row = compress(Context.of("q", ["a b c.", "a."]), threshold=0.1, order="rank").to_dict()
    assert [document["index"] for document in row["documents"]] == [0, 1]
    assert row["text"] == "a.\n\na b c."


def test_summaries_carry_text_and_sources():
    piece = Summary("short", (Document("long", id="1", title="T", score=0.5),), index=2)
    assert round_trip(result_of(piece))["documents"] == [
        {
            "index": 2,
            "id": "",
            "title": "",
            "text": "short",
            "score": None,
            "dropped": False,
            "sources": [{"id": "1", "title": "T", "score": 0.5}],
        }
    ]


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "f8"])
def test_soft_tokens_carry_little_endian_float32(dtype):
    values = np.array([[1.5, -2.0, 0.25], [0.0, 3.0, 4.0]], dtype)
    [row] = round_trip(result_of(SoftTokens(values.T, Document("x", id="d"), "mistral")))["documents"]
    assert (row["id"], row["generator"], row["shape"], row["dtype"]) == ("d", "mistral", [3, 2], "float32")
    decoded = np.frombuffer(base64.b64decode(row["data"]), "<f4").reshape(row["shape"])
    np.testing.assert_array_equal(decoded, values.T)


def test_scores_that_json_cannot_say_are_null_and_numpy_scores_plain():
    spans = (Span(0, 1, np.float32(0.5)), Span(1, 2, math.inf))
    piece = Extract(Document("ab", score=math.nan), spans, (True, False), score=-math.inf)
    [row] = round_trip(result_of(piece))["documents"]
    assert (row["score"], row["kept_spans"][0]["score"], row["removed_spans"][0]["score"]) == (None, 0.5, None)


@pytest.mark.parametrize(("before", "after", "ratio"), [(100, 25, 4.0), (0, 0, 1.0), (50, 0, 50.0), (10, 20, 0.5)])
def test_ratio_says_how_many_times_shorter(before, after, ratio):
    assert result_of(tokens_before=before, tokens_after=after).ratio == ratio


class Outline(HTMLParser):
    """Tags and the text under them, as a browser would see them."""

    def __init__(self):
        super().__init__()
        self.open, self.texts, self.tags = [], {}, []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in self.open[-1:]:
            self.texts.setdefault(tag, []).append(data)


def outline(html):
    parser = Outline()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


def test_html_marks_kept_and_removed_text_with_scores():
    result = compress(Context.of("why?", [Document("a b. c d.", title="The title"), "c."], id="1"), threshold=0.5)
    seen = outline(result.to_html())
    assert seen.texts["mark"] == ["kept", "a b."]
    assert seen.texts["del"] == ["removed", "c d.", "c."]
    assert ("mark", {"title": "kept, score 0.500"}) in seen.tags
    assert ("del", {"title": "removed, score 0.000"}) in seen.tags
    assert "[1] The title" in seen.texts["b"]
    assert {"score 0.5, 1 of 2 words kept", "score 0, nothing kept", "0.500", "0.000"} <= set(seen.texts["small"])
    assert "7 → 4 tokens" in seen.texts["b"]
    assert result._repr_html_() == render_html(result)


SENTENCES = [f"Sentence number {number} tells of a house by the sea, of its roof and its door." for number in range(30)]


@pytest.mark.parametrize(
    ("kept", "folds"), [((0, 29), ["28 sentences removed"]), ((0, 3, 6), ["23 sentences removed"])]
)
def test_long_runs_of_removed_text_are_folded(kept, folds):
    text = " ".join(SENTENCES)
    places = [text.index(sentence) for sentence in SENTENCES]
    units = tuple(Span(start, start + len(each), 0.1) for start, each in zip(places, SENTENCES, strict=True))
    extract = Extract(Document(text), units, tuple(place in kept for place in range(30)))
    seen = outline(render_html(result_of(extract)))
    assert seen.texts["summary"] == folds
    assert [each for each in seen.texts["del"] if each != "removed"] == [
        each for place, each in enumerate(SENTENCES) if place not in kept
    ]
    dropped = outline(render_html(result_of(Extract(Document(text), units, (False,) * 30))))
    assert "summary" not in dropped.texts, "the document is folded as a whole"


def test_scores_can_be_switched_on_without_a_pointer():
    page = render_page([compress(Context.of("why?", ["a b. c d."]), threshold=0.5)])
    assert '<input type="checkbox"' in page and ":has(.switch:checked) .score { display: inline; }" in page
    assert page.count('<small class="score">') == 2


@pytest.mark.parametrize(
    ("text", "monospace"),
    [
        ("def f(x):\n    if x:\n        return 1\n    return 2", True),
        ("name     size\nbolt       3\nscrew     12", True),
        ("| a | b |\n|---|---|\n| 1 | 2 |", True),
        ("key\tvalue\none\t1\ntwo\t2", True),
        ("A plain text.\nIt has three lines.\nAnd no layout.", False),
        ("One line only    with a gap", False),
        ("", False),
    ],
)
def test_what_is_laid_out_keeps_letters_of_one_width(text, monospace):
    units = (Span(0, len(text)),) if text else ()
    page = render_html(result_of(Extract(Document(text), units, (True,) * len(units))))
    assert ('class="text pre"' in page) == monospace


@settings(deadline=None)
@given(st.text("<>&\"'/ab.\ud800", max_size=20), st.text("<script>&;'\"", max_size=20))
def test_html_escapes_everything_and_loads_nothing(text, title):
    context = Context.of(text, [Document(text, title=title, id=title)]).warn(title)
    page = render_page([result_of(*context.pieces, Summary(text, ()), query=text, compressor=title, reason=text)])
    page.encode("utf-8")
    seen = outline(page)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in seen.tags}
    assert not any(name in attributes for _, attributes in seen.tags for name in ("src", "href", "onclick"))
    assert "url(" not in page
    assert "prefers-color-scheme: dark" in page


def test_html_of_summaries_soft_tokens_and_nothing():
    soft = SoftTokens(np.zeros((1, 64), np.float32), Document("hidden", title="S"), "mistral", index=1)
    seen = outline(render_html(result_of(Summary("", (Document("a"),)), soft)))
    assert "[1] Summary of 1 document" in seen.texts["b"]
    assert "soft tokens 1 × 64 for mistral" in seen.texts["small"]
    assert "No results." in render_page([])
