"""A causal language model from the Hugging Face hub or a folder, greedy, in batches that do not change its answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ctxprune.errors import InputError
from ctxprune.files import CopiedLock
from ctxprune.generators.base import (
    REASONING_TOKEN,
    Generator,
    Reply,
    checked_contexts,
    checked_prompts,
    generated,
    opened_in,
    reply_of,
)
from ctxprune.models.causal import (
    Parts,
    PromptEncoder,
    check_soft_tokens,
    left_padded,
    load_causal_lm,
    revision_of,
)
from ctxprune.prompt import DEFAULT_TEMPLATE, render_prompt
from ctxprune.runtime.device import best_device
from ctxprune.types import Compressor, Context, SoftTokens, about_of, whole

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
#: What a model's `generate` takes beside its options: ids or embeddings, and their mask.
Inputs: TypeAlias = "dict[str, torch.Tensor]"

#: Tokens at a prompt's end among which a mark that opens the reasoning is looked for.
_TAIL = 16


class LocalGenerator:
    """Loads tokenizer and model at once; call it from several threads if you like, it answers one batch at a time.

    device, dtype: None for what `ctxprune.runtime.device` finds best, float32 on a CPU (in a 16-bit type the batch can
    tip a close call between two tokens). chat: wrap each prompt as a user's turn;
    None: if the tokenizer has a chat template. gguf_file: the file to read from a folder or repository of GGUF files.
    known_as: the name that soft tokens call this model by, where it was loaded under another, such as a local folder.
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
        known_as: str | None = None,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        self.name = str(path_or_id)
        self.batch_size = batch_size
        self.device = device or best_device()
        self._tokenizer, self._model = load_causal_lm(self.name, device=self.device, dtype=dtype, gguf_file=gguf_file)
        self.dtype = str(self._model.dtype).removeprefix("torch.")
        self._encoder = PromptEncoder(self._tokenizer, name=self.name, chat=chat)
        self.chat = self._encoder.chat
        self.known_as = known_as
        self._eos = _eos_ids(self._model.generation_config.eos_token_id, self._tokenizer.eos_token_id)
        self._model.generation_config = _greedy(self._eos, self._tokenizer.pad_token_id)
        self._lock = CopiedLock()

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[str]:
        """What a user would see of each reply; one that the limit ended stays as it is.

        Raises InputError, before anything is generated, for a prompt that does not fit the model's context, and
        GeneratorError for a reply that is empty or only reasoning.
        """
        return [reply.usable(self.name) for reply in self.replies(prompts, max_new_tokens=max_new_tokens)]

    def replies(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[Reply]:
        """As `generate`, with the reason in place of an error where a reply is no answer."""
        checked = checked_prompts(prompts, max_new_tokens)
        with self._lock:
            encoded = [self._encoder.ids(prompt) for prompt in checked]
            for place, ids in enumerate(encoded):
                self._check_length(f"prompts[{place}]", len(ids), max_new_tokens)
            raw = self._in_batches(encoded, [*map(len, encoded)], max_new_tokens, self._padded_ids)
            return [self._reply(ids, tokens, max_new_tokens) for ids, tokens in zip(encoded, raw, strict=True)]

    def generate_contexts(
        self, contexts: Sequence[Context], *, template: str = DEFAULT_TEMPLATE, max_new_tokens: int = 64
    ) -> list[str]:
        """One answer a context, whose soft tokens take the places of their documents in the prompt.

        Without soft tokens it answers as `generate` does to `render_prompt`. Raises InputError, before anything is
        generated, for soft tokens of another model or width and for a prompt that does not fit the model's context.
        """
        replies = self.context_replies(contexts, template=template, max_new_tokens=max_new_tokens)
        return [reply.usable(self.name) for reply in replies]

    def context_replies(
        self, contexts: Sequence[Context], *, template: str = DEFAULT_TEMPLATE, max_new_tokens: int = 64
    ) -> list[Reply]:
        """As `generate_contexts`, with the reason in place of an error where a reply is no answer."""
        contexts = checked_contexts(contexts, max_new_tokens)
        names = [self.name] if self.known_as is None else [self.name, self.known_as]
        width = self._model.get_input_embeddings().embedding_dim
        check_soft_tokens(contexts, names=names, width=width, revision=revision_of(self._model))
        with self._lock:
            parts = [self._encoder.parts(context, template=template) for context in contexts]
            lengths = [sum(map(len, each)) for each in parts]
            for place, length in enumerate(lengths):
                self._check_length(f"contexts[{place}]", length, max_new_tokens)
            raw = self._in_batches(parts, lengths, max_new_tokens, self._padded_embeddings)
            return [self._reply(row[-1], tokens, max_new_tokens) for row, tokens in zip(parts, raw, strict=True)]

    def _in_batches(
        self, rows: Sequence[T], lengths: Sequence[int], max_new_tokens: int, pad: Callable[[Sequence[T]], Inputs]
    ) -> list[list[int]]:
        """The new tokens of each row, up to and without its end."""
        answers: list[list[int]] = [[]] * len(rows)
        # prompts of one length together: less padding to compute
        order = sorted(range(len(rows)), key=lambda place: lengths[place])
        for first in range(0, len(order), self.batch_size):
            places = order[first : first + self.batch_size]
            batch = self._generate_batch(pad([rows[place] for place in places]), max_new_tokens)
            for place, answer in zip(places, batch, strict=True):
                answers[place] = answer
        return answers

    @property
    def context_tokens(self) -> int | None:
        """Tokens of prompt and answer together that the model was built for; None if it does not say."""
        config = self._model.config.get_text_config()
        limit = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
        return int(limit) if limit else None

    def _check_length(self, what: str, tokens: int, max_new_tokens: int) -> None:
        limit = self.context_tokens
        if tokens == 0:
            raise InputError(f"{what} has no tokens; pass a prompt with text")
        if limit is not None and tokens + max_new_tokens > limit:
            raise InputError(
                f"{what} has {tokens} tokens and asks for {max_new_tokens} more, but {self.name} holds "
                f"{limit}; compress the context to a smaller budget or lower max_new_tokens"
            )

    def _generate_batch(self, inputs: Inputs, max_new_tokens: int) -> list[list[int]]:
        import torch

        with torch.inference_mode():
            # generate() counts position ids from the mask, so padding moves no token
            output = self._model.generate(**inputs, max_new_tokens=max_new_tokens, **self._decoding())
        # from embeddings it returns only the new tokens, from ids the prompt's too
        width = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
        new = output[:, width:].tolist()
        return [_until(row, self._eos) for row in new]

    def _reply(self, prompt: Any, tokens: list[int], max_new_tokens: int) -> Reply:
        """prompt: its ids, or what of it comes last; a chat template may open the model's reasoning there."""
        opened = opened_in(self._tokenizer.decode(prompt[-_TAIL:])) if isinstance(prompt, list) else ""
        # the end token counts as new, so a row without room for one was cut off
        return reply_of(opened + self._text(tokens), cut=len(tokens) >= max_new_tokens)

    def _text(self, tokens: list[int]) -> str:
        """Without special tokens, but for those that mark reasoning: without them it could not be told apart."""
        special = set(self._tokenizer.all_special_ids)
        marks = {
            each for each in special.intersection(tokens) if REASONING_TOKEN.fullmatch(self._tokenizer.decode(each))
        }
        if not marks:
            return str(self._tokenizer.decode(tokens, skip_special_tokens=True))
        shown = [each for each in tokens if each not in special or each in marks]
        return str(self._tokenizer.decode(shown, skip_special_tokens=False))

    def _decoding(self) -> dict[str, Any]:
        """More options of `generate`, for a class that decodes otherwise."""
        return {}

    def _padded_ids(self, encoded: Sequence[list[int]]) -> Inputs:
        ids, mask = left_padded(encoded, self._model.generation_config.pad_token_id)
        return {"input_ids": ids.to(self.device), "attention_mask": mask.to(self.device)}

    def _padded_embeddings(self, rows: Sequence[Parts]) -> Inputs:
        import torch

        from ctxprune.generators.soft_prompt import splice  # brings torch

        with torch.inference_mode():
            spliced = splice(rows, self._model.get_input_embeddings())
        return {"inputs_embeds": spliced.embeds, "attention_mask": spliced.mask}


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


def _until(tokens: list[int], ends: frozenset[int]) -> list[int]:
    """The tokens before the first end; what a finished row holds after it is padding."""
    return next((tokens[:place] for place, token in enumerate(tokens) if token in ends), tokens)


class TextOnly:
    """generator: any `Generator`, such as one behind a chat endpoint.

    fallback: a text compressor for contexts that hold soft tokens. It reads them with each soft document whole again,
    beside the text that was kept of the others, and its budget is for all of that; None: soft tokens raise InputError.
    Raises InputError for a fallback that gives soft tokens itself.
    """

    def __init__(self, generator: Generator, *, fallback: Compressor | None = None) -> None:
        if fallback is not None and about_of(fallback).gives == "soft tokens":
            raise InputError(f"the fallback must return text, got {fallback.name!r}")
        self.generator = generator
        self.fallback = fallback

    @property
    def name(self) -> str:
        return self.generator.name

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[str]:
        return [reply.usable(self.name) for reply in self.replies(prompts, max_new_tokens=max_new_tokens)]

    def replies(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[Reply]:
        """As `generate`, with the reason in place of an error where a reply is no answer."""
        return generated(self.generator, prompts, max_new_tokens=max_new_tokens)

    def generate_contexts(
        self, contexts: Sequence[Context], *, template: str = DEFAULT_TEMPLATE, max_new_tokens: int = 64
    ) -> list[str]:
        """One answer a context. Raises InputError for soft tokens without a fallback, before anything is generated."""
        texts = self._as_text(checked_contexts(contexts, max_new_tokens))
        prompts = [render_prompt(context, template=template) for context in texts]
        return [reply.usable(self.name) for reply in self.replies(prompts, max_new_tokens=max_new_tokens)]

    def _as_text(self, contexts: list[Context]) -> list[Context]:
        soft = [place for place, context in enumerate(contexts) if _is_soft(context)]
        if self.fallback is None or not soft:
            return contexts
        restored = self.fallback.compress([_restored(contexts[place]) for place in soft])
        for place, context in zip(soft, restored, strict=True):
            contexts[place] = context
        return contexts


def _is_soft(context: Context) -> bool:
    return any(isinstance(piece, SoftTokens) for piece in context.pieces)


def _restored(context: Context) -> Context:
    """The context with the whole document where its soft tokens were."""
    pieces = (
        whole(piece.source, index=piece.index) if isinstance(piece, SoftTokens) else piece for piece in context.pieces
    )
    return replace(context, pieces=tuple(pieces))
