"""What soft tokens do to answers: the likelihood of the accepted one and what the model writes, arm by arm."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ctxprune.eval.metrics import substring_match
from ctxprune.eval.soft.inputs import Asked
from ctxprune.eval.soft.likelihood import SoftLikelihood
from ctxprune.eval.soft.rows import Row
from ctxprune.eval.soft.tokens import TextTokens
from ctxprune.generators import LocalGenerator, Reply
from ctxprune.types import Context

#: Names of the arms, from nothing to everything; `TextTokens` may lack the constant one.
CLOSED, CONSTANT, SHUFFLED, XRAG, TEXT = "closed book", "constant token", "shuffled token", "xRAG", "text"
_SOFT = {"constant": CONSTANT, "shuffled": SHUFFLED, "true": XRAG}


def arms(asked: Asked, tokens: TextTokens) -> dict[str, str | Context]:
    """What is asked in each arm: the question alone, or with one thing in its document's place."""
    soft = tokens.of(asked.document)
    contexts = {arm: tokens.context(asked.question, soft[name]) for name, arm in _SOFT.items() if name in soft}
    return {CLOSED: asked.question, **contexts, TEXT: Context.of(asked.question, [asked.document])}


class AnswerMeasure:
    """Measures questions. model, generator: called when something is left to measure. template: of the bridge."""

    def __init__(
        self,
        tokens: TextTokens,
        model: Callable[[], SoftLikelihood],
        generator: Callable[[], LocalGenerator],
        *,
        template: str,
        max_new_tokens: int,
    ) -> None:
        self._tokens = tokens
        self._model = model
        self._generator = generator
        self._template = template
        self._max_new_tokens = max_new_tokens

    def likelihoods(self, questions: Sequence[Asked]) -> list[Row]:
        """Nats of the first accepted answer by arm, its number of tokens, and the tokens of each arm's prompt."""
        model = self._model()
        asked = [arms(each, self._tokens) for each in questions]
        prompts = [{arm: model.question_parts(prompt) for arm, prompt in each.items()} for each in asked]
        answers = [model.answer_ids(each.answers[0]) for each in questions]
        return [
            {
                "id": question.id,
                "tokens": len(answer),
                "nats": nats,
                "prompt_tokens": {arm: sum(map(len, parts)) for arm, parts in each.items()},
            }
            for question, answer, each, nats in zip(
                questions, answers, prompts, model.nats(prompts, answers), strict=True
            )
        ]

    def predictions(self, questions: Sequence[Asked]) -> list[Row]:
        """What the model writes in each arm, greedily, and whether an accepted answer occurs in it."""
        asked = [arms(each, self._tokens) for each in questions]
        written = {arm: self._written([each[arm] for each in asked]) for arm in asked[0]}
        rows: list[Row] = []
        for place, question in enumerate(questions):
            replies = {arm: answers[place] for arm, answers in written.items()}
            # a small model's empty reply is its answer here: a wrong one, and the row says what it was
            match = {arm: substring_match(reply.text, question.answers) for arm, reply in replies.items()}
            texts = {arm: reply.text for arm, reply in replies.items()}
            faults = {arm: reply.fault for arm, reply in replies.items() if reply.fault}
            failures = {"failures": faults} if faults else {}
            rows.append({"id": question.id, "predictions": texts, "match": match, **failures})
        return rows

    def _written(self, prompts: Sequence[str | Context]) -> list[Reply]:
        """prompts: of one arm, so all of one kind."""
        generator = self._generator()
        texts = [prompt for prompt in prompts if isinstance(prompt, str)]
        contexts = [prompt for prompt in prompts if not isinstance(prompt, str)]
        limit = self._max_new_tokens
        if texts:
            return generator.replies(texts, max_new_tokens=limit)
        return generator.context_replies(contexts, template=self._template, max_new_tokens=limit)
