"""A T5-family model that writes one text for another: greedy, in batches that do not change its answers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ctxprune.errors import CheckpointError, InputError, MissingExtraError
from ctxprune.files import CopiedLock
from ctxprune.models.hub import fetch, read_json, write_json
from ctxprune.runtime.device import best_device, best_dtype, no_bars_off_terminal
from ctxprune.text.normal import readable

if TYPE_CHECKING:
    import torch

_CONFIG = "adapter_config.json"
_BASE = "base_model_name_or_path"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def adapter_folder(source: str | Path) -> Path:
    """The folder of an adapter in peft's layout: `source` itself, or the hub's snapshot of 'owner/name'.

    Raises CheckpointError when there is none.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir() and isinstance(source, str) and "/" in source and not folder.is_absolute():
        folder = fetch(source, None, [_CONFIG, *_WEIGHTS])
    if not (folder / _CONFIG).is_file():
        raise CheckpointError(f"{source} has no {_CONFIG}; pass the folder that the training run wrote, or a hub id")
    return folder


def base_of(folder: Path) -> str:
    """The folder or hub id of the model that an adapter was trained on. CheckpointError when its config has none."""
    name = read_json(folder / _CONFIG).get(_BASE)
    if not isinstance(name, str) or not name:
        raise CheckpointError(f"{folder / _CONFIG} does not say which model the adapter is for; pass model=")
    return name


def name_base(folder: Path, name: str) -> None:
    """Write into an adapter's config which model it is for."""
    write_json(folder / _CONFIG, read_json(folder / _CONFIG) | {_BASE: name})


def merge_adapter(model: Any, adapter: str | Path) -> Any:
    """The model with the adapter's low-rank updates added to its weights, as fast as without; `model` is used up.

    adapter: see `adapter_folder`. Raises CheckpointError when it cannot be read or does not fit the model,
    MissingExtraError without peft.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise MissingExtraError(f"the adapter {str(adapter)!r}", "train") from error
    folder = adapter_folder(adapter)
    try:
        with warnings.catch_warnings():
            # peft asks the model for something that transformers has renamed
            warnings.filterwarnings("ignore", message=".is_gradient_checkpointing.", category=FutureWarning)
            return PeftModel.from_pretrained(model, str(folder)).merge_and_unload().eval()
    except Exception as error:  # missing files, foreign keys, other shapes: each its own type in another library
        raise CheckpointError(
            f"cannot put the adapter {str(adapter)!r} on this model: {error}; is it the model it was trained on?"
        ) from error


class FirstTokenThreshold:
    """A logits processor for one call of transformers' `generate`.

    The first new token is `token` where that has at least the probability `threshold`, elsewhere the likeliest other
    one. Greedy decoding compares `token`, which alone says "nothing helps", with every first word of a summary singly:
    it falls silent where a summary is likelier as a whole, and the less sure the model is of the words, the sooner.
    """

    def __init__(self, token: int, threshold: float) -> None:
        self._token = token
        self._threshold = threshold
        self._width: int | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """input_ids: (b, tokens so far). scores: (b, vocabulary) logits."""
        if self._width is None:
            self._width = input_ids.shape[1]
        if input_ids.shape[1] > self._width:
            return scores
        silent = scores.float().softmax(dim=-1)[:, self._token] >= self._threshold
        decided = scores.clone()
        decided[silent] = -float("inf")
        decided[:, self._token] = -float("inf")
        decided[silent, self._token] = 0.0
        return decided


def check_empty_threshold(value: float | None) -> None:
    """Raises InputError unless it is None or a probability above 0."""
    if value is not None and not 0 < value <= 1:
        raise InputError(
            f"empty_threshold must be above 0 and at most 1, got {value}; leave it out for greedy decoding"
        )


SUPPORTED = ("t5", "mt5", "umt5", "longt5")


class Written(NamedTuple):
    """complete: the model ended the text itself, before the limit did."""

    text: str
    complete: bool


class Seq2Seq:
    """Loads tokenizer and model at once; calls from several threads take turns.

    tokenizer: a folder or hub id, for checkpoints saved without one. device, dtype: None for what
    `ctxprune.runtime.device` finds best, float32 on a CPU (in a 16-bit type the batch can tip a close call between two
    tokens). adapter: a LoRA adapter's folder or hub id, merged into the weights. empty_threshold: the probability of an
    empty text from which it is empty (None: where the end is the likeliest first token); see `FirstTokenThreshold`.
    Raises CheckpointError for a checkpoint that cannot be loaded or is no T5 with encoder and decoder.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        tokenizer: str | Path | None = None,
        adapter: str | Path | None = None,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int = 8,
        empty_threshold: float | None = None,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        check_empty_threshold(empty_threshold)
        self.name = str(source)
        self.batch_size = batch_size
        self.device = device or best_device()
        self._tokenizer, model = load_seq2seq(
            self.name, tokenizer=str(tokenizer or source), device=self.device, dtype=dtype
        )
        self._model = model if adapter is None else merge_adapter(model, adapter)
        self._end, self._pad = _special_ids(self._model, self._tokenizer)
        self._model.generation_config = _greedy(self._model, self._end, self._pad)
        self._empty_threshold = empty_threshold
        self._lock = CopiedLock()

    def count(self, texts: Sequence[str]) -> list[int]:
        """Input tokens of each text, its end token included."""
        return [len(ids) for ids in self._encode(texts)]

    def generate(self, sources: Sequence[str], *, max_new_tokens: int) -> list[Written]:
        """One text a source, in order. Sources are read whole: T5's positions are relative, so no length is refused."""
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
        encoded = self._encode(sources)
        written = [Written("", True)] * len(encoded)
        # sources of one length together: less padding to compute
        order = sorted(range(len(encoded)), key=lambda place: len(encoded[place]))
        for first in range(0, len(order), self.batch_size):
            places = order[first : first + self.batch_size]
            for place, text in zip(places, self._batch([encoded[at] for at in places], max_new_tokens), strict=True):
                written[place] = text
        return written

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        with self._lock:  # a fast tokenizer's settings are shared by all threads
            rows: list[list[int]] = self._tokenizer([*map(readable, texts)], verbose=False)["input_ids"]
        return rows

    def _batch(self, encoded: Sequence[list[int]], max_new_tokens: int) -> list[Written]:
        import torch

        ids, mask = _right_padded(encoded, self._pad)
        threshold = self._empty_threshold
        processors = [] if threshold is None else [FirstTokenThreshold(self._end, threshold)]
        with self._lock, torch.inference_mode():
            output = self._model.generate(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                max_new_tokens=max_new_tokens,
                logits_processor=processors,
            )
            return [self._read(row) for row in output[:, 1:].tolist()]  # the first is the decoder's start token

    def _read(self, tokens: list[int]) -> Written:
        """The tokens before the end; what a finished row holds after it is padding."""
        complete = self._end in tokens
        kept = tokens[: tokens.index(self._end)] if complete else tokens
        return Written(self._tokenizer.decode(kept, skip_special_tokens=True).strip(), complete)


def load_seq2seq(name: str, *, tokenizer: str, device: str, dtype: str | None) -> tuple[Any, Any]:
    """(tokenizer, model) in eval mode on `device`. dtype: None for what suits the device.

    Raises InputError for an unknown dtype, CheckpointError when either cannot be loaded or the model is of another
    architecture.
    """
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    torch_dtype = getattr(torch, dtype or best_dtype(device), None)
    if not isinstance(torch_dtype, torch.dtype):
        raise InputError(f"dtype must name a torch dtype such as float32 or bfloat16, got {dtype!r}")
    check_family(name)
    try:
        with no_bars_off_terminal():
            words = AutoTokenizer.from_pretrained(tokenizer)
            model, report = AutoModelForSeq2SeqLM.from_pretrained(name, dtype=torch_dtype, output_loading_info=True)
    except Exception as error:  # missing path, no network, foreign layout: each its own type in another library
        raise CheckpointError(f"cannot load a T5 model from {name!r}: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise CheckpointError(
            f"{name} lacks {len(missing)} weights of an encoder with a decoder, the first {missing[0]}; "
            "pass a checkpoint saved from T5ForConditionalGeneration"
        )
    return words, model.to(device).eval()


def model_config(name: str) -> Any:
    """The checkpoint's transformers config. Raises CheckpointError when it has none that can be read."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name)
    except Exception as error:  # missing path, no network, a type nobody knows: each its own type in another library
        raise CheckpointError(f"cannot read the config of the model {name!r}: {error}") from error


def check_family(name: str) -> None:
    """Raises CheckpointError, before any weight is read, for a checkpoint of another architecture."""
    config = model_config(name)
    if config.model_type not in SUPPORTED:
        raise CheckpointError(
            f"{name} is a {config.model_type!r} model; summaries need one of {', '.join(SUPPORTED)} with a decoder, or "
            "a causal language model"
        )


def _special_ids(model: Any, tokenizer: Any) -> tuple[int, int]:
    """(end, padding) as the model was trained with them; the tokenizer's where its config is silent."""
    end = model.config.eos_token_id if model.config.eos_token_id is not None else tokenizer.eos_token_id
    pad = model.config.pad_token_id if model.config.pad_token_id is not None else tokenizer.pad_token_id
    if not isinstance(end, int) or not isinstance(pad, int):
        raise CheckpointError(f"the model names no single end and padding token, got {end!r} and {pad!r}")
    return end, pad


def _greedy(model: Any, end: int, pad: int) -> Any:
    """Plain greedy decoding, free of the beams and penalties that a checkpoint may bring; T5 starts from padding."""
    from transformers import GenerationConfig

    start = getattr(model.config, "decoder_start_token_id", None)
    ids = {"eos_token_id": end, "pad_token_id": pad, "decoder_start_token_id": pad if start is None else start}
    return GenerationConfig(do_sample=False, num_beams=1, **ids)  # type: ignore[no-untyped-call]


def _right_padded(encoded: Sequence[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask), both (batch, longest) int64, padding on the right, mask 1 = real token."""
    import torch

    ids = torch.full((len(encoded), max(map(len, encoded))), pad, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(encoded):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = torch.tensor(tokens), 1
    return ids, mask
