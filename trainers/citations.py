"""Ask a language model which numbered sentences answer a question, and read its citations as labels.

After Provence (Chirkova et al., ICLR 2025, section 3.2): answering with citations gives better labels than asking for
relevance. The wording and the rules for odd answers are ours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ctxprune.generators.replies import reply_of


@dataclass(frozen=True, slots=True)
class Cited:
    """The cited sentences: distinct, ascending, from 0. `out_of_range`: citations of sentences that do not exist."""

    indices: tuple[int, ...]
    out_of_range: int = 0


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """The model found no answer: no sentence is relevant."""


@dataclass(frozen=True, slots=True)
class Unparsed:
    """No label can be read from the answer; `reason` is one of a few fixed phrases, so that they can be counted."""

    reason: str


Labels: TypeAlias = Cited | NoAnswer | Unparsed

_PROMPT = """\
Below is a passage, one numbered sentence a line, and a question.

Passage:
{passage}

Question: {question}

Answer the question from what the passage says and from nothing else. Write short statements. After each statement put \
the number of every sentence that supports it in square brackets, like [0] or [2][5]; leave out no sentence that is \
needed to understand or to prove the answer. If the passage does not answer the question, write exactly: No answer
Answer:"""

_BRACKETED_NUMBER = re.compile(r"\[(\s*\d+(?:\s*[,;–-]\s*\d+)*\s*)\]")
_BRACKETS = re.compile(r"\[([^\[\]]{1,200})\]")
_IN_CITATION = re.compile(r"[0-9]+|sentences?|and|to|through|[\s,;&–—-]", re.IGNORECASE)
_RANGE = re.compile(r"([0-9]+)\s*(?:[–—-]|to\b|through\b)\s*([0-9]+)|([0-9]+)", re.IGNORECASE)
#: "No answer" as the beginning or a statement of its own; "she got no answer to her letter" is neither.
_VERDICT = re.compile(
    r"^[\W_]*{phrase}\b|[.!?:\]\n][^\w\[\]]*{phrase}[\"'“”*_`]*\s*(?:[.,;:!(\[\n]|$)".replace(
        "{phrase}", r"(?:no[\s_-]?answer|unanswerable|not answerable)"
    ),
    re.IGNORECASE,
)
_STATED = re.compile(
    r"\b(?:there is|has|have|contains?|gives?|provides?) no answer\b"
    r"|\bno answer (?:is|was|can|could|found|given|available|provided|in the)\b"
    r"|\b(?:cannot|can't|can not) be answered\b"
    r"|\bpassage (?:does not|doesn't) (?:answer|contain|provide|give|say|mention)\b",
    re.IGNORECASE,
)


def numbered_prompt(question: str, sentences: Sequence[str]) -> str:
    """The request to answer `question` from `sentences`, shown as `[i] text` from 0, citing them or saying "No answer".

    Bracketed numbers inside the sentences (reference marks) are shown in parentheses: a model that quotes the passage
    would otherwise seem to cite them.
    """
    lines = [f"[{number}] {_one_line(sentence)}" for number, sentence in enumerate(sentences)]
    return _PROMPT.format(passage="\n".join(lines), question=_one_line(question))


def _one_line(text: str) -> str:
    return _BRACKETED_NUMBER.sub(r"(\1)", " ".join(text.split()))


def parse_labels(answer: str, n_sentences: int) -> Labels:
    """What the answer says of sentences 0 to `n_sentences` - 1. Never raises.

    [1], [1, 3], [1][3], [2-4], [1 and 3] and [sentence 2] are citations. Those beyond the last sentence are ignored,
    and counted in `Cited.out_of_range`; if no other is left the answer is Unparsed, as is one that cites and also says
    "No answer", or does neither. Reasoning is not looked at.
    """
    reply = reply_of(answer)
    if reply.fault:
        return Unparsed(reply.short_fault)
    answer = reply.text
    groups = [group for group in _BRACKETS.findall(answer) if not _IN_CITATION.sub("", group)]
    indices, out_of_range = _indices(groups, n_sentences)
    verdict = _VERDICT.search(answer) is not None
    if indices or out_of_range:
        if verdict:
            return Unparsed("cites and says no answer")
        return Cited(indices, out_of_range) if indices else Unparsed("cites only sentences that do not exist")
    return NoAnswer() if verdict or _STATED.search(answer) else Unparsed("neither cites nor says no answer")


def _indices(groups: Sequence[str], n_sentences: int) -> tuple[tuple[int, ...], int]:
    """(distinct sentences within range, ascending; how many citations or ranges reached beyond it)."""
    cited: set[int] = set()
    out_of_range = 0
    for match in (match for group in groups for match in _RANGE.finditer(group)):
        first, last, single = match.groups()
        low, high = sorted((int(first), int(last))) if single is None else (int(single), int(single))
        out_of_range += high >= n_sentences
        cited.update(range(low, min(high, n_sentences - 1) + 1))
    return tuple(sorted(cited)), out_of_range
