"""Remember a language model's answers in an append-only file, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ctxprune.errors import InputError
from ctxprune.generators.replies import CUT, generated, reply_of

if TYPE_CHECKING:
    from ctxprune.generators import Generator

#: Enough to fill a batch or a pool of connections; a failed call loses no more than this.
PROMPTS_A_CALL = 64


class AnswerCache:
    """Answers by model and prompt: one `{"key", "model", "answer", "digest"}` a line, written as soon as known.

    A last line without its line end, as a killed process leaves it, is cut off and so asked again, as is an answer that
    does not fit its digest (earlier versions wrote none); any other line that cannot be read raises InputError. For one
    process at a time. Use as a context manager.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._answers: dict[str, str] = {}
        self._failures: dict[str, str] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+b")
        except OSError as error:
            raise InputError(f"cannot open the answer cache {self.path}: {error}") from None
        try:
            self._load()
        except InputError:
            self._file.close()
            raise

    def _load(self) -> None:
        self._file.seek(0)
        complete = 0
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
                key, answer = row["key"], row["answer"]
                if row.get("digest", digest := _digest(key, answer)) == digest:
                    self._answers[key] = answer
            except (ValueError, LookupError, TypeError, AttributeError):
                raise InputError(
                    f"{self.path}:{number}: not an answer of a labelling run; delete the line to ask again, "
                    "or name another cache file"
                ) from None
            complete += len(line)
        self._file.truncate(complete)

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, model: str, prompt: str) -> str | None:
        """The model's answer to the prompt, None if it was never asked."""
        return self._answers.get(_key(model, prompt))

    def put(self, model: str, prompt: str, answer: str) -> None:
        """Remember an answer, on disk before this returns."""
        key = _key(model, prompt)
        self._answers[key] = answer
        row = {"key": key, "model": model, "answer": answer, "digest": _digest(key, answer)}
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()

    def failure(self, model: str, prompt: str) -> str:
        """Why the reply to the prompt is no answer, in a few fixed words; "" where it is one or was not asked."""
        return self._failures.get(_key(model, prompt), "")

    def fail(self, model: str, prompt: str, reason: str) -> None:
        """Remember why a reply is no answer until the cache is closed, so that another run asks again."""
        self._failures[_key(model, prompt)] = reason

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def answer_all(
    prompts: Sequence[str],
    generator: Generator,
    *,
    model: str,
    cache: AnswerCache,
    max_new_tokens: int,
    whole: bool = True,
) -> int:
    """Put the answers to all prompts into the cache; returns how many were generated.

    Prompts in the cache are not asked again, and equal prompts are asked once, PROMPTS_A_CALL in a call. Of a reply
    that is no answer (empty, refused, only reasoning, or, where it must be `whole`, cut off) the cache tells the
    reason. What earlier versions remembered may hold reasoning: it is asked for again.
    """
    unknown = [prompt for prompt in dict.fromkeys(prompts) if not _settled(cache, model, prompt)]
    for begin in range(0, len(unknown), PROMPTS_A_CALL):
        asked = unknown[begin : begin + PROMPTS_A_CALL]
        for prompt, reply in zip(asked, generated(generator, asked, max_new_tokens=max_new_tokens), strict=True):
            if reply.fault or (whole and reply.cut):
                cache.fail(model, prompt, reply.short_fault or CUT)
            else:
                cache.put(model, prompt, reply.text)
    return len(unknown)


def _settled(cache: AnswerCache, model: str, prompt: str) -> bool:
    answer = cache.get(model, prompt)
    if answer is None:
        return bool(cache.failure(model, prompt))
    return reply_of(answer).text == answer.strip() != ""


def _key(model: str, prompt: str) -> str:
    return hashlib.sha256(json.dumps([model, prompt]).encode()).hexdigest()


def _digest(key: str, answer: str) -> str:
    return hashlib.blake2b(json.dumps([key, answer]).encode(), digest_size=12).hexdigest()
