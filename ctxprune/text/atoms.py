"""Find the parts of a text that must stay whole: code, URLs, numbers with their units, identifiers."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from ctxprune.text.patterns import on_use

Offsets = tuple[int, int]

# Every pattern is linear: a look-behind allows one attempt a word, quantifiers are possessive or bounded, and classes
# are ASCII, so that an atom ends where CJK text goes on without a blank.
_WORD = "[A-Za-z0-9]"
_BLANK = "[ \u00a0\u2009\u202f]"
_FENCE_LINE = re.compile(r"^[ \t]*(`{3,}|~{3,})([^`\n]*)$", re.MULTILINE)
# Quotes written ``like this'' or `so' are no code: inner blanks at the edges and '' inside tell them apart.
_CODE = re.compile(r"(?<![\w`])(?:``(?!`)(?:(?!''|``)[^\n]){1,300}``|`(?=[^\s`])[^`\n]{1,300}(?<!\s)`)(?![\w`])")
# Repeated groups are not possessive here: Python up to 3.11.4 matches those wrongly (CPython issue 106052).
_WIKI_NOTE = re.compile(
    r"<ref(?:[ ][^<>\n]{0,200})?>(?:[^<]|<(?!/?ref)){0,600}</ref>|\{\{[^{}\n]{1,600}\}\}", re.IGNORECASE
)
_URL_TEXT = r"[!#-'*-;=?-\[\]_a-z~]"
_URL = re.compile(
    rf"(?<![a-z0-9+.-])(?:[a-z][a-z0-9+.-]{{0,30}}+://|www\.|mailto:)(?:\({_URL_TEXT}*\)|{_URL_TEXT})*(?<=[\w/#=&$%~+)-])",
    re.ASCII | re.IGNORECASE,
)
_EMAIL = re.compile(rf"(?<![\w.+-])[\w.+-]{{1,64}}@{_WORD}[\w-]*+(?:\.[\w-]++)+", re.ASCII)
_UNIT = (
    rf"(?:[%‰℃℉]|°(?:{_BLANK}?[CFK](?!\w))?|(?:percent|per cent|thousand|[mb]illion|trillion|bn|hours?|hrs?|minutes?"
    r"|mins?|seconds?|days?|weeks?|months?|years?|miles?|feet|ft|inch(?:es)?|pounds?|lbs?|oz|mph|km/h|m/s|rpm|ppm|mmHg"
    r"|bpm|fps|dpi|px|dB|tons?|tonnes?|t|k?cal|[kMGT]?(?:Hz|Wh?|V|A|J|Pa|eV|bps|bits?)|[kKMGTP]i?B|[kcdmnµμ]?m[²³23]?|[kmnµμ]?g|[mµμc]?[lL]|[mnµμ]?s"
    r"|h|USD|EUR|GBP|CHF|JPY|euros?|dollars?|yuan|yen)(?!\w))"
)
# Opens with a plain digit class, which the regex engine can search for; signs before it are added by `_number`.
_NUMBER = on_use(rf"[0-9](?<!{_WORD}[0-9])[0-9]*+(?:[.,:/–−-][0-9]++)*(?:{_BLANK}?{_UNIT})?")
_SIGN = re.compile(rf"[$€£¥₹₩]{_BLANK}?|[-−+±#]")
_IDENTIFIER = re.compile(
    rf"(?<!{_WORD})[@#/~.]{{0,2}}(?:(?:[A-Za-z]\.){{2,}}(?!{_WORD})"
    rf"|{_WORD}++(?:(?:[._:/\\@#&+-]{{1,2}}{_WORD}++)+(?:\([!-'*-~]{{0,80}}\))?|\(\)))"
)


def atomic_spans(text: str, *, extra: Sequence[re.Pattern[str]] = ()) -> list[Offsets]:
    """Merged half-open spans of `text` that must be kept whole or dropped whole, in order, without overlap.

    Fenced code blocks, inline code, URLs, e-mail addresses, numbers with sign, currency and unit ("$1,000,000",
    "25 °C", "2020-01-05"), identifiers, versions, file names and paths ("foo.bar_baz()", "v1.2.3", "file.py"),
    abbreviations ("U.S.", "e.g."), and what the patterns in `extra` match, outer white space left out. Linear in the
    text's length.
    """
    return merge([*fences(text), *inline_code(text), *numbers(text), *names(text), *_trimmed(text, extra)])


def spaced_spans(text: str, *, extra: Sequence[re.Pattern[str]] = ()) -> list[Offsets]:
    """The atomic spans a sentence end can fall into: fenced and inline code, notes of wikis, what `extra` matches.

    The other atoms hold no sentence end followed by white space, so splitting there cannot cut them.
    """
    return merge([*fences(text), *inline_code(text), *_wiki_notes(text), *_trimmed(text, extra)])


def _wiki_notes(text: str) -> Iterator[Offsets]:
    """References and templates of wikis, which hold full stops within a sentence."""
    if "<ref" in text or "{{" in text:
        yield from (match.span() for match in _WIKI_NOTE.finditer(text))


def merge(spans: Iterable[Offsets]) -> list[Offsets]:
    """Sorted spans with overlapping ones joined; spans that only touch stay apart."""
    merged: list[Offsets] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def enclosing(spans: Sequence[Offsets], position: int) -> Offsets | None:
    """The span that a cut at `position` would break (start < position < end); `spans` merged and sorted."""
    place = bisect_left(spans, (position,)) - 1
    return spans[place] if place >= 0 and position < spans[place][1] else None


def fences(text: str) -> list[Offsets]:
    """Code blocks between two equal ``` or ~~~ lines, the fence lines included.

    Retrieved chunks begin and end anywhere. An opening line that names a language and is never closed runs to the
    end of the text; a bare one without its partner stands alone, for it may close a block that began before the chunk.
    """
    if "```" not in text and "~~~" not in text:
        return []
    lines = list(_FENCE_LINE.finditer(text))
    closed_by: list[int | None] = [None] * len(lines)
    following: dict[str, int] = {}
    closing_line: dict[str, int] = {}
    for place in range(len(lines) - 1, -1, -1):
        marker, bare = lines[place][1], not lines[place][2].strip()
        nearest = closing_line.get(marker)
        closed_by[place] = nearest if not bare or nearest == following.get(marker) else None
        following[marker] = place
        if bare:
            closing_line[marker] = place
    blocks, place = [], 0
    while place < len(lines):
        closing = closed_by[place]
        if closing is not None:
            blocks.append((lines[place].start(1), lines[closing].end(1)))
            place = closing
        elif lines[place][2].strip():
            return [*blocks, (lines[place].start(1), len(text.rstrip()))]
        place += 1
    return blocks


def inline_code(text: str) -> list[Offsets]:
    """Spans between single or double back-ticks, on one line."""
    return [match.span() for match in _CODE.finditer(text)] if "`" in text else []


def numbers(text: str) -> Iterator[Offsets]:
    """Numbers with sign, currency, separators and unit."""
    for match in _NUMBER.finditer(text):
        start, end = match.span()
        sign = _SIGN.search(text, max(0, start - 2), start)
        yield (sign.start() if sign and sign.end() == start else start), end


def names(text: str) -> Iterator[Offsets]:
    """Identifiers, versions, file names, paths, abbreviations, URLs and e-mail addresses; none holds white space."""
    patterns = [_IDENTIFIER]
    if "://" in text or "mailto:" in text or "www." in text.lower():
        patterns.append(_URL)
    if "@" in text:
        patterns.append(_EMAIL)
    return _matches(text, patterns)


def _matches(text: str, patterns: Iterable[re.Pattern[str]]) -> Iterator[Offsets]:
    return (match.span() for pattern in patterns for match in pattern.finditer(text))


def _trimmed(text: str, patterns: Iterable[re.Pattern[str]]) -> Iterator[Offsets]:
    return (span for start, end in _matches(text, patterns) if (span := trim(text, start, end)))


def trim(text: str, start: int, end: int) -> Offsets | None:
    """The span without outer white space; None when nothing is left."""
    chunk = text[start:end]
    start += len(chunk) - len(chunk.lstrip())
    end -= len(chunk) - len(chunk.rstrip())
    return (start, end) if start < end else None


#: Characters from which running text without a sentence mark is cut, and the size of its pieces.
UNMARKED, PIECE = 400, 240
_SHORTEST = 90  # characters; a piece is not cut shorter to end at a better place

#: Letters of the scripts whose sentences end with a blank and no mark: Thai and Lao.
_SPACED_LETTER = "[\u0e01-\u0e4e\u0e81-\u0ecd\u0edc-\u0edf]"
_SPACED_LETTERS = re.compile(_SPACED_LETTER)
#: A blank that may end one: between letters, for those beside numbers and names part no clauses. ๆ, ฯ and ໆ repeat
#: and shorten the word before them.
_SPACED_END = re.compile(rf"(?<={_SPACED_LETTER})[ \t]*(?:\n|[ \t])\s*(?!ๆ|ฯ|ໆ)(?={_SPACED_LETTER})")
#: After these a blank sets off a name, a number or a date and ends nothing: "in", "of", "named", "year" and the like.
_SPACED_LINK = re.compile(
    "(?:ใน|ของ|ที่|และ|หรือ|คือ|ชื่อ|ว่า|กับ|จาก|ถึง|แก่|แห่ง|เช่น|ได้แก่|ปี|เดือน|วันที่|พ.ศ.|ค.ศ."
    "|ໃນ|ຂອງ|ທີ່|ແລະ|ຫຼື|ຄື|ຊື່|ວ່າ|ກັບ|ຈາກ|ເຖິງ|ແກ່|ແຫ່ງ|ເຊັ່ນ|ໄດ້ແກ່|ປີ|ເດືອນ|ວັນທີ)$"
)
#: What a clause begins with, whatever stands before: "but", "because", "after", "today" and the like.
_SPACED_OPENER = re.compile(
    "แต่|เพราะ|ดังนั้น|นอกจาก|อย่างไรก็|ต่อมา|หลังจาก|ก่อนหน้า|ทั้งนี้|ปัจจุบัน|ในขณะ|ในระหว่าง|เนื่องจาก|จากนั้น|แม้"
    "|ແຕ່|ເພາະ|ດັ່ງນັ້ນ|ນອກຈາກ|ຢ່າງໃດກໍ|ຕໍ່ມາ|ຫຼັງຈາກ|ກ່ອນໜ້າ|ທັງນີ້|ປັດຈຸບັນ|ໃນຂະນະ|ໃນລະຫວ່າງ|ເນື່ອງຈາກ|ຈາກນັ້ນ|ເຖິງແມ່ນ"
)
_SPACED_NAME = 16  # characters between two blanks: fewer are a part of a name or of a date, and the second ends nothing
#: Characters of a clause or two in these scripts: shorter ones are joined.
SPACED = 60
_SPACED_SHARE = 0.5  # of the characters of a unit

_MARKED = re.compile(r"[.!?…:;。！？।॥؟۔][\"'”’»)\]*_]*$|[;,] (?:and|or)$")
_UNPUNCTUATED = re.compile(r"[^.,;:!?()…–—、，。；：！？«»“”؟،।]{400}")
# What a clause begins with where no comma says so; of speech, whose transcripts have no marks at all.
_OPENERS = (
    "and|but|or|so|because|then|when|while|where|which|who|that|if|although|though|however|okay|um|uh|well|now"
    "|und|aber|oder|denn|weil|dass|wenn|et|mais|ou|donc|car|quand|y|pero|porque|cuando|e|ma|perché|quando|mas|en|maar|want|omdat"
)
_CLAUSE = re.compile(
    rf"(?P<line>\n)|(?P<tag>(?=<[a-z][a-z0-9]{{0,9}}[\s>]))"
    rf"|(?P<mark>[,;:،؛、，；：][ \t]*(?!\d)|[ \t][–—-][ \t])|[ \t]+(?=(?:{_OPENERS})\s)|(?P<blank>\s+)",
    re.IGNORECASE,
)


def is_unmarked(text: str, unit: Offsets) -> bool:
    """Whether no mark ends the unit, or none at all stands in much of it: then it is no sentence."""
    last = text[max(unit[0], unit[1] - 12) : unit[1]]
    return _MARKED.search(last) is None or _UNPUNCTUATED.search(text, *unit) is not None


def is_spaced(text: str, unit: Offsets) -> bool:
    """Whether a unit is in a script whose sentences end with a blank and no mark, and long enough to hold several."""
    if unit[1] - unit[0] < 2 * SPACED or text.isascii():
        return False
    return len(_SPACED_LETTERS.findall(text, *unit)) >= _SPACED_SHARE * (unit[1] - unit[0])


def spaced_clauses(text: str, unit: Offsets, held: Sequence[Offsets] = ()) -> Iterator[Offsets]:
    """`unit`, which `is_spaced`, cut at the blanks between its letters, in trimmed pieces of at least `SPACED`.

    Not within a name and not before what a preposition brings, unless a piece of several clauses has no other blank.
    """
    start = before = unit[0]
    for blank in _SPACED_END.finditer(text, *unit):
        word, cut = text[before : blank.start()], blank.end()
        before = cut
        ends = (len(word) >= _SPACED_NAME and _SPACED_LINK.search(word) is None) or _SPACED_OPENER.match(text, cut)
        least = SPACED if ends else PIECE
        if cut - start >= least and unit[1] - cut >= SPACED and enclosing(held, cut) is None:
            if piece := trim(text, start, cut):
                yield piece
            start = cut
    if piece := trim(text, start, unit[1]):
        yield piece


def clauses(text: str, unit: Offsets, held: Sequence[Offsets] = (), *, size: int = PIECE) -> Iterator[Offsets]:
    """`unit` in trimmed pieces of at most about `size` characters, cut at the best place near their end.

    A line end is better than a comma or an opening tag, that is better than a word that opens a clause, and that is
    better than a blank; text without any of them stays whole.
    """
    start, places = unit[0], [match for match in _CLAUSE.finditer(text, *unit) if enclosing(held, match.end()) is None]
    ends = [match.end() for match in places]
    ranks = [_rank(match) for match in places]
    while unit[1] - start > size:
        first = bisect_left(ends, min(start + max(1, min(_SHORTEST, size // 2)), unit[1]))
        last = bisect_left(ends, start + size + 1)
        if first < last:
            cut = ends[max(range(first, last), key=lambda place: (ranks[place], place))]
        elif last < len(ends):
            cut = ends[last]
        else:
            break
        if piece := trim(text, start, cut):
            yield piece
        start = cut
    if piece := trim(text, start, unit[1]):
        yield piece


def _rank(match: re.Match[str]) -> int:
    return {"line": 3, "mark": 2, "tag": 2, None: 1, "blank": 0}[match.lastgroup]


def pieces(text: str, unit: Offsets, limit: int, held: Sequence[Offsets]) -> Iterator[Offsets]:
    """`unit` in trimmed pieces of at most `limit` characters."""
    start, end = unit
    while end - start > limit:
        cut = _last_break(text, start, start + limit, held)
        if piece := trim(text, start, cut):
            yield piece
        start = cut
    if piece := trim(text, start, end):
        yield piece


def _last_break(text: str, start: int, limit: int, held: Sequence[Offsets]) -> int:
    """The best place to cut in (start, limit]: a line end in the later half, white space, an atom's edge, `limit`."""
    line_end = text.rfind("\n", start + (limit - start) // 2, limit) + 1
    if line_end > start and enclosing(held, line_end) is None:
        return line_end
    for place in range(limit, start, -1):
        if (text[place - 1].isspace() or text[place].isspace()) and enclosing(held, place) is None:
            return place
    around = enclosing(held, limit)
    if around is None:
        return limit
    return around[0] if around[0] > start else _break_atom(text, start, limit)


def _break_atom(text: str, start: int, limit: int) -> int:
    """Where to cut an atom that is longer than the limit: a line end, white space, or `limit`."""
    line_end = text.rfind("\n", start + 1, limit) + 1
    if line_end:
        return line_end
    return next((place for place in range(limit, start, -1) if text[place - 1].isspace()), limit)
