"""How good predictions are, as numbers: errors, proper scores of the distribution, and whether intervals hold."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.bayes.posterior import Posterior, Prediction
from fieldmorph.bayes.student_t import scale_mixture

LEVEL = 0.95
ROWS_AT_ONCE = 1 << 10  # each takes a number for every pair of the noise's Gaussians


def scores_of(
    posterior: Posterior, coordinates: Float[Tensor, "n modes"], values: Float[Tensor, "n"]
) -> dict[str, float]:
    """Means over measurements that the model has not seen, in their unit (`nlpd` in nats, `cov95` a share).

    `nlpd` and `crps` are of a Gaussian function and the noise that the model has, Gaussian or Student's t; `cov95` and
    `width` belong to the 95 % interval, calibrated if the model is.
    """
    return score(posterior.predict(coordinates), values)


def score(prediction: Prediction, values: Float[Tensor, "n"]) -> dict[str, float]:
    """`scores_of` predictions that are there already."""
    values, error = values.double(), values.double() - prediction.mean
    latent = prediction.latent_sd.square()
    noise = prediction.sd.square() - latent
    parts = zip(*(x.split(ROWS_AT_ONCE) for x in (error, latent, noise)), strict=True)
    proper = [_proper(e, f, n, prediction.degrees) for e, f, n in parts]
    low, high = prediction.interval(LEVEL)
    found = {
        "rmse": error.square().mean().sqrt(),
        "mae": error.abs().mean(),
        "nlpd": torch.cat([nlpd for nlpd, _ in proper]).mean(),
        "crps": torch.cat([crps for _, crps in proper]).mean(),
        "cov95": ((low <= values) & (values <= high)).double().mean(),
        "width": (high - low).mean(),
    }
    return {name: float(value) for name, value in found.items()}


def _proper(error: Tensor, latent: Tensor, noise: Tensor, degrees: float | None) -> tuple[Tensor, Tensor]:
    """Negative log density, and CRPS (Gneiting & Raftery 2007, equation 21), of a mixture of Gaussians."""
    shares, scales = scale_mixture(degrees)
    variance = latent[:, None] + noise[:, None] * scales
    sd = variance.sqrt()
    z = error[:, None] / sd
    log_density = -z.square() / 2 - sd.log() - math.log(2 * math.pi) / 2
    nlpd = -torch.logsumexp(shares.log() + log_density, dim=1)
    # E|X| of a Gaussian at distance `error`, and of the difference of two draws.
    away = error[:, None] * torch.erf(z / math.sqrt(2)) + 2 * variance * log_density.exp()
    apart = (variance[:, :, None] + variance[:, None, :]).sqrt() * math.sqrt(2 / math.pi)
    return nlpd, away @ shares - (apart @ shares) @ shares / 2
