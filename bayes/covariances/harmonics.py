"""State spaces of kernels without noise: cosine, periodic (Solin & Särkkä 2014) and constant ones."""

import math

import torch
from gpytorch.kernels import ConstantKernel, CosineKernel, PeriodicKernel
from jaxtyping import Float
from torch import Tensor

from fieldmorph.bayes.state_space import StateSpace, block_diagonal, first_state, positive

N_HARMONICS = 6  # of a periodic kernel
QUADRATURE = 256  # points over a period, for the weights of the harmonics


def cosine(kernel: CosineKernel) -> StateSpace:
    """Return one oscillator: gpytorch's kernel is cos(pi d / period)."""
    return _harmonics(math.pi / positive(kernel.period_length), torch.ones(1, dtype=torch.float64), first=1)


def periodic(kernel: PeriodicKernel) -> StateSpace:
    """Return oscillators whose weights are the cosine series of gpytorch's exp((cos w d - 1) / lengthscale)."""
    phase = torch.arange(QUADRATURE, dtype=torch.float64) * (2 * math.pi / QUADRATURE)
    values = ((phase.cos() - 1) / positive(kernel.lengthscale)).exp()
    orders = torch.arange(N_HARMONICS + 1, dtype=torch.float64)
    weights = (orders[:, None] * phase).cos() @ values / QUADRATURE
    weights = torch.where(orders > 0, 2 * weights, weights).clamp(min=0)
    return _harmonics(2 * math.pi / positive(kernel.period_length), weights, first=0)


def _harmonics(frequency: Tensor, weights: Float[Tensor, "n"], first: int) -> StateSpace:
    """Return oscillators with these variances, whose frequencies are first, first + 1, ... times the given one."""
    orders = torch.arange(first, first + len(weights), dtype=torch.float64)
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    feedback = torch.block_diag(*[order * frequency * turn for order in orders])
    stationary = torch.diag(weights.repeat_interleave(2))
    emission = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(len(orders))

    def transition(distances: Tensor) -> Tensor:
        angle = frequency * orders * distances[:, None]
        one = torch.eye(2, dtype=torch.float64)
        blocks = angle.cos()[..., None, None] * one + angle.sin()[..., None, None] * turn
        return block_diagonal([blocks[:, k] for k in range(len(orders))])

    return StateSpace(feedback, emission, stationary, transition)


def constant(kernel: ConstantKernel) -> StateSpace:
    """Return the state space of a function that is the same everywhere."""
    value = positive(kernel.constant).reshape(1, 1)
    return StateSpace(torch.zeros_like(value), first_state(1), value, lambda d: d.new_ones(len(d), 1, 1))
