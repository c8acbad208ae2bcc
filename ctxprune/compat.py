"""The class of the `llmlingua` package under the name that code imports: `ctxprune.compat.PromptCompressor`."""

from ctxprune.integrations.llmlingua.compressor import PromptCompressor

__all__ = ["PromptCompressor"]
