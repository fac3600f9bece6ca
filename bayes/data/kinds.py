"""Kinds of coordinates: what each is measured in, and how far it reaches."""

from typing import Literal

Kind = Literal["number", "time", "longitude", "latitude"]

# Largest absolute value in degrees of the kinds that are angles; larger numbers are fill values or other things.
DEGREE_LIMITS: dict[str, float] = {"latitude": 90.0, "longitude": 720.0}
