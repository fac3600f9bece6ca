"""A closed-form warm start for hash grids: level by level, what the coarser levels leave.

As relu(x) - relu(-x) = x, a bias-free density network can be a linear map of the encoded features, and what comes out,
the logarithm of density and the features, is linear in the table. In each level the first number of an entry then is
a part of the logarithm, and the others go along the principal directions of what is left of the teacher's features.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.distill.teacher_samples import SamplingConfig, make_block
from fieldmorph.distill.warm_start.teacher_grid import MAX_OPTICAL_DEPTH, MIN_LOG_DENSITY
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.hashgrid import HashGrid
from fieldmorph.fields.kernels.hash import hash_encode_torch
from fieldmorph.fields.kernels.hash_levels import HashLevels
from fieldmorph.fields.kernels.ops import hash_encode
from fieldmorph.fields.renderable import RenderableField


@dataclass(frozen=True, kw_only=True)
class HashGridStart:
    """Settings of `start_hashgrid`.

    Attributes:
        n_blocks: of the teacher's rays.
        max_resolution: of a level that is solved for; finer ones are better learned: solved for, lego is 1 dB worse
            after two minutes.
        iterations: of conjugate gradients; more add nothing.
        ridge: strength of regularisation towards zero, in units of the mean number of an entry's samples.
        feature_rms: root mean square of encoded features, as in a trained grid, which its learning rates suit.
    """

    n_blocks: int = 8
    max_resolution: int = 100
    iterations: int = 3
    ridge: float = 0.1
    feature_rms: float = 0.3


@dataclass(frozen=True)
class _Samples:
    """Points in [0, 1]^3 with the logarithm of density per box length and features, and how much either counts."""

    unit: Float[Tensor, "n 3"]
    raw: Float[Tensor, "n 1"]
    features: Float[Tensor, "n features"]
    raw_weights: Float[Tensor, "n 1"]
    feature_weights: Float[Tensor, "n 1"]


@torch.no_grad()
def start_hashgrid(
    teacher: RenderableField,
    student: VolumeField,
    generator: torch.Generator,
    settings: HashGridStart | None = None,
) -> None:
    """Fill the coarse levels in place, one after the other, by ridge regression.

    Features are solved for only where the decoder is the teacher's.

    A student without coarse levels, or with one number per entry, stays as it is, and so does one of a teacher that
    no ray meets.

    Args:
        teacher: its rays are sampled, near its cameras.
        student: a fresh hash grid of the same box, changed in place.
        generator: of samples and of random parameters.
        settings: the defaults if left out.
    """
    assert isinstance(student, HashGrid)
    settings = settings or HashGridStart()
    coarse = (student.levels.resolutions <= settings.max_resolution).nonzero()[0].tolist()
    width = student.table.shape[1]
    if width < 2 or not coarse:
        return
    seed = int(torch.randint(1 << 20, (1,), generator=generator))
    samples = _sample(teacher, student, seed, settings.n_blocks)
    if not samples.feature_weights.any():
        return
    into, out = student.density_network.parameters()
    n_out = len(out)
    loadings = into[:n_out].clone()  # of what is not solved for: random
    raw, features = samples.raw, samples.features
    for number in coarse:
        level, first = _level(student.levels, number), int(student.levels.offsets[number])
        table = student.table[first : first + level.n_entries]
        columns = loadings[:, number * width : (number + 1) * width]
        entries, encoded = _solve(level, samples.unit, raw, samples.raw_weights, settings)
        raw = raw - encoded
        scale = _scale(encoded, samples.feature_weights, settings.feature_rms)
        table[:, :1], columns[:, 0] = entries / scale, 0
        columns[0] = torch.cat([scale, scale.new_zeros(width - 1)])
        if features.shape[1]:
            scatter = (features * samples.feature_weights).T @ features
            directions = torch.linalg.eigh(scatter).eigenvectors[:, 1 - width :]
            entries, encoded = _solve(
                level, samples.unit, features @ directions, samples.feature_weights, settings
            )
            features = features - encoded @ directions.T
            scale = _scale(encoded, samples.feature_weights, settings.feature_rms)
            table[:, 1:], columns[1:, 1:] = entries / scale, directions * scale
    # A pair of hidden units for each number that comes out; the other units stay random and have no effect yet.
    one = torch.eye(n_out, device=out.device)
    into[: 2 * n_out] = torch.cat([loadings, -loadings])
    out.zero_()
    out[:, : 2 * n_out] = torch.cat([one, -one], dim=1)


def _sample(teacher: RenderableField, student: HashGrid, seed: int, n_blocks: int) -> _Samples:
    """Return samples along the teacher's rays, by rendering weight, and from anywhere in the box."""
    blocks = [make_block(teacher, seed, number) for number in range(n_blocks)]
    positions = torch.cat([p for b in blocks for p in (b.along.positions, b.empty_positions)])
    sigma = torch.cat([s for b in blocks for s in (b.along.sigma, b.empty_sigma)])[:, None]
    weights = torch.cat([w for b in blocks for w in (b.along.weights, torch.zeros_like(b.empty_sigma))])
    sampling = SamplingConfig()
    seen = (sampling.importance * weights).clamp(max=1)[:, None]
    features = sigma[:, :0]
    decoder = teacher.field.decoder
    if decoder is not None and decoder.spec == student.decoder.spec:
        features = sigma.new_zeros(len(sigma), decoder.spec["n_features"])
        start = 0
        for b in blocks:
            assert b.along.features is not None
            features[start : start + len(b.along)] = b.along.features
            start += len(b.along) + len(b.empty_sigma)
    highest = math.log(MAX_OPTICAL_DEPTH * student.extent / teacher.render_step_size)
    raw = torch.log(sigma * student.extent).clamp(MIN_LOG_DENSITY, highest)
    return _Samples(
        student.unit_positions(positions).clamp(0, 1),
        raw,
        features,
        seen + sampling.background_fraction,
        seen,
    )


def _solve(
    level: HashLevels,
    unit: Float[Tensor, "n 3"],
    targets: Float[Tensor, "n k"],
    weights: Float[Tensor, "n 1"],
    settings: HashGridStart,
) -> tuple[Float[Tensor, "entries k"], Float[Tensor, "n k"]]:
    """Return entries by weighted ridge regression (preconditioned conjugate gradients), and their values at samples."""
    # tinycudann knows whole grids only.
    encode = hash_encode_torch if unit.is_cuda else hash_encode
    with torch.enable_grad():
        leaf = targets.new_zeros(level.n_entries, targets.shape[1]).requires_grad_()
        encoded = encode(unit, leaf, level)

    def gather(values: Tensor) -> Tensor:
        """Return the weighted transpose of encoding."""
        return torch.autograd.grad(encoded, leaf, weights * values, retain_graph=True)[0]

    counts = gather(torch.ones_like(targets))  # row sums of the normal matrix: at least its diagonal
    pull = settings.ridge * counts.mean() + 1e-9
    solution, residual = torch.zeros_like(leaf, requires_grad=False), gather(targets)
    direction = residual / (counts + pull)
    size = (residual * direction).sum(0)
    for _ in range(settings.iterations):
        image = gather(encode(unit, direction, level)) + pull * direction
        step = size / (direction * image).sum(0).clamp(min=1e-20)
        solution, residual = solution + step * direction, residual - step * image
        scaled = residual / (counts + pull)
        size, before = (residual * scaled).sum(0), size
        direction = scaled + size / before.clamp(min=1e-20) * direction
    return solution, encode(unit, solution, level)


def _scale(
    encoded: Float[Tensor, "n k"], weights: Float[Tensor, "n 1"], feature_rms: float
) -> Float[Tensor, "k"]:
    """Return what to divide entries by so that they are as large as a trained grid's."""
    mean = (encoded.square() * weights).sum(0) / weights.sum().clamp(min=1e-9)
    return (mean.sqrt() / feature_rms).clamp(min=0.01)


def _level(levels: HashLevels, number: int) -> HashLevels:
    """Return a grid of this level alone."""
    one = slice(number, number + 1)
    offsets = np.array([0, levels.sizes[number]])
    return HashLevels(
        levels.scales[one], levels.resolutions[one], levels.sizes[one], offsets, levels.hashed[one], {}
    )
