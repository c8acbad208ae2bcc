"""A causal language model from the Hugging Face hub or a folder, greedy, in batches that do not change its answers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxprune.errors import InputError
from ctxprune.generators.base import checked_prompts
from ctxprune.models.causal_lm import load_causal_lm
from ctxprune.runtime.device import best_device
from ctxprune.text import model_text

if TYPE_CHECKING:
    import torch


class LocalGenerator:
    """Loads tokenizer and model at once; call it from several threads if you like, it answers one batch at a time.

    device, dtype: None for what `ctxprune.runtime.device` finds best, float32 on a CPU (in a 16-bit type the batch can
    tip a close call between two tokens). chat: wrap each prompt as a user's turn;
    None: if the tokenizer has a chat template. gguf_file: the file to read from a folder or repository of GGUF files.
    Raises CheckpointError when the model cannot be loaded, InputError for chat=True without a template.
    """

    def __init__(
        self,
        path_or_id: str | Path,
        *,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int = 8,
        chat: bool | None = None,
        gguf_file: str | None = None,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        self.name = str(path_or_id)
        self.batch_size = batch_size
        self.device = device or best_device()
        self._tokenizer, self._model = load_causal_lm(self.name, device=self.device, dtype=dtype, gguf_file=gguf_file)
        self.dtype = str(self._model.dtype).removeprefix("torch.")
        self.chat = bool(self._tokenizer.chat_template) if chat is None else chat
        if self.chat and not self._tokenizer.chat_template:
            raise InputError(f"{self.name} has no chat template; pass chat=False")
        self._eos = _eos_ids(self._model.generation_config.eos_token_id, self._tokenizer.eos_token_id)
        self._model.generation_config = _greedy(self._eos, self._tokenizer.pad_token_id)
        self._lock = threading.Lock()

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[str]:
        """Raises InputError, before anything is generated, for a prompt that does not fit the model's context."""
        with self._lock:
            encoded = [self._encode(prompt) for prompt in checked_prompts(prompts, max_new_tokens)]
            for place, ids in enumerate(encoded):
                self._check_length(place, len(ids), max_new_tokens)
            answers = [""] * len(encoded)
            # prompts of one length together: less padding to compute
            order = sorted(range(len(encoded)), key=lambda place: len(encoded[place]))
            for first in range(0, len(order), self.batch_size):
                places = order[first : first + self.batch_size]
                batch = self._generate_batch([encoded[place] for place in places], max_new_tokens)
                for place, answer in zip(places, batch, strict=True):
                    answers[place] = answer
            return answers

    @property
    def context_tokens(self) -> int | None:
        """Tokens of prompt and answer together that the model was built for; None if it does not say."""
        config = self._model.config.get_text_config()
        limit = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
        return int(limit) if limit else None

    def _encode(self, prompt: str) -> list[int]:
        text = model_text(prompt)
        if self.chat:
            turns = [{"role": "user", "content": text}]
            text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        # a chat template writes its own special tokens; a second <s> would hurt
        ids: list[int] = self._tokenizer(text, add_special_tokens=not self.chat, verbose=False)["input_ids"]
        return ids

    def _check_length(self, place: int, tokens: int, max_new_tokens: int) -> None:
        limit = self.context_tokens
        if tokens == 0:
            raise InputError(f"prompts[{place}] has no tokens; pass a prompt with text")
        if limit is not None and tokens + max_new_tokens > limit:
            raise InputError(
                f"prompts[{place}] has {tokens} tokens and asks for {max_new_tokens} more, but {self.name} holds "
                f"{limit}; compress the context to a smaller budget or lower max_new_tokens"
            )

    def _generate_batch(self, encoded: Sequence[list[int]], max_new_tokens: int) -> list[str]:
        import torch

        ids, mask = _left_padded(encoded, self._model.generation_config.pad_token_id)
        with torch.inference_mode():
            # generate() counts position ids from the mask, so padding moves no token
            output = self._model.generate(
                input_ids=ids.to(self.device), attention_mask=mask.to(self.device), max_new_tokens=max_new_tokens
            )
        new = output[:, ids.shape[1] :].tolist()
        return [self._tokenizer.decode(_until(row, self._eos), skip_special_tokens=True).strip() for row in new]


def _greedy(eos: frozenset[int], pad: int | None) -> Any:
    """Plain greedy decoding, free of the sampling defaults and penalties that a checkpoint may bring."""
    from transformers import GenerationConfig

    ends = sorted(eos)
    pad = pad if pad is not None else next(iter(ends), 0)
    options = {"do_sample": False, "num_beams": 1, "eos_token_id": ends or None, "pad_token_id": pad}
    return GenerationConfig(**options)  # type: ignore[no-untyped-call]


def _eos_ids(configured: int | Sequence[int] | None, of_tokenizer: int | None) -> frozenset[int]:
    ids = [configured] if isinstance(configured, int) else list(configured or ())
    return frozenset(ids if of_tokenizer is None else [*ids, of_tokenizer])


def _left_padded(encoded: Sequence[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask), both (batch, longest) int64, padding on the left, mask 1 = real token."""
    import torch

    longest = max(map(len, encoded))
    ids = torch.full((len(encoded), longest), pad, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(encoded):
        ids[row, longest - len(tokens) :] = torch.tensor(tokens)
        mask[row, longest - len(tokens) :] = 1
    return ids, mask


def _until(tokens: list[int], ends: frozenset[int]) -> list[int]:
    """The tokens before the first end; what a finished row holds after it is padding."""
    return next((tokens[:place] for place, token in enumerate(tokens) if token in ends), tokens)
