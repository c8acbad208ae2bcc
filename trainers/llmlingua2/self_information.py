"""An offline teacher: how surprising each word is to a causal language model.

    python -m ctxprune.trainers.llmlingua2.self_information --data FILE ... --local MODEL --out TARGETS.jsonl.gz

Self-information, -log2 P(word | the text before it), is what Selective-Context (Li et al., EMNLP 2023) and LLMLingua
(Jiang et al., EMNLP 2023) prune by. The target of a word is its rank among the words of its text: 0 for the most
predictable, 1 for the most surprising. The model is read as `selective-context` reads it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from ctxprune.compressors.llmlingua.selective_context import SelectiveContext
from ctxprune.errors import CtxpruneError
from ctxprune.files import batched
from ctxprune.text import split_words
from ctxprune.trainers.llmlingua2.items import word_of_token
from ctxprune.trainers.llmlingua2.targets import WordTargets, write_targets
from ctxprune.trainers.shared.corpora import read_texts
from ctxprune.trainers.shared.teacher import positive

Floats = np.ndarray[Any, np.dtype[np.float64]]
#: Texts read from the corpus at a time, so that batches can be made of texts of like lengths.
_TEXTS_A_ROUND = 256


def word_bits(model: SelectiveContext, texts: Sequence[str]) -> list[Floats]:
    """Bits of each unit of `split_words` of each text: the sum over its tokens, (n_words,)."""
    found = []
    for text, (offsets, bits) in zip(texts, model.information(texts), strict=True):
        words = word_of_token(text, offsets)
        inside = words >= 0
        found.append(np.bincount(words[inside], bits[inside], minlength=len(split_words(text))).astype(np.float64))
    return found


def ranks(values: Floats) -> Floats:
    """Each value's rank as a share: 0 for the lowest, 1 for the highest, ties in the middle; 0.5 for a single value."""
    if len(values) < 2:
        return np.full(len(values), 0.5)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2
    return cast(Floats, (middle / (len(values) - 1))[inverse])


def self_information_targets(texts: Iterable[str], model: SelectiveContext) -> Iterator[WordTargets]:
    """Every text that has words, with the rank of each word's bits as its target."""
    for some in batched(texts, _TEXTS_A_ROUND):
        for text, bits in zip(some, word_bits(model, some), strict=True):
            if len(bits):
                yield WordTargets(text, tuple(ranks(bits).tolist()))


def main(argv: Sequence[str] | None = None) -> int:
    """Read texts, write targets; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        model = SelectiveContext(arguments.local, dtype=arguments.dtype, window=arguments.window)
        texts = (text for data in arguments.data for text in read_texts(data, column=arguments.column))
        targets = self_information_targets(islice(texts, arguments.limit), model)
        count = write_targets(arguments.out, targets, teacher=f"self-information under {arguments.local}")
    except CtxpruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.out}: {count} texts")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ctxprune.trainers.llmlingua2.self_information",
        description="Targets for the words of texts: how surprising they are to a language model.",
    )
    add = parser.add_argument
    add("--data", required=True, nargs="+", help="texts: JSONL, questions with documents, plain text or a data set id")
    add("--column", default="text", help="the field that holds the text (default: %(default)s)")
    add("--local", required=True, metavar="PATH", help="a causal language model on disk or a hub id")
    add("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    add("--window", type=positive, default=1024, metavar="N", help="tokens seen at once (default: %(default)s)")
    add("--limit", type=positive, metavar="N", help="only the first N texts")
    add("--out", required=True, type=Path, metavar="TARGETS.jsonl", help="one text a line (.gz too)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
