"""Generators: prompts or contexts in, answers out."""

from ctxprune.generators.base import ContextGenerator, Generator
from ctxprune.generators.local import LocalGenerator
from ctxprune.generators.openai import OpenAIGenerator
from ctxprune.generators.prompt_embeds import PromptEmbedsGenerator
from ctxprune.generators.replies import Reply, generated
from ctxprune.generators.text_only import TextOnly

__all__ = ["ContextGenerator", "Generator", "LocalGenerator", "OpenAIGenerator", "PromptEmbedsGenerator", "Reply"]
__all__ += ["TextOnly", "generated"]
