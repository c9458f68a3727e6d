"""Tensors and folders on disk."""
