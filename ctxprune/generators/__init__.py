"""Generators: prompts or contexts in, answers out."""

from ctxprune.generators.base import ContextGenerator, Generator
from ctxprune.generators.local import LocalGenerator, TextOnly
from ctxprune.generators.openai import OpenAIGenerator
from ctxprune.generators.replies import Reply, generated
from ctxprune.generators.vllm import PromptEmbedsGenerator

__all__ = ["ContextGenerator", "Generator", "LocalGenerator", "OpenAIGenerator", "PromptEmbedsGenerator", "Reply"]
__all__ += ["TextOnly", "generated"]
