"""Formats that a field is exported to: a table, and a module for each."""
