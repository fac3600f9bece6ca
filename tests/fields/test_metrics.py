"""PSNR against values worked out by hand, SSIM against a straight-line reference."""

import math

import numpy as np
import pytest
import torch

from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.metrics import EQUAL_DB, capped_psnr, psnr, psnr_from_mse, ssim

pytestmark = pytest.mark.numerical


def images(height: int, width: int, noise: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    reference = torch.rand(height, width, 3, generator=generator)
    return (reference + noise * torch.randn(height, width, 3, generator=generator)).clamp(0, 1), reference


@pytest.mark.parametrize(
    ("difference", "expected"),
    [(1.0, 0.0), (0.5, 20 * math.log10(2)), (0.25, 40 * math.log10(2))],  # -10 log10(difference^2)
)
def test_psnr_of_a_constant_difference_is_worked_by_hand(difference: float, expected: float) -> None:
    reference = torch.zeros(4, 5, 3)
    assert psnr(reference + difference, reference) == pytest.approx(expected, abs=1e-9)


def test_psnr_averages_over_pixels_and_channels() -> None:
    image = torch.zeros(2, 5, 3)
    image[1, 3, 2] = 1  # one of 30 numbers is off by 1, so the mean squared error is 1 / 30
    assert psnr(image, torch.zeros(2, 5, 3)) == pytest.approx(10 * math.log10(30), abs=1e-9)


def test_psnr_of_equal_images_is_infinite() -> None:
    image, _ = images(3, 4)
    assert psnr(image, image.clone()) == math.inf


def test_psnr_of_a_mean_squared_error() -> None:
    assert psnr_from_mse(torch.tensor(1e-3)) == pytest.approx(30, abs=1e-5)
    assert psnr_from_mse(torch.tensor(0.0)) == math.inf


def test_psnr_keeps_its_digits_for_nearly_equal_images() -> None:
    reference = torch.full((8, 8, 3), 0.5, dtype=torch.float64)
    assert psnr(reference + 1e-7, reference) == pytest.approx(140, abs=1e-5)


def ssim_ref(image: torch.Tensor, reference: torch.Tensor) -> float:
    """Wang, Bovik, Sheikh, Simoncelli (2004), eq. 13, pixel by pixel, the border reflected."""
    offsets = np.arange(11) - 5
    profile = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(profile, profile) / profile.sum() ** 2
    c1, c2 = 0.01**2, 0.03**2
    x, y = (np.pad(a.double().numpy(), ((5, 5), (5, 5), (0, 0)), mode="reflect") for a in (image, reference))
    values = []
    for row, column, channel in np.ndindex(*image.shape):
        a = x[row : row + 11, column : column + 11, channel]
        b = y[row : row + 11, column : column + 11, channel]
        mean_a, mean_b = (window * a).sum(), (window * b).sum()
        var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
        covariance = (window * (a - mean_a) * (b - mean_b)).sum()
        luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        values.append(luminance * (2 * covariance + c2) / (var_a + var_b + c2))
    return float(np.mean(values))


@pytest.mark.parametrize("shape", [(11, 11), (11, 17), (20, 13)])
def test_ssim_equals_the_straight_line_reference(shape: tuple[int, int]) -> None:
    image, reference = images(*shape)
    value = ssim(image, reference)
    assert 0.1 < value < 0.97
    assert value == pytest.approx(ssim_ref(image, reference), abs=1e-9)


def test_ssim_of_equal_images_is_one() -> None:
    image, _ = images(16, 12)
    assert ssim(image, image.clone()) == pytest.approx(1, abs=1e-12)


def test_ssim_falls_with_noise_and_takes_gradients_and_bfloat16() -> None:
    values = [ssim(*images(24, 24, noise)) for noise in (0.05, 0.2, 0.8)]
    assert values == sorted(values, reverse=True)
    image, reference = images(24, 24)
    exact = ssim(image, reference)
    assert ssim(image.requires_grad_(), reference) == exact
    assert ssim(image.bfloat16(), reference) == pytest.approx(exact, abs=0.01)
    assert psnr(image.bfloat16(), reference) == pytest.approx(psnr(image, reference), abs=0.05)


@pytest.mark.parametrize("shape", [(10, 40), (40, 10), (1, 1)])
def test_ssim_of_an_image_below_the_window_is_a_setting_error(shape: tuple[int, int]) -> None:
    with pytest.raises(SettingError, match=rf"at least 11 x 11 pixels; got {shape[1]} x {shape[0]}"):
        ssim(*images(*shape))


@pytest.mark.parametrize("metric", [psnr, ssim])
@pytest.mark.parametrize(
    ("image", "reference", "message"),
    [
        (torch.zeros(12, 13, 3), torch.zeros(13, 12, 3), "differ in shape"),
        (torch.zeros(12, 12, 1), torch.zeros(12, 12, 1), r"\(h, w, 3\)"),
        (torch.zeros(3, 12, 12), torch.zeros(3, 12, 12), r"\(h, w, 3\)"),
        (torch.zeros(12, 12, 3, dtype=torch.uint8), torch.zeros(12, 12, 3), "uint8"),
        (torch.zeros(0, 12, 3), torch.zeros(0, 12, 3), r"\(h, w, 3\)"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_images_of_the_wrong_kind_are_input_errors(metric, image, reference, message) -> None:
    with pytest.raises(InputError, match=message):
        metric(image, reference)


def test_capped_psnr_states_a_number_for_equal_images() -> None:
    image, reference = images(3, 4)
    assert capped_psnr(image, image.clone()) == EQUAL_DB
    assert capped_psnr(image.double(), image.double() + 1e-7) == EQUAL_DB  # 140 dB
    assert capped_psnr(image, reference) == psnr(image, reference) < EQUAL_DB
