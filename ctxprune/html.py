"""Show results as HTML: kept and removed text side by side, without colour alone, scripts or anything loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from typing import Protocol

from ctxprune.prompt import title_line
from ctxprune.text import model_text
from ctxprune.types import Context, Extract, Piece, SoftTokens, Span, Summary

# Kept text has a bar under it, removed text is struck through: told apart in black and white too.
STYLE = """
.ctxprune { --ink: #1b2330; --faint: #667085; --line: #d9dee7; --paper: #ffffff; --card: #f7f8fa; --keep: #0b7a53;
  --keep-fill: #e3f5ec; --warn: #8a4b00; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 0 auto; padding: 1.25rem; font: 15px/1.6 system-ui, sans-serif; box-sizing: border-box; }
@media (prefers-color-scheme: dark) { .ctxprune { --ink: #e6e9ef; --faint: #98a2b3; --line: #343c4a; --paper: #14181f;
  --card: #1b212b; --keep: #5ad1a0; --keep-fill: #12352a; --warn: #f0b35e; } }
.ctxprune h2 { font-size: 1.15rem; line-height: 1.35; margin: 0 0 .4rem; color: inherit; }
.ctxprune p { margin: .3rem 0; }
.ctxprune .facts, .ctxprune .legend { color: var(--faint); font-size: .87rem; }
.ctxprune .facts b { color: var(--ink); }
.ctxprune .warning { color: var(--warn); font-size: .87rem; }
.ctxprune .meter { height: .5rem; border: 1px solid var(--line); border-radius: .3rem; overflow: hidden;
  margin: .5rem 0; }
.ctxprune .meter i { display: block; height: 100%; background: var(--keep); }
.ctxprune details { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; margin: .7rem 0; }
.ctxprune summary { padding: .5rem .8rem; cursor: pointer; }
.ctxprune summary b { margin-right: .5rem; }
.ctxprune summary small { color: var(--faint); font-size: .85rem; }
.ctxprune .text { padding: .6rem .8rem; border-top: 1px solid var(--line); white-space: pre-wrap;
  overflow-wrap: anywhere; }
.ctxprune mark { color: inherit; background: var(--keep-fill); border-bottom: 2px solid var(--keep);
  border-radius: .15rem .15rem 0 0; padding: .05rem 0; }
.ctxprune del { color: var(--faint); text-decoration: line-through; }
.ctxprune .pre { font: .82rem/1.5 ui-monospace, monospace; overflow-x: auto; white-space: pre; overflow-wrap: normal; }
.ctxprune .gap { margin: .35rem 0; border-style: dashed; background: none; }
.ctxprune .gap > summary { color: var(--faint); font: .85rem system-ui, sans-serif; padding: .2rem .6rem; }
.ctxprune .gap > div { padding: .2rem .6rem; }
.ctxprune .score { display: none; font: .75em ui-monospace, monospace; color: var(--faint); margin: 0 .3em;
  text-decoration: none; }
.ctxprune:has(.switch:checked) .score { display: inline; }
.ctxprune .legend label { white-space: nowrap; cursor: pointer; }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>body {{ margin: 0; }} @media (prefers-color-scheme: dark) {{ body {{ background: #14181f; }} }}{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""

LEGEND = (
    '<p class="legend"><mark>kept</mark> · <del>removed</del> · '
    '<label><input type="checkbox" class="switch"/> show scores</label></p>'
)

#: A run of removed text is folded from so many units and characters on: less is quicker read than opened.
_FOLDED_UNITS, _FOLDED_CHARACTERS = 4, 500
#: Units of fewer characters on average are words.
_WORD = 12
#: Share of lines with layout from which a text is shown as it was typed.
_LAID_OUT = 0.3
#: Indentation, columns and table bars.
_LAYOUT = re.compile(r"^(?: {2}|\t)|\S(?: {3,}|\t)\S|^\s*\|.*\|", re.MULTILINE)


class Shown(Protocol):
    """What a page shows of a `CompressionResult`."""

    @property
    def before(self) -> Context: ...
    @property
    def after(self) -> Context: ...
    @property
    def compressor(self) -> str: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def budget(self) -> int | None: ...
    @property
    def tokens_before(self) -> int: ...
    @property
    def tokens_after(self) -> int: ...
    @property
    def tokenizer(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def over_budget(self) -> bool: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...


def render_html(result: Shown) -> str:
    """A fragment with its own scoped styles, for a notebook or a page of yours."""
    return f"<style>{STYLE}</style>\n{_section(result)}"


def render_page(results: Sequence[Shown]) -> str:
    """A whole page, to be saved and opened from disk: one section a result."""
    title = f"ctxprune: {results[0].before.query}" if len(results) == 1 else f"ctxprune: {len(results)} results"
    body = "\n".join(map(_section, results)) or '<section class="ctxprune"><p>No results.</p></section>'
    return PAGE.format(title=_safe(title), style=STYLE, body=body)


def _section(result: Shown) -> str:
    pieces = sorted(result.after.pieces, key=lambda piece: piece.index)
    warnings = [f'<p class="warning">Note: {_safe(warning)}</p>' for warning in result.warnings]
    return "\n".join(
        [
            '<section class="ctxprune">',
            f'<h2 dir="auto">{_safe(result.after.query) or "(no question)"}</h2>',
            *_facts(result, dropped=sum(isinstance(piece, Extract) and piece.dropped for piece in pieces)),
            *warnings,
            *([LEGEND] if pieces else []),
            *map(_article, pieces),
            "</section>",
        ]
    )


def _facts(result: Shown, *, dropped: int) -> Iterator[str]:
    share = min(result.tokens_after / max(result.tokens_before, 1), 1.0)
    facts = [
        f"<b>{result.tokens_before:,} → {result.tokens_after:,} tokens</b> ({share:.0%} kept)",
        _safe(result.tokenizer),
        _safe(result.compressor),
        result.status + (f": {_safe(result.reason)}" if result.reason else ""),
        f"{dropped} of {len(result.after.pieces)} documents without kept text",
    ]
    if result.budget is not None:
        facts.append(f"budget {result.budget:,}" + (" exceeded" if result.over_budget else ""))
    yield f'<p class="facts">{" · ".join(facts)}</p>'
    label = f"{share:.0%} of the tokens are kept"
    yield f'<div class="meter" role="img" aria-label="{label}"><i style="width: {share:.1%}"></i></div>'


def _article(piece: Piece) -> str:
    number = f"[{piece.index + 1}]"
    if isinstance(piece, Summary):
        head = f"{number} Summary of {_plural(len(piece.sources), 'document')}"
        checked = "" if piece.faithfulness is None else str(piece.faithfulness)
        return _details(head, checked, _safe(piece.text) or "(empty: nothing helps)", is_open=True)
    head = f"{number} {piece.source.title or piece.source.id or 'Document'}"
    if isinstance(piece, SoftTokens):
        shape = " × ".join(map(str, piece.embeddings.shape))
        facts = f"soft tokens {shape} for {piece.generator}"
        if piece.expanded is not None and not piece.expanded.dropped:
            return _details(head, f"{facts}, the rest as text", "".join(_passages(piece.expanded)), is_open=True)
        return _details(head, facts, _safe(piece.source.text), is_open=False)
    title = "title left out, " if piece.source.title and not title_line(piece) else ""
    score = "" if piece.score is None else f"score {piece.score:.3g}, "
    count = f"{sum(piece.kept)} of {_plural(len(piece.units), _noun(piece))} kept"
    facts = score + title + ("nothing kept" if piece.dropped else count)
    laid_out = _is_laid_out(piece.source.text)
    return _details(head, facts, "".join(_passages(piece)), is_open=not piece.dropped, laid_out=laid_out)


def _noun(extract: Extract) -> str:
    length = sum(unit.end - unit.start for unit in extract.units)
    return "word" if len(extract.units) > 1 and length < _WORD * len(extract.units) else "sentence"


def _is_laid_out(text: str) -> bool:
    """Whether columns, indentation or tables carry meaning, so that letters must have one width."""
    lines = [line for line in text.splitlines() if line.strip()]
    return len(lines) > 2 and sum(bool(_LAYOUT.search(line)) for line in lines) >= _LAID_OUT * len(lines)


def _details(head: str, facts: str, body: str, *, is_open: bool, laid_out: bool = False) -> str:
    state = " open" if is_open else ""
    return (
        f'<details{state}><summary><b dir="auto">{_safe(head)}</b><small>{_safe(facts)}</small></summary>'
        f'<div class="text{" pre" if laid_out else ""}" dir="auto">{body}</div></details>'
    )


def _passages(extract: Extract) -> Iterator[str]:
    """The whole source text, every unit marked as kept or removed; what lies between units is white space mostly.

    A long run of removed units between others stands behind a line that says how many there are.
    """
    text, last = extract.source.text, 0
    marked = list(zip(extract.units, extract.kept, strict=True))
    for kept, run in groupby(marked, key=lambda pair: pair[1]):
        units = [unit for unit, _ in run]
        parts, start = [], last
        for unit in units:
            parts += [_safe(text[last : unit.start]), _passage(text, unit, kept=kept)]
            last = unit.end
        long = len(units) >= _FOLDED_UNITS and last - start >= _FOLDED_CHARACTERS
        if kept or extract.dropped or not long:
            yield from parts
        else:
            count = f"{_plural(len(units), _noun(extract))} removed"
            yield f'<details class="gap"><summary>{count}</summary><div>{"".join(parts)}</div></details>'
    yield _safe(text[last:])


def _passage(text: str, unit: Span, *, kept: bool) -> str:
    tag, word = ("mark", "kept") if kept else ("del", "removed")
    score = f"{unit.score:.3f}"
    words = f'<{tag} title="{word}, score {score}">{_safe(text[unit.start : unit.end])}</{tag}>'
    return f'{words}<small class="score">{score}</small>'


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _safe(text: str) -> str:
    """Escaped, and without lone surrogates, which no UTF-8 file can hold."""
    return escape(model_text(text))
