"""The text as models, BM25 and the splitter read it, and where each of its characters stands in the source.

Extraction leaves marks that no reader sees as text: words hyphenated at line ends, ligatures, soft hyphens, zero-width
characters, accents apart from their letters, lines stretched to the margin. They are undone for reading only; what is
kept is always a slice of the source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ctxprune.text.atoms import Offsets
from ctxprune.text.characters import Edit, other_characters, references, terminal_codes

IntArray = npt.NDArray[np.int64]

_SURROGATE = re.compile("[\ud800-\udfff]")
#: The steps that exchange characters, before those that look at words and lines.
_CHARACTERS = (terminal_codes, references, other_characters)

# A hyphen at a line end, or where a line end has become a blank.
_BREAK = re.compile(r"-(?:[ \t]*\n[ \t\f]*| +)")
_LETTER = r"[^\W\d_]"
_LETTERS = re.compile(rf"{_LETTER}+")
_TOKEN_END = re.compile(r"\S*\Z")
_COMPOUND = re.compile(rf"{_LETTER}+(?:-{_LETTER}+)*")
# "pre- and post-war": the hyphen stands for the rest of the word. Not only in English.
_SUSPENDED_WORDS = (
    "a abo al als and as aber ale bis bzw con de del e ed een ein eller en et ela i in ili ja lub mit nebst noch o "
    "och od oder of og or oraz ou oder plus resp sau sowie statt tai till to tot u un und ut und v veya ve von y zu "
    "а и или"
)
_SUSPENDED = frozenset(_SUSPENDED_WORDS.split())
# Words that English and French write with a hyphen, seen from its two sides. They also begin or end ordinary words
# ("over-come"), so the other side must be in the other list or a word of its own in the same text.
_BEFORE_HYPHEN_WORDS = (
    "all anti arc brand co cross double eighteen eighty ex extra far fast fifty first forty free full fully half "
    "hard heavy high ill inter just large late left light long low many mid middle mother multi near new ninety non "
    "old one open over part peer post pre pro quasi real right second self semi seventy short single sister six "
    "sixty small so state third thirty three top twenty two ultra user well wide world year ci celui celle grand "
    "demi peut rendez vis vice sous mi aujourd"
)
_BEFORE_HYPHEN = frozenset(_BEFORE_HYPHEN_WORDS.split())
_AFTER_HYPHEN_WORDS = (
    "and aware based born class down driven faced fifths first five four free friendly half haired in known law led "
    "like long made minded nine off old one only order out oriented quality quarters range related saving second "
    "seven shaped sided six size sized specific style term thirds third three to two type up wide year years century "
    "level ci là même mêmes dessous dessus delà"
)
_AFTER_HYPHEN = frozenset(_AFTER_HYPHEN_WORDS.split())
_MIN_LINE = 40  # characters of a line in a manuscript typed with every second line empty
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_BARS = 4  # lines with a bar at the margin from which it is no table
_BAR = re.compile(r"^ {1,12}\|(?=  |[ \t]*$)", re.MULTILINE)
_BARRED = re.compile(r"\n {1,12}\|  (?! *[-+=|])[^|\n]{1,300}(?=\n)")
_GAP = re.compile(r"(?<! ) {2,}+(?=\S)")
_WIDEST_GAP = 5


@dataclass(frozen=True, slots=True)
class _Layer:
    """Edits of unlike lengths, in order and apart: [s0, s1) before became [n0, n1) after; each (n_edits,)."""

    s0: IntArray
    s1: IntArray
    n0: IntArray
    n1: IntArray

    def back(self, positions: IntArray, *, ends: bool) -> IntArray:
        """Where positions after lie before: starts past what was taken out there, ends in front of it."""
        return _moved(positions, self.n0, self.n1, self.s0, self.s1, ends=ends)

    def forth(self, positions: IntArray, *, ends: bool) -> IntArray:
        """Where positions before lie after; one inside an edit goes to the edge that keeps the edit whole."""
        return _moved(positions, self.s0, self.s1, self.n0, self.n1, ends=ends)


@dataclass(frozen=True, slots=True)
class NormalText:
    """text: as it is to be read. Where nothing had to be undone it is the source itself, and every offset holds.

    joints: spans of the source where a word goes on in spite of the white space in it.
    """

    text: str
    joints: tuple[Offsets, ...] = ()
    _layers: tuple[_Layer, ...] = field(default=(), repr=False)

    def sources(self, spans: IntArray) -> IntArray:
        """(n, 2) half-open spans of `text` as spans of the source, in the same order and never reversed."""
        for layer in reversed(self._layers):
            starts, ends = layer.back(spans[:, 0], ends=False), layer.back(spans[:, 1], ends=True)
            spans = np.column_stack([np.where(spans[:, 0] < spans[:, 1], starts, ends), ends])
        return spans

    def cuts(self, positions: Sequence[int]) -> list[int]:
        """Positions in `text` as positions in the source, in front of what was taken out there."""
        if not self._layers:
            return list(positions)
        places = np.array(positions, np.int64)
        for layer in reversed(self._layers):
            places = layer.back(places, ends=True)
        cuts: list[int] = places.tolist()
        return cuts

    def read(self, spans: Sequence[Offsets]) -> list[str]:
        """What `source[start:end]` reads as, for each span of the source."""
        return [self.text[start:end] for start, end in self.places(spans)]

    def places(self, spans: Sequence[Offsets]) -> list[Offsets]:
        """Where spans of the source lie in `text`."""
        if not self._layers:
            return list(spans)
        first, last = np.array(spans, np.int64).reshape(-1, 2).T
        for layer in self._layers:
            first, last = layer.forth(first, ends=False), layer.forth(last, ends=True)
        return list(zip(first.tolist(), last.tolist(), strict=True))


def normalise(text: str, *, keep_gaps: bool = False) -> NormalText:
    """The text as it is to be read. Linear; a clean text costs a look at it and comes back as it is.

    keep_gaps: leave wide gaps within lines as they are, which tell a table from prose.

    Undone: hyphenation at line ends, soft hyphens, zero-width characters, byte order marks, ligatures and other forms
    of letters and digits, spaces other than the blank, accents apart from their letters, line ends of other systems,
    note marks after words, bars at the margin, lines stretched to the margin or with empty ones between, colours and
    overstriking of terminals, control characters, character references ("&nbsp;"). Lone surrogates become U+FFFD.
    """
    layers: list[_Layer] = []
    joints: list[Offsets] = []
    for step in (*_CHARACTERS, _barred, _single_spaced, _mended if keep_gaps else _words_in_one):
        edits = list(step(text))
        if not edits:
            continue
        changed, layer = _applied(text, edits)
        if step is not _single_spaced:
            spans = [(start - 1, end + 1) for start, end, new in edits if _joins(text, start, end, new)]
            joints += _traced(spans, layers)
        text = changed
        if layer is not None:
            layers.append(layer)
    if not text.isascii():
        text = _SURROGATE.sub("\ufffd", text)
    return NormalText(text, tuple(sorted(joints)), tuple(layers))


def readable(text: str) -> str:
    """`normalise(text).text`, for texts whose offsets do not matter."""
    return normalise(text).text


def _joins(text: str, start: int, end: int, new: str) -> bool:
    return new in ("", "-") and end - start > 1 and any(each.isspace() for each in text[start:end])


def _traced(spans: Sequence[Offsets], layers: Sequence[_Layer]) -> list[Offsets]:
    traced = NormalText("", (), tuple(layers)).sources(np.array(spans, np.int64).reshape(-1, 2))
    return [(start, end) for start, end in traced.tolist()]


def _applied(text: str, edits: Sequence[Edit]) -> tuple[str, _Layer | None]:
    """The edited text, and its layer; None where only characters were exchanged, which moves nothing."""
    parts: list[str] = []
    rows: list[tuple[int, int, int, int]] = []
    last = shift = 0
    for start, end, new in edits:
        parts += [text[last:start], new]
        last = end
        if len(new) != end - start:
            rows.append((start, end, start + shift, start + shift + len(new)))
            shift += len(new) - (end - start)
    parts.append(text[last:])
    return "".join(parts), _Layer(*np.array(rows, np.int64).T.copy()) if rows else None


def _moved(
    positions: IntArray, begin: IntArray, stop: IntArray, new_begin: IntArray, new_stop: IntArray, *, ends: bool
) -> IntArray:
    place = np.searchsorted(begin, positions, side="left" if ends else "right") - 1
    near = np.maximum(place, 0)
    inside = positions < stop[near]
    moved = np.where(inside, new_stop[near] if ends else new_begin[near], positions - stop[near] + new_stop[near])
    return np.where(place < 0, positions, moved)


def _barred(text: str) -> Iterator[Edit]:
    """The bars that pydoc sets at the margin of a class, deeper in the page of a module."""
    if " |  " in text and len(_BARRED.findall(text)) >= _BARS:
        yield from ((match.end() - 1, match.end(), " ") for match in _BAR.finditer(text))


def _single_spaced(text: str) -> Iterator[Edit]:
    """The empty lines of a text that has one after every line, where a sentence goes on across them."""
    if "\n\n" not in text and "\n " not in text and "\n\t" not in text:
        return
    gaps = list(_BLANK_LINE.finditer(text))
    if len(gaps) < 4 or text.count("\n") > 3 * len(gaps):
        return
    going_on = [gap for gap in gaps if _goes_on(text, gap)]
    if len(going_on) * 4 < len(gaps):
        return
    edges = [(left.end(), right.start()) for left, right in pairwise(gaps)]
    lines = [text[start:end] for start, end in edges]
    if any("\n" in line.strip() for line in lines) or sorted(map(len, lines))[len(lines) // 2] < _MIN_LINE:
        return
    yield from ((gap.start(), gap.end(), "\n") for gap in going_on)


def _goes_on(text: str, gap: re.Match[str]) -> bool:
    start, end = gap.span()
    if end >= len(text) or start == 0 or not text[end].islower():
        return False
    if start - text.rfind("\n", 0, start) <= _MIN_LINE:  # "Sehr geehrte Damen und Herren," is no full line
        return False
    return text[start - 1].isalnum() or text[start - 1] in "-,;)"


def _words_in_one(text: str) -> Iterator[Edit]:
    """Words that a line end has cut in two, and the wide gaps of justified lines."""
    edits = [*_mended(text), *_narrowed(text)]
    yield from sorted(edits)


def _mended(text: str) -> Iterator[Edit]:
    seen: frozenset[str] | None = None
    for match in _BREAK.finditer(text):
        start, end = match.span()
        if start == 0 or not text[start - 1].isalnum() or end >= len(text) or not text[end].isalnum():
            continue
        if seen is None:  # the words of the text tell a hyphen of the word's own from one of the line's
            seen = _whole_words(text.lower())
        if (new := _mending(text, start, end, seen)) is not None:
            yield start, end, new


def _whole_words(text: str) -> frozenset[str]:
    """The words of a text, without the two on either side of each break."""
    words: list[str] = []
    parts = _BREAK.split(text)
    for place, part in enumerate(parts):
        words += _COMPOUND.findall(part)[place > 0 : -1 if place + 1 < len(parts) else None]
    return frozenset(words)


def _mending(text: str, start: int, end: int, seen: frozenset[str]) -> str | None:
    """What stands for the hyphen and the white space at [start, end): "" or "-"; None leaves them."""
    token = _TOKEN_END.search(text, max(0, start - 60), start)
    before = token[0] if token else ""
    match = _LETTERS.match(text, end)
    right = match[0] if match else ""
    left = re.split(r"[\W\d_]", before)[-1]
    is_line_end = "\n" in text[start:end]
    shouted = left.isupper() and right.isupper() and min(len(left), len(right)) > 2 and _line(text, start).isupper()
    if left and (right[:1].islower() or (shouted and is_line_end)):
        if not is_line_end and (right.lower() in _SUSPENDED or len(right) < 2):
            return None
    elif not is_line_end or not _is_running(text, start, end):
        return None
    else:
        return "-"  # "Baden-Baden", "1914-1918"
    pair = f"{left}-{right}".lower()
    if pair in seen:
        return "-"
    if pair.replace("-", "") in seen:
        return ""
    goes_on = match is not None and text[match.end() : match.end() + 1] == "-"
    if goes_on or (len(before) > len(left) and re.search(r"[-/\\@_.\d]", before[: -len(left)])):
        return "-"  # "state-of-the-art", an address, a file name
    return "-" if _is_compound(left.lower(), right.lower(), seen) else ""


def _is_compound(left: str, right: str, seen: frozenset[str]) -> bool:
    return (left in _BEFORE_HYPHEN and (right in _AFTER_HYPHEN or right in seen)) or (
        right in _AFTER_HYPHEN and len(right) > 3 and left in seen
    )


def _line(text: str, position: int) -> str:
    return text[text.rfind("\n", 0, position) + 1 : position]


def _is_running(text: str, start: int, end: int) -> bool:
    """Whether a line of prose ends at `start`, and what follows at `end` begins no list item."""
    line = _line(text, start)
    return (
        line.count(" ") >= 4
        and "|" not in line
        and "\t" not in line
        and not re.match(r"\d+[.)]\s", text[end : end + 6])
    )


def _narrowed(text: str) -> Iterator[Edit]:
    if "  " not in text:
        return
    judged: dict[int, bool] = {}
    for match in _GAP.finditer(text):
        start, end = match.span()
        if start == 0 or text[start - 1].isspace():
            continue
        line = text.rfind("\n", 0, start) + 1
        if line not in judged:
            if text[start - 1] in ".!?:":  # typists set two blanks there, which means nothing and changes nothing
                continue
            judged[line] = _is_stretched(text[line : next_line if (next_line := text.find("\n", end)) >= 0 else None])
        if judged[line]:
            yield start, end, " "


def _is_stretched(line: str) -> bool:
    """Whether the gaps of a line are those of justified prose and not the columns of a table."""
    if "|" in line or "\t" in line:
        return False
    gaps = [len(gap) for gap in re.findall(r"(?<=\S) +(?=\S)", line)]
    return len(gaps) >= 4 and max(gaps) <= _WIDEST_GAP and sum(map(str.isalpha, line)) * 2 > len(line.replace(" ", ""))
