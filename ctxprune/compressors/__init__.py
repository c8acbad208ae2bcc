"""Compressors: text in, text out."""
