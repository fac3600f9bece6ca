"""Image quality: PSNR and SSIM."""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from fieldmorph.fields.errors import InputError, SettingError

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5  # pixels; a Gaussian that is cut off there, as in Wang et al. (2004)
C1, C2 = 0.01**2, 0.03**2  # their constants for images in [0, 1]
EQUAL_DB = 100.0  # PSNR of equal images and the largest stated: a mean with infinity in it says nothing


def psnr(image: Float[Tensor, "h w 3"], reference: Float[Tensor, "h w 3"]) -> float:
    """Return the peak signal-to-noise ratio in dB of an image in [0, 1]; infinite for equal images.

    Args:
        image, reference: sRGB in [0, 1], of one shape.

    Raises:
        InputError: Images of different shapes, or not floating-point RGB.
    """
    _check(image, reference)
    return psnr_from_mse(torch.mean((image.double() - reference.double()) ** 2))


def psnr_from_mse(error: Float[Tensor, ""]) -> float:
    """Return the PSNR in dB of colors in [0, 1] with this mean squared error; infinite where it is 0."""
    return float(-10 * torch.log10(error.detach()))


def capped_psnr(image: Float[Tensor, "h w 3"], reference: Float[Tensor, "h w 3"]) -> float:
    """Return `psnr` in dB, at most 100."""
    return min(psnr(image, reference), EQUAL_DB)


def ssim(image: Float[Tensor, "h w 3"], reference: Float[Tensor, "h w 3"]) -> float:
    """Return the structural similarity (SSIM, Wang et al. 2004) of images in [0, 1], at most 1; 1 for equal images.

    The mean over channels and all pixels, in double precision, the border seen through reflection. The Gaussian window
    of 11 x 11 pixels is applied along each axis in turn, by scipy: thirty times as fast as a convolution in the plane.

    Raises:
        InputError: Images of different shapes, or not floating-point RGB.
        SettingError: An image smaller than the window, 11 pixels.
    """
    _check(image, reference)
    height, width, _ = image.shape
    if min(height, width) < SSIM_WINDOW:
        raise SettingError(
            f"SSIM needs at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels; got {width} x {height}"
        )
    a, b = (x.detach().cpu().double().numpy() for x in (image, reference))
    mean_a, mean_b = _blurred(a), _blurred(b)
    variances = _blurred(a * a) - mean_a * mean_a + _blurred(b * b) - mean_b * mean_b
    covariance = _blurred(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a * mean_a + mean_b * mean_b + C1)
    structure = (2 * covariance + C2) / (variances + C2)
    return float((luminance * structure).mean())


def _blurred(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the means of an image (h, w, 3) over the window around each pixel."""
    from scipy.ndimage import gaussian_filter  # most commands measure no SSIM

    radius = SSIM_WINDOW // 2
    blurred: NDArray[np.float64] = gaussian_filter(
        image, (SSIM_SIGMA, SSIM_SIGMA, 0), truncate=radius / SSIM_SIGMA, mode="mirror"
    )
    return blurred


def _check(image: Tensor, reference: Tensor) -> None:
    for x in (image, reference):
        if not x.is_floating_point() or x.ndim != 3 or x.shape[-1] != 3 or x.numel() == 0:
            raise InputError(f"expected a float image of shape (h, w, 3); got {x.dtype} {tuple(x.shape)}")
    if image.shape != reference.shape:
        raise InputError(f"images differ in shape: {tuple(image.shape)} and {tuple(reference.shape)}")
