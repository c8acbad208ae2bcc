"""RAG context compression: prune retrieved documents for a question before the generator reads them."""

from ctxprune.compressors import available, load
from ctxprune.errors import CtxpruneError
from ctxprune.one_call import prune
from ctxprune.pipeline import Pipeline
from ctxprune.prompt import render_prompt
from ctxprune.result import CompressionResult
from ctxprune.select import Policy
from ctxprune.tokens import load_counter
from ctxprune.types import Compressor, Context, Document, Extract, SoftTokens, Span, Summary, TokenCounter

__version__ = "0.1.0"

__all__ = [
    "CompressionResult",
    "Compressor",
    "Context",
    "CtxpruneError",
    "Document",
    "Extract",
    "Pipeline",
    "Policy",
    "SoftTokens",
    "Span",
    "Summary",
    "TokenCounter",
    "available",
    "load",
    "load_counter",
    "prune",
    "render_prompt",
]
