"""How likely a causal language model finds given answers to given prompts.

The end-task signal of RECOMP (Xu et al., ICLR 2024): a sentence is worth what it adds to the answer's log-likelihood.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ctxprune.errors import CheckpointError, InputError
from ctxprune.prompt import piece_text, render_prompt, title_header
from ctxprune.runtime.device import best_device, best_dtype, no_bars_off_terminal
from ctxprune.text import model_text
from ctxprune.types import Context, Piece, SoftTokens, Summary

if TYPE_CHECKING:
    import torch


def load_causal_lm(name: str, *, device: str, dtype: str | None, gguf_file: str | None) -> tuple[Any, Any]:
    """(tokenizer, model) in eval mode on `device`. dtype: None for what suits the device. gguf_file: the file to read.

    Raises InputError for an unknown dtype, CheckpointError when tokenizer or model cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch_dtype = getattr(torch, dtype or best_dtype(device), None)
    if not isinstance(torch_dtype, torch.dtype):
        raise InputError(f"dtype must name a torch dtype such as float32 or bfloat16, got {dtype!r}")
    options = {"gguf_file": gguf_file} if gguf_file else {}
    try:
        with no_bars_off_terminal():
            tokenizer = AutoTokenizer.from_pretrained(name, **options)
            model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=torch_dtype, **options)
    except Exception as error:  # missing path, no network, foreign layout: each its own type in another library
        raise CheckpointError(f"cannot load a causal language model from {name!r}: {error}") from error
    return tokenizer, model.to(device).eval()


def revision_of(model: Any) -> str:
    """The commit on the hub that a model was loaded from; "" for one from a folder."""
    return str(getattr(model.config, "_commit_hash", None) or "")


#: (n, d_model) soft tokens.
SoftArray: TypeAlias = npt.NDArray[np.float32]
#: A prompt in order: runs of token ids, and (n, d_model) float32 vectors that stand where n tokens would.
Parts: TypeAlias = "list[list[int] | torch.Tensor]"


class PromptEncoder:
    """A model's tokenizer and how it wraps a prompt. chat: as a user's turn; None: if there is a chat template.

    Raises InputError for chat=True without a template. name: the model's, for messages.
    """

    def __init__(self, tokenizer: Any, *, name: str, chat: bool | None = None) -> None:
        self.chat = bool(tokenizer.chat_template) if chat is None else chat
        if self.chat and not tokenizer.chat_template:
            raise InputError(f"{name} has no chat template; pass chat=False")
        self._tokenizer = tokenizer

    def ids(self, prompt: str) -> list[int]:
        return self._ids(self._wrapped(prompt), first=True)

    def answer_ids(self, answer: str) -> list[int]:
        """What follows the prompt: after a chat template's own line break, else after a blank. No end token."""
        text = model_text(answer)
        return self._ids(text if self.chat or not text else f" {text}", first=False)

    def parts(self, context: Context, *, template: str) -> Parts:
        """The prompt of `render_prompt` with each run of neighbouring soft tokens in its place, no separator within it.

        The text between two runs is tokenised by itself. Without soft tokens there is one part, the same ids as `ids`.
        Raises InputError for a prompt template without its placeholders, or a chat template that does not write the
        prompt once and whole.
        """
        import torch

        prompt, runs, mark = _marked(context, template)
        texts = mark.split(self._wrapped(prompt))
        if len(texts) != len(runs) + 1:
            raise InputError(
                f"the chat template writes {len(texts) - 1} runs of soft tokens where the prompt has {len(runs)}; "
                "pass chat=False and a prompt template that holds the model's own turn markers"
            )
        parts: Parts = [self._ids(texts[0], first=True)]
        for run, text in zip(runs, texts[1:], strict=True):
            vectors = np.concatenate(run).astype(np.float32, copy=False)
            parts += [torch.from_numpy(vectors), self._ids(text, first=False)]
        return [part for part in parts if len(part)]

    def _wrapped(self, prompt: str) -> str:
        text = model_text(prompt)
        if not self.chat:
            return text
        turns = [{"role": "user", "content": text}]
        return str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def _ids(self, text: str, *, first: bool) -> list[int]:
        # a chat template writes its own special tokens; a second <s> would hurt
        special = first and not self.chat
        ids: list[int] = self._tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
        return ids


def check_soft_tokens(contexts: Sequence[Context], *, names: Sequence[str], width: int, revision: str = "") -> None:
    """Raises InputError for soft tokens that were trained for another model than one called one of `names`, or for
    another revision of it where both are known, that are not (n, width), or that hold nan or infinity."""
    for place, context in enumerate(contexts):
        for piece in context.pieces:
            if isinstance(piece, SoftTokens):
                _check(piece, f"contexts[{place}], document {piece.index}", names, width, revision)


def _check(piece: SoftTokens, where: str, names: Sequence[str], width: int, revision: str) -> None:
    name, _, trained = piece.generator.rpartition("@")
    if name in names and revision and revision != trained:
        raise InputError(
            f"{where}: the soft tokens are for revision {trained!r} of {name!r}, this generator is its revision "
            f"{revision!r}; load that one, or train a bridge for this"
        )
    if "+reader-" in piece.generator and piece.generator not in names:
        raise InputError(
            f"{where}: the soft tokens are for {piece.generator!r}, no stock model, this generator is {names[0]!r}; "
            f"load the bridge's folder 'reader' with known_as={piece.generator!r}"
        )
    if not {piece.generator, name} & {*names}:
        raise InputError(
            f"{where}: the soft tokens are for {piece.generator!r}, this generator is {names[0]!r}; use that "
            f"generator, or pass known_as={piece.generator!r} if this is the same model from another place"
        )
    if piece.embeddings.ndim != 2 or piece.embeddings.shape[1] != width:
        raise InputError(
            f"{where}: the soft tokens have the shape {piece.embeddings.shape}, {names[0]!r} reads (n, {width}); "
            "use the bridge that was trained for this model"
        )
    if not np.isfinite(piece.embeddings).all():
        raise InputError(f"{where}: the soft tokens hold nan or infinity; compress the document again")


def _soft_length(piece: Piece) -> int:
    return len(piece.embeddings) if isinstance(piece, SoftTokens) else 0


def _marked(context: Context, template: str) -> tuple[str, list[list[SoftArray]], re.Pattern[str]]:
    """(the rendered prompt with a marker for each run of soft tokens, the runs, what finds a marker)."""
    visible = [piece for piece in context.pieces if piece_text(piece) or _soft_length(piece)]
    texts = "\n".join([template, context.query, *map(piece_text, visible)])
    # words that no text of this prompt holds, so that a question about markers stays a question
    stem = next(stem for number in count() if (stem := f"[soft-{number}-") not in texts)
    pieces: list[Piece] = []
    runs: list[list[SoftArray]] = []
    runs_on = False
    for piece in visible:
        if isinstance(piece, SoftTokens) and piece.runs_on and runs_on:
            runs[-1].append(piece.embeddings)
        elif isinstance(piece, SoftTokens):
            pieces.append(Summary(_with_markers(piece, stem, runs), ()))
        else:
            pieces.append(piece)
        runs_on = isinstance(piece, SoftTokens) and piece.runs_on
    prompt = render_prompt(replace(context, pieces=tuple(pieces)), template=template)
    return prompt, runs, re.compile(re.escape(stem) + r"\d+\]")


def _with_markers(piece: SoftTokens, stem: str, runs: list[list[SoftArray]]) -> str:
    """The document's text with a marker for each run of its soft tokens, which are added to `runs`."""
    # a title belongs to text alone, as budgets count it
    written = title_header(piece.expanded) if piece.expanded is not None and piece_text(piece) else ""
    for place, run in enumerate(piece.runs()):
        if isinstance(run, str):
            # a word after a vector begins as it does after another word
            written += f" {run}" if place else run
        else:
            written += f"{stem}{len(runs)}]"
            runs.append([run])
    return written


#: What all prompts of a call begin with is run once if it has at least so many tokens.
_MIN_PREFIX = 8


@dataclass(frozen=True, slots=True)
class AnswerScore:
    """nats: natural log of P(answer | prompt), summed over the answer's `tokens` tokens; at most 0."""

    nats: float
    tokens: int


class AnswerLikelihood:
    """A causal language model that scores answers instead of writing them; loads tokenizer and model at once.

    device, dtype: None for what `ctxprune.runtime.device` finds best; on CPUs that compute in it, bfloat16 is several
    times as fast as float32 and moves a score by some hundredths of a nat. attn: attention implementation ("eager",
    "sdpa"); None for the library's choice. chat: wrap each prompt as a user's turn, the answer being the assistant's;
    None: if the tokenizer has a chat template. Without a template an answer follows its prompt after a blank.
    batch_tokens: tokens a forward pass, padding included.
    Raises CheckpointError when the model cannot be loaded, InputError for chat=True without a template.
    """

    def __init__(
        self,
        path_or_id: str | Path,
        *,
        device: str | None = None,
        dtype: str | None = None,
        attn: str | None = None,
        chat: bool | None = None,
        batch_tokens: int = 2048,
        gguf_file: str | None = None,
    ) -> None:
        if batch_tokens < 1:
            raise InputError(f"batch_tokens must be at least 1, got {batch_tokens}; the default is 2048")
        self.name = str(path_or_id)
        self.device = device or best_device()
        self.batch_tokens = batch_tokens
        self.tokenizer, self.model = load_causal_lm(self.name, device=self.device, dtype=dtype, gguf_file=gguf_file)
        if attn is not None:
            self.model.set_attn_implementation(attn)
        self.encoder = PromptEncoder(self.tokenizer, name=self.name, chat=chat)

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> list[AnswerScore]:
        """One score a pair of prompt and answer; it does not depend on the other pairs but for rounding.

        Raises InputError when there are not as many answers as prompts, for a prompt or answer without tokens, and for
        a pair that does not fit the model's context.
        """
        if len(prompts) != len(answers):
            raise InputError(f"score needs one answer a prompt, got {len(prompts)} prompts and {len(answers)} answers")
        asked = [self.encoder.ids(prompt) for prompt in prompts]
        wanted = [self.encoder.answer_ids(answer.strip()) for answer in answers]
        for place, (before, after) in enumerate(zip(asked, wanted, strict=True)):
            self._check(place, len(before), len(after))
        shared = _shared_prefix(asked)
        prefix = self._run_prefix(asked[0][:shared]) if shared else None
        rows = [before[shared:] + after for before, after in zip(asked, wanted, strict=True)]
        scores = [AnswerScore(0.0, 0)] * len(rows)
        for places in token_batches([len(row) for row in rows], self.batch_tokens):
            lengths = [len(wanted[place]) for place in places]
            nats = self._run([rows[place] for place in places], lengths, shared, prefix)
            for place, value in zip(places, nats, strict=True):
                scores[place] = AnswerScore(value, len(wanted[place]))
        return scores

    def _check(self, place: int, prompt: int, answer: int) -> None:
        if not prompt or not answer:
            empty = "answers" if prompt else "prompts"
            raise InputError(f"{empty}[{place}] has no tokens; pass a text that is not empty")
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if limit and prompt + answer > limit:
            raise InputError(
                f"prompts[{place}] and its answer have {prompt + answer} tokens, but {self.name} holds {limit}; "
                "pass a shorter prompt"
            )

    def _run_prefix(self, ids: Sequence[int]) -> Any:
        """Keys and values of what all prompts begin with, a batch of one."""
        import torch

        with torch.inference_mode():
            row = torch.tensor([ids], device=self.device)
            return self.model(input_ids=row, use_cache=True, logits_to_keep=1).past_key_values

    def _run(self, rows: Sequence[list[int]], lengths: Sequence[int], shared: int, prefix: Any) -> list[float]:
        """Nats of the last lengths[i] tokens of each row; rows follow `shared` tokens whose keys are in `prefix`."""
        import torch

        ids, mask = left_padded(rows)
        mask = torch.cat([mask.new_ones(len(rows), shared), mask], dim=1)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, shared:]
        inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        inputs = {name: value.to(self.device) for name, value in inputs.items()}
        if prefix is not None:
            cache = copy.deepcopy(prefix)  # a forward pass appends to it
            cache.batch_repeat_interleave(len(rows))
            inputs["past_key_values"] = cache
        width = max(lengths)
        with torch.inference_mode():
            found = trailing_log_probabilities(self.model, inputs["input_ids"][:, -width:], **inputs)
        is_answer = torch.arange(width) >= width - torch.tensor(lengths)[:, None]
        return [float(value) for value in found.cpu().double().mul(is_answer).sum(dim=1)]


def trailing_log_probabilities(model: Any, targets: torch.Tensor, **inputs: Any) -> torch.Tensor:
    """log P of the last tokens of each row, the vocabulary's head being run at their positions only.

    targets: (batch, n) int64, the last n tokens of every row. inputs: what the model takes, rows padded on the left so
    that all end together. Returns (batch, n) float32; gradients flow through it.
    """
    import torch

    count = targets.shape[1]
    logits: torch.Tensor = model(**inputs, logits_to_keep=count + 1).logits[:, -count - 1 : -1]
    taken: torch.Tensor = logits.gather(-1, targets[..., None])[..., 0].float()
    return taken - torch.logsumexp(logits.float(), dim=-1)


def token_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Places of sequences of like lengths, each batch at most `batch_tokens` when padded, or one sequence."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if batch and (len(batch) + 1) * lengths[place] > batch_tokens:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def left_padded(rows: Sequence[Sequence[int]], pad: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask), both (batch, longest) int64, the id `pad` on the left of shorter rows, mask 1 = real token."""
    import torch

    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, longest - len(row) :] = torch.tensor(row)
        mask[place, longest - len(row) :] = 1
    return ids, mask


def _shared_prefix(prompts: Sequence[list[int]]) -> int:
    """Tokens that all prompts begin with, each keeping at least one of its own; 0 when that is not worth a pass."""
    if len(prompts) < 2:
        return 0
    # what the first and the last in order share, all between them share
    pairs = enumerate(zip(min(prompts), max(prompts), strict=False))
    shared = next((place for place, (left, right) in pairs if left != right), len(prompts[0]))
    shared = min(shared, min(map(len, prompts)) - 1)
    return shared if shared >= _MIN_PREFIX else 0
