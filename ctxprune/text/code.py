"""Find what is written for a machine, settings, code and diffs, in units that stay whole."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ctxprune.text.lines import Kind, Line, paragraphs
from ctxprune.text.patterns import on_use

_KEY = r"(?:\"[^\"\n]{1,100}\"|'[^'\n]{1,100}'|[\w./\\\[\]*${}@%+-]{1,100})"
_SETTING = on_use(
    rf"[ \t]*(?:-[ \t]+)?(?:export[ \t]+|set[ \t]+|;[ \t]*)?{_KEY}[ \t]*(?:=(?!=)|:=|\+=|:(?=[ \t]|$)|=>)[ \t]*"
    r"(?P<value>.*)"
)
#: "Start Time:   Sat", a value set in a column of its own: no speech, whatever stands in it.
_ALIGNED = re.compile(
    r"[ \t]*[^\W\d_][\w./()#-]{0,40}(?: [\w./()#-]{1,40}){0,3}:(?=[ \t]{2,}\S|[ \t]*$)[ \t]*(?P<value>.*)"
)
#: "--width=COLS   sets the width" of a help text.
_OPTION = re.compile(r"[ \t]*--?\w[\w-]{0,60}(?:\[?[= ]\S{1,60}|, --\S{1,60}){0,2}(?:[ \t]{2,}\S|$)")
_SPOKEN = on_use(r"[ \t]*[^\W\d_][\w./()#-]{0,40}(?: [\w./()#-]{1,40}){1,3}:[ \t]+(?P<value>.+)")
_COLUMNS = re.compile(r"[ \t]*\S+(?: \S+){0,3} {2,}\S.{0,300}? {2,}\S")
#: A block's opening line ("server {", 'resource "x" "y" {'), and instructions without a sign between name and value.
_BLOCK_OPENS = re.compile(r"[ \t]*[\w.-]{1,60}(?:[ ]\"?[\w.*/:~^$-]{1,100}\"?){0,4}[ ]*\{[ \t]*$")
#: What ends a block at the margin, and what does not begin another one there.
_BLOCK_ENDS = re.compile(r"\}[)\]]?[;,]?\s*$")
_GOES_ON = re.compile(r"\s|[\])};,]|(?:else|catch|finally|while|elif|until|from|as)\b")
_INSTRUCTION = re.compile(
    r"""[ \t]*(?:(?:FROM|RUN|COPY|ADD|ENV|ARG|CMD|ENTRYPOINT|EXPOSE|WORKDIR|USER|VOLUME|LABEL|HEALTHCHECK|SHELL)[ ]\S
    |(?:[\d*][\d*/,-]{0,20}[ \t]+){5}\S|@(?:reboot|(?:hour|dai|week|month|year|annual)ly|midnight)[ \t]+\S
    |(?:[A-Z][a-z]+){2,6}[ \t]+[^ \t=:][^.!?]{0,200}$
    |<[A-Z]\w{2,40}(?:[ ][^<>]{1,200})?>[ \t]*$)""",
    re.VERBOSE,
)
_CLOSING = re.compile(r"[ \t]*</[A-Z]\w{2,40}>[ \t]*$")
_SECTION = re.compile(r"[ \t]*\[{1,2}[\w .:/\"'@-]{1,100}\]{1,2}[ \t]*$")
_COMMENT = re.compile(r"[ \t]*(?:#|//|;|--[ ])")
_REMARK = re.compile(r"[ \t]*(?:#|//)[ \t]")  # prose in a comment, however its line ends
_BRACKETS = re.compile(r"[ \t]*[\[\]{}(),;]{1,6}[ \t]*$")
_OBJECT = re.compile(r"[ \t]*\{[ \t]*\"[^\"]{1,100}\"[ \t]*:.*\}[ \t]*,?[ \t]*$")  # JSON's, on a line of its own
_OPENS = re.compile(r"(?:[|>][-+]?)?[ \t]*[\[{]?[ \t]*(?:#.*)?$")  # a key whose value is on the lines below
_PROSE_VALUE = re.compile(r"(?:\w+ ){6}.{0,300}[.!?]$")
_CODE = on_use(
    r"""[ \t]*(?:
    (?:async[ ])?def[ ]\w{1,80}[ ]?[(\[]
    |class[ ]\w{1,80}.{0,200}[:{]\s*$
    |(?:from[ ][\w.]{1,100}[ ])?import[ ][\w.,*{}' ]{1,200};?\s*$
    |(?:if|elif|for|while|with|try|except|else|finally|match|case)\b[^.?!]{0,200}:\s*$
    |@[\w.]{1,80}(?:\(.{0,200}\))?\s*$
    |(?:export[ ]|async[ ]|static[ ]|public[ ]|private[ ]|protected[ ]){0,3}function\b[ *]{0,2}\w{0,80}[ ]?\(
    |(?:const|let|var)[ ].{1,80}=
    |func[ ].{0,80}\(.{0,200}\{\s*$
    |(?:pub[ ])?fn[ ]\w{1,80}
    |\#\s?(?:include|define|ifdef|ifndef|endif)\b
    |(?:public|private|protected|static)[ ].{1,200}[({;]\s*$
    |(?:if|for|while|switch)[ ]?\(.{0,300}
    |<\?php
    |return\b.{0,200}[;()\[\]=]
    |(?:SELECT|INSERT[ ]INTO|UPDATE|CREATE[ ]TABLE|DELETE[ ]FROM)[ ].{0,300}
    )""",
    re.VERBOSE,
)
_SCRIPT = re.compile(r"#!\s?/\S")  # says what runs the file, so that all of it is code
_WEAK_CODE = re.compile(r".{0,300}?(?:[=(){}\[\];]|->|::|//|/\*|\*/|#[ ])")
_PROSE_LINE = re.compile(r"[ \t]*(?:[^\W\d_]{1,20}[,;:]?[ ]){5}")
_DIFF_HEAD = re.compile(r"(?:diff --git |diff -|Index: |--- \S)")
_HUNK = re.compile(r"@@ -\d+(?:,\d+)? \+\d+(?:,\d+)? @@|@@@ ")
_ITEM = re.compile(r"[ \t]*(?:\(?(?:\d{1,3}|[A-Za-z]|[ivx]{1,4})[.)]|[-*•–])[ \t]")  # of a list of clauses
_HUNK_SIZE = 600  # characters of a hunk after which its next change begins a unit of its own


def mark_settings(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Write "record" and "more" into `kinds` for settings, "record" with "more" for code of a paragraph each."""
    some = [each for each in paragraphs(kinds) if not _taken(kinds, each)]
    script = bool(lines) and _SCRIPT.match(lines[0].text) is not None
    if script:
        some = [paragraph for paragraph in some if not _is_remark(lines, kinds, paragraph)]
    codes = [script or _is_code(lines, paragraph) for paragraph in some]
    beside = False
    for paragraph, code, following in zip(some, codes, [*codes, False][1:], strict=True):
        if not any(codes) and _is_settings(lines, kinds, paragraph):
            _mark_settings(lines, kinds, paragraph)
        elif code or ((beside or following) and _is_body(lines, paragraph)):
            _mark_code(lines, kinds, paragraph)
            beside = True
        else:
            beside = False


def _is_remark(lines: Sequence[Line], kinds: list[Kind], paragraph: range) -> bool:
    """Whether all lines of a script's paragraph are comments; then they are made running text, none a heading."""
    if not all(_REMARK.match(lines[place].text) for place in paragraph):
        return False
    kinds[paragraph.start : paragraph.stop] = ["plain"] * len(paragraph)
    return True


def _mark_code(lines: Sequence[Line], kinds: list[Kind], paragraph: range) -> None:
    """One record, and one more after each block that ends at the margin, but for the banners of a test's output."""
    opens, ended = True, False
    for place in paragraph:
        text = lines[place].text
        banner = kinds[place] == "heading" and text.lstrip()[:3] in ("===", "___")
        if not banner:
            kinds[place] = "record" if opens or (ended and not _GOES_ON.match(text)) else "more"
        opens, ended = banner, _BLOCK_ENDS.match(text) is not None


def _taken(kinds: Sequence[Kind], paragraph: range) -> bool:
    return any(kinds[place] in ("record", "more", "header") for place in paragraph)


def _is_settings(lines: Sequence[Line], kinds: Sequence[Kind], paragraph: range) -> bool:
    """Whether most lines set a key, and the values are not sentences (those would be what people say)."""
    content = [place for place in paragraph if not _COMMENT.match(lines[place].text)]
    if not content:
        return False
    column = _value_column(lines, content)
    values = [match for place in content if (match := _setting(lines[place].text, column))]
    sections = sum(_SECTION.match(lines[place].text) is not None for place in content)
    brackets = sum(_is_bracket(lines[place].text) for place in content)
    instructions = sum(_INSTRUCTION.match(lines[place].text) is not None for place in content)
    turns = sum(
        kinds[place] == "turn" and lines[place].indent == 0 and not _ALIGNED.match(lines[place].text)
        for place in content
    )
    sections = sections if values else 0  # "[2 marks]" of an exam
    hits = len(values) + sections + brackets + instructions
    if hits < (2 if sections else 3) and not (
        len(content) == hits == 2 and all(_is_assignment(each) for each in values)
    ):
        return False
    sentences = sum(_PROSE_VALUE.match(each["value"]) is not None for each in values)
    deeper = sum(lines[place].indent > lines[content[0]].indent for place in content)
    aligned = sum(_ALIGNED.match(lines[place].text) is not None for place in content)
    spoken = hits <= 2 * turns and aligned < max(3, turns)
    return 5 * (hits + deeper // 2) >= 3 * len(content) and not spoken and hits > 3 * sentences


def _setting(line: str, column: int | None) -> re.Match[str] | None:
    """A key with its value; one of several words where its value stands at the `column` of others."""
    if _OPTION.match(line):
        return None
    if match := _SETTING.match(line) or _ALIGNED.match(line):
        return match
    match = _SPOKEN.match(line)
    return match if match and match.start("value") == column else None


def _value_column(lines: Sequence[Line], places: Sequence[int]) -> int | None:
    """Where the values of at least two lines begin that are set apart from their keys."""
    columns = Counter(
        match.start("value") for place in places if (match := _ALIGNED.match(lines[place].text)) and match["value"]
    )
    column, number = columns.most_common(1)[0] if columns else (0, 0)
    return column if number > 1 else None


def _is_bracket(line: str) -> bool:
    """Whether a line only opens or closes a block, or is an object by itself."""
    return any(pattern.match(line) for pattern in (_BRACKETS, _BLOCK_OPENS, _CLOSING, _OBJECT))


def _is_assignment(match: re.Match[str]) -> bool:
    return "=" in match.group()[: match.start("value") - match.start()] and not match["value"].endswith(".")


def _mark_settings(lines: Sequence[Line], kinds: list[Kind], paragraph: range) -> None:
    """A setting with its comment above, its deeper lines below, and the keys that only open a level above it.

    Keys without a value of their own stay with the key they open: `a:` over `b:` is one step down a path.
    """
    opening = commented = False
    column = 0
    values = _value_column(lines, paragraph)
    instructed = any(_INSTRUCTION.match(lines[place].text) for place in paragraph)
    for place in paragraph:
        line = lines[place]
        comment = _COMMENT.match(line.text) is not None
        setting = None if comment else _setting(line.text, values)
        opens = _BLOCK_OPENS.match(line.text) is not None or (
            setting is not None and _OPENS.match(setting["value"]) is not None
        )
        dash = line.text.lstrip().startswith("- ")
        starts = comment or setting is not None or _SECTION.match(line.text) is not None or dash or opens
        starts |= instructed and not _goes_on(lines, place) and not _CLOSING.match(line.text)
        starts |= _OBJECT.match(line.text) is not None
        starts |= bool(_COLUMNS.match(line.text) and line.text.strip("-= \t"))
        if _BRACKETS.match(line.text):
            starts = opens = line.text.strip()[0] in "[{("
        chained = opening and (opens or line.text.strip("[{( \t") == "") and not dash and not comment
        inside = setting is not None and column > 0 and line.indent > column and not dash
        continues = not starts or commented or chained or inside
        kinds[place] = "more" if continues and place != paragraph[0] else "record"
        commented, opening = comment, opens
        if dash and not continues:
            column = line.indent + 1
        elif line.indent < column:
            column = 0


def _goes_on(lines: Sequence[Line], place: int) -> bool:
    """Whether the line above says that it goes on here."""
    return place > 0 and lines[place - 1].text.rstrip().endswith("\\")


def _is_code(lines: Sequence[Line], paragraph: range) -> bool:
    strong = sum(_is_statement(lines[place].text) for place in paragraph)
    if not strong:
        return False
    prose = sum(_PROSE_LINE.match(lines[place].text) is not None for place in paragraph)
    body = _is_statement(lines[paragraph[0]].text)  # then what is indented below it is its body
    weak = sum(
        _WEAK_CODE.match(lines[place].text) is not None or (body and lines[place].indent > lines[paragraph[0]].indent)
        for place in paragraph
    )
    return 2 * max(strong, weak) >= len(paragraph) and prose <= len(paragraph) // 3


def _is_statement(line: str) -> bool:
    """Whether a line by itself is code beyond doubt."""
    line = line.rstrip()
    if _REMARK.match(line):
        return False
    if line.endswith(";"):
        return ("=" in line[:300] or "(" in line[:300]) and not (_ITEM.match(line) or _PROSE_LINE.match(line))
    if line.endswith("{"):
        return line[:-1].rstrip()[-1:].isalnum() or line[:-1].rstrip().endswith(")")
    return _CODE.match(line) is not None


def _is_body(lines: Sequence[Line], paragraph: range) -> bool:
    """Whether a paragraph beside code may be a part of it: most lines assign, call or bracket, few read as prose."""
    weak = sum(_WEAK_CODE.match(lines[place].text) is not None for place in paragraph)
    prose = sum(_PROSE_LINE.match(lines[place].text) is not None for place in paragraph)
    return 2 * weak >= len(paragraph) and prose <= len(paragraph) // 4


def mark_diffs(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """A file's head is one record; a hunk is one, or one for each of its changes when it is long."""
    place = 0
    while place < len(lines):
        if _HUNK.match(lines[place].text) or _begins_diff(lines, place):
            place = _mark_diff(lines, kinds, place)
        else:
            place += 1


def _begins_diff(lines: Sequence[Line], place: int) -> bool:
    if not _DIFF_HEAD.match(lines[place].text) or _is_rule(lines[place].text):
        return False
    return any(line.text.startswith("+++ ") or _HUNK.match(line.text) for line in lines[place + 1 : place + 8])


def _is_rule(line: str) -> bool:
    return not line.strip("- \t")


def _mark_diff(lines: Sequence[Line], kinds: list[Kind], first: int) -> int:
    """Mark one head or hunk that begins at `first`; returns the line after it."""
    head = not _HUNK.match(lines[first].text)
    kinds[first], size, changed = "record", 0, False
    for place in range(first + 1, len(lines)):
        text = lines[place].text
        if _HUNK.match(text) or (not head and _begins_diff(lines, place)):
            return place
        if head:
            kinds[place] = "more"
            continue
        if (text[:1] not in tuple(" +-\\<>") and text) or text.rstrip() == "--":
            return place  # the line above a patch's version among them
        if not text and not (
            place + 1 < len(lines) and lines[place + 1].text[:1] in tuple(" +-<>@") and lines[place + 1].text
        ):
            return place
        size += len(text)
        change = text[:1] in tuple("+-<>")
        begins = size > _HUNK_SIZE and change and not changed
        kinds[place] = "record" if begins else "more"
        size = 0 if begins else size
        changed = change
    return len(lines)
