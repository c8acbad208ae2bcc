"""Questions in English with the words of other languages in them: `python -m ctxprune.trainers.provence.switch`.

Words of a question, its titles and its passages are replaced by what a dictionary has for them, all of one example in
one language. Where no labelled questions exist in a language, a pruner learns so to follow its words beside those that
it knows (code-switching, after CoSDA-ML, Qin et al., IJCAI 2020). Labels move with the text.
"""

from __future__ import annotations

import argparse
import gzip
import random
import re
import sys
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from ctxprune.data import read_questions
from ctxprune.data.questions import LabelledDocument, Offsets, Question, row_from_question
from ctxprune.errors import InputError
from ctxprune.files import write_rows
from ctxprune.text.words import STOP_WORDS, stem
from ctxprune.trainers.shared.corpora import Source

#: Translations kept of an entry, words of the longest one, and words of the longest entry that is looked for.
TRANSLATIONS, WORDS, ENTRY_WORDS = 3, 3, 3
#: Characters of most Chinese words, which come first among those of one meaning.
_USUAL = 2
#: How often a word that comes back in an example has the same translation again.
_SAME = 0.85
#: Languages written without blanks between words.
_UNSPACED = frozenset({"ja", "th", "zh"})
#: Words that make sentences and questions; a dictionary's entries for them are of little use. "-": nothing is written.
_FUNCTION_WORDS = "who what which when where why how many the and of in was is to for by from with did does"
_IN_LANGUAGES = {
    "ar": "من ما أي متى أين لماذا كيف كم - و من في كان هو إلى لـ بواسطة من مع هل هل",
    "bg": "кой какво кой кога къде защо как много - и на в беше е до за от от с - -",
    "de": "wer was welche wann wo warum wie viele die und von in war ist zu für von aus mit hat hat",
    "el": "ποιος τι ποια πότε πού γιατί πώς πολλά το και του σε ήταν είναι προς για από από με - -",
    "es": "quién qué cuál cuándo dónde por_qué cómo muchos el y de en era es a para por de con - -",
    "fi": "kuka mikä mikä milloin missä miksi miten monta - ja - - oli on - - - - kanssa - -",
    "fr": "qui que quel quand où pourquoi comment beaucoup le et de dans était est à pour par de avec - -",
    "hi": "कौन क्या किस कब कहाँ क्यों कैसे कई - और का में था है को के_लिए द्वारा से के_साथ - -",
    "id": "siapa apa mana kapan dimana mengapa bagaimana banyak - dan - di adalah adalah ke untuk oleh dari dengan - -",
    "it": "chi cosa quale quando dove perché come molti il e di in era è a per da da con - -",
    "ja": "誰 何 どの いつ どこ なぜ どう 多く - と の に だった です へ ため によって から と - -",
    "no": "hvem hva hvilken når hvor hvorfor hvordan mange - og av i var er til for av fra med - -",
    "ru": "кто что какой когда где почему как много - и - в был - к для - из с - -",
    "tr": "kim ne hangi ne_zaman nerede neden nasıl çok - ve - içinde idi - - için tarafından - ile - -",
    "zh": "谁 什么 哪个 何时 哪里 为什么 如何 许多 - 和 的 在 是 是 到 为 由 从 与 - -",
}

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_CEDICT = re.compile(r"(?P<traditional>\S+) (?P<simplified>\S+) \[[^\]]*\] /(?P<glosses>.+)/")
_DICTD_HEAD = re.compile(r"(?P<entry>[^\W\d_][^/<\t]*?) //?[^<\t]+/(?: <[^>]*>)?")
_ASIDE = re.compile(r"<[^>]*>|\[[^\]]*\]|\([^)]*\)|\{[^}]*\}|^\s*\d+\.|\s\d+\.\s*$")
_JUNK = re.compile(r"[\d:\"…\[\]{}()]")
_BETWEEN = re.compile(r"[,;،、/]")
_ARTICLE = re.compile(r"^(?:to|an?|the) ")
#: (start, end) before and (start, end) after a replacement.
_Move = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Dictionary:
    """What stands for English words in one language.

    entries: a lower-case word or phrase -> translations, the usual one first. names: those written with a capital.
    """

    language: str
    entries: Mapping[str, tuple[str, ...]]
    names: frozenset[str] = frozenset()
    #: Entries of one word by stem, for "rivers" and "crossed".
    _by_stem: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)
    _function_words: dict[str, tuple[str, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for entry in self.entries:
            self._by_stem.setdefault(stem(entry), entry)
        theirs = _IN_LANGUAGES.get(self.language, "").split()
        for word, other in zip(_FUNCTION_WORDS.split(), theirs, strict=False):
            self._function_words[word] = ("" if other == "-" else other.replace("_", " "),)

    def look_up(self, words: Sequence[str], *, begins: bool) -> tuple[str, ...]:
        """Translations of a phrase; none for a word that only makes sentences, nor for a name the dictionary lacks.
        begins: whether a sentence begins here, where a capital says nothing."""
        phrase = " ".join(words).lower()
        if len(words) == 1 and phrase in STOP_WORDS:
            return self._function_words.get(phrase, ())
        entry = phrase if phrase in self.entries else self._by_stem.get(stem(phrase), "") if len(words) == 1 else ""
        if not begins and words[0][:1].isupper() and entry not in self.names:
            return ()
        return self.entries.get(entry, ())


def read_dictionary(language: str, path: Path) -> Dictionary:
    """A dictionary from English: dictd's text (.dict, .dict.dz, as FreeDict has them), CC-CEDICT (read backwards), or
    lines of an English word, a tab and translations with commas between. InputError for a file without an entry."""
    found: dict[str, list[str]] = defaultdict(list)
    names = set()
    for entry, translations in _entries(path):
        key = entry.lower()
        if entry[:1].isupper():
            names.add(key)
        found[key] += [each for each in translations if each not in found[key] and each.lower() != key]
    entries = {entry: tuple(each[:TRANSLATIONS]) for entry, each in found.items() if each}
    if not entries:
        raise InputError(f"{path}: no entry of a dictionary (dictd's text, CC-CEDICT, or word, tab, translations)")
    return Dictionary(language, entries, frozenset(names))


def _entries(path: Path) -> Iterator[tuple[str, list[str]]]:
    glosses: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    head = ""
    for line in _lines(path):
        if found := _CEDICT.fullmatch(line):
            for place, gloss in enumerate(found["glosses"].split("/")):
                word = found["simplified"]
                glosses[_ARTICLE.sub("", _plain(gloss))].append((place, abs(len(word) - _USUAL), word))
        elif "\t" in line:
            entry, _, translations = line.partition("\t")
            yield entry.strip(), _translations(translations)
        elif found := _DICTD_HEAD.fullmatch(line):
            head = found["entry"].strip()
        elif head and line:
            yield head, _translations(line)
            head = ""
    for gloss, words in glosses.items():
        if 0 < len(gloss.split()) <= ENTRY_WORDS:
            yield gloss, [word for _, _, word in sorted(words)]


def _lines(path: Path) -> Iterator[str]:
    packed = path.suffix in (".gz", ".dz")
    try:
        with gzip.open(path, "rt", encoding="utf-8") if packed else path.open(encoding="utf-8") as lines:
            yield from map(str.rstrip, lines)
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read the dictionary {path}: {error}; it must be UTF-8 text, packed or not") from None


def _plain(text: str) -> str:
    """Without remarks in brackets and marks of stress on Cyrillic letters."""
    return unicodedata.normalize("NFC", _ASIDE.sub(" ", text)).replace("\u0301", "").replace("~", " ").strip(" .!")


def _translations(line: str) -> list[str]:
    parts = (" ".join(_plain(part).split()) for part in _BETWEEN.split(_ASIDE.sub(" ", line)))
    return [part for part in parts if part and len(part.split()) <= WORDS and not _JUNK.search(part)]


@dataclass(slots=True)
class _Switch:
    """Replaces words in the texts of one example. share: of the words that have a translation."""

    dictionary: Dictionary
    share: float
    rng: random.Random
    _chosen: dict[str, str] = field(default_factory=dict, init=False)

    def text(self, text: str) -> tuple[str, list[_Move]]:
        """The text with words replaced, and the replacements: (start, end) before and (start, end) after."""
        words = [(found.start(), found.end()) for found in _WORD.finditer(text)]
        pieces: list[str] = []
        moved: list[_Move] = []
        done = length = place = 0
        while place < len(words):
            count, translation = self._translated(text, words[place : place + ENTRY_WORDS])
            if translation is not None:
                start, end = words[place][0], words[place + count - 1][1]
                between = text[done:start]
                if not translation and text[end : end + 1] == " ":
                    end += 1  # no blank is left where nothing is written
                beside = bool(moved) and between == " " and done == moved[-1][1]
                if beside and self.dictionary.language in _UNSPACED:
                    between = ""
                if text[start].isupper():
                    translation = translation[:1].upper() + translation[1:]
                pieces += [between, translation]
                length += len(between)
                moved.append((start, end, length, length + len(translation)))
                length, done = length + len(translation), end
            place += count
        return "".join([*pieces, text[done:]]), moved

    def _translated(self, text: str, words: Sequence[tuple[int, int]]) -> tuple[int, str | None]:
        """How many words are read, and what is written in their place, if anything is: the longest phrase counts."""
        before = text[max(0, words[0][0] - 4) : words[0][0]].strip()
        begins = not before or before[-1] in ".!?"
        for count in range(len(words), 0, -1):
            run = words[:count]
            if any(text[left[1] : right[0]] != " " for left, right in pairwise(run)):
                continue
            phrase = [text[start:end] for start, end in run]
            if options := self.dictionary.look_up(phrase, begins=begins):
                if self.rng.random() >= self.share:
                    return count, None
                return count, self._one_of(" ".join(phrase).lower(), options)
        return 1, None

    def _one_of(self, phrase: str, options: Sequence[str]) -> str:
        if phrase not in self._chosen or self.rng.random() > _SAME:
            self._chosen[phrase] = options[min(int(self.rng.expovariate(1.2)), len(options) - 1)]
        return self._chosen[phrase]

    def document(self, item: LabelledDocument) -> LabelledDocument:
        text, moved = self.text(item.document.text)
        title = item.document.title
        document = replace(item.document, text=text, title=self.text(title)[0] if title else title)
        return replace(
            item,
            document=document,
            answer_spans=_move(item.answer_spans, moved),
            relevant=None if item.relevant is None else _move(item.relevant, moved),
        )


def _move(spans: Offsets, moved: Sequence[_Move]) -> Offsets:
    return tuple((_moved(start, moved, end=False), _moved(stop, moved, end=True)) for start, stop in spans)


def _moved(offset: int, moved: Sequence[_Move], *, end: bool) -> int:
    """An offset after the replacements; one inside a replaced word goes to that side of what stands for it."""
    shift = 0
    for start, stop, new_start, new_stop in moved:
        if offset <= start:
            return min(offset + shift, new_start)
        if offset < stop:
            return new_stop if end else new_start
        shift = new_stop - stop
    return offset + shift


def switch(
    questions: Iterable[Question],
    dictionaries: Sequence[Dictionary],
    *,
    share: tuple[float, float] = (0.5, 1.0),
    apart: float = 0.1,
    seed: int = 0,
) -> Iterator[Question]:
    """Each question once, its words in a language drawn for it.

    share: least and most of the words with a translation that are replaced, drawn for each question. apart: how often
    the documents' language is drawn anew, so that question and documents differ.
    """
    for question in questions:
        rng = random.Random(f"{seed} {question.id}")
        asked = _Switch(rng.choice(dictionaries), rng.uniform(*share), rng)
        told = _Switch(rng.choice(dictionaries), asked.share, rng) if rng.random() < apart else asked
        documents = tuple(told.document(item) for item in question.documents)
        found = [item.document.text[start:end] for item in documents for start, end in item.answer_spans]
        yield replace(
            question,
            id=f"{question.id}:{told.dictionary.language}",
            text=asked.text(question.text)[0],
            answers=tuple(dict.fromkeys(found)) or question.answers,
            documents=documents,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Read questions and dictionaries, write the questions with their words replaced."""
    options = _options(argv)
    dictionaries = [_named(text) for text in options.dictionary]
    sources = [Source.parse(text) for text in options.data]
    asked = [each for source in sources for each in source.draw(read_questions(source.path), source.key(options.seed))]
    made = switch(asked, dictionaries, share=tuple(options.share), apart=options.apart, seed=options.seed)
    count = write_rows(options.out, map(row_from_question, made))
    sys.stderr.write(f"{count} questions in {len(dictionaries)} languages -> {options.out}\n")
    return 0


def _named(text: str) -> Dictionary:
    language, sign, path = text.partition("=")
    if not sign or not Path(path).is_file():
        raise InputError(f"--dictionary takes LANGUAGE=FILE with a file that exists, got {text!r}")
    return read_dictionary(language, Path(path))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ctxprune.trainers.provence.switch", description=__doc__)
    add = parser.add_argument
    add("--data", nargs="+", required=True, metavar="FILE[:LIMIT]", help="labelled questions in English")
    add("--dictionary", nargs="+", required=True, metavar="LANGUAGE=FILE", help="from English, e.g. de=eng-deu.dict.dz")
    add("--out", type=Path, required=True, help="where the rows go (.jsonl or .jsonl.gz)")
    add("--share", nargs=2, type=float, default=(0.5, 1.0), metavar=("LEAST", "MOST"), help="of the words replaced")
    add("--apart", type=float, default=0.1, help="of the questions over documents in another language")
    add("--seed", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
