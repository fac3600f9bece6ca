"""State spaces of Matern kernels (Hartikainen & Särkkä 2010), exact for nu 1/2, 3/2 and 5/2."""

import math

import torch
from gpytorch.kernels import MaternKernel
from torch import Tensor

from fieldmorph.bayes.state_space import MAX_DISTANCE, StateSpace, first_state, positive


def matern(kernel: MaternKernel) -> StateSpace:
    """Return the state space of f and its derivatives.

    They are in units of the rate lambda = sqrt(2 nu) / lengthscale, so that A(d) depends on lambda d alone.
    """
    order = {0.5: 1, 1.5: 2, 2.5: 3}[kernel.nu]
    rate = math.sqrt(2 * kernel.nu) / positive(kernel.lengthscale)
    feedback = torch.tensor(
        {1: [[-1]], 2: [[0, 1], [-1, -2]], 3: [[0, 1, 0], [0, 0, 1], [-1, -3, -3]]}[order],
        dtype=torch.float64,
    )
    stationary = torch.tensor(
        {1: [[1]], 2: [[1, 0], [0, 1]], 3: [[1, 0, -1 / 3], [0, 1 / 3, 0], [-1 / 3, 0, 1]]}[order],
        dtype=torch.float64,
    )
    nilpotent = feedback + torch.eye(order, dtype=torch.float64)
    powers = torch.stack([torch.linalg.matrix_power(nilpotent, k) / math.factorial(k) for k in range(order)])

    def transition(distances: Tensor) -> Tensor:
        x = (rate * distances).clamp(max=MAX_DISTANCE)
        terms = torch.stack([x**k for k in range(order)], dim=-1)
        return (-x).exp()[:, None, None] * torch.einsum("nk,kij->nij", terms, powers)

    return StateSpace(rate * feedback, first_state(order), stationary, transition)
