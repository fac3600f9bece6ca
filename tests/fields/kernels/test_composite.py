"""Compositing: transmittance by hand, the kernel against the twin, gradients against float64 autograd."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fieldmorph.fields.kernels.composite import composite_torch
from fieldmorph.fields.kernels.ops import composite

pytestmark = pytest.mark.numerical

both = pytest.mark.parametrize("compositor", [composite, composite_torch])


def random_samples(counts: list[int], seed: int = 0, scale: float = 10.0) -> tuple[Tensor, ...]:
    """sigma, rgb, t_starts, t_ends, offsets of rays with the given numbers of samples."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(counts)
    t_starts = torch.rand(n, generator=generator)
    t_ends = t_starts + 0.01 + 0.1 * torch.rand(n, generator=generator)
    offsets = torch.tensor([0, *torch.tensor(counts, dtype=torch.int64).cumsum(0).tolist()])
    sigma, rgb = scale * torch.rand(n, generator=generator), torch.rand(n, 3, generator=generator)
    return sigma, rgb, t_starts, t_ends, offsets


@both
def test_two_rays_worked_by_hand(compositor) -> None:
    # Ray 0: optical depths ln 2 and ln 4, so alphas 1/2 and 3/4; transmittance before them 1 and 1/2; weights 1/2 and
    # 3/8; 1/8 of the light is left. Ray 1: one sample of optical depth ln 10, weight 9/10.
    t_starts, t_ends = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2.0, 4.0, 5.0])
    sigma = torch.tensor([math.log(2), math.log(4) / 2, math.log(10)])
    rgb = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.5]])
    weights, colors, opacities, depths = compositor(sigma, rgb, t_starts, t_ends, torch.tensor([0, 2, 3]))
    torch.testing.assert_close(weights, torch.tensor([1 / 2, 3 / 8, 9 / 10]))
    torch.testing.assert_close(colors, torch.tensor([[1 / 2, 3 / 8, 0.0], [9 / 10, 9 / 10, 9 / 20]]))
    torch.testing.assert_close(opacities, torch.tensor([7 / 8, 9 / 10]))
    torch.testing.assert_close(depths, torch.tensor([1.5 / 2 + 3 * 3 / 8, 4.5 * 9 / 10]))


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(0, 60), max_size=20),
    seed=st.integers(0, 999),
    scale=st.sampled_from([0.01, 1.0, 30.0, 1e4]),
)
def test_kernel_matches_the_twin_with_gradients(counts: list[int], seed: int, scale: float) -> None:
    sigma, rgb, *rest = random_samples(counts, seed, scale)
    generator = torch.Generator().manual_seed(seed)
    leaves = [sigma.requires_grad_(), rgb.requires_grad_()]
    exact = [x.detach().double().requires_grad_() for x in leaves]
    got, expected = composite(*leaves, *rest), composite_torch(*exact, *rest)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=2e-6, atol=2e-6)
    grads = [torch.randn(x.shape, generator=generator) for x in got]
    got_grads = torch.autograd.grad(got, leaves, grads)
    exact_grads = torch.autograd.grad(expected, exact, [g.double() for g in grads])
    for a, b in zip(got_grads, exact_grads, strict=True):
        # where every sample is opaque the true gradients lie below float32's last bit of 1
        torch.testing.assert_close(
            a.double(), b, rtol=0, atol=1e-7 + 1e-5 * float(b.abs().amax() if b.numel() else 0)
        )


@both
def test_weights_sum_to_opacity_which_is_at_most_one(compositor) -> None:
    counts = [0, 5, 200, 0, 1, 40]
    sigma, rgb, t_starts, t_ends, offsets = random_samples(counts)
    weights, _, opacities, _ = compositor(sigma, rgb, t_starts, t_ends, offsets)
    sums = torch.stack([part.sum() for part in weights.split(counts)])
    torch.testing.assert_close(sums, opacities)
    optical = torch.stack([part.sum() for part in (sigma * (t_ends - t_starts)).split(counts)])
    torch.testing.assert_close(opacities, 1 - torch.exp(-optical))  # whatever the steps
    assert opacities.max() <= 1 + 1e-6


@both
def test_rays_without_samples_are_black_and_clear(compositor) -> None:
    sigma, rgb, t_starts, t_ends, offsets = random_samples([0, 3, 0])
    _, colors, opacities, depths = compositor(sigma, rgb, t_starts, t_ends, offsets)
    for values in (colors, opacities[:, None], depths[:, None]):
        assert (values[[0, 2]] == 0).all()
        assert (values[1] > 0).all()
    nothing = compositor(*random_samples([]))
    assert [tuple(x.shape) for x in nothing] == [(0,), (0, 3), (0,), (0,)]


@both
@pytest.mark.parametrize("huge", [1e6, 1e30, math.inf])
def test_a_huge_density_stops_all_light_and_spoils_no_neighbour(compositor, huge: float) -> None:
    sigma, rgb, t_starts, t_ends, offsets = random_samples([4, 4])
    alone = compositor(sigma[4:], rgb[4:], t_starts[4:], t_ends[4:], torch.tensor([0, 4]))
    sigma[1] = huge
    sigma.requires_grad_()
    weights, colors, opacities, _ = compositor(sigma, rgb, t_starts, t_ends, offsets)
    assert opacities[0].item() == pytest.approx(1, abs=1e-6)
    assert (weights[2:4] == 0).all()
    torch.testing.assert_close(colors[1].detach(), alone[1][0])
    colors.sum().backward()
    assert sigma.grad.isfinite().all()


@both
def test_a_thousand_thin_samples_lose_no_light(compositor) -> None:
    n = 20_000
    t = torch.linspace(0, 1, n + 1)
    out = compositor(torch.full((n,), 2.0), torch.ones(n, 3), t[:-1], t[1:], torch.tensor([0, n]))
    assert out[2].item() == pytest.approx(1 - math.exp(-2), abs=1e-4)
    assert out[3].item() == pytest.approx((1 - 3 * math.exp(-2)) / 2, abs=1e-4)  # integral of t 2 exp(-2 t)


def test_gradients_pass_gradcheck() -> None:
    sigma, rgb, *rest = (x.double() if x.is_floating_point() else x for x in random_samples([3, 0, 4]))
    leaves = (sigma.requires_grad_(), rgb.requires_grad_())
    assert torch.autograd.gradcheck(lambda s, c: composite(s, c, *rest), leaves)


def test_outputs_that_are_not_used_need_no_gradient() -> None:
    sigma, rgb, *rest = random_samples([5])
    exact = sigma.double().requires_grad_()
    composite(sigma.requires_grad_(), rgb, *rest)[2].sum().backward()
    composite_torch(exact, rgb.double(), *rest)[2].sum().backward()
    torch.testing.assert_close(sigma.grad.double(), exact.grad, rtol=1e-5, atol=1e-7)
