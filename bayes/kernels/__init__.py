"""Numba kernels of inference."""
