"""Triton kernels, one file a family, forward beside backward. Imports torch and triton only."""
