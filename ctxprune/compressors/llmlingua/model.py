"""A token classifier that reads documents and gives every token its probability of being kept, without a question."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from ctxprune.bundled import bundled_folder
from ctxprune.compressors.llmlingua.words import TokenReading
from ctxprune.errors import CheckpointError
from ctxprune.models.formats import PairFormat, check_source, lay_windows, pair_format, plain_tokenizer, stitch
from ctxprune.runtime import EncoderRuntime, sigmoid
from ctxprune.runtime.device import only_on_cpu
from ctxprune.runtime.onnx import OnnxRuntime
from ctxprune.runtime.weights import model_file
from ctxprune.text.normal import normalise
from ctxprune.timing import stage

BUNDLED = "llmlingua2-mini"
CONFIG = "tokenclass.json"
#: Characters read at once; bounds the memory of very large batches without slowing small ones.
_CHUNK_CHARACTERS = 1_000_000
#: Tokens of a batch on a CPU, with padding: what lies between two layers then stays in its caches. On one core a
#: MiniLM in fp32 took 1.4 times as long with 16,384, which is right for GPUs.
_CPU_BATCH_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class WordModel:
    """A token classifier ready to read: an exported one on ONNX Runtime, or any checkpoint on torch.

    rows: of the embedding table where known (0: no more than the tokenizer has). fingerprint: tells models apart in a
    score cache, whatever they are called.
    """

    name: str
    runtime: EncoderRuntime
    tokenizer: Tokenizer
    layout: PairFormat
    max_length: int
    default_threshold: float
    fingerprint: str
    rows: int = 0

    @classmethod
    def from_export(cls, folder: Path, *, threads: int | None = None) -> WordModel:
        """A folder with tokenclass.json, model.onnx (output "keep": (1, seq) log-odds) and tokenizer.json; no torch.

        Raises CheckpointError when one of them is missing or damaged.
        """
        tokenizer = plain_tokenizer(model_file(folder, "tokenizer.json"))
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            if (config["format"], config["kind"]) != (1, "llmlingua2"):
                raise ValueError(f"format {config['format']!r}, kind {config['kind']!r}, not 1 and 'llmlingua2'")
            max_length, threshold = int(config["max_length"]), float(config["default_threshold"])
            rows = int(config.get("rows", 0))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            raise CheckpointError(f"{folder / CONFIG} is missing or damaged ({error!r}); export again") from error
        runtime = OnnxRuntime(folder / "model.onnx", threads=threads)
        digest = hashlib.blake2b((folder / "model.onnx").read_bytes(), digest_size=16).hexdigest()
        layout = pair_format(tokenizer, type_ids=False, single_separator=True)
        name = str(config.get("name", folder.name))
        return cls(name, runtime, tokenizer, layout, max_length, threshold, digest, rows=rows)

    @classmethod
    def from_checkpoint(
        cls, source: str, *, revision: str | None = None, device: str | None = None, dtype: str | None = None
    ) -> WordModel:
        """A *ForTokenClassification checkpoint with two labels, from a folder or a hub id, on torch."""
        from ctxprune.compressors.llmlingua.checkpoint import (
            load_token_classifier,  # imports torch, which exports do not need
        )
        from ctxprune.runtime.device import best_device
        from ctxprune.runtime.torch import TorchRuntime

        loaded = load_token_classifier(source, revision=revision)
        device = device or best_device()
        limit = {"max_batch_tokens": _CPU_BATCH_TOKENS} if device == "cpu" else {}
        runtime = TorchRuntime(loaded.module, device=device, dtype=dtype, per_token=("keep",), **limit)
        fingerprint = f"{loaded.fingerprint} {runtime.dtype}"
        return cls(
            source, runtime, loaded.tokenizer, loaded.layout, loaded.max_length, 0.5, fingerprint, rows=loaded.rows
        )

    def read(self, texts: Sequence[str]) -> list[TokenReading]:
        """One reading a text, in order; a text longer than the model's input is read in overlapping windows."""
        readings: list[TokenReading] = []
        begin = size = 0
        for end, text in enumerate(texts, start=1):
            size += len(text)
            if size >= _CHUNK_CHARACTERS or end == len(texts):
                readings += self._read(texts[begin:end])
                begin, size = end, 0
        return readings

    def _read(self, texts: Sequence[str]) -> list[TokenReading]:
        with stage("tokenize"):
            normal = [normalise(text) for text in texts]
            encodings = self.tokenizer.encode_batch([each.text for each in normal], add_special_tokens=False)
            around = PairFormat(self.layout.prefix, (), self.layout.suffix)
            laid = [lay_windows((), (), each.ids, layout=around, max_length=self.max_length) for each in encodings]
            offsets = [
                read.sources(np.array(each.offsets, np.int64).reshape(-1, 2))
                for read, each in zip(normal, encodings, strict=True)
            ]
        with stage("infer"):
            full = [windows for windows in laid if windows.length]
            outputs = iter(self.runtime.forward([sequence for windows in full for sequence in windows.sequences]))
            return [
                TokenReading(
                    place,
                    sigmoid(stitch(windows, [next(outputs)["keep"] for _ in windows.sequences]).astype(np.float64))
                    if windows.length
                    else np.zeros(0),
                )
                for place, windows in zip(offsets, laid, strict=True)
            ]


def load_word_model(
    source: str = BUNDLED, *, revision: str | None = None, device: str | None = None, dtype: str | None = None
) -> WordModel:
    """The bundled model by name, an exported folder, or a token-classification checkpoint by folder or hub id.

    revision, device, dtype: for checkpoints on torch; exports run on the CPU, and warn. Raises UnknownNameError for a
    path that is not there, CheckpointError for what cannot be loaded.
    """
    folder = bundled_folder(source, CONFIG) or Path(source)
    if not (folder / CONFIG).is_file():
        check_source(source, bundled=BUNDLED)
        return WordModel.from_checkpoint(source, revision=revision, device=device, dtype=dtype)
    only_on_cpu(source, device=device, dtype=dtype, revision=revision)
    return WordModel.from_export(folder)
