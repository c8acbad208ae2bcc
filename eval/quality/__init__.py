"""What compressors keep at equal words, without a generator: `python -m ctxprune.eval.quality`."""
