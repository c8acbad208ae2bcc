"""BM25 over the sentences of one context: words in, one score a sentence out, numpy only.

The formula is that of Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with
the never-negative idf of Lucene; document frequencies come from the units themselves.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial

import numpy as np
import numpy.typing as npt

from ctxprune.errors import InputError
from ctxprune.text.language import function_words, guess_language
from ctxprune.text.normal import readable
from ctxprune.text.patterns import on_use

#: Scripts written without spaces, and Hangul, whose particles stick to the word: indexed by character bigrams.
UNSPACED_SCRIPTS = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
)
#: Vowel signs and accents, which `\w` leaves out and which would cut Hindi or Arabic words into letters.
_MARKS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670"
    "\u06d6-\u06dc\u06df-\u06e4\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963\u0981-\u0983\u09bc-\u09cd\u0a01-\u0a03"
    "\u0a3c-\u0a4d\u0a70\u0a71\u0a81-\u0a83\u0abc-\u0acd\u0b01-\u0b03\u0b3c-\u0b57\u0b82\u0bbe-\u0bcd\u0c00-\u0c04"
    "\u0c3e-\u0c56\u0c81-\u0c83\u0cbc-\u0cd6\u0d00-\u0d03\u0d3b-\u0d4d\u0d81-\u0d83\u0dca-\u0df3\u200c\u200d"
)
FloatArray = npt.NDArray[np.float64]

#: Share of a query word's idf that a title holding it adds to every sentence of the document (see `bm25_scores`).
TITLE_WEIGHT = 0.3

_SPACED_WORD = on_use(rf"(?:[^\W_][{_MARKS}]*)+")
_ANY_WORD = on_use(rf"[{UNSPACED_SCRIPTS}]+|(?:(?![{UNSPACED_SCRIPTS}])[^\W_][{_MARKS}]*)+")
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_UNSPACED = on_use(rf"[{UNSPACED_SCRIPTS}]")

_STOP_WORDS = (
    "a about after all also am an and any are as at be because been before being both but by can could "
    "did do does doing during each for from further had has have having he her hers him his how i if in "
    "into is it its itself just me more most my no nor not of off on once only or other our out over own "
    "same she should so some such than that the their them then there these they this those through to "
    "too under until up us very was we were what when where which while who whom whose why will with "
    "would you your yours"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())


_SUFFIXES = (
    *("ational", "ization", "isation", "ations", "itions", "ation", "ition", "ments", "ities", "izing", "ising"),
    *("ness", "ment", "ions", "ally", "ance", "ence", "able", "ible", "ists", "ical", "less", "ized", "ised"),
    *("ity", "ion", "ive", "ers", "ors", "ant", "ent", "ism", "ist", "ful", "ous", "ize", "ise"),
    *("al", "er", "or", "ic"),
)
_VOWELS = frozenset("aeiouy")

#: Changes when terms do, so that a saved index of other terms is made anew.
TERMS_VERSION = 2

# Inflection that other languages than English put at the end of a word, accents off; the longest is tried first.
_ENDINGS = {
    "de": "ungen eten etes eter etem ete ern ung em en er es et e s n",
    "fr": "issements issement ements ement euses euse eaux eux aux ions ees ent ant ee es er ez ir e s x",
    "es": (
        "amientos amiento aciones acion mente ando iendo ados adas idos idas aron ieron ado ada ido ida ar er ir es "
        "os as o a e s"
    ),
    "pt": (
        "amentos amento acoes acao mente ando endo indo ados adas idos idas aram eram iram ado ada ido ida oes aos "
        "ais ar er ir es os as ao o a e s"
    ),
    "it": (
        "amente azioni azione mente ando endo arono ati ate ato ata iti ite ito ita uti ute uto uta are ere ire i e o a"
    ),
    "nl": "heden heid ingen ing eren en er e s t",
    "sv": "arnas arna erna orna ande ades ade are ar er or en et ts es e a s n t",
    "da": "ernes erne enes ene ende ede ers er en et es e s n t",
    "nb": "ernes erne enes ene ende ede ers er en et es e s n t a",
    "pl": "owanie iego ego emu ami ach ymi imi owi iem em om ow ie ia ych ich ym im ej y i a e u o",
    "ru": (
        "ениями ениях ение ения иями ями ами ого его ому ему ыми ими ием еи ои ии ыи ая яя ое ее ых их ом ем ам ям "
        "ах ях ов ев ия ие ию ась ось лись лся ла ло ли ть а я о е ы и у ю ь л"
    ),
}
_APART = re.compile(
    "[\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0640\u064b-\u065f\u0670]+"
)
_OTHER_LETTERS = {
    "ø": "o",
    "ł": "l",
    "đ": "d",
    "æ": "ae",
    "œ": "oe",
    "ı": "i",
    "ð": "d",
}  # letters that do not decompose


@dataclass(frozen=True, slots=True)
class Terms:
    """How the words of a language become terms."""

    stop_words: frozenset[str]
    stem: Callable[[str], str]


def tokenise(text: str, language: str | None = "en") -> list[str]:
    """Lower-cased, lightly stemmed words without stop words; character bigrams for unspaced scripts.

    language: whose stop words and endings; English where it is "" or None.
    """
    terms = terms_of(language)
    return [terms.stem(word) for word in _words(text) if word not in terms.stop_words]


def index_terms(text: str, language: str | None = "en") -> list[str]:
    """What an index keeps of a text: as `tokenise`, with stop words."""
    return [*map(terms_of(language).stem, _words(text))]


def query_terms(query: str, language: str | None = "en") -> list[str]:
    """The distinct terms of a query, in order; stop words count when there is nothing else ("The Who")."""
    return list(dict.fromkeys(tokenise(query, language) or index_terms(query, language)))


@cache
def terms_of(language: str | None) -> Terms:
    """English where the language is not known: most of what nobody can place is English, and names in it."""
    if language in (None, "", "en"):
        return Terms(STOP_WORDS, stem)
    words = frozenset(_plain(word) for word in function_words(language))
    endings = tuple(sorted(_ENDINGS.get(language or "", "").split(), key=len, reverse=True))
    return Terms(words, partial(_without_ending, endings=endings))


def _without_ending(word: str, *, endings: tuple[str, ...]) -> str:
    for ending in endings:
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word


def _plain(text: str) -> str:
    """Folded to lower case, without accents and vowel points, compatibility forms replaced."""
    text = _APART.sub("", unicodedata.normalize("NFKD", text.casefold()))
    for letter, plain in _OTHER_LETTERS.items():
        text = text.replace(letter, plain)
    return unicodedata.normalize("NFC", text)


def stem(word: str) -> str:
    """An English word without its inflection and one derivational suffix; other words as they are.

    Meant to bring "voted", "voting" and "votes" together, not to give words: one stem may stand for two lemmas.
    """
    if len(word) < 4 or not word.isascii() or not word.isalpha():
        return word
    return _stem(word) if len(word) <= _REMEMBERED else _stem.__wrapped__(word)


#: Letters of the longest word whose stem is remembered: a megabyte without a blank is no word that comes back.
_REMEMBERED = 32


@lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    word = _uninflected(word)
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 4:
            return word[: -len(suffix)]
    return word


def _uninflected(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes", "zes")) and len(word) > 4:
        word = word[:-2]
    elif word[-1] == "s" and word[-2] not in "sui":
        word = word[:-1]
    for suffix in ("ing", "ed", "ly"):
        trunk = word.removesuffix(suffix)
        if trunk != word and len(trunk) >= 3 and not _VOWELS.isdisjoint(trunk):
            doubled = len(trunk) > 3 and trunk[-1] == trunk[-2] and trunk[-1] not in "lsz"
            word = trunk[:-1] if doubled else trunk
            break
    if len(word) > 3 and word[-1] == "e":
        word = word[:-1]
    return word[:-1] + "i" if len(word) > 3 and word[-1] == "y" else word


def _words(text: str) -> list[str]:
    text = readable(text)
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    text = _plain(text)
    if not _UNSPACED.search(text):
        return _SPACED_WORD.findall(text)
    words: list[str] = []
    for run in _ANY_WORD.findall(text):
        if len(run) == 1 or not _UNSPACED.match(run):
            words.append(run)
        else:
            words.extend(run[place : place + 2] for place in range(len(run) - 1))
    return words


def bm25_scores(
    query: str,
    units: Sequence[str],
    *,
    k1: float = 1.2,
    b: float = 0.75,
    titles: Sequence[str] | None = None,
    language: str | None = None,
) -> npt.NDArray[np.float64]:
    """BM25 of every unit for the query: (n_units,), at least 0, and 0 where they share no word.

    titles: the title of each unit's document. A query word in the title adds `TITLE_WEIGHT` times its idf, so a title
    that all units share changes next to nothing. A word repeated in the query counts once. Linear in the text.
    language: whose stop words and endings count; None: guessed from the units.
    Raises InputError when there are not as many titles as units.
    """
    if titles is not None and len(titles) != len(units):
        raise InputError(f"bm25_scores needs one title a unit, got {len(titles)} titles and {len(units)} units")
    language = language or language_of(units)
    columns = {term: column for column, term in enumerate(query_terms(query, language))}
    if not units or not columns:
        return np.zeros(len(units))
    counts, lengths = _counts(units, columns, language)
    rows, stems = np.divmod(_keys(counts), len(columns))
    tf = np.fromiter(counts.values(), dtype=np.float64, count=len(counts))
    relative = lengths / max(lengths.mean(), 1.0)
    weights = _idf(stems, len(units), len(columns))[stems] * tf / (tf + k1 * (1 - b + b * relative)[rows])
    scores = _sum_by_row(rows, weights, len(units))
    if titles is None:
        return scores
    return scores + TITLE_WEIGHT * _title_scores(titles, counts, columns, language)


def language_of(units: Sequence[str]) -> str:
    """The language that texts which belong together are guessed to be in; "" when it cannot be told."""
    return guess_language(_beginning(units))


def _beginning(units: Sequence[str], *, characters: int = 3000) -> str:
    """Enough of the units, joined, to guess their language."""
    enough, size = [], 0
    for unit in units:
        enough.append(unit)
        size += len(unit)
        if size >= characters:
            break
    return "\n".join(enough)


def _title_scores(titles: Sequence[str], counts: dict[int, int], columns: dict[str, int], language: str) -> FloatArray:
    """The idf of the query stems in each unit's title, where a stem is known from the unit or its title; (n_units,)."""
    distinct = list(dict.fromkeys(titles))
    stems_of: dict[str, list[int]] = {title: [] for title in distinct}
    for key in _counts(distinct, columns, language)[0]:
        stems_of[distinct[key // len(columns)]].append(key % len(columns))
    in_title = dict.fromkeys(row * len(columns) + stem for row, title in enumerate(titles) for stem in stems_of[title])
    idf = _idf(_keys(counts | in_title) % len(columns), len(titles), len(columns))
    rows, stems = np.divmod(_keys(in_title), len(columns))
    return _sum_by_row(rows, idf[stems], len(titles))


def _counts(texts: Sequence[str], columns: dict[str, int], language: str) -> tuple[dict[int, int], FloatArray]:
    """({row * n_columns + column: occurrences} without zeros, words of each text (n_texts,))."""
    counts: dict[int, int] = {}
    lengths = np.zeros(len(texts))
    stemmed = terms_of(language).stem
    starts = {term[:2] for term in columns}  # stems keep the first two characters, so most words need no stemming
    known: dict[str, int] = {}  # word -> column, or -1
    for row, text in enumerate(texts):
        words = _words(text)
        lengths[row] = len(words)
        for word in words:
            if word[:2] not in starts:
                continue
            column = known.get(word)
            if column is None:
                column = known[word] = columns.get(stemmed(word), -1)
            if column >= 0:
                key = row * len(columns) + column
                counts[key] = counts.get(key, 0) + 1
    return counts, lengths


def _keys(cells: Mapping[int, object]) -> npt.NDArray[np.int64]:
    return np.fromiter(cells, dtype=np.int64, count=len(cells))


def _sum_by_row(rows: npt.NDArray[np.int64], weights: FloatArray, n_rows: int) -> FloatArray:
    return np.bincount(rows, weights=weights, minlength=n_rows).astype(np.float64, copy=False)


def _idf(stems: npt.NDArray[np.int64], n_units: int, n_stems: int) -> FloatArray:
    """stems: one entry for each unit that holds a stem. Returns (n_stems,), never negative."""
    frequency = np.bincount(stems, minlength=n_stems)
    idf: FloatArray = np.log1p((n_units - frequency + 0.5) / (frequency + 0.5))
    return idf


def term_presence(query: str, texts: Sequence[str], *, language: str | None = None) -> npt.NDArray[np.bool_]:
    """(n_texts, n_terms): whether each distinct term of the query stands in each text.

    language: as for `bm25_scores`.
    """
    language = language or language_of(texts)
    columns = {term: column for column, term in enumerate(query_terms(query, language))}
    presence = np.zeros((len(texts), len(columns)), dtype=bool)
    if columns and texts:
        rows, terms = np.divmod(_keys(_counts(texts, columns, language)[0]), len(columns))
        presence[rows, terms] = True
    return presence
