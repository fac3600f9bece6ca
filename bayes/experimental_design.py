"""Where to measure next: the places that would tell most about all the others.

What a measurement at c teaches about places r is, for jointly Gaussian values, known before it is made: their mean
variance falls by the mean of cov(r, c)^2 / (var(c) + noise) (Cohn's criterion; Seo et al. 2000). Covariances are those
of joint samples, so that products of functions, whose samples are taken for Gaussian, need no formula of their own.
Picks are greedy, each as if those before it were made already.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmorph.bayes.posterior import Posterior
from fieldmorph.fields.errors import SettingError

SAMPLES = 512
LEAST = 1e-300  # a variance that one can divide by


@dataclass(frozen=True)
class Design:
    """Where to measure, the most telling place first.

    Attributes:
        rows: of the candidates.
        coordinates: these.
        variance: mean variance of the function at the references, in the value's unit squared: now, and as it is
            expected after each of the measurements.
    """

    rows: Int[Tensor, "n"]
    coordinates: Float[Tensor, "n modes"]
    variance: Float[Tensor, "n_and_one"]


@torch.no_grad()
def where_next(
    posterior: Posterior,
    candidates: Float[Tensor, "candidates modes"],
    n: int,
    *,
    references: Float[Tensor, "references modes"] | None = None,
    n_samples: int = SAMPLES,
    generator: torch.Generator | None = None,
) -> Design:
    """The n candidates whose measurement would lower the posterior's mean variance most; each row at most once.

    Args:
        references: where the function is wanted; by default at the candidates.
        n_samples: of the joint posterior: of a covariance's error, 1 / sqrt(n_samples) of both standard deviations is
            left. So many numbers are held for every candidate and reference.
        generator: of the samples; by default one seeded with 0.

    Raises:
        SettingError: fewer candidates than are to be picked, no reference, or fewer than two samples.
    """
    if not 1 <= n <= len(candidates):
        raise SettingError(f"from {len(candidates)} candidates 1 to all can be picked; got {n}")
    if n_samples < 2 or (references is not None and not len(references)):
        raise SettingError("where to measure next is known from two samples and one reference on")
    places = candidates if references is None else torch.cat([candidates, references])
    generator = generator or torch.Generator().manual_seed(0)
    found = posterior.predict(places)
    samples = posterior.sample(places, n_samples, generator) - found.mean
    own = samples.square().mean(0).clamp(min=LEAST).sqrt()
    root = (
        samples * (found.latent_sd / own) / n_samples**0.5
    )  # root' root is the covariance, exact on the diagonal
    noise = posterior.scale**2 * posterior.noise.variance
    wanted = slice(None) if references is None else slice(len(candidates), None)
    rows: list[int] = []
    variances = [root[:, wanted].square().sum(0).mean()]
    for _ in range(n):
        gain = _gains(root[:, : len(candidates)], root[:, wanted], noise)
        gain[rows] = -torch.inf
        rows.append(int(gain.argmax()))
        variances.append(variances[-1] - gain[rows[-1]])
        root = _told(root, rows[-1], noise)
    chosen = torch.tensor(rows)
    return Design(chosen, candidates[chosen], torch.stack(variances))


def _gains(
    root: Float[Tensor, "samples candidates"], wanted: Float[Tensor, "samples references"], noise: float
) -> Float[Tensor, "candidates"]:
    """By how much the references' mean variance would fall.

    A sampled covariance's square is too large by var(c) var(r) / samples in the mean, which is taken off: summed over
    thousands of references that c tells nothing about, it would outweigh those few near it.
    """
    variance = root.square().sum(0)
    squares = ((wanted @ wanted.T @ root) * root).sum(0)
    chance = variance * wanted.square().sum() / len(root)
    return (squares - chance) / wanted.shape[1] / (variance + noise)


def _told(root: Float[Tensor, "samples places"], row: int, noise: float) -> Float[Tensor, "samples places"]:
    """After a measurement: root' root loses cov(., c) cov(c, .) / (var(c) + noise) (Potter's square root update)."""
    c = root[:, row]
    total = c @ c + noise
    share = 1 / (total * (1 + (noise / total).sqrt()))
    return root - share * torch.outer(c, c @ root)
