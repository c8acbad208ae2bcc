"""What an answer, a pruned context and a ranking are worth: plain functions of strings, spans, flags and ranks.

Exact match and F1 follow SQuAD 1.1 (Rajpurkar et al. 2016, section 5); substring match is the looser score of the RAG
literature, ROUGE-L the usual one for long answers. Spans are half-open character offsets `(start, end)`; shares and
scores lie in [0, 1], higher is better.
"""

from __future__ import annotations

import math
import re
import string
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from ctxprune.data.questions import is_relevant

Offsets = tuple[int, int]

_ARTICLES = frozenset({"a", "an", "the"})
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
#: Thai, kana and Han are written without spaces: each character is a token, which makes token-bounded a substring test.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff"
_WORD = rf"[^\W{_UNSPACED}]+"
_TOKEN = re.compile(rf"[{_UNSPACED}]|{_WORD}(?:[.,'’]{_WORD})*")


def words(text: str) -> int:
    """Number of words between white space."""
    return len(text.split())


def normalise_answer(text: str) -> str:
    """SQuAD's form for comparison: lower case, no ASCII punctuation, no English articles, single spaces."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1.0 if the prediction equals an answer in normalised form; without answers, if it is empty."""
    normalised = normalise_answer(prediction)
    return float(any(normalised == normalise_answer(answer) for answer in answers or ("",)))


def f1(prediction: str, answers: Sequence[str]) -> float:
    """The best harmonic mean of token precision and recall over the answers; without answers, 1.0 if empty."""
    return max(_token_f1(normalise_answer(prediction).split(), normalise_answer(a).split()) for a in answers or ("",))


def _token_f1(prediction: list[str], answer: list[str]) -> float:
    if not prediction or not answer:
        return float(prediction == answer)
    common = sum((Counter(prediction) & Counter(answer)).values())
    return 2 * common / (len(prediction) + len(answer))


def rouge_l(prediction: str, answers: Sequence[str]) -> float:
    """ROUGE-L: the best F-measure of the longest common subsequence of tokens over the answers (Lin 2004).

    Without answers 1.0 if the prediction is empty. Over the tokens of `f1`, so it never exceeds f1.
    """
    # our own: the package rouge-score gives the same on plain ASCII words, but takes seconds to import (nltk, absl,
    # scipy) and drops every character outside a-z and 0-9, so that even "東京" against itself scores 0
    tokens = normalise_answer(prediction).split()
    return max(_subsequence_f(tokens, normalise_answer(answer).split()) for answer in answers or ("",))


def _subsequence_f(prediction: list[str], answer: list[str]) -> float:
    if not prediction or not answer:
        return float(prediction == answer)
    return 2 * common_subsequence(prediction, answer) / (len(prediction) + len(answer))


def common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence, one machine-word operation for 64 cells (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for place, token in enumerate(left):
        places[token] = places.get(token, 0) | 1 << place
    mask = row = (1 << len(left)) - 1
    for token in right:
        hits = row & places.get(token, 0)
        row = (row + hits | row - hits) & mask  # a zero bit marks where the length grows
    return len(left) - row.bit_count()


def substring_match(prediction: str, answers: Iterable[str]) -> float:
    """1.0 if a normalised answer occurs anywhere in the normalised prediction, even inside a word."""
    normalised = normalise_answer(prediction)
    return float(any(needle in normalised for answer in answers if (needle := normalise_answer(answer))))


def token_string(text: str) -> str:
    """The text as " token token ... " for token-bounded search with `in`; one blank when it has no token.

    Lower case. A token keeps inner points, commas and apostrophes ("2.5", "1,000", "o'clock"), so "2" is not found in
    "2.5", but "1985" is found in "1985–2002", which SQuAD's form would fuse.
    """
    return " " + "".join(f"{token} " for token in _TOKEN.findall(text.lower()))


def answer_needle(answer: str) -> str:
    """The answer's `token_string` without leading articles (unless it is nothing else); "" when it has no token."""
    tokens = token_string(answer).split()
    while len(tokens) > 1 and tokens[0] in _ARTICLES:
        tokens = tokens[1:]
    return f" {' '.join(tokens)} " if tokens else ""


def answer_in_context(context: str, answers: Iterable[str]) -> bool:
    """Whether an answer occurs in the context as whole tokens, whatever its case, punctuation and leading article."""
    tokens = token_string(context)
    return any(needle in tokens for answer in answers if (needle := answer_needle(answer)))


def answer_places(text: str, answers: Iterable[str]) -> list[Offsets]:
    """Where `answer_in_context` sees an answer in the text: character offsets of every occurrence."""
    matches = list(_TOKEN.finditer(text))
    lowered = [match.group().lower() for match in matches]
    # of the blank before each token, where a needle's match begins
    starts = [0, *accumulate(len(token) + 1 for token in lowered)]
    tokens = f" {' '.join(lowered)} "
    places: list[Offsets] = []
    for needle in {needle for answer in answers if (needle := answer_needle(answer))}:
        at = tokens.find(needle)
        while at >= 0:
            first = bisect_left(starts, at)
            last = first + needle.count(" ") - 2
            places.append((matches[first].start(), matches[last].end()))
            at = tokens.find(needle, at + 1)
    return sorted(places)


def answer_span_kept(kept_slices: Iterable[Offsets], answer_spans: Iterable[Offsets]) -> bool:
    """Whether some answer span lies wholly inside one kept slice of the same document."""
    spans = list(answer_spans)
    return any(start <= first and last <= end for start, end in kept_slices for first, last in spans)


def overlap(left: Offsets, right: Offsets) -> int:
    """Characters that two spans share."""
    return max(0, min(left[1], right[1]) - max(left[0], right[0]))


def covered(span: Offsets, spans: Iterable[Offsets]) -> bool:
    """Whether more than half of `span` lies under `spans`, which do not overlap each other."""
    return 2 * sum(overlap(span, other) for other in spans) > span[1] - span[0]


def relevant_units(units: Sequence[Offsets], relevant: Sequence[Offsets]) -> list[bool]:
    """One flag a unit: it overlaps a relevant span by more than half of the shorter of the two.

    Splitters differ, so a label rarely has a unit's exact ends; half of the shorter accepts a label inside a longer
    unit and a unit inside a longer label, and refuses a neighbour that shares an edge.
    """
    return [is_relevant(unit, relevant) for unit in units]


def precision_recall(kept: Sequence[bool], relevant: Sequence[bool]) -> tuple[float, float]:
    """(precision, recall) of flags; NaN where there is nothing to take a share of."""
    hits = sum(k and r for k, r in zip(kept, relevant, strict=True))
    chosen, wanted = sum(kept), sum(relevant)
    return hits / chosen if chosen else math.nan, hits / wanted if wanted else math.nan


def gold_ranks(scores: Sequence[float], gold: Sequence[bool]) -> list[int]:
    """Ranks of the gold documents, from 1, best score first; ties count against them, so a constant earns nothing."""
    order = sorted(zip(scores, gold, strict=True), key=lambda pair: (-pair[0], pair[1]))
    return [rank for rank, (_, is_gold) in enumerate(order, 1) if is_gold]


def reciprocal_rank(ranks: Sequence[int]) -> float:
    """1 / the best rank; 0.0 when nothing gold was ranked. ranks: from 1, of the gold documents."""
    return 1 / min(ranks) if ranks else 0.0


def ndcg(ranks: Sequence[int], k: int = 10) -> float:
    """Normalised discounted cumulative gain at k, binary gains (Järvelin & Kekäläinen 2002, base-2 logarithm)."""
    ideal = sum(1 / math.log2(1 + rank) for rank in range(1, min(len(ranks), k) + 1))
    return sum(1 / math.log2(1 + rank) for rank in ranks if rank <= k) / ideal if ideal else 0.0


def average_precision(ranks: Sequence[int]) -> float:
    """Mean over the gold documents of the precision at their rank; 0.0 when nothing gold was ranked."""
    return sum(place / rank for place, rank in enumerate(sorted(ranks), 1)) / len(ranks) if ranks else 0.0


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of a reliability diagram: `count` probabilities in [low, high), their mean, and the share that held."""

    low: float
    high: float
    count: int
    predicted: float
    observed: float


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """Mean distance of predicted and observed over the bins, weighted by count (Naeini et al. 2015); 0 is perfect."""
    total = sum(each.count for each in bins)
    return sum(each.count * abs(each.predicted - each.observed) for each in bins) / total if total else math.nan


#: Ways to write the same, made one before any pattern is tried; adverbs go, so that no pattern needs to expect them.
_REWRITES: Final = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[’‘`]", "'"),
        (r"\bcan't\b|\bcannot\b", "can not"),
        (r"n't\b", " not"),
        (r"\b(do|does|did)nt\b", r"\1 not"),
        (r"'m\b", " am"),
        (r"'re\b", " are"),
        (r"\b(it|that|there)'s\b", r"\1 is"),
        (r",?\s*\b(?:explicitly|actually|directly|specifically|clearly|really|even|yet|currently|also|exactly)\b", ""),
        (r"\s+", " "),
    )
)

#: What a refusal calls the prompt. No "book" or "treaty": what those do not mention can be the answer.
_SOURCE: Final = (
    r"(?:(?:the|this|these|your|any of the|none of the) )?"
    r"(?:(?:given|provided|above|retrieved|supplied|available|relevant) )*"
    r"(?:contexts?|texts?|passages?|documents?|information|articles?|paragraphs?|excerpts?|sources?|snippets?)"
)
_SPEAKER: Final = r"(?:i|we|you)"  # "you": small models copy "say that you do not know"
_NOT: Final = r"(?:(?:do|does|did|is|are|was|were|has|have|can|could) not|never)"
_FIND: Final = r"(?:answer|find|determine|tell|say|provide|give|locate|identify|confirm|infer|know)"
_FOUND: Final = r"(?:answered|found|determined|told|said|provided|given|located|identified|mentioned|stated|specified)"
_HOLD: Final = (
    r"(?:contain|mention|provide|include|say|state|specify|answer|give|tell|hold|have|indicate|address|discuss"
    r"|describe|identify|list|name|reveal|offer|explain|refer|cover|clarify|enough|sufficient|clear|relevant|related)"
)
_FACTS: Final = r"(?:information|details?|data|context|answers?|knowledge|idea|clue)"

#: A whole answer that refuses, its outer punctuation taken off.
_WHOLE: Final = re.compile(
    r"(?:it is |(?:this|the) question is )?(?:unanswerable|not answerable|unknown|unclear|n/a|idk|dunno|not sure)"
    rf"|no (?:answer|information|idea|clue|relevant text was found)(?: {_FOUND})?"
    rf"|not (?:{_FOUND}|available|known)(?: (?:in|by|from) {_SOURCE})?"
    rf"|(?:not enough|insufficient) {_FACTS}"
)

#: Ways to open a refusal, after an optional `_LEAD`.
_OPENINGS: Final = (
    # not "I Don't Know How to Love Him", a song
    rf"{_SPEAKER} (?:do|did) not know\b(?= ?[.,;:!?\"')-]| ?$| (?:the|who|what|when|where|which|why|if|whether|for|that"
    r"|this|any|about|of|based|from|because|as|since|but|how(?! to\b))\b)",
    rf"{_SPEAKER} (?:am|are) (?:not (?:sure|certain|aware)|unsure|unaware)\b",
    rf"(?:{_SPEAKER} )?(?:(?:can|could) not|(?:am |are )?(?:unable|not able) to) {_FIND}\b",
    rf"{_SPEAKER} (?:do not have|have no|lack)\b[^.!?,]*?\b{_FACTS}\b",
    rf"{_SOURCE}\b[^.!?;]*?\b{_NOT} {_HOLD}",
    rf"(?:none|neither) of {_SOURCE} {_HOLD}",
    rf"{_SOURCE}\b[^.!?;]*?\b(?:(?:contain|provide|give|make|offer)s?|has|have) (?:no|nothing)\b",
    rf"{_SOURCE} (?:is|are) (?:silent|insufficient|unclear|unrelated|irrelevant)\b",
    rf"(?:although|though|while) [^.!?]*?, (?:it|they|{_SOURCE}) {_NOT} {_HOLD}",
    rf"there (?:is|are|was|were) (?:no|not (?:any|enough)|insufficient) (?:\w+ ){{0,2}}{_FACTS}\b",
    rf"there (?:is|are|was|were) (?:no|not any|nothing)\b[^.!?]*\b(?:in|from) {_SOURCE}\b",
    rf"(?:no|not enough|insufficient) (?:\w+ ){{0,2}}{_FACTS}\b[^.!?]*\b(?:is|are|was|were) ",
    r"it is (?:not (?:possible|clear|known)|impossible|unclear|unknown)"
    rf"(?= ?[.,;]| ?$| (?:to {_FIND}|from|in|wh\w+|how)\b)",
    r"(?:the|this) (?:answer|question)\b[^.!?,]*? is (?:unknown|unclear|unanswerable|not (?:known|available|clear))\b",
    rf"(?:the|this) (?:answer|question)\b[^.!?,]*? {_NOT} (?:(?:be |been )?{_FOUND}\b|in {_SOURCE})",
    rf"[^.!?,]*?\b{_NOT} (?:be |been )?(?:{_FOUND}|discussed|listed|included)(?: anywhere)? (?:in|by|from) {_SOURCE}\b",
    rf"[^.!?,]*?\b{_NOT} (?:be |been )?(?:mentioned|stated|specified|determined)(?= ?[.!]| ?$)",
)
#: What may stand before a refusal: a label, an apology, a bow to the context.
_LEAD: Final = (
    r"(?:answer: |(?:(?:i am|we are) )?(?:very |so )?sorry,? (?:but )?|i apologi[sz]e,? (?:but )?|unfortunately,? "
    r"|as an ai[^,.]*, "
    rf"|(?:based (?:solely |only )?on|according to|from|given|in) {_SOURCE}(?: (?:provided|given|above))?,? )*+"
)
_REFUSAL: Final = re.compile(f"{_LEAD}(?:{'|'.join(f'(?:{opening})' for opening in _OPENINGS)})")

#: Where an answer turns from "I do not know" to a guess or a fact.
_TURN: Final = re.compile(
    r"\b(?:but|however|though|although|nevertheless|nonetheless)\b,?"
    r"|[.,;:!?-] ?(?:so |and )?(?:the (?:\w+ )?answer (?:is|was|could|may|might)\b"
    r"|(?:it|he|she|they|this|that) (?:is|was|are|were|could be|may be|might be|must be)\b"
    r"|(?:probably|possibly|likely|presumably|perhaps|maybe|my (?:best )?guess)\b"
    r"|i (?:think|believe|guess|suspect|assume|would (?:say|guess))\b)"
)
#: What may follow a turn without answering: an offer, advice, what the context is about instead, or nothing.
_NO_FACT: Final = re.compile(
    r"\W*$"
    r"|(?:i (?:can|could|would|will)|i'(?:d|ll)|if you|please|you (?:can|could|may|might|should)|feel free|let me)\b"
    rf"|(?:{_SOURCE}|it) (?:only |just )?(?:mention|discuss|describe|talk|refer|provide|contain)"
)

#: Characters that are read, which bounds the time that a model's endless repetitions take.
_READ: Final = 2000


def refuses(prediction: str) -> bool:
    """Whether the answer is nothing but a refusal: empty, "unanswerable", "I don't know", "the context does not say".

    English only, and conservative: the refusal must open the answer, and an answer that goes on to a guess or a fact
    ("I am not sure, but it was Paris") is none. Reasons, apologies, offers and advice around a refusal do not undo it.
    """
    text = prediction[:_READ].lower()
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return _refuses(text.strip(" \"'*“”([,.:;-"))


def _refuses(text: str) -> bool:
    if not any(character.isalnum() for character in text):
        return True
    if _WHOLE.fullmatch(text.removeprefix("answer: ").removeprefix("the answer is ").strip(" .!?\"'*)]”")):
        return True
    opening = _REFUSAL.match(text)
    if opening is None:
        return False
    rest = text[opening.end() :]
    turn = _TURN.search(rest)
    if turn is None:
        return True
    tail = rest[turn.end() :].strip()
    return _NO_FACT.match(tail) is not None or _refuses(tail)


#: Longest run of words that `ngram_support` looks for.
_LONGEST = 3


def ngram_support(text: str, source: str) -> float:
    """The share of the text's n-grams of tokens that stand in the source, the mean over n = 1, 2, 3 (as far as the text
    is long enough); NaN for a text without a token.

    How much of an answer was taken from its context: what RAGAS calls faithfulness, by words and not by a model's
    judgement. So it sees what was made up of other words, not what was put together wrongly from the source's own.
    """
    tokens, within = token_string(text).split(), token_string(source)
    shares = []
    for n in range(1, min(_LONGEST, len(tokens)) + 1):
        grams = [" ".join(tokens[first : first + n]) for first in range(len(tokens) - n + 1)]
        shares.append(sum(f" {gram} " in within for gram in grams) / len(grams))
    return sum(shares) / len(shares) if shares else math.nan
