"""How much is removed and what of the answers stays, on sets of questions: `python -m benchmarks.quality`."""
