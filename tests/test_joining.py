"""Kept stretches joined: indentation that survives, the elision mark, and what it costs."""

from __future__ import annotations

import ast
import textwrap

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ctxprune import Context, Document, Extract, Pipeline, Policy, Span, load
from ctxprune.errors import InputError
from ctxprune.prompt import render_context
from ctxprune.text import split_sentences
from ctxprune.tokens import WordCounter
from ctxprune.types import indentation, joiner


def keeping(text: str, *wanted: str, elision: str = "") -> str:
    """The text of an extract that keeps the units in which a wanted word stands."""
    spans = tuple(split_sentences(text))
    kept = tuple(any(word in text[span.start : span.end] for word in wanted) for span in spans)
    return Extract(Document(text), spans, kept, elision=elision).text


LIST = "- Mills\n  - Upper\n    - two stones\n    - one wheel\n  - Lower\n    - three stones\n    - no wheel\n- Weirs\n"


def test_a_nested_item_stays_below_its_parent() -> None:
    assert keeping(LIST, "Mills", "Lower", "no wheel") == "- Mills\n  - Lower\n    - no wheel"


@pytest.mark.parametrize("end", ["\r\n", "\r", "\x85", "\u2028", "\u2029"])
def test_lines_that_end_otherwise_nest_as_well(end: str) -> None:
    kept = keeping(LIST.replace("\n", end), "Mills", "Lower", "no wheel")
    assert kept == f"- Mills{end}  - Lower{end}    - no wheel"
    table = end.join(["stone,year,weight"] + [f"M{number},{1800 + number},{number} t" for number in range(9)])
    assert keeping(table, "stone", "M4", "M7") == f"stone,year,weight{end}M4,1804,4 t{end}M7,1807,7 t"


def test_the_first_kept_line_keeps_its_indentation_too() -> None:
    kept = keeping(LIST, "Lower", "three")
    assert kept == "  - Lower\n    - three stones"
    assert textwrap.dedent(kept) == "- Lower\n  - three stones"


def test_kept_blocks_of_yaml_still_load() -> None:
    text = "mills:\n  valley:\n    - name: upper\n      built: 1701\n    - name: lower\n      built: 1744\n"
    assert yaml.safe_load(keeping(text, "mills", "lower")) == {"mills": {"valley": [{"name": "lower", "built": 1744}]}}


def test_kept_blocks_of_python_still_compile() -> None:
    methods = "    def stop(self):\n        return 0\n\n    def spin(self, n):\n        return n * 2\n"
    (mill,) = ast.parse(keeping(f"class Mill:\n    built = 1701\n\n{methods}", "class", "spin")).body
    assert isinstance(mill, ast.ClassDef)
    assert [node.name for node in mill.body if isinstance(node, ast.FunctionDef)] == ["spin"]


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=12))
def test_every_kept_line_is_a_line_of_the_source(items: list[tuple[int, bool]]) -> None:
    lines = [f"{'  ' * depth}- item {number}" for number, (depth, _) in enumerate(items)]
    text = "\n".join(lines)
    spans, start = [], 0
    for line in lines:
        spans.append(Span(start + len(line) - len(line.lstrip()), start + len(line)))
        start += len(line) + 1
    kept = Extract(Document(text), tuple(spans), tuple(flag for _, flag in items)).text
    assert kept == "\n".join(line for line, (_, flag) in zip(lines, items, strict=True) if flag)


@pytest.mark.parametrize(
    ("gap", "elision", "expected"),
    [
        (" gone. ", "", " "),
        ("\n", "", "\n"),
        ("\ngone\n\n", "", "\n"),
        ("\ngone\n\t  ", "", "\n\t  "),
        ("\n  gone ", "", "\n  "),
        ("", "", ""),
        (" gone. ", "[...]", " [...] "),
        ("\ngone\n  ", "[...]", "\n[...]\n  "),
        ("\r\ngone\r\n  ", "[...]", "\r\n[...]\r\n  "),
        ("\ngone\r", "", "\r"),
        ("\x85\t", "", "\x85\t"),
        ("   ", "[...]", " "),
    ],
)
def test_what_stands_for_a_gap(gap: str, elision: str, expected: str) -> None:
    text = f"One.{gap}Two."
    assert joiner(text, 4, 4 + len(gap), elision) == expected


def test_indentation_is_of_the_line_that_goes_on() -> None:
    text = "  a b\n\t c"
    assert [indentation(text, 0, place) for place in (0, 2, 4, 8)] == ["", "  ", "  ", "\t "]


def test_the_text_is_its_slices_with_joiners_between() -> None:
    spans = tuple(split_sentences(LIST))
    extract = Extract(Document(LIST), spans, tuple(place % 2 == 1 for place in range(len(spans))), elision="…")
    parts, last = [], None
    for start, end in extract.slices():
        parts += [indentation(LIST, 0, start) if last is None else joiner(LIST, last, start, "…"), LIST[start:end]]
        last = end
    assert extract.text == "".join(parts)


TEXT = "The mill turns. The weir leaks. The wheel is new. The stones are old. The miller is Kim."


def test_an_elision_mark_is_counted_and_is_in_no_span() -> None:
    pipeline = Pipeline([load("bm25-sentences", counter=WordCounter(), policy=Policy(elision="[...]"))])
    for budget in range(3, 24):
        (result,) = pipeline.run([Context.of("Is the mill of the miller old?", [TEXT])], budget=budget)
        (extract,) = result.after.extracts
        assert result.tokens_after == len(render_context(result.after).split()) <= budget
        assert result.text.count("[...]") == max(len(extract.slices()) - 1, 0)
        assert all("[...]" not in TEXT[span.start : span.end] for span in extract.units)


def test_an_elision_mark_of_several_lines_is_refused() -> None:
    with pytest.raises(InputError, match="elision must be a string without line breaks"):
        Policy(elision="\n...\n")
