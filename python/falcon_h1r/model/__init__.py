"""Falcon-H1 in PyTorch: one code for training and for generation."""
