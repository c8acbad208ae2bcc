"""Soft tokens against text: `python -m benchmarks.soft`."""
