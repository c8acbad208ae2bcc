"""The language model that a bridge serves, read for likelihoods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ctxprune.models.bridge import BridgeConfig, Vectors
from ctxprune.models.causal_lm import load_causal_lm
from ctxprune.models.paraphrase import PARAPHRASES, paraphrase_ids, token_ids
from ctxprune.models.prompt_encoding import Parts, PromptEncoder, check_soft_tokens
from ctxprune.models.soft_likelihood import answers_nll
from ctxprune.runtime.device import best_device
from ctxprune.types import Context, Document, SoftTokens


class SoftLikelihood:
    """Loads tokenizer and model at once. known_as: the name that the bridge calls this model by, if it is another.

    Raises CheckpointError when the model cannot be loaded, InputError when the bridge is for another model or width.
    """

    def __init__(
        self, path_or_id: str, bridge: BridgeConfig, *, known_as: str | None = None, dtype: str | None = None
    ) -> None:
        self._tokenizer, self._model = load_causal_lm(path_or_id, device=best_device(), dtype=dtype, gguf_file=None)
        self._encoder = PromptEncoder(self._tokenizer, name=path_or_id)
        self._template = bridge.template
        names = [path_or_id] if known_as is None else [path_or_id, known_as]
        soft = SoftTokens(np.zeros((1, bridge.d_model), np.float32), Document(""), bridge.generator)
        width = self._model.get_input_embeddings().embedding_dim
        check_soft_tokens([Context("", (soft,))], names=names, width=width)

    def question_parts(self, prompt: str | Context) -> Parts:
        """A prompt as the model reads it: a question alone, or a context in the bridge's template."""
        if isinstance(prompt, str):
            return [self._encoder.ids(prompt)]
        return self._encoder.parts(prompt, template=self._template)

    def paraphrase_parts(self, number: int, tokens: Vectors | None) -> Parts:
        """What a passage follows in the paraphrase prompt of this number: its soft tokens, (n, d_model), or none."""
        before, after = paraphrase_ids(self._tokenizer, PARAPHRASES[number % len(PARAPHRASES)])
        if tokens is None:
            return [[*before, *after]]
        return [[*before], torch.from_numpy(tokens), [*after]]

    def text_ids(self, text: str) -> tuple[int, ...]:
        """Token ids of a text that goes on."""
        return token_ids(self._tokenizer, text)

    def answer_ids(self, answer: str) -> tuple[int, ...]:
        """Token ids of an answer as it follows a prompt, without an end."""
        return tuple(self._encoder.answer_ids(answer))

    def nats(self, prompts: Sequence[Mapping[str, Parts]], answers: Sequence[Sequence[int]]) -> list[dict[str, float]]:
        """-ln P(answer | prompt), summed over the answer's tokens, of each prompt by its name; one answer a mapping."""
        flat = [(parts, answer) for named, answer in zip(prompts, answers, strict=True) for parts in named.values()]
        found = iter(answers_nll(self._model, [parts for parts, _ in flat], [answer for _, answer in flat]).tolist())
        return [{name: next(found) for name in named} for named in prompts]
