"""How an encoder is run: ONNX Runtime on a CPU, torch for everything else."""
