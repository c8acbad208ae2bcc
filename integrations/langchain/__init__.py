"""LangChain adapters: prune retrieved documents in a compressor, a retriever or a chain. Needs langchain-core only.

Tool results of agents are pruned by `ctxprune.integrations.langchain.agents`, which needs the extra "langchain".
"""

from ctxprune.integrations.langchain.compressor import CtxPruneCompressor, CtxPruneRetriever, joined

__all__ = ["CtxPruneCompressor", "CtxPruneRetriever", "joined"]
