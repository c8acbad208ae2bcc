"""Torch modules and checkpoint loaders: tensors in, tensors out."""
