"""Any stock Hugging Face cross-encoder as a scorer of (query, passage) pairs, without remote code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PretrainedConfig

from ctxprune.errors import CheckpointError
from ctxprune.models import encoders, hub
from ctxprune.models.formats import PairFormat, Windows, lay_windows
from ctxprune.runtime import EncoderRuntime
from ctxprune.runtime.device import no_bars_off_terminal
from ctxprune.runtime.torch import TorchRuntime
from ctxprune.text.normal import readable


class CrossEncoderScorer:
    """One relevance logit a pair; its sigmoid is a probability for models trained with a binary loss.

    runtime: gives "rank_logits" of one or two labels; of two, the second is "relevant". max_length: tokens of an input.
    A passage longer than the input is read in overlapping windows and scores as its best window does.
    """

    def __init__(
        self, runtime: EncoderRuntime, tokenizer: Tokenizer, layout: PairFormat, *, max_length: int = 512
    ) -> None:
        self._runtime = runtime
        self._tokenizer = tokenizer
        self._layout = layout
        self._max_length = max_length

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        max_length: int = 512,
    ) -> CrossEncoderScorer:
        """Load a model for sequence classification with one or two labels from a folder or a hub id.

        device, dtype: see `TorchRuntime`. Raises CheckpointError when it is missing, damaged or no cross-encoder.
        """
        folder = hub.resolve(source, revision=revision)
        model = _load_model(folder, what=str(source))
        tokenizer = hub.read_tokenizer(folder, model.config)
        layout = encoders.layout(tokenizer, folder, model.config, single_separator=False)
        length = encoders.max_length(max_length, model.config)
        return cls(TorchRuntime(RankLogits(model), device=device, dtype=dtype), tokenizer, layout, max_length=length)

    def score_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Logits of the (query, passage) pairs, in order; higher is more relevant."""
        inputs = self._inputs(pairs)
        outputs = iter(self._runtime.forward([sequence for windows in inputs for sequence in windows.sequences]))
        return [max(_logit(next(outputs)["rank_logits"]) for _ in windows.sequences) for windows in inputs]

    def shortens(self, query: str) -> bool:
        """Whether the query is longer than its share of the input, so that only its beginning is read."""
        return lay_windows(
            self._ids([query])[query], [], [], layout=self._layout, max_length=self._max_length
        ).question_cut

    def _inputs(self, pairs: Sequence[tuple[str, str]]) -> list[Windows]:
        ids = self._ids({text for pair in pairs for text in pair})
        return [
            lay_windows(ids[query], [], ids[passage], layout=self._layout, max_length=self._max_length)
            for query, passage in pairs
        ]

    def _ids(self, texts: Sequence[str] | set[str]) -> dict[str, list[int]]:
        distinct = list(texts)
        plain = [readable(text) for text in distinct]
        encodings = self._tokenizer.encode_batch_fast(plain, add_special_tokens=False)
        return {text: encoding.ids for text, encoding in zip(distinct, encodings, strict=True)}


class RankLogits(nn.Module):
    """A stock classifier in the shape that `TorchRuntime` calls: (batch, seq) inputs, rank_logits (batch, labels)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> dict[str, Tensor]:
        config: Any = self.model.config
        types = {"token_type_ids": token_type_ids} if encoders.uses_type_ids(config) else {}
        return {"rank_logits": self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits}


def _load_model(folder: Path, *, what: str) -> Any:
    auto: Any = AutoModelForSequenceClassification
    try:
        with no_bars_off_terminal():
            model, report = auto.from_pretrained(
                folder, trust_remote_code=False, dtype="float32", output_loading_info=True, local_files_only=True
            )
    except Exception as error:  # transformers raises whatever the damaged or foreign file led to
        raise CheckpointError(
            f"cannot load {what} as a cross-encoder ({error}); fetch it again or name another"
        ) from error
    if report["missing_keys"]:
        missing = ", ".join(sorted(report["missing_keys"])[:4])
        raise CheckpointError(
            f"{what} has no trained classifier (missing {missing}); name a cross-encoder, not an encoder"
        )
    if _labels(model.config) not in (1, 2):
        raise CheckpointError(f"{what} has {_labels(model.config)} labels; a cross-encoder for relevance has 1 or 2")
    return model


def _labels(config: PretrainedConfig) -> int:
    return int(config.num_labels or 0)


def _logit(rank_logits: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    """Log-odds of "relevant": the logit itself, or the difference of two logits under a softmax."""
    return float(rank_logits[0] if len(rank_logits) == 1 else rank_logits[1] - rank_logits[0])
