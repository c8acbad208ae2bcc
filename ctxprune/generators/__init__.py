"""Generators: prompts in, answers out."""

from ctxprune.generators.base import Generator
from ctxprune.generators.local import LocalGenerator
from ctxprune.generators.openai import OpenAIGenerator

__all__ = ["Generator", "LocalGenerator", "OpenAIGenerator"]
