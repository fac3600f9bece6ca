"""Stationary covariance functions as linear stochastic differential equations (Särkkä & Solin 2019, chapter 12).

A Gaussian process f with such a kernel is f = h' x, where the state x follows dx = F x dt + L dB and has the stationary
covariance P. Its values at sorted points then form a Markov chain, whose cost grows linearly with their number.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from gpytorch import kernels as gp
from jaxtyping import Float
from scipy.linalg import solve_continuous_lyapunov
from torch import Tensor

from fieldmorph.fields.errors import SettingError

RBF_ORDER = 6  # of the Taylor series of 1 / spectral density
PERIODIC_HARMONICS = 6
QUADRATURE = 256  # points over a period, for the weights of the harmonics
FORGOTTEN = 100.0  # lengthscales after which a state is forgotten: powers of any distance stay finite


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
        """The kernel that this equation really has: h' A(|d|) P h."""
        return self.transition(distances.abs()) @ self.stationary @ self.emission @ self.emission


def from_gpytorch(kernel: gp.Kernel) -> StateSpace:
    """The equation of a one-dimensional stationary kernel of gpytorch's.

    Exact for Matern (nu 1/2, 3/2, 5/2), Cosine, Constant, and for scaling, sums and products of them. RBF takes the
    Taylor series of order 6 of the inverse spectral density (Hartikainen & Särkkä 2010), Periodic its first harmonics
    (Solin & Särkkä 2014): `approximation_error` says how far off they are.

    Raises:
        SettingError: a kernel that is not known here, one of several dimensions or in a batch, or a lengthscale or
            the like that is not positive, where the kernel's own constraint lets it through.
    """
    if kernel.batch_shape.numel() != 1 or (kernel.has_lengthscale and kernel.lengthscale.numel() != 1):
        raise SettingError(f"a kernel here has one dimension and no batch; got {type(kernel).__name__}")
    for kind, build in _BUILDERS.items():
        if type(kernel) is kind:
            return build(kernel)
    known = ", ".join(kind.__name__ for kind in _BUILDERS)
    raise SettingError(f"{type(kernel).__name__} is no kernel with a state space here; known: {known}")


@torch.no_grad()
def approximation_error(kernel: gp.Kernel, span: float) -> float:
    """Largest difference between a kernel and its state space's, in units of its variance, over distances to `span`."""
    distances = torch.linspace(0, span, 2049, dtype=torch.float64)
    exact = kernel(torch.zeros(1, 1, dtype=torch.float64), distances[:, None]).to_dense()[0]
    return float((from_gpytorch(kernel).covariance(distances) - exact).abs().max() / exact[0])


def _matern(kernel: gp.MaternKernel) -> StateSpace:
    """The state holds f and its derivatives in units of the rate lambda: then A(d) depends on lambda d alone."""
    order = {0.5: 1, 1.5: 2, 2.5: 3}[kernel.nu]
    rate = math.sqrt(2 * kernel.nu) / _number(kernel.lengthscale)
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
        x = (rate * distances).clamp(max=FORGOTTEN)
        terms = torch.stack([x**k for k in range(order)], dim=-1)
        return (-x).exp()[:, None, None] * torch.einsum("nk,kij->nij", terms, powers)

    return StateSpace(rate * feedback, _first(order), stationary, transition)


def _rbf(kernel: gp.RBFKernel) -> StateSpace:
    feedback, stationary = _unit_rbf(RBF_ORDER)
    rate = 1 / _number(kernel.lengthscale)

    def transition(distances: Tensor) -> Tensor:
        x = (rate * distances).clamp(max=FORGOTTEN)
        return torch.linalg.matrix_exp(x[:, None, None] * feedback)

    return StateSpace(rate * feedback, _first(RBF_ORDER), stationary, transition)


@cache
def _unit_rbf(order: int) -> tuple[Tensor, Tensor]:
    """F and P for lengthscale 1, each state in units of its own standard deviation.

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


def _cosine(kernel: gp.CosineKernel) -> StateSpace:
    """gpytorch's is cos(pi d / period)."""
    return _harmonics(math.pi / _number(kernel.period_length), torch.ones(1, dtype=torch.float64), first=1)


def _periodic(kernel: gp.PeriodicKernel) -> StateSpace:
    """exp((cos w d - 1) / lengthscale), gpytorch's parameterisation, by the cosine series of that function."""
    phase = torch.arange(QUADRATURE, dtype=torch.float64) * (2 * math.pi / QUADRATURE)
    values = ((phase.cos() - 1) / _number(kernel.lengthscale)).exp()
    orders = torch.arange(PERIODIC_HARMONICS + 1, dtype=torch.float64)
    weights = (orders[:, None] * phase).cos() @ values / QUADRATURE
    weights = torch.where(orders > 0, 2 * weights, weights).clamp(min=0)
    return _harmonics(2 * math.pi / _number(kernel.period_length), weights, first=0)


def _harmonics(frequency: Tensor, weights: Float[Tensor, "n"], first: int) -> StateSpace:
    """Oscillators of frequencies first, first + 1, ... times the given one, of these variances, without noise."""
    orders = torch.arange(first, first + len(weights), dtype=torch.float64)
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    feedback = torch.block_diag(*[order * frequency * turn for order in orders])
    stationary = torch.diag(weights.repeat_interleave(2))
    emission = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(len(orders))

    def transition(distances: Tensor) -> Tensor:
        angle = frequency * orders * distances[:, None]
        one = torch.eye(2, dtype=torch.float64)
        blocks = angle.cos()[..., None, None] * one + angle.sin()[..., None, None] * turn
        return _block_diagonal([blocks[:, k] for k in range(len(orders))])

    return StateSpace(feedback, emission, stationary, transition)


def _constant(kernel: gp.ConstantKernel) -> StateSpace:
    """A function that is the same everywhere."""
    value = _number(kernel.constant).reshape(1, 1)
    return StateSpace(torch.zeros_like(value), _first(1), value, lambda d: d.new_ones(len(d), 1, 1))


def _scaled(kernel: gp.ScaleKernel) -> StateSpace:
    base = from_gpytorch(kernel.base_kernel)
    return StateSpace(
        base.feedback, base.emission, _number(kernel.outputscale) * base.stationary, base.transition
    )


def _sum(kernel: gp.AdditiveKernel) -> StateSpace:
    """States side by side."""
    parts = [from_gpytorch(part) for part in kernel.kernels]
    return StateSpace(
        torch.block_diag(*[p.feedback for p in parts]),
        torch.cat([p.emission for p in parts]),
        torch.block_diag(*[p.stationary for p in parts]),
        lambda distances: _block_diagonal([p.transition(distances) for p in parts]),
    )


def _product(kernel: gp.ProductKernel) -> StateSpace:
    """Kronecker products of states, by twos."""
    parts = [from_gpytorch(part) for part in kernel.kernels]
    whole = parts[0]
    for part in parts[1:]:
        whole = _times(whole, part)
    return whole


def _times(a: StateSpace, b: StateSpace) -> StateSpace:
    def transition(distances: Tensor) -> Tensor:
        product = torch.einsum("nij,nkl->nikjl", a.transition(distances), b.transition(distances))
        return product.flatten(3, 4).flatten(1, 2)

    one_a, one_b = torch.eye(len(a.emission)).double(), torch.eye(len(b.emission)).double()
    feedback = torch.kron(a.feedback, one_b) + torch.kron(one_a, b.feedback)
    return StateSpace(
        feedback, torch.kron(a.emission, b.emission), torch.kron(a.stationary, b.stationary), transition
    )


_BUILDERS: dict[type[gp.Kernel], Callable[..., StateSpace]] = {
    gp.MaternKernel: _matern,
    gp.RBFKernel: _rbf,
    gp.PeriodicKernel: _periodic,
    gp.CosineKernel: _cosine,
    gp.ConstantKernel: _constant,
    gp.ScaleKernel: _scaled,
    gp.AdditiveKernel: _sum,
    gp.ProductKernel: _product,
}


def _number(value: Tensor) -> Tensor:
    if not 0 < value.item() < math.inf:
        raise SettingError(f"a kernel's lengthscale, period and scale must be positive; got {value.item():g}")
    return value.double().reshape(())


def _first(states: int) -> Tensor:
    return torch.eye(states, dtype=torch.float64)[0]


def _block_diagonal(blocks: list[Tensor]) -> Tensor:
    """Of matrices (n, s, s) in a batch."""
    sizes = [block.shape[-1] for block in blocks]
    whole = blocks[0].new_zeros(len(blocks[0]), sum(sizes), sum(sizes))
    start = 0
    for block, size in zip(blocks, sizes, strict=True):
        whole[:, start : start + size, start : start + size] = block
        start += size
    return whole
