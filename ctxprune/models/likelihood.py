"""How likely a causal language model finds given answers to given prompts.

The end-task signal of RECOMP (Xu et al., ICLR 2024): a sentence is worth what it adds to the answer's log-likelihood.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxprune.errors import InputError
from ctxprune.models.causal_lm import load_causal_lm
from ctxprune.models.prompt_encoding import PromptEncoder
from ctxprune.runtime.device import best_device

if TYPE_CHECKING:
    import torch

#: What all prompts of a call begin with is run once if it has at least so many tokens.
_MIN_PREFIX = 8


@dataclass(frozen=True, slots=True)
class AnswerScore:
    """nats: natural log of P(answer | prompt), summed over the answer's `tokens` tokens; at most 0."""

    nats: float
    tokens: int

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.tokens


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
