"""Compression for LLM gateways: conversations in, the same conversations with shorter retrieved text out."""
