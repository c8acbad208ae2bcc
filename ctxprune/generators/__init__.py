"""Generators: prompts or contexts in, answers out."""

import os
from collections.abc import Sequence
from typing import Any

from ctxprune.errors import InputError
from ctxprune.generators.base import ContextGenerator, Generator, Reply, generated
from ctxprune.generators.local import LocalGenerator, TextOnly
from ctxprune.generators.openai import OpenAIGenerator
from ctxprune.generators.vllm import PromptEmbedsGenerator

__all__ = ["ContextGenerator", "Generator", "LocalGenerator", "OpenAIGenerator", "PromptEmbedsGenerator", "Reply"]
__all__ += ["TextOnly", "generated", "load_generator"]


def load_generator(
    model: str,
    *,
    base_url: str | None = None,
    api_key_env: str | None = None,
    concurrency: int = 8,
    chat: bool | None = None,
    stop: Sequence[str] = (),
    timeout: float = 60.0,
    **local: Any,
) -> LocalGenerator | OpenAIGenerator:
    """The model behind an OpenAI-compatible endpoint, or without `base_url` one on disk or of the hub.

    api_key_env: the environment variable that holds the endpoint's key. concurrency: requests in flight. chat: whether
    a prompt is a user's turn; None: what the model on disk has a template for, and True for an endpoint. stop: as in
    `OpenAIGenerator`. timeout: seconds without a word from the endpoint. local: options of `LocalGenerator`. Raises
    InputError when the variable is not set or empty, and for `stop` without an endpoint.
    """
    if base_url is None:
        if stop:
            raise InputError(f"stop is for endpoints, got {list(stop)} for {model}; serve the model, or leave it out")
        return LocalGenerator(model, chat=chat, **local)
    key = os.environ.get(api_key_env) if api_key_env else None
    if api_key_env and not key:
        raise InputError(
            f"the environment variable {api_key_env} is not set; set it to the key of {model}, or name no variable"
        )
    return OpenAIGenerator(
        model,
        base_url=base_url,
        api_key=key,
        concurrency=concurrency,
        chat=chat is not False,
        stop=stop,
        timeout=timeout,
    )
