"""What an abstractive compressor is asked, word for word, so that training and use ask the same."""

from __future__ import annotations

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


def read_answer(answer: str) -> str:
    """The summary in a chat model's answer: "" when it says that nothing helps."""
    answer = answer.strip()
    return "" if answer.strip(" .!\"'*()[]").upper() == NOTHING else answer
