"""Find the controls of web pages in their text: banners about cookies, buttons, share bars, menus and contents.

What reads pages for a retriever often leaves them in, as lines of their own: "Skip to main content", "Accept all",
"Share this Facebook Twitter". They answer nothing, but stand beside the title and score with it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import Literal

from ctxprune.text.lines import Kind, Line
from ctxprune.text.patterns import on_use
from ctxprune.types import Span

_Label = Literal["button", "consent", "skip", "share", "place", "word", ""]

_CONSENT = (
    r"(?:accept|allow|reject|decline|refuse)(?: all)?(?: cookies)|(?:accept|allow|reject|decline|refuse) all"
    r"|reject non-essential|(?:only|strictly) necessary(?: cookies| only)?|(?:manage|cookie) (?:preferences|settings)"
    r"|alle(?: cookies)? (?:akzeptieren|ablehnen|zulassen)|nur notwendige(?: cookies)?|cookie-einstellungen"
    r"|tout (?:accepter|refuser)|accepter tout|continuer sans accepter|gérer (?:les cookies|mes préférences)"
    r"|(?:aceptar|rechazar) (?:todo|todas|cookies)|configurar cookies|(?:accetta|rifiuta) tutt[oi]"
    r"|alle(?:s| cookies)? (?:accepteren|weigeren)|(?:aceitar|rejeitar|recusar) tudo|(?:za|od)akceptuj wszystkie"
)
_SKIP = (
    r"(?:skip|jump) to (?:main |the )?(?:content|navigation)|(?:direkt )?zum (?:haupt)?inhalt(?: springen)?"
    r"|aller au contenu(?: principal)?|(?:saltar|ir) al contenido(?: principal)?|(?:vai|salta) al contenuto"
    r"|(?:naar|ga naar) (?:de )?inhoud|ir para o conteúdo|przejdź do treści"
)
_BUTTONS = (
    r"(?:add|save) to (?:basket|cart|bag|wish ?list|calendar|favou?rites)|back to top|(?:load|show) more(?: comments)?"
    r"|(?:report|flag) (?:post|comment|review|abuse)|leave a (?:reply|comment)"
    r"|jump to recipe|print (?:recipe|this page)"
    r"|edit (?:this page|on github)(?: on git(?:hub|lab))?|toggle (?:navigation|menu)|copy link|apply now|save job"
    r"|get directions"
    r"|was this (?:page|article|answer|review|post|content)? ?helpful\??|yes(?: \(\d+\))?[ /|]+no(?: \(\d+\))?"
    r"|in den warenkorb|(?:nach|zurück nach) oben|beitrag melden|mehr anzeigen|jetzt bewerben"
    r"|war (?:diese seite|dieser artikel|das) hilfreich\??|ajouter au panier|haut de page|retour en haut|voir plus"
    r"|añadir (?:al carrito|a la cesta)|volver arriba|ver más|aggiungi al carrello|torna su|in winkelwagen"
)
_SHARE = (
    r"share(?: this(?: \w{3,8})?| on)?|(?:seite |artikel )?teilen|partager|compartir|condividi|delen|partilhar"
    r"|udostępnij"
)
_PLACES = (
    r"facebook|twitter|x|whats ?app|linkedin|pinterest|reddit|telegram|xing|tumblr|flipboard|e-?mail|mail|print"
    r"|copy link|drucken|link kopieren|imprimer|imprimir|stampa|messenger|threads|mastodon|bluesky"
)
#: Words that say something else elsewhere, so that one alone is left in peace.
_WORDS = (
    r"reply|report|quote|search|menu|close|log ?in|sign (?:in|up)|register|subscribe|read more|like|follow|cancel"
    r"|settings|preferences|einstellungen|paramètres|ajustes"
    r"|antworten|zitieren|melden|suchen?|menü|anmelden|registrieren|abonnieren|weiterlesen|répondre|signaler|citer"
    r"|rechercher|se connecter|s['’]inscrire|lire la suite|responder|denunciar|buscar|iniciar sesión|leer más"
    r"|rispondi|segnala|cerca|accedi|reageren|zoeken|inloggen|responder|pesquisar|odpowiedz|szukaj|zaloguj"
)
_NAMES: tuple[tuple[_Label, str], ...] = (
    ("consent", _CONSENT),
    ("skip", _SKIP),
    ("button", _BUTTONS),
    ("share", _SHARE),
    ("place", _PLACES),
    ("word", _WORDS),
)
_ONE = on_use(
    "|".join(rf"(?P<{name}>(?:{words}))" for name, words in _NAMES).join(
        [r"(?:", r")(?=[\s|/·•,:]|(?-i:[A-Z])|\Z)[\s|/·•,:]*"]
    ),
    re.IGNORECASE,
)
_LINK = re.compile(r"!?\[([^\[\]]{0,100})\]\([^()]{0,300}\)")
_BULLET = re.compile(r"[-*+•]\s+")
_LONGEST_BAR = 200  # characters of several labels side by side
_COOKIE = re.compile(r"\bcookies?\b", re.IGNORECASE)
#: A sentence that asks to agree, by the name of the button, and one that says why, as every page has it.
_AGREE = on_use(rf"[“\"'«„](?:{_CONSENT})[”\"'»“]", re.IGNORECASE)
_USES = re.compile(
    r"(?:(?:we|this (?:web)?site|our (?:web)?site)(?: and our partners)? uses? cookies"
    r"|wir (?:verwenden|nutzen|setzen) cookies|nous utilisons des cookies|(?:utilizamos|usamos) cookies"
    r"|utilizziamo (?:i )?cookie|wij gebruiken cookies)",
    re.IGNORECASE,
)
_NEAR = 4  # units between a banner's sentence and its buttons
_HEAD = 3  # units at the beginning of a document, where a banner stands that was cut from its buttons
_MENU_WORDS, _MENU_UNITS = 4, 40  # of an entry of the menu at the top, and entries
_ENTRY_END = re.compile(r"[\d.!?:]\W*\Z|\d")
#: What some readers of pages write above the text.
_READER = re.compile(r"(?:URL Source|Markdown Content|Published Time|Number of Pages|Warning):")
_READER_HEAD = re.compile(r"\s*Title: [^\n]{0,300}\s+URL Source: ")
#: What stands above a page's list of its own titles; some of these stand above other lists too.
_SURE_CONTENTS = frozenset(
    ["on this page", "in this article", "table of contents", "auf dieser seite", "inhaltsverzeichnis"]
)
_CONTENTS = _SURE_CONTENTS | {"contents", "inhalt", "sommaire", "table des matières", "índice", "contenido", "indice"}
_ENTRY_MARK = re.compile(r"\A[#\s>]*(?:[-*+•]\s+)?(?:\d{1,2}(?:\.\d{1,2}){0,3}\.?\s+)?|\s*\[(?:edit|Bearbeiten)\]\s*\Z")
_SIGN = r"\s*(?:[>›»/|·•]|\\?>)\s*"
_LINKED_TRAIL = re.compile(rf"(?:{_LINK.pattern}{_SIGN})+{_LINK.pattern}(?:{_SIGN})?")
_TRAIL = re.compile(r"[^\n.!?:>]{1,40}(?:\s[>›»]\s[^\n.!?:>]{1,60}){1,5}")


def mark_controls(lines: Sequence[Line], kinds: list[Kind]) -> None:
    """Write "furniture" for lines that are nothing but buttons and the like, and for what readers of pages write above
    the text: no sentence goes on over them, and nothing leans on them.
    """
    for place, line in enumerate(lines):
        if kinds[place] in ("plain", "turn", "row") and len(line.text) <= _LONGEST_BAR:
            some = _labels(line.text.strip())
            sure = not some.isdisjoint(("button", "consent", "skip", "share"))
            if sure or _LINKED_TRAIL.fullmatch(line.text.strip()):
                kinds[place] = "furniture"
    if lines and _READER_HEAD.match("\n".join(line.text for line in lines[:_HEAD])):
        for place in range(min(len(lines), 3 * _HEAD)):
            if place == 0 or _READER.match(lines[place].text):
                kinds[place] = "furniture"


def controls(text: str, units: Sequence[Span]) -> list[bool]:
    """For each unit, whether it is nothing but a control of a web page. Linear in the text's length."""
    quiet = [False] * len(units)
    labels = [_labels(text[unit.start : unit.end]) for unit in units]
    for run in _runs(labels):
        for at in _silenced(labels, run):
            quiet[at] = True
    several = (_banner(text, units, labels), _menu(text, units, labels), _trails(text, units), _contents(text, units))
    for at in chain.from_iterable(several):
        quiet[at] = True
    if _READER_HEAD.match(text):
        for at, unit in enumerate(units[: 2 * _NEAR]):
            quiet[at] = quiet[at] or at == 0 or _READER.match(text, unit.start, unit.end) is not None
    for at, some in enumerate(labels):  # "Search" beside a menu
        quiet[at] = quiet[at] or ("word" in some and [True] in (quiet[at - 1 : at], quiet[at + 1 : at + 2]))
    return quiet


def _labels(unit: str) -> frozenset[_Label]:
    """What kinds of labels a unit consists of; none where it says anything else."""
    if len(unit) > _LONGEST_BAR and "](" not in unit:
        return frozenset()
    plain = _BULLET.sub("", _LINK.sub(r"\1", unit), count=1).strip(" \t\n|·•,*_👍👎")
    if not plain or len(plain) > _LONGEST_BAR or plain[0].islower():
        return frozenset()
    some: list[_Label] = []
    place = 0
    while place < len(plain):
        label = _ONE.match(plain, place)
        if label is None:
            return frozenset()
        some.append(label.lastgroup or "")  # type: ignore[arg-type]  # the groups are named after labels
        place = label.end()
    if some.count("word") > 1:
        some.append("button")
    if "share" in some and some.count("place") > 1:
        some.append("button")
    return frozenset(some)


def _runs(labels: Sequence[frozenset[_Label]]) -> Iterator[range]:
    """Stretches of units that are labels."""
    edges = [-1, *(at for at, some in enumerate(labels) if not some), len(labels)]
    for left, right in pairwise(edges):
        if right - left > 1:
            yield range(left + 1, right)


def _silenced(labels: Sequence[frozenset[_Label]], run: range) -> Iterator[int]:
    """The units of a run that are controls: sure ones, what stands beside such, and the places where to share."""
    some = [each for at in run for each in labels[at]]
    shares = "share" in some and some.count("place") + some.count("button") > 1
    sure = shares or any(each in ("button", "consent", "skip") for each in some) or some.count("word") > 1
    for at in run:
        if (labels[at] - {"place"} and sure and (shares or labels[at] != {"share"})) or shares:
            yield at


def _banner(text: str, units: Sequence[Span], labels: Sequence[frozenset[_Label]]) -> Iterator[int]:
    """Sentences about cookies above their buttons, and at the beginning those that every page has."""
    if not _COOKIE.search(text):
        return
    spans = [(unit.start, unit.end) for unit in units]
    asking = {at for at, span in enumerate(spans) if _AGREE.search(text, *span)}
    buttons = {at for at, some in enumerate(labels) if "consent" in some}
    for at, span in enumerate(spans):
        below = range(at + 1, at + _NEAR + 1)
        near = not buttons.isdisjoint(below) or not asking.isdisjoint(below)
        if at in asking:
            near = not buttons.isdisjoint(below) or at < _HEAD
        elif at < _HEAD:
            near = near or _USES.search(text, *span) is not None
        if near and (at in asking or _COOKIE.search(text, *span)):
            yield at


def _menu(text: str, units: Sequence[Span], labels: Sequence[frozenset[_Label]]) -> Iterator[int]:
    """The names between a link that leads past the menu and what it leads to: a title, a sentence, a number."""
    for first, some in enumerate(labels):
        if "skip" not in some:
            continue
        title = text[: text.find("\n")].strip() if "\n" in text[:_LONGEST_BAR] else ""
        for at in range(first + 1, min(len(units), first + _MENU_UNITS)):
            entry = _BULLET.sub("", _LINK.sub(r"\1", text[units[at].start : units[at].end]), count=1).strip(" \n>›»/|")
            if entry.startswith("#") or len(entry.split()) > _MENU_WORDS or _ENTRY_END.search(entry):
                break
            if entry and title.startswith(entry):
                break
            yield at


def _trails(text: str, units: Sequence[Span]) -> Iterator[int]:
    """Trails of links, "[Docs](/docs) > [Keys](/keys)", and of names right above a title."""
    for at, unit in enumerate(units):
        titled = at + 1 < len(units) and text[units[at + 1].start] == "#"
        if (text[unit.start] == "[" and _LINKED_TRAIL.fullmatch(text, unit.start, unit.end)) or (
            titled and _TRAIL.fullmatch(text, unit.start, unit.end)
        ):
            yield at


def _contents(text: str, units: Sequence[Span]) -> Iterator[int]:
    """The entries of a page's list of its own titles, below "On this page" or so: they stand again over their text."""
    said = [" ".join(_ENTRY_MARK.sub("", text[unit.start : unit.end]).casefold().split()) for unit in units]
    times = Counter(said)
    for first, name in enumerate(said):
        if name.strip(" :*") not in _CONTENTS:
            continue
        sure = name.strip(" :*") in _SURE_CONTENTS
        for at in range(first + 1, len(units)):
            if len(said[at]) > _LONGEST_BAR or said[at][-1:] in (".", "!") or text[units[at].start] == "#":
                break
            if times[said[at]] < 2 and not (sure and text[units[at].start] in "-*+•"):
                break
            times[said[at]] -= 1  # the title itself is none of them
            yield at
