"""RECOMP: sentences by their embedding's similarity to the question, and abstractive summaries."""
