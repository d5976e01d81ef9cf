"""Checkpoints free of layout and engine: rectangles of named tensors, their manifest, and weights that come in."""
