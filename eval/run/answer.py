"""The generate stage: each distinct prompt is answered once, remembered, and never asked again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Self

from ctxprune.errors import InputError
from ctxprune.eval.config import GeneratorConfig, Step
from ctxprune.eval.run.compress import model_hash
from ctxprune.eval.run.folder import Store, key
from ctxprune.eval.run.score import Answer
from ctxprune.generators import Generator, OpenAIGenerator, Reply, generated, load_generator
from ctxprune.generators.base import reply_of


class Answerer:
    """A generator whose answers are in a store; it is loaded when a prompt is new, let go at the end of a `with` block.

    A prompt counts as the same when text, model files (or endpoint), data type and length limit are the same. Answers
    are on disk batch by batch, so that an endpoint that goes down, or a killed run, costs one batch.
    """

    def __init__(self, config: GeneratorConfig, store: Store) -> None:
        self.config = config
        self._store = store
        self._generator: Generator | None = None
        self._asked: set[str] = set()
        model = str(config.model)
        # not the batch size: it decides how long it takes
        self._identity = [config.kind, model, config.gguf_file, config.dtype, config.chat, config.max_new_tokens]
        self._identity.append(model_hash(Step(name=model)) if config.kind == "local" else config.base_url)

    def prepare(self, prompts: Iterable[str]) -> None:
        """Ask what the store does not know, prompts of like length together."""
        keys = {self._key(prompt): prompt for prompt in prompts}
        known = self._store.get_many(list(keys))
        # a reply that failed in an earlier run is asked for again, once in this one
        settled = {name for name in known if name in self._asked or not _reply(known[name]).fault}
        missing = sorted((item for item in keys.items() if item[0] not in settled), key=lambda item: len(item[1]))
        for first in range(0, len(missing), self.config.batch_size):
            batch = missing[first : first + self.config.batch_size]
            began = time.perf_counter()
            prompts = [prompt for _, prompt in batch]
            replies = generated(self._loaded(), prompts, max_new_tokens=self.config.max_new_tokens)
            seconds = (time.perf_counter() - began) / len(batch)
            rows = {name: asdict(reply) | {"seconds": seconds} for (name, _), reply in zip(batch, replies, strict=True)}
            self._store.put_many(rows)
            self._asked.update(rows)

    def answers(self, prompts: Sequence[str]) -> list[Answer]:
        """The answers to prepared prompts, in order; seconds: a prompt's share of its batch of equally long prompts."""
        keys = [self._key(prompt) for prompt in prompts]
        rows: Mapping[str, dict[str, object]] = self._store.get_many(keys)
        if lost := [prompt for name, prompt in zip(keys, prompts, strict=True) if name not in rows]:
            raise InputError(f"the cache lost the answer to {lost[0]!r:.80}; run again to ask for it anew")
        replies = [_reply(rows[name]) for name in keys]
        seconds = [float(str(rows[name]["seconds"])) for name in keys]
        return [
            Answer(text=reply.text, seconds=spent, fault=reply.fault)
            for reply, spent in zip(replies, seconds, strict=True)
        ]

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[str]:
        """As a generator of its own, so that a judge's verdicts are remembered too; the limit is the settings' own."""
        return [reply.usable(self.name) for reply in self.replies(prompts, max_new_tokens=max_new_tokens)]

    def replies(self, prompts: Sequence[str], *, max_new_tokens: int = 64) -> list[Reply]:
        """As `generate`, with the reason in place of an error where a reply is no answer."""
        self.prepare(prompts)
        return [Reply(answer.text, answer.fault) for answer in self.answers(prompts)]

    @property
    def name(self) -> str:
        return str(self.config.model)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the model, or of the connections."""
        if isinstance(self._generator, OpenAIGenerator):
            self._generator.close()
        self._generator = None

    def _key(self, prompt: str) -> str:
        return key("answer", self._identity, prompt)

    def _loaded(self) -> Generator:
        if self._generator is None:
            self._generator = configured(self.config)
        return self._generator


def _reply(row: Mapping[str, object]) -> Reply:
    """What the store remembers; an entry of earlier versions is the model's whole text."""
    if "fault" not in row:
        return reply_of(str(row["text"]))
    return Reply(str(row["text"]), str(row["fault"]), bool(row["cut"]))


def configured(config: GeneratorConfig) -> Generator:
    """The generator of the settings. Raises InputError when the environment lacks the key."""
    model = str(config.model)
    if config.kind == "openai":
        return load_generator(
            model, base_url=str(config.base_url), api_key_env=config.api_key_env, concurrency=config.batch_size
        )
    names = ("device", "dtype", "batch_size", "chat", "gguf_file")
    return load_generator(model, **{name: getattr(config, name) for name in names})


def tokenizer_of(config: GeneratorConfig) -> str:
    """What counts tokens as this generator does, for `load_counter`; the estimate where that cannot be known."""
    folder = Path(str(config.model)).expanduser()
    if config.kind != "local" or config.gguf_file is not None:
        return "default"
    return str(folder) if (folder / "tokenizer.json").is_file() or not folder.exists() else "default"
