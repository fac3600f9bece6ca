"""Image quality: PSNR and SSIM."""

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.fields.errors import InputError, SettingError

SSIM_WINDOW = 11  # pixels; a Gaussian of sigma 1.5 cut off there, as in Wang et al. (2004)
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

    The mean over channels and all pixels, the border seen through reflection, by torchmetrics.

    Raises:
        InputError: Images of different shapes, or not floating-point RGB.
        SettingError: An image smaller than the window, 11 pixels.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure  # takes a second

    _check(image, reference)
    height, width, _ = image.shape
    if min(height, width) < SSIM_WINDOW:
        raise SettingError(
            f"SSIM needs at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels; got {width} x {height}"
        )
    first, second = (x.detach().double().movedim(-1, 0)[None] for x in (image, reference))
    return float(structural_similarity_index_measure(first, second, sigma=1.5, data_range=1.0))


def _check(image: Tensor, reference: Tensor) -> None:
    for x in (image, reference):
        if not x.is_floating_point() or x.ndim != 3 or x.shape[-1] != 3 or x.numel() == 0:
            raise InputError(f"expected a float image of shape (h, w, 3); got {x.dtype} {tuple(x.shape)}")
    if image.shape != reference.shape:
        raise InputError(f"images differ in shape: {tuple(image.shape)} and {tuple(reference.shape)}")
