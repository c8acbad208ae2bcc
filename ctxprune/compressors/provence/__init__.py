"""Provence: a sequence-labelling pruner that also reranks, in one encoder pass over question and passage."""
