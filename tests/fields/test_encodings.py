"""Sines and cosines, and spherical harmonics against their defining properties."""

import math

import pytest
import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from fieldmorph.fields.encodings import positional_encoding, spherical_harmonics, spherical_harmonics_torch

pytestmark = [pytest.mark.numerical, pytest.mark.compiled]


def unit(n: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(n, 3, generator=generator, dtype=dtype), dim=-1)


def test_positional_encoding_worked_by_hand() -> None:
    got = positional_encoding(torch.tensor([0.5, -0.25]), 2)
    s = math.sqrt(0.5)
    # x; sin(pi x), sin(2 pi x); cos(pi x), cos(2 pi x), each for 0.5 and -0.25
    expected = torch.tensor([0.5, -0.25, 1, -s, 0, -1, 0, s, -1, 0])
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch", [(), (0,), (3, 4)])
def test_positional_encoding_keeps_batches(batch: tuple[int, ...]) -> None:
    assert positional_encoding(torch.zeros(*batch, 3), 10).shape == (*batch, 63)
    assert positional_encoding(torch.zeros(*batch, 3), 0).shape == (*batch, 3)


def test_harmonics_are_orthonormal_on_the_sphere() -> None:
    # Gauss-Legendre in z times equal angles integrates polynomials of degree 6 exactly.
    nodes, weights = (torch.tensor(x) for x in leggauss(8))
    angle = torch.arange(16, dtype=torch.float64) * (2 * math.pi / 16)
    z, phi = (x.flatten() for x in torch.meshgrid(nodes, angle, indexing="ij"))
    radius = (1 - z * z).sqrt()
    values = spherical_harmonics_torch(torch.stack([radius * phi.cos(), radius * phi.sin(), z], dim=-1))
    measure = weights.repeat_interleave(16) * (2 * math.pi / 16)
    gram = values.T @ (measure[:, None] * values)
    torch.testing.assert_close(gram, torch.eye(16, dtype=torch.float64), rtol=0, atol=1e-10)


def test_harmonics_of_a_degree_span_a_rotated_copy_of_themselves(generator: torch.Generator) -> None:
    # The addition theorem: per degree l the squares sum to (2 l + 1) / (4 pi), so no degree is mixed with another.
    values = spherical_harmonics_torch(unit(50, generator, torch.float64))
    for degree in range(4):
        squares = values[:, degree**2 : (degree + 1) ** 2].square().sum(-1)
        torch.testing.assert_close(squares, torch.full_like(squares, (2 * degree + 1) / (4 * math.pi)))


def test_harmonics_of_the_axes_have_the_usual_signs() -> None:
    values = spherical_harmonics(torch.eye(3))
    first = math.sqrt(3 / (4 * math.pi))
    # order y, z, x; x and y with a minus (the Condon-Shortley phase), as tiny-cuda-nn has it
    expected = torch.tensor([[0, 0, -first], [-first, 0, 0], [0, first, 0]])
    torch.testing.assert_close(values[:, 1:4], expected)
    assert values[2, 6].item() == pytest.approx(math.sqrt(5 / (4 * math.pi)))  # z^2 at the pole


@pytest.mark.parametrize("n", [0, 1, 1000])
def test_harmonics_kernel_matches_the_twin(n: int, generator: torch.Generator) -> None:
    directions = unit(n, generator)
    torch.testing.assert_close(spherical_harmonics(directions), spherical_harmonics_torch(directions))


def test_harmonics_take_any_layout(generator: torch.Generator) -> None:
    directions = unit(12, generator)
    expected = spherical_harmonics_torch(directions)
    assert torch.equal(spherical_harmonics(directions.T.contiguous().T), spherical_harmonics(directions))
    torch.testing.assert_close(spherical_harmonics(directions.reshape(3, 4, 3)), expected.reshape(3, 4, 16))
    torch.testing.assert_close(
        spherical_harmonics(directions.double()), expected.double(), rtol=1e-5, atol=1e-6
    )


def test_harmonics_have_gradients_where_requested(generator: torch.Generator) -> None:
    directions = unit(3, generator, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(spherical_harmonics, directions)
    leaf = unit(3, generator).requires_grad_()
    spherical_harmonics(leaf).sum().backward()
    assert leaf.grad.abs().max() > 0
