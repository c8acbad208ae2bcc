"""Selective-Context: keep what a causal language model did not expect (Li et al., EMNLP 2023, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ctxprune.compressors.llmlingua.compressor import WordCompressor
from ctxprune.compressors.llmlingua.words import Array, Words, word_offsets
from ctxprune.errors import CheckpointError, InputError, check_choice
from ctxprune.files import CopiedLock
from ctxprune.models.causal import load_causal_lm
from ctxprune.models.formats import token_spans, window_starts
from ctxprune.runtime import IntArray
from ctxprune.runtime.device import best_device
from ctxprune.text import split_sentences
from ctxprune.text.normal import normalise
from ctxprune.timing import stage

if TYPE_CHECKING:
    import torch

UnitKind = Literal["word", "sentence"]
Pooling = Literal["mean", "sum"]
#: Tokens a forward pass, padding included: a row of logits is as wide as the vocabulary.
_BATCH_TOKENS = 2048


class SelectiveContext(WordCompressor):
    """Ranks words or sentences by self-information, -log2 P(token | text before it), pooled over their tokens.

    model: a causal language model's folder or hub id; gguf_file as in `LocalGenerator`. unit: what is kept or dropped
    whole. pooling: "mean" or "sum" over the tokens of a unit. window: tokens the model reads at once; a longer text is
    read in overlapping windows. Scores are bits, no probabilities: a rate or budget must be given. Other options: see
    `WordCompressor`. Raises CheckpointError when the model cannot be loaded.
    """

    name = "selective-context"

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        unit: UnitKind = "word",
        pooling: Pooling = "mean",
        window: int = 1024,
        device: str | None = None,
        dtype: str | None = None,
        gguf_file: str | None = None,
        **options: Any,
    ) -> None:
        if model is None:
            raise InputError("selective-context needs a causal language model; pass model=, a folder or a hub id")
        check_choice("unit", unit, get_args(UnitKind))
        check_choice("pooling", pooling, get_args(Pooling))
        if window < 8:
            raise InputError(f"window must be at least 8 tokens, got {window}")
        super().__init__(**options)
        self.unit: UnitKind = unit
        self.pooling: Pooling = pooling
        self.device = device or best_device()
        self._tokenizer, self._model = load_causal_lm(str(model), device=self.device, dtype=dtype, gguf_file=gguf_file)
        if not self._tokenizer.is_fast:
            raise CheckpointError(
                f"the tokenizer of {str(model)!r} gives no offsets; use a checkpoint with a tokenizer.json"
            )
        config = self._model.config.get_text_config()
        self.window = min(window, getattr(config, "max_position_embeddings", None) or window)
        self._lock = CopiedLock()

    def words(self, texts: Sequence[str]) -> list[Words]:
        distinct = list(dict.fromkeys(texts))
        information = dict(zip(distinct, self.information(distinct), strict=True))
        return [self._units(text, *information[text]) for text in texts]

    def _units(self, text: str, offsets: IntArray, bits: Array) -> Words:
        if self.unit == "word":
            starts, ends = word_offsets(text)
        else:
            units = split_sentences(text, language=self.language)
            spans = np.array([(span.start, span.end) for span in units], np.int64).reshape(-1, 2)
            starts, ends = spans[:, 0], spans[:, 1]
        first, last = token_spans(offsets, starts, ends)
        sums = np.concatenate([np.zeros(1), np.cumsum(bits)])
        pooled = sums[last] - sums[first]
        return Words(starts, ends, pooled / np.maximum(last - first, 1) if self.pooling == "mean" else pooled)

    def information(self, texts: Sequence[str]) -> list[tuple[IntArray, Array]]:
        """For each text (n_tokens, 2) offsets and (n_tokens,) bits: -log2 P of every token given what is before it, of
        which it sees as much as a window holds."""
        with stage("tokenize"):
            normal = [normalise(text) for text in texts]
            encoded = [
                self._tokenizer(each.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
                for each in normal
            ]
        results: list[tuple[IntArray, Array]] = [
            (read.sources(np.array(each["offset_mapping"], np.int64).reshape(-1, 2)), np.zeros(len(each["input_ids"])))
            for read, each in zip(normal, encoded, strict=True)
        ]
        rows = [
            (place, start, each["input_ids"][start : start + self.window - 1])
            for place, each in enumerate(encoded)
            if each["input_ids"]
            for start in window_starts(len(each["input_ids"]), self.window - 1)
        ]
        # in reading order within a text, so that a later window fills in only what the one before did not reach
        done = [0] * len(texts)
        with stage("infer"), self._lock:
            for (place, start, ids), bits in zip(rows, self._bits([ids for _, _, ids in rows]), strict=True):
                fresh = max(done[place], start)
                done[place] = start + len(ids)
                results[place][1][fresh : done[place]] = bits[fresh - start :]
        return results

    def _bits(self, rows: Sequence[list[int]]) -> list[Array]:
        """-log2 P of every token of each row, after an opening token."""
        opening = next(
            (each for each in (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id) if each is not None), 0
        )
        order = sorted(range(len(rows)), key=lambda place: -len(rows[place]))
        bits: list[Array] = [np.zeros(0)] * len(rows)
        while order:
            number = max(1, _BATCH_TOKENS // (len(rows[order[0]]) + 1))
            batch, order = order[:number], order[number:]
            for place, row in zip(batch, self._forward([[opening, *rows[place]] for place in batch]), strict=True):
                bits[place] = row[: len(rows[place])].double().numpy() / np.log(2.0)
        return bits

    def _forward(self, rows: Sequence[list[int]]) -> torch.Tensor:
        """(batch, longest - 1) natural-log surprise of each token after the first; values at padding mean nothing."""
        import torch

        ids = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):  # padding on the right: no token of a causal model looks there
            ids[place, : len(row)], mask[place, : len(row)] = torch.tensor(row), 1
        with torch.inference_mode():
            logits = self._model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device)).logits[:, :-1]
            # flat rows: over a transposed vocabulary the same loss takes several times as long
            losses = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1).float(), ids[:, 1:].flatten().to(self.device), reduction="none"
            )
        return losses.view(len(rows), -1).cpu()
