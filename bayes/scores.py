"""How good predictions are, as numbers: errors, proper scores of the distribution, and whether intervals hold."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.bayes.posterior import Posterior, Prediction

LEVEL = 0.95


def scores_of(
    posterior: Posterior, coordinates: Float[Tensor, "n modes"], values: Float[Tensor, "n"]
) -> dict[str, float]:
    """Means over measurements that the model has not seen, in their unit (`nlpd` in nats, `cov95` a share).

    `nlpd` and `crps` are those of a Gaussian with the predicted mean and standard deviation; `cov95` and `width` belong
    to the 95 % interval, calibrated if the model is.
    """
    return score(posterior.predict(coordinates), values)


def score(prediction: Prediction, values: Float[Tensor, "n"]) -> dict[str, float]:
    """`scores_of` predictions that are there already."""
    values, sd = values.double(), prediction.sd
    error = values - prediction.mean
    z = error / sd
    density = (-z.square() / 2).exp() / math.sqrt(2 * math.pi)
    between = torch.erf(z / math.sqrt(2))  # 2 Phi(z) - 1
    low, high = prediction.interval(LEVEL)
    found = {
        "rmse": error.square().mean().sqrt(),
        "mae": error.abs().mean(),
        "nlpd": (z.square() / 2 + sd.log()).mean() + math.log(2 * math.pi) / 2,
        # Gneiting & Raftery 2007, equation 21
        "crps": (sd * (z * between + 2 * density - 1 / math.sqrt(math.pi))).mean(),
        "cov95": ((low <= values) & (values <= high)).double().mean(),
        "width": (high - low).mean(),
    }
    return {name: float(value) for name, value in found.items()}
