"""Retrievers: queries in, scored documents out."""

from ctxprune.retrievers.base import Retriever, retrieve_contexts
from ctxprune.retrievers.bm25 import BM25Retriever
from ctxprune.retrievers.dense import DenseRetriever, StoreRetriever
from ctxprune.retrievers.others import HybridRetriever, LangChainRetriever, PrecomputedRetriever

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
