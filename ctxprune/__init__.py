"""RAG context compression: prune retrieved documents for a question before the generator reads them."""

from ctxprune.errors import CtxpruneError
from ctxprune.types import Compressor, Context, Document, Extract, SoftTokens, Span, Summary, TokenCounter

__version__ = "0.1.0"

__all__ = [
    "Compressor",
    "Context",
    "CtxpruneError",
    "Document",
    "Extract",
    "SoftTokens",
    "Span",
    "Summary",
    "TokenCounter",
]
