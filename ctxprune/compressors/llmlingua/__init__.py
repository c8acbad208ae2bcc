"""Word pruning in the manner of LLMLingua-2 and Selective Context: a score for each word, the lowest go."""
