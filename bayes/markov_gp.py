"""Markovian Gaussian processes of one coordinate, given information at points: posterior anywhere, and samples."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.bayes.kalman import Marginals, SmoothedStates, smooth, smooth_means, smooth_states
from fieldmorph.bayes.kernels.sampling import propagate
from fieldmorph.bayes.state_space import StateSpace

MAX_NUMBERS = 1 << 22  # of the states' covariances that a prediction holds in memory


@dataclass(frozen=True)
class Process:
    """R functions that share a kernel and are independent a priori.

    Attributes:
        space: state space of their kernel.
        points: distinct coordinates, ascending.
        eta, lam: information on the values there, exp(eta' f - f' lam f / 2).
    """

    space: StateSpace
    points: Float[Tensor, "points"]
    eta: Float[Tensor, "points r"]
    lam: Float[Tensor, "points r r"]

    def marginals(self) -> Marginals:
        """Return the posterior at the points; it is computed at every call, since it is as large as eta and lam."""
        return smooth(*self._chain(), self.eta, self.lam)

    def at(
        self, query: Float[Tensor, "n"], max_numbers: int = MAX_NUMBERS
    ) -> tuple[Float[Tensor, "n r"], Float[Tensor, "n r r"]]:
        """Return posterior mean and covariance of the functions at any real coordinates, in any order.

        Args:
            query: coordinates in the unit of the points.
            max_numbers: of the states' covariances that are held in memory.
        """
        states = smooth_states(*self._chain(), self.eta, self.lam)
        size = (self.eta.shape[1] * len(self.space.emission)) ** 2
        query = query.double().contiguous()
        parts = [self._at(part, states) for part in query.split(max(1, max_numbers // size))]
        return torch.cat([mean for mean, _ in parts]), torch.cat([covariance for _, covariance in parts])

    def _chain(self) -> tuple[Tensor, Tensor, Tensor]:
        return _transitions(self.space, self.points), self.space.stationary, self.space.emission

    def _at(self, query: Tensor, states: SmoothedStates) -> tuple[Tensor, Tensor]:
        space, r = self.space, self.eta.shape[1]
        left = torch.searchsorted(self.points, query, right=True) - 1
        right = left + 1
        inside = (left >= 0, right < len(self.points))
        left, right = left.clamp(min=0), right.clamp(max=len(self.points) - 1)
        forward = space.transition((query - self.points[left]).abs())
        backward = space.transition((self.points[right] - query).abs()).mT
        prior = torch.kron(torch.eye(r, dtype=torch.float64), space.stationary)
        has_left = inside[0].double()  # left of all points there is only the prior, right of all no adjoint
        m = _move(forward, states.mean[left] * has_left[:, None], r)
        p = prior + _congruence(forward, (states.covariance[left] - prior) * has_left[:, None, None], r)
        has_right = inside[1].double()
        adjoint = _move(backward, states.adjoint[right] * has_right[:, None], r)
        precision = _congruence(backward, states.precision[right] * has_right[:, None, None], r)
        h = torch.kron(torch.eye(r, dtype=torch.float64), space.emission[None])
        ph = p @ h.T
        mean = (m + (p @ adjoint[:, :, None])[:, :, 0]) @ h.T
        covariance = h @ ph - ph.mT @ precision @ ph
        covariance = (covariance + covariance.mT) / 2
        # Rounding can make covariances of values that are known almost exactly indefinite.
        negative = torch.linalg.cholesky_ex(covariance).info > 0
        root = _root(covariance[negative])
        covariance[negative] = root @ root.mT
        return mean, covariance

    def sample(
        self,
        query: Float[Tensor, "n"],
        n_samples: int,
        generator: torch.Generator,
        max_numbers: int = MAX_NUMBERS,
    ) -> Float[Tensor, "samples n r"]:
        """Return joint samples of the functions' values at any coordinates (Durbin & Koopman 2002).

        A sample is a draw from the prior plus the posterior mean of its residual, for which smoothed means suffice.

        Args:
            query: coordinates in the unit of the points.
            n_samples: number of joint samples.
            generator: of the draws.
            max_numbers: of the states that are held in memory.
        """
        query, r = query.double().contiguous(), self.eta.shape[1]
        points = torch.cat([self.points, query]).unique()
        known, wanted = torch.searchsorted(points, self.points), torch.searchsorted(points, query)
        lam = self.lam.new_zeros(len(points), r, r)
        lam[known] = self.lam
        root, transitions = _root(self.lam), _transitions(self.space, points)
        samples = [self.eta.new_zeros(0, len(query), r)]
        size = len(points) * r * len(self.space.emission)
        for n in _sizes(n_samples, max(1, max_numbers // size)):
            drawn = draw_prior(self.space, points, r * n, generator).unflatten(1, (r, n))
            noise = torch.randn(len(self.points), r, n, generator=generator, dtype=torch.float64)
            eta = drawn.new_zeros(drawn.shape)
            eta[known] = self.eta[:, :, None] - self.lam @ drawn[known] - root @ noise
            found = drawn + smooth_means(transitions, self.space.stationary, self.space.emission, eta, lam)
            samples.append(found[wanted].permute(2, 0, 1))
        return torch.cat(samples)


@torch.no_grad()
def draw_prior(
    space: StateSpace, points: Float[Tensor, "points"], r: int, generator: torch.Generator
) -> Float[Tensor, "points r"]:
    """Return a draw of r functions from the prior at ascending points.

    Args:
        space: of the kernel that all functions have.
        points: coordinates, ascending.
        r: number of functions.
        generator: of the draw.
    """
    transitions = space.transition(points.diff())
    drive = _root(space.stationary - transitions @ space.stationary @ transitions.mT)
    noise = torch.randn(len(points), len(space.emission), r, generator=generator, dtype=torch.float64)
    pushes = torch.cat([(_root(space.stationary) @ noise[0])[None], drive @ noise[1:]])
    first = torch.zeros(1, *space.stationary.shape, dtype=torch.float64)
    arrays = (
        x.detach().contiguous().numpy() for x in (torch.cat([first, transitions]), pushes, space.emission)
    )
    return torch.from_numpy(propagate(*arrays))


@torch.no_grad()
def _transitions(space: StateSpace, points: Float[Tensor, "points"]) -> Float[Tensor, "points states states"]:
    """Return A from each point's left neighbor to it; the first is the identity."""
    return space.transition(torch.cat([points.new_zeros(1), points.diff()]))


def _sizes(n: int, maximum: int) -> list[int]:
    """Return the sizes of consecutive parts of n items."""
    return [min(maximum, n - start) for start in range(0, n, maximum)]


def _move(transition: Tensor, state: Tensor, r: int) -> Tensor:
    """Return (I x A) m."""
    return torch.einsum("nij,nrj->nri", transition, state.unflatten(1, (r, -1))).flatten(1)


def _congruence(transition: Tensor, covariance: Tensor, r: int) -> Tensor:
    """Return (I x A) P (I x A)'."""
    blocks = covariance.unflatten(2, (r, -1)).unflatten(1, (r, -1))
    half = torch.einsum("nij,nrjqk->nriqk", transition, blocks)
    return torch.einsum("nlk,nriqk->nriql", transition, half).flatten(3, 4).flatten(1, 2)


def _root(matrix: Tensor) -> Tensor:
    """Return B with B B' = the matrix, whose smallest eigenvalues may be negative by rounding."""
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    root: Tensor = vectors * values.clamp(min=0).sqrt()[..., None, :]
    return root
