"""Command-line options that name a language model to learn from, at an endpoint or on disk, and the model itself."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ctxprune.errors import InputError

if TYPE_CHECKING:
    from ctxprune.generators import Generator


def add_teacher_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--endpoint", metavar="URL", help="base URL of an OpenAI-compatible endpoint, e.g. http://localhost:8000/v1")
    add("--model", metavar="NAME", help="the model's name at the endpoint")
    add("--api-key-env", metavar="VARIABLE", help="the environment variable that holds the key, e.g. OPENAI_API_KEY")
    add("--local", metavar="PATH", help="a causal language model on disk or a hub id, instead of an endpoint")
    add("--gguf-file", metavar="NAME", help="the GGUF file to load from --local")
    add("--concurrency", type=positive, default=8, metavar="N", help="requests in flight (default: %(default)s)")


def check_teacher_arguments(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Ends the program with a message unless exactly one teacher is named."""
    if (arguments.endpoint is None) == (arguments.local is None) or (arguments.endpoint and not arguments.model):
        parser.error("give either --endpoint URL with --model NAME, or --local PATH")


def teacher_name(arguments: argparse.Namespace) -> str:
    """The name under which an `AnswerCache` knows the teacher's answers."""
    return arguments.model or f"{arguments.local} {arguments.gguf_file or ''}".strip()


@contextmanager
def open_teacher(arguments: argparse.Namespace) -> Iterator[Generator]:
    from ctxprune.generators import LocalGenerator, OpenAIGenerator

    if arguments.local:
        yield LocalGenerator(arguments.local, gguf_file=arguments.gguf_file)
        return
    key = os.environ.get(arguments.api_key_env) if arguments.api_key_env else None
    if arguments.api_key_env and not key:
        raise InputError(f"environment variable {arguments.api_key_env} is empty; set it or leave out --api-key-env")
    options = {"base_url": arguments.endpoint, "api_key": key, "concurrency": arguments.concurrency}
    with OpenAIGenerator(arguments.model, **options) as generator:
        yield generator


def positive(text: str) -> int:
    """An argument type: a whole number of at least 1."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)
