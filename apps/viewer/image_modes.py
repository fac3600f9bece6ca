"""Image modes of the viewer, colored as the browser's shader does: color, depth, opacity; and the crop box."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fieldmorph.fields.cameras import Rays
from fieldmorph.fields.rendering import RaySamples, RenderOutput

MODES = ("color", "depth", "opacity")
# Viridis as a polynomial of degree 6, the coefficients of the lowest power first (Zucker 2019).
VIRIDIS = (
    (0.2777273, 0.0054073, 0.3340998),
    (0.1050930, 1.4046135, 1.3845901),
    (-0.3308618, 0.2148476, 0.0950952),
    (-4.6342305, -5.7991010, -19.3324410),
    (6.2282699, 14.1799334, 56.6905526),
    (4.7763849, -13.7451454, -65.3530326),
    (-5.4354559, 4.6458526, 26.3124352),
)


def image_colors(mode: str, output: RenderOutput, eye: Tensor, box: Tensor, background: float) -> Tensor:
    """Return the pixels of an image mode, sRGB (n_rays, 3).

    Args:
        mode: one of `MODES`.
        output: pixels of the rays, over the same background.
        eye: from which all rays come, (3,).
        box: that bounds the range of depths, minimum then maximum corner, (6,).
        background: gray level in [0, 1]; an image of opacities has none.
    """
    opacities = output.opacities[:, None]
    if mode == "opacity":
        return opacities.expand(-1, 3)
    if mode == "depth":
        near, far = depth_range(eye, box)
        mean = output.depths[:, None] / opacities.clamp(min=1e-6)
        return opacities * depth_colors((mean - near) / (far - near)) + (1 - opacities) * background
    return output.colors


def depth_range(eye: Tensor, box: Tensor) -> tuple[float, float]:
    """Return the distances from a point (3,) to the nearest point of a box (6,) and to its furthest corner."""
    low, high = box[:3], box[3:]
    nearest = eye - torch.minimum(torch.maximum(eye, low), high)
    furthest = torch.maximum((eye - low).abs(), (eye - high).abs())
    return float(nearest.norm()), float(furthest.norm())


def depth_colors(fractions: Tensor) -> Tensor:
    """Return colors (n, 3) of depths (n, 1) as fractions of their range: near is light."""
    t = 1 - fractions.clamp(0, 1)
    colors = torch.zeros_like(t)
    for coefficients in reversed(VIRIDIS):
        colors = colors * t + t.new_tensor(coefficients)
    return colors


def crop_samples(rays: Rays, samples: RaySamples, crop: Sequence[float] | None) -> RaySamples:
    """Return the samples within a box of world units, minimum then maximum corner; all where there is none."""
    if crop is None or not len(samples):
        return samples
    positions = samples.positions(rays)
    low, high = positions.new_tensor(crop).reshape(2, 3)
    return samples.keep(((positions >= low) & (positions < high)).all(dim=-1))
