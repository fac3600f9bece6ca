"""State space of the RBF kernel by a Taylor series of its inverse spectral density (Hartikainen & Särkkä 2010)."""

import math
from functools import cache

import torch
from gpytorch.kernels import RBFKernel
from scipy.linalg import solve_continuous_lyapunov
from torch import Tensor

from fieldmorph.bayes.state_space import MAX_DISTANCE, StateSpace, first_state, positive

ORDER = 6  # of the Taylor series of 1 / spectral density


def rbf(kernel: RBFKernel) -> StateSpace:
    """Return the state space of f and its first derivatives; `approximation_error` says how far off it is."""
    feedback, stationary = _unit_rbf(ORDER)
    rate = 1 / positive(kernel.lengthscale)

    def transition(distances: Tensor) -> Tensor:
        x = (rate * distances).clamp(max=MAX_DISTANCE)
        exponential: Tensor = torch.linalg.matrix_exp(x[:, None, None] * feedback)
        return exponential

    return StateSpace(rate * feedback, first_state(ORDER), stationary, transition)


@cache
def _unit_rbf(order: int) -> tuple[Tensor, Tensor]:
    """Return F and P for lengthscale 1, each state in units of its own standard deviation.

    1 / exp(-w^2 / 2) is about the sum of (w^2 / 2)^k / k!; its zeros s = i w in the left half plane are F's
    eigenvalues.
    """
    polynomial = torch.zeros(2 * order + 1, dtype=torch.float64)
    for k in range(order + 1):
        polynomial[2 * k] = (-0.5) ** k / math.factorial(k)
    companion = torch.diag(torch.ones(2 * order - 1, dtype=torch.float64), -1)
    companion[:, -1] = -polynomial[:-1] / polynomial[-1]
    zeros = torch.linalg.eigvals(companion)
    coefficients = torch.ones(1, dtype=torch.complex128)
    for zero in zeros[zeros.real < 0]:
        shifted = torch.cat([coefficients, coefficients.new_zeros(1)])
        coefficients = shifted - zero * torch.cat([coefficients.new_zeros(1), coefficients])
    feedback = torch.diag(torch.ones(order - 1, dtype=torch.float64), 1)
    feedback[-1] = -coefficients.real.flip(0)[:-1]
    noise = torch.zeros_like(feedback)
    noise[-1, -1] = 1
    stationary = torch.from_numpy(solve_continuous_lyapunov(feedback.numpy(), -noise.numpy()))
    scale = stationary.diagonal().sqrt()
    return feedback * scale / scale[:, None], stationary / scale / scale[:, None]
