"""Metrics of predictions: errors, proper scores of the predictive distribution, and coverage of intervals."""

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
    """Return metrics of a model on measurements that it was not fitted to.

    Args:
        posterior: the fitted model.
        coordinates: float64, in the model's units (`Mode.parse`).
        values: in the unit of the model's value.

    Returns:
        `rmse`, `mae`, `crps` and `width` in the value's unit, `nlpd` in nats, `cov95` a fraction. `nlpd` (negative log
        predictive density) and `crps` (continuous ranked probability score) are those of a Gaussian function plus the
        model's noise, Gaussian or Student's t; `cov95` and `width` are coverage and mean width of the 95 % interval,
        calibrated if the model is.
    """
    return score(posterior.predict(coordinates), values)


def score(prediction: Prediction, values: Float[Tensor, "n"]) -> dict[str, float]:
    """Return the metrics of `scores_of` for predictions that were computed before.

    Args:
        prediction: at the measured places.
        values: in the unit of the model's value.
    """
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
    """Return negative log density and CRPS (Gneiting & Raftery 2007, equation 21), of a mixture of Gaussians."""
    weights, scales = scale_mixture(degrees)
    variance = latent[:, None] + noise[:, None] * scales
    sd = variance.sqrt()
    z = error[:, None] / sd
    log_density = -z.square() / 2 - sd.log() - math.log(2 * math.pi) / 2
    nlpd = -torch.logsumexp(weights.log() + log_density, dim=1)
    # E|X| of a Gaussian at distance `error`, and of the difference of two draws.
    away = error[:, None] * torch.erf(z / math.sqrt(2)) + 2 * variance * log_density.exp()
    apart = (variance[:, :, None] + variance[:, None, :]).sqrt() * math.sqrt(2 / math.pi)
    return nlpd, away @ weights - (apart @ weights) @ weights / 2
