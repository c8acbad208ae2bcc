"""Say of every line of a text what it is: record, table row, heading, term, page break, verse or running text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from ctxprune.text.apart_titles import mark_apart_titles, mark_contents
from ctxprune.text.atoms import fences
from ctxprune.text.citations import mark_citations
from ctxprune.text.code import mark_diffs, mark_settings
from ctxprune.text.columns import mark_columns
from ctxprune.text.controls import mark_controls
from ctxprune.text.dumps import mark_dumps
from ctxprune.text.entries import mark_entries
from ctxprune.text.flat_tables import mark_flat_tables
from ctxprune.text.letters import mark_letters
from ctxprune.text.lines import HALF, LONG_LINE, SAME_LINE, Kind, Line, kinds_of, lines_of, paragraphs
from ctxprune.text.markup import is_html
from ctxprune.text.pages import SENTENCE_END, mark_pages
from ctxprune.text.recipes import mark_recipes
from ctxprune.text.records import mark_records, mark_references
from ctxprune.text.sessions import mark_sessions
from ctxprune.text.spaced_tables import mark_spaced_tables
from ctxprune.text.speakers import mark_numbered, mark_questions, mark_senders
from ctxprune.text.tables import mark_grids, mark_tables
from ctxprune.text.terms import mark_terms
from ctxprune.text.titles import mark_clauses, mark_titles, tells_steps

_NUMBERED = re.compile(r"(?:\d{1,3}(?:\.\d{1,3}){1,5}\.?|§ ?\d{1,4}\.?|[IVX]{1,5}\.)[ \t]{1,4}[^\W\d_a-z][^\n]{0,90}$")
_MARKED = re.compile(r"[ \t]*(?:#{1,6}[ \t]|={2,6}[ \t]\S)")
_LEADS_IN = re.compile(r"(?:\S+[ \t]+){4,}\S*[:：]$")  # "2.2 Either side may leave:" is a clause and no title
_NO_HEADING = re.compile(r"[.,;](?:\(\w{1,2}\)|\[\d{1,3}\]|[*¹²³⁴-⁹]){0,3}$")  # a note's mark may stand last
_CAPITALS = re.compile(r"[^\W\d_a-z](?=[^a-z]*[^\W\d_][^a-z]*[^\W\d_])[^a-z\n]{1,70}$")
#: How sentences, greetings and dates end in scripts without capitals.
_NO_CAPITALS = re.compile(r"[。।،，、؛۔]\W{0,2}$|\d ?[日일]\W{0,2}$|[:：]\s?\d")
_OPTION = re.compile(r"[ \t]+(?:[-+]{1,2}[\w?@]|/[A-Z?](?:[ ,]|$))|--?\w[\w-]*(?:[=, ]|$)")
_ENDPOINT = re.compile(r"(?:GET|POST|PUT|PATCH|DELETE|HEAD)[ \t]+/[^\s]{0,150}$")  # of an interface on the web
_BOLD = re.compile(r"[> \t]*\*\*")
#: "History[edit]" of a wiki's page, and what stands over a picture that somebody paid for.
_EDITED = re.compile(
    r"[ \t]{0,3}[^\W_][^\n\[\]]{0,80}\[(?:edit(?: \| edit source)?|Bearbeiten(?: \| Quelltext bearbeiten)?)\]\s*$"
)
_AD = re.compile(
    r"\W{0,3}(?:advertisement|advertising|sponsored(?: content| post)?|anzeige|werbung|publicité|publicidad|pubblicità"
    r"|reklama?|continue reading below|story continues below)\W{0,3}$",
    re.IGNORECASE,
)
_LONGEST_NAME = 110  # characters
_NAMED_KINDS = frozenset({"plain", "item", "row", "heading"})
_RULE_MISSES = 3  # characters by which a rule may be longer or shorter than the title above it
_OPENING_QUOTES = " \t'\"‘“(["
_FIRST_WORD = re.compile(r"\S{1,60}")
_NARROW = 32  # columns; nobody wraps prose at so few


def layout(text: str, *, shapes: bool = True) -> tuple[list[Line], list[Kind]]:
    """The lines of `text` and the kind of each. Linear in the text's length.

    shapes: look for records, settings, tables and verse; without, what a line begins with decides.
    """
    tags = is_html(text)
    lines = lines_of(text, quotes=not tags)
    kinds = kinds_of(lines, fences(text))
    if len(lines) < 2:
        return lines, kinds
    if shapes and not tags:
        mark_grids(lines, kinds)
    if shapes:
        mark_diffs(lines, kinds)
        if not tags:
            mark_references(lines, kinds)
            mark_flat_tables(lines, kinds)
        mark_records(lines, kinds, tags=tags)
    if shapes and not tags:
        mark_dumps(lines, kinds)
        mark_sessions(lines, kinds)
        mark_senders(lines, kinds)
        mark_letters(lines, kinds)
        mark_settings(lines, kinds)
        mark_columns(lines, kinds)
        mark_tables(lines, kinds)
        mark_spaced_tables(lines, kinds)
        mark_entries(lines, kinds)
        mark_recipes(lines, kinds)
        mark_questions(lines, kinds)
        mark_numbered(lines, kinds)
    if not tags:
        mark_controls(lines, kinds)
        mark_headings(lines, kinds)
        if shapes:
            mark_clauses(lines, kinds)
            steps = tells_steps(lines)
            mark_titles(lines, kinds, steps=steps)
            mark_apart_titles(lines, kinds, steps=steps)
            mark_contents(lines, kinds)
            mark_citations(lines, kinds)
        mark_terms(lines, kinds)
        mark_comments(lines, kinds)
    if shapes and not tags:
        mark_verse(lines, kinds)
    mark_pages(text, lines, kinds)
    return lines, kinds


def in_columns(text: str) -> bool:
    """Whether running text stands in two columns somewhere, so that its lines are not in the order to read them in."""
    return SAME_LINE.search(text) is not None and "columns" in layout(text)[1]


def mark_headings(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Headings in capitals at the margin, numbered ones, and terms over a description that is indented deeper."""
    _mark_ruled(lines, kinds)
    _mark_named(lines, kinds)
    for place, line in enumerate(lines):
        if kinds[place] not in ("plain", "turn", "item"):
            continue
        before = kinds[place - 1] if place else "blank"
        after = kinds[place + 1] if place + 1 < len(lines) else "blank"
        deeper = after in ("plain", "item", "turn") and lines[place + 1].indent > line.indent + 1
        text = line.text.strip()
        if kinds[place] == "plain" and _ENDPOINT.match(text):
            kinds[place] = "heading"
            continue
        goes_on = after == "plain" and lines[place + 1].text.lstrip(_OPENING_QUOTES)[:1].islower()
        if kinds[place] == "plain" and _is_heading(
            text, line, before=before, after=after, deeper=deeper, goes_on=goes_on
        ):
            kinds[place] = "plain" if _is_answer(lines, kinds, place) else "heading"
        elif kinds[place] in ("plain", "item") and _OPTION.match(line.text):
            if not _is_wrapped(lines, kinds, place):
                kinds[place] = "term" if deeper and not SAME_LINE.search(text) else "item"
        elif deeper and before in ("blank", "heading") and text.endswith(":") and len(text) < 80:
            kinds[place] = "term"  # what introduces the deeper lines below
        elif kinds[place] == "plain" and before == "plain" and _is_term(lines, place, text):
            kinds[place] = "term"


def _mark_ruled(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """A title between two rules is one heading; one in bold may belong to its text, or be the text of another."""
    for place, (line, kind) in enumerate(zip(lines, kinds, strict=True)):
        if kind == "heading" and _BOLD.match(line.text):
            noted = line.quote and kinds[place + 1 : place + 2] == ["plain"]  # "> **Note**", then "> ..."
            if (noted and lines[place + 1].quote == line.quote) or _is_answer(lines, kinds, place):
                kinds[place] = "plain"
        if kind != "under" or kinds[place + 1 : place + 3] not in (["plain", "under"], ["heading", "under"]):
            continue
        rule = line.text.strip()
        if (
            len(set(rule)) == 1
            and lines[place + 2].text.strip()[0] == rule[0]
            and (place == 0 or kinds[place - 1] == "blank")
        ):
            kinds[place : place + 3] = ["heading", "more", "more"]


def _mark_named(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Titles of a page with its link for editors, counted ones that are underlined; what names an ad is no title."""
    for place, line in enumerate(lines):
        short = len(line.text) <= _LONGEST_NAME
        below = lines[place + 1].text.strip() if kinds[place + 1 : place + 2] == ["plain"] else ""
        apart = short and below[:1] == "[" and not SENTENCE_END.search(line.text)
        if apart and kinds[place] in _NAMED_KINDS and _EDITED.match(line.text + below):
            kinds[place : place + 2] = ["heading", "more"]  # of a page whose text has its links on lines of their own
        elif short and line.text.rstrip().endswith("]") and kinds[place] in _NAMED_KINDS and _EDITED.match(line.text):
            kinds[place] = "heading"
        elif short and kinds[place] in _NAMED_KINDS and _AD.match(line.text):
            kinds[place] = "furniture"
        elif kinds[place] == "item" and kinds[place + 1 : place + 2] == ["under"] and _is_underlined(lines, place):
            kinds[place] = "plain"  # with the line below it a heading


def _is_underlined(lines: Sequence[Line], place: int) -> bool:
    title, rule = lines[place].text.strip(), lines[place + 1].text.strip()
    return len(set(rule)) == 1 and title[0].isdigit() and abs(len(title) - len(rule)) <= _RULE_MISSES


def _is_answer(lines: Sequence[Line], kinds: Sequence[Kind], place: int) -> bool:
    """Whether a line that looks like a title is all that a marked heading has below it: "## Licence", then "MIT"."""
    if place + 1 < len(lines) and kinds[place + 1] != "blank":
        return False
    above = next((at for at in range(place - 1, max(-1, place - 4), -1) if kinds[at] != "blank"), None)
    if above is None or not _MARKED.match(lines[above].text):
        return False
    below = next((at for at in range(place + 1, min(len(lines), place + 4)) if kinds[at] != "blank"), None)
    return below is None or _MARKED.match(lines[below].text) is not None


def _is_wrapped(lines: Sequence[Line], kinds: Sequence[Kind], place: int) -> bool:
    """Whether a line goes on with a long one above it at the same margin, as prose that speaks of "--force" does."""
    if place == 0 or kinds[place] != "plain" or kinds[place - 1] != "plain":
        return False
    above, line = lines[place - 1], lines[place]
    long = len(above.text) >= LONG_LINE and above.indent == line.indent
    return long and not SENTENCE_END.search(above.text) and not SAME_LINE.search(line.text.strip())


def _is_heading(text: str, line: Line, *, before: Kind, after: Kind, deeper: bool, goes_on: bool) -> bool:
    if len(text) > 90 or line.indent > 8 or _NO_HEADING.search(text):
        return False
    alone = after == "blank" or deeper
    if _NUMBERED.match(text) and not _LEADS_IN.match(text):
        return not goes_on and (alone or before in ("blank", "heading"))
    if before in ("blank", "heading") and alone and _CAPITALS.match(text) and _is_capital(text):
        return deeper or len(text.split()) < 12
    # a sub-heading of a manual: set back less than what it stands over
    short = len(text) < 40 and text[:1].isupper() and not SENTENCE_END.search(text)
    return short and deeper and before in ("blank", "heading") and 0 < line.indent < 5


def _is_capital(text: str) -> bool:
    """Whether no letter of any script is a small one, and nothing ends as a sentence does."""
    if text.isascii():
        return True
    return not any(map(str.islower, text.replace("ß", ""))) and not _NO_CAPITALS.search(text)


def _is_term(lines: Sequence[Line], place: int, text: str) -> bool:
    """Whether a short line is set out to the left between a description that ended and one that begins."""
    before, line = lines[place - 1], lines[place]
    after = lines[place + 1] if place + 1 < len(lines) and lines[place + 1].text.strip() else None
    if after is None or min(before.indent, after.indent) < line.indent + 4:
        return False
    return len(text) < 60 and not SENTENCE_END.search(text) and SENTENCE_END.search(before.text) is not None


def mark_comments(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Several lines that begin with one "#" each are a comment, which is running text, and no headings."""
    place = 0
    while place < len(lines):
        end = place
        while end < len(lines) and kinds[end] == "heading" and lines[end].text.lstrip().startswith("# "):
            end += 1
        if end - place > 1:
            kinds[place:end] = ["plain"] * (end - place)
        place = max(end, place + 1)


def mark_verse(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Lines of text without full stops whose breaks are meant: verse, addresses, captions, lists of words."""
    seen = False
    for paragraph in list(paragraphs(kinds)):
        run: list[int] = []
        for place in [*paragraph, None]:
            if place is not None and kinds[place] == "plain" and (not run or place == run[-1] + 1):
                run.append(place)
                continue
            seen |= _mark_ragged(lines, kinds, run, fewest=1 if seen else 2)
            run = [place] if place is not None and kinds[place] == "plain" else []


def _mark_ragged(lines: Sequence[Line], kinds: list[Kind], run: Sequence[int], *, fewest: int) -> bool:
    """Make verse of the lines of `run` if at least `fewest` of their breaks are no sentence ends and look meant."""
    texts = [lines[place].text.strip("> #\t\f") or "#" for place in run]
    breaks = [
        (left, right) for left, right in pairwise(texts) if not SENTENCE_END.search(left)
    ]  # after a full stop a unit ends anyway
    if len(breaks) < fewest:
        return False
    width = max(map(len, texts))
    unforced = sum(width < _NARROW or _fits(left, right, 0.75 * width) for left, right in breaks)
    begun = sum(not right[0].islower() for _, right in breaks)
    shouted = width >= LONG_LINE and all(text == text.upper() for text in texts)  # where every line is "begun"
    capitals = 10 * begun >= 8 * len(breaks) and not shouted
    lower = all(text.islower() or not text[0].isalpha() for text in texts)
    ragged = (
        (capitals and 4 * unforced >= len(breaks))
        or (capitals and len(breaks) > 3 and len(breaks) == len(texts) - 1 and width < 60)
        or (2 * unforced >= len(breaks) and lower and len(breaks) == len(texts) - 1)
    )
    if not ragged:
        return False
    for place, left, right in zip(run[1:], texts, texts[1:], strict=False):
        if (lower or not right[0].islower()) and (capitals or lower or not HALF.search(left)):
            kinds[place] = "verse"
    return True


def _fits(left: str, right: str, width: float) -> bool:
    """Whether the next line's first word would have had room: then somebody meant the break."""
    word = _FIRST_WORD.match(right)
    return len(left) + 1 + (len(word.group()) if word else 0) <= width
