"""Conversion of a field to a volume that a browser can march."""
