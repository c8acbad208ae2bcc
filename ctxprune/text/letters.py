"""Find the parts of letters that are read as one: address blocks, subjects, closing formulas and signatures."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ctxprune.text.lines import Kind, Line, paragraphs
from ctxprune.text.patterns import on_use
from ctxprune.types import Span

#: Formulas that close a letter, each all of its line.
_CLOSINGS = (
    # English; a word that says something elsewhere needs its comma
    r"(?:best|cheers|love|thanks|yours)(?: again)?,|(?:sincerely|faithfully|respectfully|cordially|regards|take care)"
    r"|yours? (?:very )?(?:sincerely|faithfully|truly|respectfully|ever)|(?:very )?(?:sincerely|truly) yours"
    r"|(?:with )?(?:best|kind|kindest|warm|warmest|many|my)(?: (?:best|kind|warm|personal))? (?:regards|wishes|thanks)"
    r"|all the best|(?:with )?(?:many )?thanks in advance|thank you(?: in advance)?"
    # German
    r"|(?:mit |viele |ganz )?(?:freundliche|beste|herzliche|liebe|viele|schöne|sonnige|kollegiale|sportliche)[nmrs]?"
    r" (?:gr(?:ü|ue)(?:ß|ss)en?|gru(?:ß|ss)|dank)(?: (?:aus|vom|von der) \w{1,30})?|hochachtungsvoll|mfg|[lv]g"
    # French
    r"|(?:(?:bien|très) )?(?:cordialement|amicalement|sincèrement)(?: vôtre)?|respectueusement|bien à (?:vous|toi)"
    r"|(?:(?:sincères|meilleures|cordiales) )?salutations(?: (?:distinguées|cordiales|respectueuses))?"
    r"|(?:(?:(?:je|nous) vous|(?:vous )?pri|veuillez|recevez|dans l['’]attente)[^.\n]{0,90})"
    r"(?:agréer|recevoir|recevez|croire|accepter|expression|assurance)[^.\n]{0,90}"
    r"(?:salutations|sentiments|considération)[^.\n]{0,40}"
    # Spanish and Portuguese
    r"|(?:muy )?atentamente|(?:un |con un )?(?:(?:cordial|atento|afectuoso) )?(?:saludos?|abrazos?)"
    r"(?: (?:cordial(?:es)?|atentos?|afectuosos?))?|(?:les?|te|os) (?:saluda(?:mos)?|envía(?:mos)?)[^.\n]{0,40}"
    r"|atenciosamente|(?:com os )?(?:melhores )?(?:cumprimentos|saudações)(?: cordiais)?|(?:um )?abraços?"
    # Italian
    r"|(?:(?:in attesa di|restando|nel|le|vi|con)[^.\n]{0,70})?"
    r"(?:porg\w{1,5} |i )?(?:più )?(?:distinti|cordiali|cari|migliori) saluti|cordialmente"
    # Dutch, Scandinavian and Finnish
    r"|(?:met )?(?:vriendelijke|hartelijke|beste) groet(?:en)?|hoogachtend|groet(?:en|jes)|(?:med )?venn?lig hilsen|mvh"
    r"|(?:med )?vänliga? hälsning(?:ar)?|(?:ystävällisin )?terveisin"
    # Polish, Czech, Hungarian, Romanian, Turkish
    r"|z (?:poważaniem|wyrazami szacunku|pozdrowieniami)|(?:serdecznie )?pozdrawiam|łączę (?:wyrazy|pozdr)[^.\n]{0,40}"
    r"|s (?:pozdravem|úctou)|se srdečným pozdravem|tisztelettel|üdvözlettel|cu (?:stimă|respect)"
    r"|saygılar(?:ım(?:ız)?la)?|(?:en iyi )?dileklerim(?:iz)?le"
    # Russian, Ukrainian, Greek
    r"|с (?:глубоким )?уважением|с наилучшими пожеланиями|искренне ваша?|з повагою|με (?:εκτίμηση|τιμή)"
    # Arabic, Hebrew, Hindi
    r"|(?:و?تفضلوا بقبول|و?تقبلوا|مع)[^.\n]{0,40}(?:التحيات?|الاحترام|التقدير)|בברכה|בכבוד רב|भवदीया?|सादर"
    # Vietnamese, Indonesian, Thai, Lao, Khmer, Burmese
    r"|trân trọng|kính thư|thân ái|hormat (?:kami|saya)"
    r"|(?:ขอแสดงความนับถือ|ด้วยความ(?:เคารพ|นับถือ))(?:อย่างยิ่ง)?"
    r"|ດ້ວຍຄວາມ(?:ເຄົາລົບ)?ນັບຖື|ដោយ(?:ក្តី)?គោរព|လေးစားစွာဖြင့်"
    # Chinese, Japanese, Korean
    r"|此致|敬礼|此致\s*敬礼|顺颂\s*[商时]祺|祝好|敬具|敬白|草々|かしこ|감사합니다|(?:삼가 )?올림"
)
_CLOSING = on_use(rf"(?:{_CLOSINGS})\s?[,.!，。！]?", re.IGNORECASE)
#: Sentences that say no more than a formula does, and greetings that name nobody.
_EMPTY_WORDS = on_use(
    r"(?:we |i )?(?:very much )?look(?:ing)? forward to (?:hearing from you|your (?:reply|answer|response))"
    r"[^.\n]{0,20}[.,!]|to whom it may concern[,:.]?|dear (?:sirs?|madam)(?: ?(?:or|and|/) ?(?:sirs?|madam))?[,:]?"
    r"|sehr geehrte damen und herren[,!]?|in erwartung ihrer (?:antwort|rückmeldung)[^.\n]{0,20}"
    r"|madame, monsieur[,.]?|mesdames, messieurs[,.]?|dans l['’]attente de votre réponse[,.]?"
    r"|(?:estimados |muy )?señores(?: míos| nuestros)?[:,]|(?:quedo|quedamos) a la espera de (?:su|tu) respuesta[,.]?"
    r"|egregi signori[,:]?|geachte (?:(?:heer|mevrouw)(?: of | ?/ ?)(?:heer|mevrouw)|dames en heren),?"
    r"|szanowni państwo[,!]?|您好[！!，,。]?|拝啓",
    re.IGNORECASE,
)
_LONGEST_FORMULA = 240  # characters
#: What a letter's greeting begins with.
_GREETING = on_use(
    r"(?:dear|hi|hello|good (?:morning|afternoon|evening)|to whom it|sehr geehrte|liebe|hallo|guten (?:tag|morgen)"
    r"|bonjour|madame|monsieur|mesdames|chers?\b|chères?\b|estimad|querid|hola|muy señor|prezad|car[oaie]\b|gentil"
    r"|egregi|spettabil|beste|geachte|szanown|drog[ia]|уважаем|дорог|шановн|kære|kjære|bästa|hyvä|sayın|αγαπητ|αξιότιμ"
    r"|tisztelt|kedves|stimat|vážen|kính gửi|yth\.?|尊敬的|亲爱的|เรียน\s)[^.!?\n]{0,70}[,:!：，]?$",
    re.IGNORECASE,
)
_NUMBER_FIRST = r"\d{1,5}\s?[A-Za-z]?(?:[-–/]\d{1,5})?(?: (?:bis|ter))?,? [^\W\d_][^\d\n]{2,50}"
_NUMBER_LAST = (
    r"(?:[^\W\d_]{1,8}\.? )?[^\W\d_a-z][^\d\n]{2,45}?,? (?:n[.º°]+ ?|д\. ?)?"
    r"\d{1,5}\s?[A-Za-z]?(?:\s?[-–/]\s?\d{1,5}[A-Za-z]?)?"
    r"|(?i:p\.? ?o\.? box|postfach|bp|apartado(?: de correos)?|casella postale|postbus|skr\. poczt\.) [\d ]{1,10}"
)
_FRENCH = (
    r"\d{1,4}(?: ?(?:bis|ter|[A-D]))?,? (?i:rue|avenue|av\.|boulevard|bd|place|impasse|chemin|allées?|quai|route|cours"
    r"|square|passage|cité|sentier|faubourg|esplanade|hameau|lieu-dit) [^\d\n]{2,50}"
)
#: The line of the place, and that of the street above it: a country that writes the postcode before the place has the
#: number of the house behind the street, or is France. Counts of things, "40 trains" over "1200 Seats", are neither.
_ADDRESSES = (
    (
        re.compile(
            r"(?:(?:[A-Z]{1,3}[- –])?\d{4,5}(?:-\d{3})?(?: ?[A-Z]{2})?|\d{3} \d{2}|\d{2}-\d{3})[ \t]+"
            r"[^\W\d_a-z][^\d\n]{1,40}"
        ),
        re.compile(rf"{_NUMBER_LAST}|{_FRENCH}"),
    ),
    (
        re.compile(
            r"(?:[^\W\d_][^\d\n]{1,40}[ ,]+)?"
            r"(?:[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}|[A-Z]{2},? \d{5}(?:-\d{4})?|(?:[A-Z]{2},? )?[A-Z]\d[A-Z] \d[A-Z]\d)"
            r"|[^\W\d_a-z][^\d\n]{1,40}(?:,| [-–]) \d{5,6}|〒\s?\d{3}-\d{4}.{0,40}"
        ),
        re.compile(rf"{_NUMBER_FIRST}|{_NUMBER_LAST}"),
    ),
)
_SENTENCE = re.compile(r"(?:\S+\s+){5,}\S*[.!?]\W{0,2}$")
#: What stands below a signature and is none of it: postscripts, and lists of what is enclosed.
_NOTE = r"p\.? ?s\b|n\.? ?b\b"
_POSTSCRIPT = re.compile(
    rf"\W{{0,2}}(?:{_NOTE}|encl?\b|enclos|anlage|p\.? ?j\b|pièce|adj|anexo|allegat|bijlage|załącznik)",
    re.IGNORECASE,
)
_NOT_A_SUBJECT = re.compile(r"[^\W\d_]+: |\d{4}|[@|<>\[\]{}=#*]|[.,;:!。，：]\W*$")
_NOT_BELOW_NAME = re.compile(rf"\W{{0,2}}(?:{_NOTE})|>", re.IGNORECASE)
#: A line of place and date, or of a date alone.
_DATED = re.compile(r"(?=[^\n]{4,40}$)[^\n]*(?:\b(?:19|20)\d\d\b|\d[./]\d\d$|[年년])[^\n]{0,12}")
_FREE = ("plain", "turn", "item", "verse")
_LONGEST_LINE = 64  # characters of a line of an address or a signature
_MOST_LINES = 9  # of either
_BLANKS = 5  # lines at most that leave room to sign by hand
_BELOW_STREET = 2  # lines from the street's to the place's at most
_BELOW_PLACE = 4  # lines of an address below the place: country, telephone and the like
_SUBJECT = (10, 120)  # characters


def says_only_formula(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] closes a letter on lines of its own, or opens one without a name, and says no more."""
    if end - start > _LONGEST_FORMULA:
        return False
    if _EMPTY_WORDS.fullmatch(text, start, end):
        return True
    return closes_letter(text, start, end) and _is_alone(text, start, end)


def closes_letter(text: str, start: int, end: int) -> bool:
    """Whether text[start:end] is a closing formula, as "Yours sincerely," is."""
    return end - start <= _LONGEST_FORMULA and _CLOSING.fullmatch(text, start, end) is not None


def greets(text: str) -> bool:
    """Whether a text is a greeting, be it by name: "Dear Ms Bell,"."""
    return len(text) <= _LONGEST_LINE and _GREETING.match(text) is not None


def frames(text: str, units: Sequence[Span]) -> list[bool]:
    """For each unit, whether it stands around a letter: addresses and date above the greeting, and what stands right
    below the closing formula but postscripts. False for all where there is no greeting or no closing after it."""
    texts = [text[unit.start : unit.end].strip() for unit in units]
    greeting = next((at for at, each in enumerate(texts) if greets(each)), len(texts))
    below = range(greeting + 1, len(texts))
    closing = next((at for at in below if closes_letter(texts[at], 0, len(texts[at]))), None)
    framing = [False] * len(texts)
    if closing is not None:
        framing[:greeting] = map(_heads_letter, texts[:greeting])
        for at in range(closing + 1, len(texts)):
            if not _ends_letter(texts[at]):
                break
            framing[at] = True
    return framing


def _heads_letter(text: str) -> bool:
    return _DATED.fullmatch(text) is not None or _street_in(text.split("\n")) is not None


def _ends_letter(text: str) -> bool:
    lines = text.split("\n")
    return len(lines) <= _MOST_LINES and not _NOT_BELOW_NAME.match(text) and all(map(_may_be_of_block, lines))


def _is_alone(text: str, start: int, end: int) -> bool:
    before, after = text[max(0, start - 40) : start], text[end : end + 40]
    return not before[before.rfind("\n") + 1 :].strip(" \t>") and not after.split("\n", 1)[0].strip()


def mark_letters(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Write "record" and "more" for address blocks, closings and signatures, "heading" for subjects by a greeting."""
    some = list(paragraphs(kinds))
    for number, paragraph in enumerate(some):
        if (closing := _closing_in(lines, kinds, paragraph)) is not None:
            _mark_block(kinds, closing)
            _mark_signature(lines, kinds, closing.stop, paragraph, some[number + 1 : number + 2])
        elif (address := _address_in(lines, kinds, paragraph)) is not None:
            _mark_block(kinds, address)
        elif _greets(lines, kinds, paragraph):
            for beside in (*some[max(0, number - 1) : number], *some[number + 1 : number + 2]):
                _mark_subject(lines, kinds, beside)


def _mark_block(kinds: list[Kind], places: range) -> None:
    for place in places:
        kinds[place] = "record" if place == places.start else "more"


def _bare(line: Line) -> str:
    return line.text.strip("> \t\f\u3000")


def _closing_in(lines: Sequence[Line], kinds: Sequence[Kind], paragraph: range) -> range | None:
    """The lines of the first closing in a paragraph."""
    for place in paragraph:
        if kinds[place] in _FREE and _is_closing(lines[place]):
            end = place + 1
            while end < paragraph.stop and kinds[end] in _FREE and _is_closing(lines[end]):
                end += 1
            return range(place, end)
    return None


def _is_closing(line: Line) -> bool:
    return len(line.text) <= _LONGEST_FORMULA and _CLOSING.fullmatch(_bare(line)) is not None


def _mark_signature(
    lines: Sequence[Line], kinds: list[Kind], start: int, paragraph: range, below: Sequence[range]
) -> None:
    """Make one block of the short lines right below a closing, or of those that a few blank lines part from it; the
    address under the name is another."""
    places = range(start, paragraph.stop)
    if not places and below and below[0].start - start <= _BLANKS:
        places = below[0]
    if not places or kinds[places.start] not in _FREE or _POSTSCRIPT.match(_bare(lines[places.start])):
        return
    end = places.start
    while end < places.stop and kinds[end] in _FREE and not _POSTSCRIPT.match(_bare(lines[end])):
        end += 1
    texts = [_bare(line) for line in lines[places.start : end]]
    if len(texts) <= _MOST_LINES and all(map(_may_be_of_block, texts)):
        _mark_block(kinds, range(places.start, end))
        if street := _street_in(texts):  # below the name
            kinds[places.start + street] = "record"


def _may_be_of_block(text: str) -> bool:
    return len(text) <= _LONGEST_LINE and not _SENTENCE.search(text)


def _address_in(lines: Sequence[Line], kinds: Sequence[Kind], paragraph: range) -> range | None:
    """The lines of a paragraph that is one address, without a line with a colon that introduces it."""
    first = paragraph.start + (_bare(lines[paragraph.start])[-1:] in (":", "："))
    places = range(first, paragraph.stop)
    if not 2 <= len(places) <= _MOST_LINES or any(kinds[place] not in _FREE for place in places):
        return None
    texts = [_bare(lines[place]) for place in places]
    return places if all(map(_may_be_of_block, texts)) and _street_in(texts) is not None else None


def _street_in(texts: Sequence[str]) -> int | None:
    """Which line of a block names the street: the one above the place, if that is the only place of the block."""
    for place, street in _ADDRESSES:
        towns = [at for at, text in enumerate(texts) if place.fullmatch(text)]
        if len(towns) == 1 and len(texts) - towns[0] - 1 <= _BELOW_PLACE:
            near = range(max(0, towns[0] - _BELOW_STREET), towns[0])
            if (found := next((at for at in near if street.fullmatch(texts[at])), None)) is not None:
                return found
    return None


def _greets(lines: Sequence[Line], kinds: Sequence[Kind], paragraph: range) -> bool:
    first = paragraph.start
    return len(paragraph) == 1 and kinds[first] in ("plain", "turn") and greets(_bare(lines[first]))


def _mark_subject(lines: Sequence[Line], kinds: list[Kind], paragraph: range) -> None:
    """Make a heading of the line alone that says what the letter is about."""
    place, text = paragraph.start, _bare(lines[paragraph.start])
    shortest, longest = _SUBJECT
    if len(paragraph) > 1 or kinds[place] != "plain" or not shortest <= len(text) <= longest:
        return
    if text[0].isalpha() and not text[0].islower() and not _NOT_A_SUBJECT.search(text):
        kinds[place] = "heading"
