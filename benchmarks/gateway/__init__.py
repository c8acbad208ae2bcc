"""The sidecar behind real gateways, and beside another compressor of theirs."""
