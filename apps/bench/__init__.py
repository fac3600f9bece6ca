"""Benchmarks, which make every table of the documentation."""
