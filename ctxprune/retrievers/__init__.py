"""Retrievers: queries in, scored documents out."""

from ctxprune.retrievers.base import Retriever, retrieve_contexts
from ctxprune.retrievers.bm25 import BM25Retriever
from ctxprune.retrievers.dense import DenseRetriever
from ctxprune.retrievers.hybrid import HybridRetriever
from ctxprune.retrievers.langchain import LangChainRetriever
from ctxprune.retrievers.precomputed import PrecomputedRetriever
from ctxprune.retrievers.store import StoreRetriever

__all__ = [
    "BM25Retriever",
    "DenseRetriever",
    "HybridRetriever",
    "LangChainRetriever",
    "PrecomputedRetriever",
    "Retriever",
    "StoreRetriever",
    "retrieve_contexts",
]
