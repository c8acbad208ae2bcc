"""Speed and memory of the default compressor, beside its peers: `python -m ctxprune.eval.bench`."""
