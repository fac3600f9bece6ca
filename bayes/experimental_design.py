"""Experimental design: the next places to measure, chosen to reduce the posterior's mean variance.

For jointly Gaussian values the effect of a measurement at c is known in advance: the mean variance at places r falls by
the mean of cov(r, c)^2 / (var(c) + noise) (Cohn's criterion; Seo et al. 2000). Covariances are estimated from joint
samples, which are treated as Gaussian. Places are chosen greedily, each given those before it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmorph.bayes.posterior import Posterior
from fieldmorph.fields.errors import SettingError

SAMPLES = 512
MIN_VARIANCE = 1e-300  # so that it can be divided by


@dataclass(frozen=True)
class Design:
    """Places to measure, the most informative first.

    Attributes:
        rows: their rows among the candidates.
        coordinates: of these rows.
        variance: mean variance of the function at the references, in the value's unit squared: now, and as expected
            after each of the measurements.
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
    """Choose n candidates whose measurement would reduce the posterior's mean variance most, without repetition.

    Args:
        posterior: the fitted model.
        n: number of candidates to choose.
        candidates: coordinates in the model's units (`Mode.parse`).
        references: places at which the variance counts; by default the candidates.
        n_samples: of the joint posterior; the error of a covariance is 1 / sqrt(n_samples) of both standard deviations.
            Memory is proportional to it times the number of candidates and references.
        generator: of the samples; by default one seeded with 0.

    Raises:
        SettingError: fewer candidates than n, no reference, or fewer than two samples.
    """
    if not 1 <= n <= len(candidates):
        raise SettingError(f"n must be between 1 and {len(candidates)}, the number of candidates; got {n}")
    if n_samples < 2 or (references is not None and not len(references)):
        raise SettingError("where_next needs at least two samples and one reference")
    places = candidates if references is None else torch.cat([candidates, references])
    generator = generator or torch.Generator().manual_seed(0)
    found = posterior.predict(places)
    samples = posterior.sample(places, n_samples, generator) - found.mean
    own = samples.square().mean(0).clamp(min=MIN_VARIANCE).sqrt()
    # root' root is the covariance, exact on the diagonal.
    root = samples * (found.latent_sd / own) / n_samples**0.5
    noise = posterior.scale**2 * posterior.noise.variance
    wanted = slice(None) if references is None else slice(len(candidates), None)
    rows: list[int] = []
    variances = [root[:, wanted].square().sum(0).mean()]
    for _ in range(n):
        gain = _gains(root[:, : len(candidates)], root[:, wanted], noise)
        gain[rows] = -torch.inf
        rows.append(int(gain.argmax()))
        variances.append(variances[-1] - gain[rows[-1]])
        root = _measured(root, rows[-1], noise)
    chosen = torch.tensor(rows)
    return Design(chosen, candidates[chosen], torch.stack(variances))


def _gains(
    root: Float[Tensor, "samples candidates"], wanted: Float[Tensor, "samples references"], noise: float
) -> Float[Tensor, "candidates"]:
    """Return by how much each measurement would reduce the references' mean variance.

    The expectation of a sampled covariance's square exceeds the true one by var(c) var(r) / samples. This bias is
    subtracted, since it would dominate where most references are far from c.
    """
    variance = root.square().sum(0)
    squares = ((wanted @ wanted.T @ root) * root).sum(0)
    bias = variance * wanted.square().sum() / len(root)
    return (squares - bias) / wanted.shape[1] / (variance + noise)


def _measured(
    root: Float[Tensor, "samples places"], row: int, noise: float
) -> Float[Tensor, "samples places"]:
    """Return the root after a measurement of c, by Potter's square root update.

    root' root loses cov(., c) cov(c, .) / (var(c) + noise).
    """
    c = root[:, row]
    total = c @ c + noise
    scale = 1 / (total * (1 + (noise / total).sqrt()))
    return root - scale * torch.outer(c, c @ root)
