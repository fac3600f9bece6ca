"""Measurements in: files, tables, dates and coordinates."""
