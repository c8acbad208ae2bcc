"""What an abstractive compressor is asked, word for word, so that training and use ask the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

#: What a chat model is to answer when nothing in the documents helps.
NOTHING: Final = "NOTHING RELEVANT"


def seq2seq_source(query: str, passages: Sequence[str]) -> str:
    """The input of the published RECOMP summarisers, its blanks included (Xu et al., ICLR 2024)."""
    joined = "\n".join(passages)
    return f"Question: {query}\n Document: {joined}\n Summary: "


def chat_prompt(query: str, passages: Sequence[str]) -> str:
    """One user turn that asks a chat model for a short summary with the question in view; `read_answer` reads it."""
    documents = "\n\n".join(passages)
    return (
        "Below are documents that a search returned for a question. In at most two sentences, state what they say that "
        "helps to answer it. Use only what the documents say, with their names and numbers as written, and add "
        f"nothing. If nothing in them helps, reply only {NOTHING}.\n\n"
        f"Question: {query}\n\nDocuments:\n{documents}\n\nSummary:"
    )


#: The model's own refusal, in whole replies only; "the documents do not say" is a summary.
_REFUSAL: Final = re.compile(
    r"(?:(?:i(?:['’]m| am) (?:very |so )?)?sorry|(?:my )?apologies|i apologi[sz]e|unfortunately)?"
    r"[,.;:]?\s*(?:but\s+)?"
    r"(?:as an ai\b[^.,]*[,.]?\s*)?"
    r"i(?: can(?:no|['’])t| can not|(?: a|['’])m (?:not able|unable)| won['’]t| will not| must decline)"
    r"(?: to)? (?:help|assist|comply|fulfil|do (?:that|this)|continue|engage|process|summari[sz]e)\b",
    re.IGNORECASE,
)


def refuses_summary(answer: str) -> bool:
    """Whether a chat model declines the request instead of summarising."""
    return _REFUSAL.match(answer.strip()) is not None


def read_answer(answer: str) -> str:
    """The summary in a chat model's answer: "" when it says that nothing helps."""
    answer = answer.strip()
    return "" if answer.strip(" .!\"'*()[]").upper() == NOTHING else answer
