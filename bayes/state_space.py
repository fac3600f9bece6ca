"""Stationary covariance functions as linear stochastic differential equations (Särkkä & Solin 2019, chapter 12).

A Gaussian process f with such a kernel is f = h' x, where the state x follows dx = F x dt + L dB and has the stationary
covariance P. Its values at sorted points then form a Markov chain, whose cost grows linearly with their number.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from gpytorch.kernels import Kernel
from jaxtyping import Float
from torch import Tensor

from fieldmorph.bayes.covariances.table import class_names, of_kernel
from fieldmorph.fields.errors import SettingError

MAX_DISTANCE = 100.0  # lengthscales after which a state is forgotten: powers of any distance stay finite


@dataclass(frozen=True)
class StateSpace:
    """A kernel's stochastic differential equation; float64, differentiable in the kernel's hyperparameters.

    Attributes:
        feedback: F.
        emission: h.
        stationary: P, the state's covariance at any single point.
        transition: from distances (n,) >= 0 to A = exp(F d), (n, states, states).
    """

    feedback: Float[Tensor, "states states"]
    emission: Float[Tensor, "states"]
    stationary: Float[Tensor, "states states"]
    transition: Callable[[Float[Tensor, "n"]], Float[Tensor, "n states states"]]

    def covariance(self, distances: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Return the covariance that this equation has, h' A(|d|) P h, at signed distances."""
        return self.transition(distances.abs()) @ self.stationary @ self.emission @ self.emission


def from_gpytorch(kernel: Kernel) -> StateSpace:
    """Return the state space of a one-dimensional stationary kernel of gpytorch's.

    Exact for Matern (nu 1/2, 3/2, 5/2), Cosine, Constant, and for scaling, sums and products of them. RBF takes the
    Taylor series of order 6 of the inverse spectral density (Hartikainen & Särkkä 2010), Periodic its first harmonics
    (Solin & Särkkä 2014): `approximation_error` says how far off they are.

    Raises:
        SettingError: a kernel that is not known here, one of several dimensions or in a batch, or a lengthscale or
            the like that is not positive, where the kernel's own constraint lets it through.
    """
    if kernel.batch_shape.numel() != 1 or (kernel.has_lengthscale and kernel.lengthscale.numel() != 1):
        raise SettingError(f"a kernel here has one dimension and no batch; got {type(kernel).__name__}")
    if (entry := of_kernel(kernel)) is not None:
        return entry.make_state_space(kernel)
    raise SettingError(
        f"{type(kernel).__name__} is no kernel with a state space here; known: {', '.join(class_names())}"
    )


@torch.no_grad()
def approximation_error(kernel: Kernel, span: float) -> float:
    """Return the largest difference between a kernel and its state space's covariance, in units of its variance.

    Args:
        span: distances from 0 to this are looked at, 2,049 of them.
    """
    distances = torch.linspace(0, span, 2049, dtype=torch.float64)
    exact = kernel(torch.zeros(1, 1, dtype=torch.float64), distances[:, None]).to_dense()[0]
    return float((from_gpytorch(kernel).covariance(distances) - exact).abs().max() / exact[0])


def positive(value: Tensor) -> Float[Tensor, ""]:
    """Return a hyperparameter as a float64 scalar, with gradients.

    Raises:
        SettingError: it is not positive and finite.
    """
    if not 0 < value.item() < math.inf:
        raise SettingError(f"a kernel's lengthscale, period and scale must be positive; got {value.item():g}")
    return value.double().reshape(())


def first_state(states: int) -> Float[Tensor, "states"]:
    """Return the emission h whose function is the first state."""
    return torch.eye(states, dtype=torch.float64)[0]


def block_diagonal(blocks: list[Float[Tensor, "n _ _"]]) -> Float[Tensor, "n states states"]:
    """Return block-diagonal matrices, in a batch, of matrices (n, s, s)."""
    sizes = [block.shape[-1] for block in blocks]
    whole = blocks[0].new_zeros(len(blocks[0]), sum(sizes), sum(sizes))
    start = 0
    for block, size in zip(blocks, sizes, strict=True):
        whole[:, start : start + size, start : start + size] = block
        start += size
    return whole
