"""Find records by their shape: log lines, chat messages, subtitles, stack traces and the entries of bibliographies.

The lines that continue a record go with it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ctxprune.text.lines import Kind, Line, paragraphs
from ctxprune.text.patterns import on_use

_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}"
_DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]{0,6}"
_TIME = r"\d{1,2}[:.h]\d\d(?:[:.]\d\d(?:[.,]\d{1,9})?)?"
_DATE = (
    r"(?:\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{1,2}[ -][A-Z][a-zé]{2,8}\.?[ -]\d{2,4}|[A-Z][a-z]{2,8} \d{1,2}(?:, \d{4})?)"
)
_RECENT = (
    "(?i:today|yesterday|heute|gestern|hier|aujourd'hui|ayer|hoy|ieri|oggi|gisteren|vandaag|ontem|hoje"
    "|(?:mon|tues|wednes|thurs|fri|satur|sun)day)"
)
_CLOCK = r"\d{1,2}[:h]\d\d(?::\d\d)?(?:[ \u202f]?[AaPp]\.?[Mm]\.?)?"
_LEVEL = (
    "TRACE|DEBUG|VERBOSE|INFO|NOTICE|WARN|WARNING|ERROR|ERR|CRIT|CRITICAL|ALERT|EMERG|FATAL|SEVERE|PANIC|FINE|FINER"
    "|FINEST"
)
# Every quantifier is bounded: a line of a million characters is looked at where it begins, no further.
_START = on_use(
    rf"""[ \t\f\u200e\u200f]{{0,12}}(?:
    (?P<stamp>[\[(<"']?(?:{_DAY},?[ ])?(?:
        \d{{4}}[-/.]\d\d[-/.]\d\d[T _,]{{1,2}}{_TIME}
        |\d{{1,2}}[-/.]\d{{1,2}}[-/.]\d{{2,4}},?[ T]{{1,2}}{_TIME}
        |\d\d-\d\d[ ]\d\d:\d\d:\d\d
        |\d{{1,2}}[ /-]{_MONTH}[ /-]\d{{2,4}}[ :,T]{{1,2}}{_TIME}
        |{_MONTH}[ ]{{1,2}}\d{{1,2}}(?:,?[ ]\d{{4}})?,?[ ](?:at[ ])?{_TIME}
        |[IWEF]\d{{4}}[ ]\d\d:\d\d:\d\d
    ))
    |(?P<kernel>(?:<\d{{1,3}}>)?\[[ ]{{0,8}}\d{{1,9}}\.\d{{3,9}}\])
    |(?P<access>[\w.:-]{{1,64}}[ ]\S{{1,40}}[ ]\S{{1,40}}[ ]\[\d{{1,2}}/[A-Z][a-z]{{2}}/\d{{4}}:)
    |(?P<time>[\[(]?{_TIME}(?:[ ]?[AaPp]\.?[Mm]\.?)?[\])]?(?:[ \t]{{1,4}}[-–|>*<\w\[("'“‘„¿¡]|$))
    |(?P<dated>[\[(](?:{_RECENT}|{_DATE}),?[ ]{_CLOCK}[\])])
    |(?P<author>[^\W\d_][\w.'’-]{{0,30}}(?:[ ][\w.'’-]{{1,30}}){{0,3}}(?:[ ]{{1,4}}|\t|,[ ]|[ ][-–—·|][ ])
        [\[(]?(?:(?:\w{{3,9}}|{_DATE}),?[ ](?:(?:at|um|à|a[ ]las|alle|om)[ ])?)?{_CLOCK}[\])]?:?(?:[ ]|$)
        (?!\s{{0,6}}\d{{1,2}}[:h]\d\d))  # a row of a timetable has several
    |(?P<commit>commit[ ][0-9a-f]{{7,64}}\b)
    |(?P<hash>(?=[0-9a-f]{{0,11}}[0-9])(?=[0-9]{{0,11}}[a-f])[0-9a-f]{{7,12}}[ ]\S)
    |(?P<place>(?=[^\s:(]{{0,200}}[./\\])[^\s:()]{{1,200}}(?::\d{{1,6}}){{1,2}}:[ ]{{1,2}}\S
        |(?=[^\s:(]{{0,200}}\.)[^\s:()]{{1,200}}\(\d{{1,6}}(?:,\d{{1,6}})?\):[ ]
        |(?:error|warning)(?:\[\w{{1,20}}\])?:[ ]\S)
    |(?P<outcome>(?:ok|changed|skipping|fatal|failed|unreachable|included):[ ]\[|(?:PLAY|TASK|RUNNING[ ]HANDLER)[ ]\S
        |(?:PASS|FAIL|PASSED|FAILED|XFAIL|SKIPPED|---[ ](?:PASS|FAIL|SKIP):|(?:not[ ])?ok[ ]\d)[ ]\S)
    |(?P<epoch>\d{{10}}(?:\d{{3}}|\.\d{{1,9}})?[ \t])
    |(?P<date>\d{{4}}-\d\d-\d\d[ \t:])
    |(?P<level>[\[(<]?(?:{_LEVEL})[\])>]?(?:[ \t]*[:|\[-]|[ \t]{{1,8}}\S)|\[(?i:{_LEVEL})[ \t]*\])
    |(?P<json>\{{[ \t]*"[^"]{{1,200}}"[ \t]*:)
    |(?P<pairs>[\w.@/-]{{1,60}}=(?:"[^"]{{0,2000}}"|[^\s"]{{0,300}})[ \t]{{1,4}}[\w.@/-]{{1,60}}=)
    |(?P<nick><[ @+%~&]?[^\s<>/]{{1,30}}>[ \t]+\S|\*{{3}}[ ]\S|-!-[ ])
    )""",
    re.VERBOSE,
)
#: Families whose shape alone tells a record; the others must be dense among the lines around them.
_SURE = frozenset({"stamp", "kernel", "access", "json", "pairs", "commit", "dated"})
#: Families whose records go on at the margin as they please: messages below a line of their own, excerpts of code.
_LOOSE = frozenset({"author", "place"})
#: A key of an object that is written over several lines.
_JSON_KEY = re.compile(r'[ \t]*"[^"]{1,200}"[ \t]*:')
_NAME = re.compile(r"[^\W\d_][\w.'’-]{0,30}(?:,?[ ][\w.'’()-]{1,30}){0,3}")
_CUE = re.compile(r"[ \t]*(?:\d{1,3}:)?\d{1,2}:\d\d[.,]\d{1,3}[ \t]*-->")
_TRACE_HEAD = re.compile(
    r"[ \t|+-]*(?:Traceback \(most recent call last\):|Exception in thread |panic: |goroutine \d+ \["
    r"|(?:Uncaught |Unhandled )?(?:[A-Za-z_][\w.$]{0,200}[.$])?[A-Z]\w{0,100}(?:Error|Exception|Throwable)\b)"
)
_FRAME = re.compile(r"\s+(?:at [\w.$<>/\[\]@ ]{1,300}[(:]|at .{1,300}:\d+|File \"|\.\.\. \d+ (?:more|common))")
#: What goes on with a trace after a blank line.
_TRACE_AGAIN = re.compile(
    r"\s*(?:Traceback \(|Caused by:|Suppressed:|During handling of|The above exception|goroutine \d+ \[|exit status \d)"
)
_TRACE_MORE = re.compile(
    r"(?:Traceback \(|Caused by:|Suppressed:|During handling of|The above exception|goroutine \d+ \[|created by "
    r"|exit status \d|[\w./*-]{1,200}(?:\(\*?\w{1,80}\)[\w.]{1,80})?\(.{0,300}\)$"
    r"|(?:[A-Za-z_][\w.]{0,200}\.)?[A-Z]?\w{0,100}(?:Error|Exception|Interrupt|Exit|Warning)\b)"
)


def mark_records(lines: Sequence[Line], kinds: list[Kind], *, tags: bool = False) -> None:
    """Write "record" and "more" into `kinds` where lines are records. tags: `<x>` is HTML here and no nickname."""
    starts = [_family(line, kind) for line, kind in zip(lines, kinds, strict=True)]
    if tags:
        starts = [None if family == "nick" else family for family in starts]
    total = Counter(family for family in starts if family)
    traced = any(_TRACE_HEAD.match(line.text) for line in lines)
    starts = [family if family and (total[family] > 1 or (traced and family in _SURE)) else None for family in starts]
    mark_cues(lines, kinds)
    previous: range | None = None
    for paragraph in list(paragraphs(kinds)):
        if any(kinds[place] in ("record", "more") for place in paragraph):
            previous = None
            continue
        if previous is not None and _TRACE_AGAIN.match(lines[paragraph[0]].text):
            first = next((place for place in paragraph if starts[place]), paragraph.stop)
            _join(kinds, previous, range(paragraph.start, first))  # a blank line within a trace
            previous, paragraph = paragraph, range(first, paragraph.stop)
            if not paragraph:
                continue
        if _is_log(lines, starts, paragraph):
            _mark_log(lines, kinds, starts, paragraph)
            previous = paragraph
        else:
            mark_traces(lines, kinds, paragraph)
            previous = paragraph if kinds[paragraph[-1]] in ("record", "more") else None


def _family(line: Line, kind: Kind) -> str | None:
    """The family of records that a line begins, if it looks like one."""
    if kind in ("blank", "code", "under", "heading", "header", "row"):
        return None
    match = _START.match(line.text)
    if match is None or (match.lastgroup == "json" and not line.text.rstrip().endswith(("}", "},", "}]"))):
        return None
    return match.lastgroup


def _is_log(lines: Sequence[Line], starts: Sequence[str | None], paragraph: range) -> bool:
    """Whether records begin often enough here for the lines between to be their continuations."""
    families = [starts[place] for place in paragraph if starts[place]]
    if not families:
        return False
    if set(families) == {"json"} and any(_JSON_KEY.match(lines[place].text) for place in paragraph):
        return False  # objects of a line each in a larger one, whose keys continue none of them
    first = next(place for place in paragraph if starts[place])
    indent = max(lines[place].indent for place in paragraph if starts[place])
    loose = sum(
        starts[place] is None and lines[place].indent <= indent and not _TRACE_MORE.match(lines[place].text.lstrip())
        for place in paragraph
        if place > first
    )
    sure = sum(family in _SURE for family in families)
    sure += sum(family in _LOOSE for family in families) if set(families) <= _LOOSE else 0
    return loose <= 2 * len(families) or loose <= 8 * sure


def _mark_log(lines: Sequence[Line], kinds: list[Kind], starts: Sequence[str | None], paragraph: range) -> None:
    opened: str | None = None
    for place in paragraph:
        if starts[place] is not None:
            opened = starts[place]
            kinds[place] = "record"
            if place > paragraph.start and starts[place - 1] is None and _is_signed(lines[place - 1], lines[place]):
                kinds[place - 1], kinds[place] = "record", "more"
        elif opened == "date" and kinds[place] == "item":
            continue  # an entry of a change log, below its date
        elif opened is not None:
            kinds[place] = "more"


def _is_signed(name: Line, stamp: Line) -> bool:
    """Whether a line with nothing but a time belongs to the name above it."""
    match = _START.match(stamp.text)
    if match is None or match.lastgroup != "stamp" or stamp.text[match.end() :].strip(" ])APMapm."):
        return False
    return _NAME.fullmatch(name.text.strip()) is not None


def mark_traces(lines: Sequence[Line], kinds: list[Kind], paragraph: range) -> None:
    """Stack traces outside of logs: the head, its frames, and what went before as its cause."""
    opened = False
    for place in paragraph:
        line, following = lines[place], lines[place + 1] if place + 1 in paragraph else None
        if opened:
            frame = line.indent > 0 or _TRACE_MORE.match(line.text.lstrip())
            opened = bool(frame)
            kinds[place] = "more" if frame else kinds[place]
        elif _TRACE_HEAD.match(line.text) and _begins_trace(line, following):
            opened = True
            kinds[place] = "record"


def _begins_trace(line: Line, following: Line | None) -> bool:
    framed = following is not None and _FRAME.match(following.text) is not None
    return framed or line.text.lstrip().startswith(("panic: ", "goroutine "))


def _join(kinds: list[Kind], previous: range, paragraph: range) -> None:
    """Continue the record of `previous` over blank lines to the end of `paragraph`."""
    for place in range(previous[-1] + 1, paragraph[-1] + 1):
        kinds[place] = "more"


def _numbers_cue(lines: Sequence[Line], place: int) -> bool:
    """Whether the line above a cue is its number, or its name: then nothing is above that."""
    above = lines[place - 1].text.strip()
    alone = place == 1 or not lines[place - 2].text.strip()
    return above.isdigit() or (0 < len(above) < 60 and alone and not _CUE.match(above) and above != "WEBVTT")


def mark_cues(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Subtitles (SRT, VTT): number or name, times and words are one record."""
    for place, line in enumerate(lines):
        if not _CUE.match(line.text):
            continue
        numbered = place > 0 and _numbers_cue(lines, place)
        kinds[place] = "more" if numbered else "record"
        if numbered:
            kinds[place - 1] = "record"
        for after in range(place + 1, len(lines)):
            if kinds[after] == "blank" or _CUE.match(lines[after].text):
                break
            next_cue = after + 1 < len(lines) and _CUE.match(lines[after + 1].text)
            if next_cue and lines[after].text.strip().isdigit():
                break
            kinds[after] = "more"


#: A bibliography's entries: "@book{key," of BibTeX, and the tags of RIS, the first of which is the type.
_BIB_OPENS = re.compile(r"[ \t]*@[A-Za-z]{3,20}[ \t]*\{[ \t]*(?:[^\s,{}=\"]{1,100}[ \t]*,|[A-Za-z]{1,40}[ \t]*=)")
#: An entry of iCalendar or vCard, which holds no other.
_CARD_OPENS = re.compile(r"BEGIN:(V(?:EVENT|CARD|TODO|JOURNAL))\s*$", re.IGNORECASE)
_BIB_LINES = 200  # lines among which an entry must close; one that does not is left alone
_RIS_TAG = re.compile(r"[A-Z][A-Z0-9]  ?-(?: |$)")


def mark_references(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Write "record" and "more" into `kinds` for the entries of a bibliography, a calendar or an address book.

    Blank lines within them are included.
    """
    place = 0
    while place < len(lines):
        end = _entry_end(lines, place) if kinds[place] != "code" else place
        for inside in range(place, end):
            kinds[inside] = "record" if inside == place else "more"
        place = max(end, place + 1)


def _entry_end(lines: Sequence[Line], first: int) -> int:
    """The line after the entry that begins at `first`, or `first` if none does."""
    text = lines[first].text
    if text.startswith("TY  -"):
        return _ris_end(lines, first)
    if card := _CARD_OPENS.match(text):
        closing = f"END:{card[1]}".lower()
        some = range(first + 1, min(first + _BIB_LINES, len(lines)))
        return next((place + 1 for place in some if lines[place].text.strip().lower() == closing), first)
    return _bib_end(lines, first) if _BIB_OPENS.match(text) else first


def _bib_end(lines: Sequence[Line], first: int) -> int:
    """The line after the one that closes the entry's braces; `first` if none does, or if it sets no field."""
    depth, fields = 0, False
    for place in range(first, min(first + _BIB_LINES, len(lines))):
        text = lines[place].text
        fields = fields or "=" in text
        depth += text.count("{") - text.count("}") - text.count("\\{") + text.count("\\}")
        if depth <= 0:
            return place + 1 if fields else first
    return first


def _ris_end(lines: Sequence[Line], first: int) -> int:
    """The line after the entry's "ER", or after its last tag before a blank line or another entry."""
    tags = 0
    for place in range(first, min(first + _BIB_LINES, len(lines))):
        text = lines[place].text
        if place > first and (not text.strip() or text.startswith("TY  -")):
            return place if tags > 1 else first
        tags += _RIS_TAG.match(text) is not None
        if text.startswith("ER  -"):
            return place + 1 if tags > 1 else first
    return len(lines) if tags > 1 and len(lines) - first < _BIB_LINES else first
