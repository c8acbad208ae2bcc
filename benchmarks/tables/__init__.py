"""Tables of README and docs, written from files of figures: `python -m benchmarks.tables`."""
