"""Tensor models as files, tables and plots."""
