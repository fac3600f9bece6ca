"""Flat indices of lattices, and masks that grow by one neighbor."""

import pytest
import torch
from torch.nn import functional as F

from fieldmorph.fields.lattice import coordinates, dilate, dilate_along


def test_flat_indices_count_z_first() -> None:
    at = coordinates(torch.tensor([0, 1, 5, 25, 124]), 5)
    assert at.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [4, 4, 4]]


@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 2, 9), (1, 1, 1)])
def test_a_dilated_mask_holds_all_that_touch_it(shape: tuple[int, int, int]) -> None:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.1
    before = mask.clone()
    expected = F.max_pool3d(mask[None].float(), kernel_size=3, stride=1, padding=1)[0] > 0
    assert torch.equal(dilate(mask), expected)
    assert torch.equal(mask, before)


def test_one_axis_alone_is_dilated() -> None:
    mask = torch.zeros(3, 3, 3, dtype=torch.bool)
    mask[1, 1, 1] = True
    assert dilate_along(mask, 2).nonzero().tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 2]]
