"""An offline teacher: how surprising each word is to a causal language model.

    python -m ctxprune.trainers.llmlingua2.self_information --data FILE ... --local MODEL --out TARGETS.jsonl.gz

Self-information, -log2 P(word | the text before it), is what Selective-Context (Li et al., EMNLP 2023) and LLMLingua
(Jiang et al., EMNLP 2023) prune by. The target of a word is its rank among the words of its text: 0 for the most
predictable, 1 for the most surprising.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from ctxprune.errors import CheckpointError, CtxpruneError, InputError
from ctxprune.models.formats import window_starts
from ctxprune.models.hub import read_tokenizer, resolve
from ctxprune.runtime.device import best_device, no_bars_off_terminal
from ctxprune.text import model_text, split_words
from ctxprune.trainers.llmlingua2.items import word_of_token
from ctxprune.trainers.llmlingua2.targets import WordTargets, write_targets
from ctxprune.trainers.shared.corpora import read_texts
from ctxprune.trainers.shared.teacher import positive

Floats = np.ndarray[Any, np.dtype[np.float64]]
#: Texts read from the corpus at a time, so that batches can be made of texts of like lengths.
_TEXTS_A_ROUND = 256


class SurprisalModel:
    """A causal language model that tells how many bits every token takes.

    dtype: "float32" or "bfloat16", which is faster where the CPU knows it and moves a token by hundredths of a bit.
    window: tokens that the model sees at once; windows of a longer text share a quarter. batch_tokens: at a time,
    padding included. Raises CheckpointError when the model cannot be loaded, InputError for sizes below 2.
    """

    def __init__(
        self,
        path_or_id: str | Path,
        *,
        device: str | None = None,
        dtype: str = "bfloat16",
        window: int = 1024,
        batch_tokens: int = 2048,
    ) -> None:
        if window < 2 or batch_tokens < 2:
            raise InputError(f"window and batch_tokens must be at least 2, got {window} and {batch_tokens}")
        self.name = str(path_or_id)
        self.window, self.batch_tokens = window, batch_tokens
        folder = resolve(path_or_id)
        try:
            with no_bars_off_terminal():
                model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
        except Exception as error:  # transformers raises whatever a damaged or foreign checkpoint led to
            raise CheckpointError(f"{path_or_id} is no causal language model that can be loaded: {error}") from error
        self._device = device or best_device()
        self._model = cast(Any, model)  # transformers annotates `to` in part only
        self._model.to(self._device).eval()
        config = self._model.config
        self._tokenizer: Tokenizer = read_tokenizer(folder, config)
        starts = [config.bos_token_id, config.eos_token_id]
        start = next((each for each in starts if each is not None), None)
        if start is None:
            raise CheckpointError(f"{path_or_id} names neither a first nor a last token, so no text can be begun")
        self._start = start[0] if isinstance(start, list) else start

    def bits(self, texts: Sequence[str]) -> list[tuple[np.ndarray[Any, Any], Floats]]:
        """For each text (offsets (n, 2) of its tokens in characters, bits (n,) of each token given those before)."""
        encodings = self._tokenizer.encode_batch([model_text(text) for text in texts], add_special_tokens=False)
        room = self.window - 1
        jobs = [  # (text, first token of the window, its tokens)
            (place, start, encoding.ids[start : start + room])
            for place, encoding in enumerate(encodings)
            for start in (window_starts(len(encoding), room) if len(encoding) else ())
        ]
        found = [np.zeros(len(encoding)) for encoding in encodings]
        filled = [0] * len(encodings)
        answers = dict(zip([job[:2] for job in jobs], self._in_batches([job[2] for job in jobs]), strict=True))
        for (place, start), values in answers.items():  # what a window shares with the last is known with more context
            found[place][filled[place] : start + len(values)] = values[filled[place] - start :]
            filled[place] = start + len(values)
        offsets = [np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2) for encoding in encodings]
        return list(zip(offsets, found, strict=True))

    def _in_batches(self, sequences: Sequence[Sequence[int]]) -> list[Floats]:
        """Bits of each sequence, in order; sequences of like lengths share a batch."""
        found: list[Floats] = [np.zeros(0) for _ in sequences]
        batch: list[int] = []
        for place in sorted(range(len(sequences)), key=lambda place: len(sequences[place])):
            if batch and (len(batch) + 1) * (len(sequences[place]) + 1) > self.batch_tokens:
                self._run(sequences, batch, found)
                batch = []
            batch.append(place)
        if batch:
            self._run(sequences, batch, found)
        return found

    @torch.inference_mode()
    def _run(self, sequences: Sequence[Sequence[int]], batch: Sequence[int], found: list[Floats]) -> None:
        width = max(len(sequences[place]) for place in batch)
        rows = [[self._start, *sequences[place], *[self._start] * (width - len(sequences[place]))] for place in batch]
        ids = torch.tensor(rows, device=self._device)
        logits = self._model(input_ids=ids[:, :-1]).logits  # padding is on the right, where no token looks
        for row, place in enumerate(batch):
            length = len(sequences[place])
            nats = F.cross_entropy(logits[row, :length].float(), ids[row, 1 : length + 1], reduction="none")
            found[place] = cast(Floats, nats.cpu().double().numpy() / np.log(2))


def word_bits(model: SurprisalModel, texts: Sequence[str]) -> list[Floats]:
    """Bits of each unit of `split_words` of each text: the sum over its tokens, (n_words,)."""
    found = []
    for text, (offsets, bits) in zip(texts, model.bits(texts), strict=True):
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


def self_information_targets(texts: Iterable[str], model: SurprisalModel) -> Iterator[WordTargets]:
    """Every text that has words, with the rank of each word's bits as its target."""
    stream = iter(texts)
    while some := list(islice(stream, _TEXTS_A_ROUND)):
        for text, bits in zip(some, word_bits(model, some), strict=True):
            if len(bits):
                yield WordTargets(text, tuple(ranks(bits).tolist()))


def main(argv: Sequence[str] | None = None) -> int:
    """Read texts, write targets; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        model = SurprisalModel(arguments.local, dtype=arguments.dtype, window=arguments.window)
        texts = (text for data in arguments.data for text in read_texts(data, column=arguments.column))
        targets = self_information_targets(islice(texts, arguments.limit), model)
        count = write_targets(arguments.out, targets, teacher=f"self-information under {model.name}")
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
