"""Cores of tensor models: a Tucker core with a posterior of its own, or CP's fixed superdiagonal one.

With z the Kronecker product of the modes' functions at a measurement, its value is gamma' z. What a mode's functions
learn from it (`messages`) and what the core learns (`update`) are expectations under the other factors' posteriors:
mean-field variational Bayes (the exact form of Fang et al. 2024, section 4, without damping). All sums run over second
moments, packed as symmetric matrices, of one mode after the other.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.bayes.entries import Entries
from fieldmorph.bayes.kernels.mttkrp import product_sums
from fieldmorph.bayes.kernels.symmetric import pack, pack_sums, unpack_index


@dataclass(frozen=True)
class Factor:
    """Posterior moments of one mode's functions at points: mean, and packed E[u u']."""

    mean: Float[Tensor, "points r"]
    second: Float[Tensor, "points packed"]

    @classmethod
    def of(cls, mean: Float[Tensor, "points r"], covariance: Float[Tensor, "points r r"]) -> "Factor":
        """Return the moments of Gaussians with this mean and covariance."""
        rows, columns = torch.triu_indices(*covariance.shape[1:])
        return cls(mean, pack(covariance).addcmul_(mean[:, rows], mean[:, columns]))


@dataclass(frozen=True)
class Prior:
    """Gaussian prior of a core's entries."""

    mean: Float[Tensor, "gamma"]
    precision: Float[Tensor, "gamma gamma"]

    @classmethod
    def independent(cls, variance: Float[Tensor, "gamma"]) -> "Prior":
        """Return the prior of independent entries with mean 0 and these variances."""
        return cls(torch.zeros_like(variance), torch.diag(1 / variance))


@runtime_checkable
class Core(Protocol):
    """The operations of a core that inference uses."""

    def update(self, factors: list[Factor], entries: Entries, precision: float) -> None:
        """Replace its posterior by the optimal one given the factors.

        Args:
            factors: moments of each mode's functions at its points.
            entries: the measurements.
            precision: mean of the noise's precision.
        """

    def messages(
        self, mode: int, factors: list[Factor], entries: Entries
    ) -> tuple[Float[Tensor, "points r"], Float[Tensor, "points r r"]]:
        """Return the messages to a mode's functions, at unit noise precision.

        They are sums over each point's places (Fang et al. 2024, section 4): eta of weight y a, with a the mean of what
        multiplies the functions, and lam of weight B, with B its second moment.

        Args:
            mode: index of the mode whose functions the messages are for.
            factors, entries: as `update` takes them.
        """

    def moments(self, factors: list[Factor]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """Return E[gamma' z] and E[(gamma' z)^2] at n places; row n of every factor belongs to place n."""

    def grid_moments(self, factors: list[Factor]) -> tuple[Float[Tensor, "*grid"], Float[Tensor, "*grid"]]:
        """Return the same at all combinations of the factors' rows, with one axis for each mode."""

    def values(
        self, functions: list[Float[Tensor, "samples n r"]], generator: torch.Generator
    ) -> Float[Tensor, "samples n"]:
        """Return gamma' z for samples of the functions, each with a sample of gamma."""

    def divergence(self) -> float:
        """Return the KL divergence from the prior, in nats."""

    def as_prior(self) -> "Core":
        """Return a core whose prior is this one's posterior, for an update with other entries."""


class TuckerCore:
    """A core with a Gaussian posterior; gamma is its entries, the last mode's index running fastest.

    Args:
        ranks: number of functions of each mode.
        mean: initial posterior mean; the covariance begins with zero.
    """

    def __init__(self, ranks: tuple[int, ...], mean: Float[Tensor, "gamma"]) -> None:
        self.ranks = ranks
        self.prior = Prior.independent(torch.ones_like(mean))
        self.mean, self.covariance = mean, torch.zeros(len(mean), len(mean), dtype=mean.dtype)

    def update(self, factors: list[Factor], entries: Entries, precision: float) -> None:
        first, scatter, moments = factors[0], torch.zeros(()).double(), torch.zeros(()).double()
        for part, sums in _sums(0, factors, entries, second=True, kronecker=True):
            scatter = scatter + first.second[part].T @ sums
        for part, sums in _sums(0, factors, entries, second=False, kronecker=True):
            moments = moments + (first.mean[part].T @ sums).flatten()
        information = precision * self._unpacked(scatter) + self.prior.precision
        root = torch.linalg.cholesky((information + information.T) / 2)
        natural_mean = precision * moments + self.prior.precision @ self.prior.mean
        self.covariance = torch.cholesky_inverse(root)
        self.mean = torch.cholesky_solve(natural_mean[:, None], root)[:, 0]

    def messages(self, mode: int, factors: list[Factor], entries: Entries) -> tuple[Tensor, Tensor]:
        r, points = self.ranks[mode], len(entries.points[mode])
        unfolded = self.mean.reshape(self.ranks).movedim(mode, 0).reshape(r, -1)
        second = self._packed_second().movedim(mode, 0).reshape(r * (r + 1) // 2, -1)[unpack_index(r)]
        second = second * (0.5 + 0.5 * torch.eye(r, dtype=second.dtype)[:, :, None])
        eta, lam = unfolded.new_empty(points, r), unfolded.new_empty(points, r * r)
        for part, sums in _sums(mode, factors, entries, second=False, kronecker=True):
            torch.mm(sums, unfolded.T, out=eta[part])
        for part, sums in _sums(mode, factors, entries, second=True, kronecker=True):
            torch.mm(sums, second.flatten(0, 1).T, out=lam[part])
        return eta, lam.unflatten(1, (r, r))

    def moments(self, factors: list[Factor]) -> tuple[Tensor, Tensor]:
        means = [factor.mean for factor in factors]
        seconds = [factor.second for factor in factors]
        return _contract(self.mean.reshape(self.ranks), means), _contract(self._packed_second(), seconds)

    def grid_moments(self, factors: list[Factor]) -> tuple[Tensor, Tensor]:
        means = [factor.mean for factor in factors]
        seconds = [factor.second for factor in factors]
        return _spread(self.mean.reshape(self.ranks), means), _spread(self._packed_second(), seconds)

    def values(self, functions: list[Tensor], generator: torch.Generator) -> Tensor:
        root = torch.linalg.cholesky(self.covariance)
        noise = torch.randn(len(functions[0]), len(self.mean), generator=generator, dtype=torch.float64)
        cores = (self.mean + noise @ root.T).unflatten(1, self.ranks)
        return torch.stack([_contract(core, [f[k] for f in functions]) for k, core in enumerate(cores)])

    def divergence(self) -> float:
        away, precision = self.mean - self.prior.mean, self.prior.precision
        spread = (precision * self.covariance).sum() + away @ precision @ away
        volume = torch.linalg.slogdet(precision)[1] + torch.linalg.slogdet(self.covariance)[1]
        return float((spread - volume - len(self.mean)) / 2)

    def as_prior(self) -> "TuckerCore":
        core = TuckerCore(self.ranks, self.mean)
        core.covariance = self.covariance
        root = torch.linalg.cholesky(self.covariance)
        core.prior = Prior(self.mean, torch.cholesky_inverse(root))
        return core

    def _packed_second(self) -> Tensor:
        """Return E[gamma gamma'] as (packed pairs of mode 1, of mode 2, ...), (i, j) and (j, i) summed."""
        k = len(self.ranks)
        whole = (self.covariance + torch.outer(self.mean, self.mean)).reshape(self.ranks + self.ranks)
        whole = whole.permute([axis for mode in range(k) for axis in (mode, mode + k)])
        for mode, r in enumerate(self.ranks):
            pairs = whole.flatten(mode, mode + 1).movedim(mode, 0)
            whole = pack_sums(pairs, r).movedim(0, mode)
        return whole

    def _unpacked(self, packed: Tensor) -> Tensor:
        """Return the matrix of a sum of packed E[z z']."""
        k = len(self.ranks)
        whole = packed.reshape([r * (r + 1) // 2 for r in self.ranks])
        for mode, r in enumerate(self.ranks):
            whole = whole.index_select(2 * mode, unpack_index(r).flatten()).unflatten(2 * mode, (r, r))
        size = math.prod(self.ranks)
        return whole.permute([2 * mode for mode in range(k)] + [2 * mode + 1 for mode in range(k)]).reshape(
            size, size
        )


class CPCore:
    """A fixed core with ones on the superdiagonal: the values are CP's sums of products.

    Args:
        rank: number of functions of every mode.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def update(self, factors: list[Factor], entries: Entries, precision: float) -> None:
        pass

    def messages(self, mode: int, factors: list[Factor], entries: Entries) -> tuple[Tensor, Tensor]:
        eta, lam = (
            torch.cat([sums for _, sums in _sums(mode, factors, entries, second, kronecker=False)])
            for second in (False, True)
        )
        return eta, lam[:, unpack_index(self.rank)]

    def moments(self, factors: list[Factor]) -> tuple[Tensor, Tensor]:
        mean = torch.stack([factor.mean for factor in factors]).prod(0).sum(1)
        twice = 2 - pack(torch.eye(self.rank, dtype=mean.dtype))
        return mean, torch.stack([factor.second for factor in factors]).prod(0) @ twice

    def grid_moments(self, factors: list[Factor]) -> tuple[Tensor, Tensor]:
        once = torch.ones(self.rank, dtype=torch.float64)
        twice = 2 - pack(torch.eye(self.rank, dtype=torch.float64))
        means = [factor.mean for factor in factors]
        return _outer_sum(means, once), _outer_sum([factor.second for factor in factors], twice)

    def values(self, functions: list[Tensor], generator: torch.Generator) -> Tensor:
        return torch.stack(functions).prod(0).sum(2)

    def divergence(self) -> float:
        return 0.0

    def as_prior(self) -> "CPCore":
        return self


def _sums(
    mode: int, factors: list[Factor], entries: Entries, second: bool, kronecker: bool
) -> Iterator[tuple[slice, Tensor]]:
    """Yield sums over each of the mode's points of products of the other modes' moments, part by part."""
    others = [k for k in range(len(factors)) if k != mode]
    moments = [factor.second if second else factor.mean for factor in factors]
    tables, index = [moments[k] for k in others], entries.index[:, others]
    if not others:  # a single mode: an empty product
        tables = [moments[0].new_ones(1, 1 if kronecker else moments[0].shape[1])]
        index = torch.zeros_like(entries.index)
    weight = entries.weight if second else entries.total
    return product_sums(tables, index, weight, entries.orders[mode], entries.starts[mode], kronecker)


def _contract(core: Tensor, rows: list[Tensor]) -> Tensor:
    """Return for every n the sum over all indices of core[i, j, ...] rows_1[n, i] rows_2[n, j] ..."""
    first, *rest = rows
    value = first @ core.reshape(len(core), -1)
    for row in rest:
        value = torch.einsum("nr,nrk->nk", row, value.unflatten(1, (row.shape[1], -1)))
    return value[:, 0]


def _spread(core: Tensor, rows: list[Tensor]) -> Tensor:
    """Return the same sums for all combinations of rows: the core's first axis is replaced by a last one of rows."""
    for row in rows:
        core = torch.tensordot(core, row, dims=([0], [1]))
    return core


def _outer_sum(rows: list[Tensor], weights: Tensor) -> Tensor:
    """Return the sum over j of weights[j] rows_1[., j] rows_2[., j] ..., an axis for each."""
    *others, last = rows
    product = weights
    for row in others:
        product = product[..., None, :] * row
    return product @ last.T
