"""Find where the sentences of running text end."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import sentencex

from ctxprune.text.abbreviations import is_abbreviation
from ctxprune.text.language import function_words
from ctxprune.text.layout import force_records, layout
from ctxprune.text.lines import Kind, Line
from ctxprune.text.patterns import on_use
from ctxprune.text.speakers import is_part

# Han, kana and their punctuation, each with its variation selectors: scripts that set no blanks between words.
HAN = (
    "\u3001-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff9f\U00020000-\U0003ffff"
)
HAN_CHARACTER = on_use(f"[{HAN}]")

_STRONG = "。！？｡．؟۔।॥։።፧။។᠃"  # end a sentence without a blank after them
_FULL = "。！？｡"
_MARKS = f".!?…‼⁇⁈⁉．{_STRONG}"
_CLOSERS = "\"'’”“«»)\\]}」』）】》〉*_¹²³⁰⁴-⁹†‡\u200d\u2600-\u27bf\u2b50\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff"
# What closes each; German „…“ and Polish „…”, French « … » and German »…«.
_PAIRS = {
    "(": ")",
    "[": "]",
    "“": "”",
    "„": "“”",
    "«": "»",
    "»": "«",
    "‹": "›",
    "「": "」",
    "『": "』",
    "（": "）",
    '"': '"',
    "《": "》",
    "〈": "〉",
}
#: The number of a note that extraction has set on the line: "of oak.2 It".
_NOTE = r"(?<=[a-z]{3}[.?!])[1-9]\d?(?=\s+[A-Z\"“])"
#: The same in brackets, "the results.(2) No method", and raised in HTML.
_BRACKETED = r"(?<=[a-z\d%)]{2}[.?!])\((?:[1-9]\d?|[a-z]|\*{1,3})\)(?=\s|$)"
_RAISED = r"<sup\b[^<>\n]{0,200}>(?:<[^<>\n]{1,200}>){0,2}\[?\w{1,4}\]?"
#: Signs that somebody sets behind a sentence, not before the next: "We pay the postage. ✅".
_SIGNS = re.compile(
    r"[ \t]*(?:[\u2600-\u27bf\u2b50\u2b55\u203c\u2049\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff]"
    r"[\ufe0f\u200d\U0001f3fb-\U0001f3ff\u2640\u2642]*[ \t]*){1,20}(?=\n|$)"
)
_PAIR_LIMIT = 200  # characters; a longer quotation is split like other text


def _events(marks: str) -> re.Pattern[str]:
    return on_use(
        rf"([{marks}{re.escape(''.join(_PAIRS))}])"
        rf"(?:(?<=[{marks}])([{marks}]*+)"
        # not possessive: in a group that captures, Python up to 3.11.4 then raises SystemError; the bound limits memory
        rf"((?:[{_CLOSERS}]|\[[0-9, –-]{{1,12}}\]|</\w{{1,10}}>|{_NOTE}|{_BRACKETED}|{_RAISED}){{0,1000}}))?"
    )


_EVENT, _GREEK_EVENT = _events(_MARKS), _events(f"{_MARKS};")  # ";" asks in Greek
_LOOSE_CLOSER = re.compile(r"[ \t]+([)\]}”»\"]|'')(?=\s|$)")
_NEXT = re.compile(r"(\s*)(?:</?\w[^<>\n]{0,80}>|[\s\"'“‘«»‹›„‚(\[{*_~`#<¿¡「『（【《〈•–—>-])*+(\w[\w'’]{0,23}|\S)")
_LISTED = re.compile(r"(?:[:;,]|\b(?:and|or))\s+\d{1,2}$")  # "are: 1. this; 2. that, and 3. those"
# A letter of a script whose initials sentencex does not know; Thai and Lao have no other full stop; syllables are words
_INITIAL = re.compile(r"[^\W\d_A-Za-z\u1100-\u11ff\u3040-\u9fff\uac00-\ud7ff]|.*[\u0e00-\u0eff]")
_HANGUL = re.compile(r"[\u1100-\u11ff\uac00-\ud7ff]\Z")
# Where the danda ends sentences, a full stop after a short word shortens it.
_INDIC = re.compile(r"[\u0900-\u0d7f]{1,6}")
_ITEM_NUMBER = re.compile(r"\s*\(\w{1,4}\)\s*")
_ARGUMENT = re.compile(r"(?<!\w)(?:\[[^\[\]\n]{1,60}\]|<[^<>\n]{1,60}>|[A-Z][A-Z_-]{1,30}|\*\w{1,30}\*)[)\]]?\s?\Z")
_HOUR = re.compile(r"\d ?[ap]\.m$", re.IGNORECASE)
_WEEKDAY = re.compile(r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?|[ECMP][SD]?T|GMT|UTC")
#: "a fuse of 10 A. Place it": a measure, not somebody's first name.
_MEASURED = re.compile(
    r"\b(?i:of|to|at|than|for|from|about|is|are|needs?|takes?|draws?|gives?|under|over|below|above|max|min|and|or)\.?"
    r"[ \u00a0]\d{1,3}(?:[.,]\d{1,3})?[ \u00a0]?°?[AVWCFKNJ]\Z"
)
_KOREAN_DATE = re.compile(r"(?<!\d)(?:19|20)\d\d(?:\. ?\d{1,2}){0,2}$")
_YEAR = re.compile(r"\b[12]\d{3} ?[rгр]\Z")
_LATE = 30  # characters from a sentence's beginning
_LEADERS = re.compile(r"(?:\. ){3,}\.$")
_INDENT = 80  # columns of white space before a line's first mark
#: Measures before what they measure, which lists write without capitals: "1/2 tsp. cinnamon".
_MEASURE = re.compile(
    r"\b(?:tb?sps?|ozs?|lbs?|pkgs?|pkts?|pts?|qts?|approx|ca|el|tl|msp|pck|cd[lt]?as?|szt|geh|gem|ger|min|pers|env|łyż"
    r"|c|c\. ?à ?[sc]|cuill?|cucch|stk)\Z"
)
_MARKER = re.compile(r"\s*(?:\d{1,2}[ \t]+(?=[QA]))?\(?(?:\d{1,3}(?:\.\d{1,3}){0,4}|[A-Za-z#]|[ivxIVX]{1,4})\)?\s*")

#: What a paragraph begins with to be called by: "Table 4. Heights of the tide", "3. UTILITIES. Tenant pays".
_CALLED = (
    "Table|Figure|Plate|Map|Chart|Exhibit|Box|Line|Item|Field|Row|Rule|Step|Part|Section|Chapter|Article|Clause|Schedule"
    "|Annex|Appendix|Note|Question|Problem|Exercise|Example|Theorem|Lemma|Definition|Proposition|Corollary|Remark"
    "|Abbildung|Tabelle|Zeile|Feld|Regel|Satz|Beispiel|Aufgabe|Frage|Anlage|Kapitel|Teil|Artikel|Tableau|Ligne|Case"
    "|Schritt|Krok|Paso|Passo|Stap|[ÉE]tape|Шаг|Règle|Exemple|Annexe|Chapitre|Figura|Tabla|Línea|Casilla|Regla|Ejemplo|Artículo|Capítulo|Tabella|Rigo|Regola"
    "|Esempio|Articolo|Capitolo|Tabel|Tabela|Rysunek|Rubryka|Таблица|Рисунок|Пример"
)
_CAPITALS = r"[^\W\d_a-zß-öø-ÿ]{1,20}"
_COUNTED = re.compile(
    rf"\s*(?:(?:{_CALLED}) \d{{1,3}}(?:[-.]\d{{1,3}}){{0,3}}[a-z]?"
    rf"|(?:§ ?)?\d{{1,3}}(?:\.\d{{1,3}}){{0,3}}[.)]?[ \t]{{1,4}}(?=\w\w){_CAPITALS}"
    rf"(?:[ ,&/-]{{1,3}}{_CAPITALS}){{0,5}})"
)

# Where sentencex's English rules err: abbreviations they miss, and words and units they take for one.
_NEVER_LAST = re.compile(r"(?:e\.g|i\.e|vs|cf|viz|incl|approx|esp)", re.IGNORECASE)
_BEFORE_NUMBER = re.compile(
    r"(?:app|art|chap|ch|eqn|eqs?|ex|figs|lib|mon|nr|para|pt|refs|ser|suppl?|tab|thu|tue|ver|vols?)", re.IGNORECASE
)
_ORDINARY = re.compile(r"(?:art|hr|ill|lb|[Mm]ay|me|min|miss|[Mm]m|mph|[Nn]o|OK|ok|ore|oz|pH|sec|sq|yd)")
_SCRIPTS = (
    (0x0370, 0x03FF, ("el",)),
    (0x0400, 0x052F, ("ru", "uk", "bg", "sr", "mk", "kk")),
    (0x0530, 0x058F, ("hy",)),
    (0x0590, 0x05FF, ("he",)),
    (0x0600, 0x06FF, ("ar", "fa", "ur")),
    (0x0900, 0x097F, ("hi", "mr", "ne")),
    (0x0980, 0x09FF, ("bn",)),
    (0x0A80, 0x0AFF, ("gu",)),
    (0x0B80, 0x0BFF, ("ta",)),
    (0x0C00, 0x0C7F, ("te",)),
    (0x0C80, 0x0CFF, ("kn",)),
    (0x0D00, 0x0D7F, ("ml",)),
)


@dataclass(frozen=True, slots=True)
class Prose:
    """Running text to find sentence ends in: `text[start:end]`, free of lone surrogates.

    language: ISO 639 code, "" where it is not known.
    """

    text: str
    start: int
    end: int
    language: str


def sentence_ends(prose: Prose) -> Iterator[int]:
    """Offsets after the sentences of `prose`, closing quotes and brackets included; the end of the text is none.

    Short bracketed or quoted text is not divided: `whole_until` is where the last one closes.
    """
    text, end = prose.text, prose.end
    caseless = text[prose.start : end].islower()
    last, whole_until, quoted = prose.start, prose.start, False
    events = _GREEK_EVENT if prose.language == "el" else _EVENT
    for event in events.finditer(text, prose.start, end):
        first, more, closers = event.groups()
        if more is None:
            if first == '"':
                quoted = _opens_quote(text, event.start(), end, quoted)
            if quoted if first == '"' else first not in _TURNED or _opens(text, event.start(), end):
                limit = min(end, event.end() + _PAIR_LIMIT)
                whole_until = max(whole_until, _closed(text, first, event.end(), limit))
            continue
        stop = event.end()
        if (first + more)[-1] in _FULL and (opener := closers.find("“")) >= 0:  # 。“ opens what is said next
            stop, closers = event.start(3) + opener, closers[:opener]
        quoted = quoted and '"' not in closers
        while (loose := _LOOSE_CLOSER.match(text, stop, end)) and (loose[1] != '"' or quoted):
            quoted = quoted and loose[1] != '"'
            stop = loose.end()
        if not text.isascii() and (signs := _SIGNS.match(text, stop, end)):
            stop = signs.start() + len(signs[0].rstrip())
        if stop >= whole_until and _ends(prose, last, event, stop, caseless):
            yield stop
            last = stop


_TURNED = frozenset("“«»")  # open in one language and close in another


def _opens(text: str, position: int, end: int) -> bool:
    """Whether a quotation mark that may also close opens: blanks or an edge before it, or a word after it."""
    if _before_is_open(text, position):
        return text[position] != "»" or (position + 1 < end and not text[position + 1].isspace())
    return position + 1 < end and text[position + 1].isalnum() and text[position] != "»"


def _before_is_open(text: str, position: int) -> bool:
    return position == 0 or text[position - 1].isspace() or text[position - 1] in "([-–—:'’"


def _closed(text: str, opener: str, start: int, limit: int) -> int:
    """Offset after the nearest mark that closes `opener`; 0 when there is none before `limit`."""
    marks = _PAIRS[opener]
    if len(marks) == 1:
        return text.find(marks, start, limit) + 1
    return min((place + 1 for mark in marks if (place := text.find(mark, start, limit)) >= 0), default=0)


def _opens_quote(text: str, position: int, end: int, quoted: bool) -> bool:
    """Whether a straight quote at `position` opens: by the blanks around it, else (none or two) by turns."""
    before = position == 0 or text[position - 1].isspace() or text[position - 1] in "([-–—"
    after = position + 1 >= end or text[position + 1].isspace()
    return not quoted if before == after else before


def _ends(prose: Prose, last: int, event: re.Match[str], stop: int, caseless: bool) -> bool:
    """Whether the full stop (or the like) of `event` ends a sentence that began at `last`."""
    text, place = prose.text, event.start()
    following = _NEXT.match(text, stop, prose.end)
    if following is None or following[2] in _MARKS:
        return False
    gap, word = following.groups()
    mark = event[1] + event[2]
    numbered = mark == "．" and not gap and place > last and text[place - 1].isdigit()
    if numbered and (word[0].isdigit() or _MARKER.fullmatch(text, last, place)):
        return False  # "1．" of an enumeration, "3．5"
    if mark[-1] in _STRONG:
        return gap != "" or stop == event.end(2) or word[0] not in "とっ"  # 「…。」と goes on
    if not gap and not _lacks_blank(prose, place, stop, word):
        return HAN_CHARACTER.match(text, stop) is not None and HAN_CHARACTER.match(text, place - 1) is not None
    if word[0].islower() and not caseless:
        return False
    if caseless and mark == "." and _MEASURE.search(text[max(last, place - 10) : place]):
        return False
    begin = _behind_tag(text, last, place)
    if place - begin < 12 and _MARKER.fullmatch(text, begin, place):
        return False  # "1." of an enumeration
    if last == prose.start and event[1] == "." and is_part(text, last, place):
        return False  # "HAMLET. To be"
    begins = last == prose.start or begin > last
    if begins and mark == "." and "\n" not in gap and _COUNTED.fullmatch(text, begin, place):
        return False
    if mark == "." and text.startswith(" ./", place - 3):
        return False  # the parties of a case: "Holm ./. Berg"
    if mark == "." and _is_late_year(prose, last, place, word):
        return True
    line = text[max(prose.start, place - _INDENT) : place].rstrip(" \t>")
    if not line or line[-1] == "\n" or (text[place - 1].isspace() and following[2][0] in "/\\-~"):
        return False  # ".. note" of reStructuredText, "cp . /tmp"
    if word[0].isdigit() and (len(mark) > 4 or _LEADERS.search(text, max(last, place - 12), place + 1)):
        return False  # "Chapter 3 ........ 17"
    if mark in ("...", "…") and _is_argument(text, last, place, word):
        return False
    if mark not in (".", "!"):
        return True
    return not _abbreviated(prose, place, mark, word.capitalize() if caseless else word)


def _lacks_blank(prose: Prose, place: int, stop: int, word: str) -> bool:
    """Whether somebody has left out the blank: "It is closed.The ferry", where no name goes on with such a word."""
    token = prose.text[max(prose.start, place - 24) : place].split()[-1:]
    if not word[0].isupper() or word.lower() not in function_words(prose.language):
        return False
    is_word = bool(token) and len(token[0]) > 1 and token[0].isalpha() and token[0].islower()
    return is_word and prose.text[stop + len(word) : stop + len(word) + 1].isspace()


def _behind_tag(text: str, start: int, end: int) -> int:
    """Where text[start:end] begins behind the last tag of HTML in it, if that ends within a dozen characters."""
    last = text.rfind(">", max(start, end - 12), end)
    opened = text.rfind("<", max(start, last - 300), last) if last >= 0 else -1
    return last + 1 if opened >= 0 and (text[opened + 1].isalpha() or text[opened + 1] == "/") else start


def _is_late_year(prose: Prose, last: int, place: int, word: str) -> bool:
    """Whether "2024 r." or "2024 г." ends a sentence: late in it, before a capital that names no law."""
    if prose.language not in ("pl", "ru", "uk") or place - last < _LATE or not word[0].isupper() or word.isupper():
        return False
    return _YEAR.search(prose.text, last, place) is not None and word not in ("Nr", "Prawo", "Kodeks", "Ordynacja")


def _is_argument(text: str, last: int, place: int, word: str) -> bool:
    """Whether the dots say that an argument of a command may come again: "[FILE]... TARGET"."""
    before = text[max(last, place - _INDENT) : place]
    name = _ARGUMENT.search(before)
    return name is not None and (word.isupper() or name[0][-1] in "])>")


def _abbreviated(prose: Prose, place: int, mark: str, word: str) -> bool:
    """Whether the mark at `place` belongs to an abbreviation, an initial or a name ("Yahoo!") before `word`.

    sentencex sees a few words around the mark only. On whole paragraphs it costs more than linear time and lets one
    unpaired quote or bracket swallow what follows.
    """
    before = prose.text[max(prose.start, place - 24) : place].rstrip()  # "U.S ." of tokenised text reads as "U.S."
    before = before[max(before.rfind(">"), before.rfind("{")) + 1 :].replace("-", " ")  # "<b>Mr", "{M.", "non-U.S."
    token = before[max(before.rfind(" "), before.rfind("\n")) + 1 :].strip("\"'“‘([{")
    language = _language(before, prose.language)
    if mark == "!" and language not in ("en", ""):
        return False
    if _INITIAL.fullmatch(token):
        return not (token.islower() and word.lower() in function_words(language))
    if _INDIC.fullmatch(token) and "।" in prose.text[max(prose.start, place - 500) : place + 500]:
        return True
    if token.isdigit() and _LISTED.search(before) and _counts_on(prose, place, int(token)):
        return True
    if language == "ko" and _KOREAN_DATE.search(before):
        return word[0].isdigit() or len(word) < 3  # a particle follows the day
    if token in ("No", "Nos", "Nr") and not word.isalpha() and word.upper() == word:
        return True  # "No. K2QZ11"
    if (
        mark == "."
        and (ruled := is_abbreviation(before, word, prose.text[place + 1 : place + 40], language)) is not None
    ):
        return ruled
    if (language != "en" and len(token) > 1 and token.lower() in function_words(language)) or _HANGUL.search(token):
        return False
    if language in ("en", ""):
        if _NEVER_LAST.fullmatch(token) or (word[0].isdigit() and _BEFORE_NUMBER.fullmatch(token)):
            return True
        if mark == "." and _MEASURED.search(before):
            return False
        if _HOUR.search(before) and _WEEKDAY.fullmatch(word):
            return True
        if not word[0].isdigit() and _ORDINARY.fullmatch(token):
            return False
        if len(token) > 1 and token.isalpha() and token.isupper() and not word.isupper():
            return False  # "in DC. Later": as an abbreviation it would be "D.C."
    if number := _ITEM_NUMBER.match(before):  # sentencex takes what follows "(1)" for one sentence
        before = before[number.end() :]
    sentences: list[str] = sentencex.segment(language or "en", f"{before}{mark} {word}")
    return sentences[-1] != word


def _counts_on(prose: Prose, place: int, number: int) -> bool:
    """Whether the number before `place` is one of several in a sentence, "1. this; 2. that", and of no street."""
    near = prose.text[max(prose.start, place - _PAIR_LIMIT) : min(prose.end, place + _PAIR_LIMIT)]
    return any(re.search(rf"(?<!\w){other}\.", near) for other in (number - 1, number + 1))


def _language(before: str, language: str) -> str:
    """The language whose abbreviations to know: by the script of the last letter where the text's has another."""
    if before.isascii():
        return language
    letter = next((ord(character) for character in reversed(before) if character.isalpha()), 0)
    written = next((codes for low, high, codes in _SCRIPTS if low <= letter <= high), ())
    return language if not written or language in written else written[0]


#: What `split_sentences` can be told to take for a unit.
UnitKind = Literal["auto", "sentences", "lines", "records", "paragraphs"]

_RUNNING = ("plain", "item", "turn", "verse")  # what plain lines continue
#: Characters from which a record is divided into its sentences: a long message, not a line of a log.
LONG_RECORD = 600
_TALK = re.compile(r"(?:[^\W\d_]{1,20}[,;:]? ){8}")


class Block(NamedTuple):
    """`text[start:end]`, up to the next block. divisible: running text, in which sentences end."""

    start: int
    end: int
    divisible: bool
    kind: Kind


def blocks(text: str, units: UnitKind = "auto") -> Iterator[Block]:
    """The blocks of `text`: in order, each up to the next, together the whole text.

    Divisible blocks are running text: lines of prose until a blank line, a list item or a speaker turn with the lines
    that continue it, a long record. The others are one unit each: a heading, a table row, a record, a fenced code
    block. units: "auto" looks for records and tables by their shape, the others are as their names say.
    """
    lines, kinds = layout(text, shapes=units in ("auto", "records"))
    if units == "records":
        force_records(lines, kinds)
    opened, previous = 0, kinds[0] if kinds else "blank"
    for place in range(1, len(lines)):
        if _opens_block(lines, kinds, place, previous, units):
            yield _block(text, lines[opened].start, lines[place].start, kinds[opened], units)
            opened = place
        if kinds[place] not in ("page", "more"):
            previous = kinds[place]
    if lines:
        yield _block(text, lines[opened].start, lines[-1].end, kinds[opened], units)


def _block(text: str, start: int, end: int, kind: Kind, units: UnitKind) -> Block:
    running = kind in _RUNNING or kind in ("page", "blank")
    if kind in ("record", "row") and end - start > LONG_RECORD:
        running = text[start] not in "{[" and _TALK.search(text, start, end) is not None
    return Block(start, end, running and units in ("auto", "sentences"), kind)


def _opens_block(lines: Sequence[Line], kinds: Sequence[Kind], place: int, previous: Kind, units: UnitKind) -> bool:
    """Whether a line begins a block of its own."""
    kind = kinds[place]
    if kind in ("blank", "page", "more", "code"):
        return False
    if kind == "fence" or units == "lines":
        return True
    if units == "paragraphs":
        return previous in ("blank", "code", "fence")
    if kind == "plain":
        return previous not in _RUNNING or lines[place].quote != lines[place - 1].quote
    return kind != "under" or previous not in ("plain", "row", "header", "verse")
