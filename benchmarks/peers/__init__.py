"""Peers side by side on the same questions, each in an environment of its own: `python -m benchmarks.peers`."""
