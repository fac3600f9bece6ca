"""Numba kernels of inference, each beside its plain torch twin."""
