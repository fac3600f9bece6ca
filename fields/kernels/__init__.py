"""Numba kernels, each next to its plain torch twin."""
