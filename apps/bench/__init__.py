"""Benchmarks: every table of the documentation comes from here."""
