"""Closed-form warm starts of explicit students."""
