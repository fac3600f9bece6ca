"""Lengths, places and kernels read as a person would say them."""

from typing import Any

import pytest

from fieldmorph.apps.tensor.labels import coordinate, kernel_words, label, length, percent, with_unit


@pytest.mark.parametrize(
    ("value", "kind", "unit", "said"),
    [
        (90.0, "time", "s", "1.5 minutes"),
        (86400.0, "time", "s", "1 day"),
        (45 * 86400.0, "time", "s", "45 days"),
        (2 * 365.2425 * 86400, "time", "s", "2 years"),
        (0.5, "time", "s", "0.5 seconds"),
        (3.21, "latitude", "degrees_north", "3.21°"),
        (12.0, "number", "hPa", "12 hPa"),
        (12.0, "number", None, "12"),
    ],
)
def test_lengths(value: float, kind: str, unit: str | None, said: str) -> None:
    assert length(value, kind, unit) == said


def test_coordinates() -> None:
    assert coordinate(0.0, "time") == "1970-01-01"
    assert coordinate(43200.0, "time") == "1970-01-01T12:00"
    assert coordinate(3.0, "time") == "1970-01-01T00:00:03"
    assert coordinate(86400.0, "time", "noleap") == "day 1 since 1970-01-01 (noleap)"
    assert coordinate(-3.5, "latitude") == "-3.5"


def test_labels() -> None:
    assert label("surface_temperature", "K") == "surface temperature (K)"
    assert label("share", "1") == label("share", None) == "share"
    assert with_unit("3", "K") == "3 K"
    assert (percent(0.95), percent(0.9666), percent(1.0)) == ("95 %", "96.7 %", "100 %")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"kernel": "MaternKernel", "nu": 1.5, "lengthscale": 86400.0}, "Matern-3/2, lengthscale 1 day"),
        ({"kernel": "RBFKernel", "lengthscale": 7200.0}, "RBF, lengthscale 2 hours"),
        (
            {"kernel": "PeriodicKernel", "lengthscale": 0.7, "period_length": 86400.0},
            "Periodic, period 1 day, lengthscale 0.7",
        ),
        (
            {
                "kernel": "AdditiveKernel",
                "parts": [
                    {"kernel": "ConstantKernel", "constant": 2.0},
                    {
                        "kernel": "ScaleKernel",
                        "outputscale": 3.0,
                        "parts": [{"kernel": "RBFKernel", "lengthscale": 60.0}],
                    },
                ],
            },
            "(Constant, 2; plus 3 times RBF, lengthscale 1 minute)",
        ),
    ],
)
def test_kernels(spec: dict[str, Any], said: str) -> None:
    assert kernel_words(spec, "time", "s") == said
