"""Find who speaks: the sender above a mail, questions and their answers, the parts of a play."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from ctxprune.text.lines import Kind, Line
from ctxprune.text.patterns import on_use

_SENDER = re.compile(
    r"[> \t]*\*{0,2}(?:From|Von|De|Da|Van|Från|Fra|Od|От|差出人|发件人|보낸 사람)\*{0,2}[ ]?[:：]\*{0,2}[ \t]\S"
)
_MAIL_LINE = re.compile(
    r"[> \t]*\*{0,2}(?:To|Cc|Sent|Date|Subject|Reply-To|Message-ID|An|Gesendet|Datum|Betreff|Kopie|À|Envoyé|Objet|Para"
    r"|Enviado(?: el| em)?|Fecha|Data|Asunto|Assunto|A|Inviato|Oggetto|Aan|Verzonden|Onderwerp|Till|Skickat|Ämne|Do"
    r"|Wysłano|Temat|Кому|Дата|Тема|宛先|件名|收件人|主题|받는 사람|제목)\*{0,2}[ ]?[:：]",
    re.IGNORECASE,
)
_NEAR = 6  # lines of a mail's head among which its sender, receiver and subject stand
_MARGIN_NUMBER = r"[ \t>]*(?:\d{1,2}[ \t]+)?\*{0,2}"
_ASKS = re.compile(_MARGIN_NUMBER + r"(?:Q|Question|Frage|F|Pregunta|Domanda)\s?\d{0,3}[.:)]\*{0,2}[ \t]+\S")
_ANSWERS = re.compile(
    _MARGIN_NUMBER + r"(?:A|Answer|Antwort|Respuesta|Réponse|R|Risposta)\s?\d{0,3}[.:)]\*{0,2}[ \t]+\S"
)
#: "HAMLET. To be": how printed plays name who speaks.
_PART = on_use(r"[ \t]*(?:[A-ZÀ-Ý][A-ZÀ-Ý'’-]+ ){0,3}[A-ZÀ-Ý][A-ZÀ-Ý'’-]{2,}\.(?:[ \t]+\S|[ \t]*$)")
#: The margin of a record of court: every line of a page has its number.
_MARGIN = re.compile(r"[ \t]{0,8}(\d{1,2})(?:[ \t]+|$)")
#: "Q.", "A.", "THE COURT:", "MR. HOLT:" after that number.
_SPEAKS = re.compile(r"(?:[QA][.:]?[ \t]+\S|(?:[A-ZÀ-Ý][A-ZÀ-Ý.'’-]*[ ]){0,3}[A-ZÀ-Ý][A-ZÀ-Ý'’-]+:[ \t])")
_FEWEST_NUMBERED, _FEWEST_SPEAKERS = 5, 3
_ENDED = re.compile(r"(?:^|[.!?…)\]:;—–_*-][\"'”’]?)\s*$")
_DIRECTION = re.compile(r"[ \t]*[\[(_]")


def mark_senders(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """The line that names who wrote a mail is the heading of what follows."""
    for place, line in enumerate(lines):
        if kinds[place] not in ("plain", "turn", "item") or not _SENDER.match(line.text):
            continue
        near = range(max(0, place - _NEAR), min(len(lines), place + _NEAR + 1))
        head = [at for at in near if _MAIL_LINE.match(lines[at].text) and _is_one_head(lines, at, place)]
        if head:
            kinds[place] = "heading"


def _is_one_head(lines: Sequence[Line], one: int, other: int) -> bool:
    return all(lines[at].text.strip("> \t") for at in range(min(one, other), max(one, other) + 1))


def mark_questions(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Questions and answers in turn, and the parts of a play, are what somebody says, not the rows of a table."""
    asked = [at for at, line in enumerate(lines) if _ASKS.match(line.text)]
    answered = [at for at, line in enumerate(lines) if _ANSWERS.match(line.text)]
    if asked and answered and 2 * min(len(asked), len(answered)) >= max(len(asked), len(answered)):
        _mark_turns(lines, kinds, {*asked, *answered})
    parts = [at for at, line in enumerate(lines) if _PART.match(line.text) and _may_begin(lines, at)]
    names = {lines[at].text.strip().split(".")[0] for at in parts}
    if len(parts) > 2 and 1 < len(names) < len(parts):
        _mark_turns(lines, kinds, set(parts))


def mark_numbered(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """In a record whose lines are numbered, a turn goes on over them until somebody else speaks."""
    run: list[int] = []
    for at in [*range(len(lines)), None]:
        margin = None if at is None else _MARGIN.match(lines[at].text)
        if at is not None and margin is None and not lines[at].text.strip():
            continue
        if at is not None and margin and (not run or _follows(lines[run[-1]].text, int(margin.group(1)))):
            run.append(at)
            continue
        _mark_numbered_turns(lines, kinds, run)
        run = [at] if at is not None and margin else []


def _follows(before: str, number: int) -> bool:
    """Whether a line's number is the one after that of the line before, or begins a page."""
    margin = _MARGIN.match(before)
    return margin is not None and number in (int(margin.group(1)) + 1, 1)


def _mark_numbered_turns(lines: Sequence[Line], kinds: list[Kind], run: Sequence[int]) -> None:
    said = {at: _MARGIN.sub("", lines[at].text, count=1) for at in run}
    turns = {at for at, text in said.items() if _SPEAKS.match(text)}
    if len(run) < _FEWEST_NUMBERED or len(turns) < _FEWEST_SPEAKERS or 8 * len(turns) < len(run):
        return
    for at in run:
        kinds[at] = "turn" if at in turns else "plain" if said[at].strip() else "blank"


def _may_begin(lines: Sequence[Line], at: int) -> bool:
    """Whether the line above is no half of a sentence, and the line itself no stretch of capitals."""
    return (at == 0 or _ENDED.search(lines[at - 1].text) is not None) and not lines[at].text[:80].isupper()


def _mark_turns(lines: Sequence[Line], kinds: list[Kind], turns: set[int]) -> None:
    inside = False
    for at, line in enumerate(lines):
        if at in turns:
            kinds[at], inside = "turn", True
        elif not line.text.strip() or _DIRECTION.match(line.text):
            inside = False
        elif inside and kinds[at] in ("row", "header", "more", "verse", "record"):
            kinds[at] = "plain"


def asks(text: str, start: int, end: int) -> bool:
    """Whether a unit begins as a question that is named so: "Q. ..."."""
    return _ASKS.match(text, start, end) is not None


def answers(text: str, start: int, end: int) -> bool:
    """Whether a unit begins as an answer that is named so: "A: ..."."""
    return _ANSWERS.match(text, start, end) is not None


def is_part(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] is the name of who speaks, in capitals, up to its full stop."""
    return _PART.fullmatch(text, start, end + 1) is not None


def names_in_turn(lines: Sequence[Line], kinds: Sequence[Kind]) -> frozenset[str]:
    """The names of those who speak in turn; none where lines only begin with labels."""
    names = Counter(line.text.split(":")[0] for line, kind in zip(lines, kinds, strict=True) if kind == "turn")
    again = max(names.values(), default=0)
    return frozenset(names) if len(names) > 1 and again > 1 and names.total() > 2 else frozenset()
