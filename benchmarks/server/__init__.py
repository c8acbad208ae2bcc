"""The sidecar under load: `python -m benchmarks.server`."""
