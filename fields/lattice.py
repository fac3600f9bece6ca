"""Cubic lattices of cells or nodes: flat indices, and masks that grow by one neighbor."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def coordinates(indices: Int[Tensor, "n"], resolution: int) -> Int[Tensor, "n 3"]:
    """Return the places along x, y and z of flat indices `(x resolution + y) resolution + z`."""
    return torch.stack(
        [indices // resolution**2, indices // resolution % resolution, indices % resolution], dim=-1
    )


def dilate(mask: Bool[Tensor, "x y z"]) -> Bool[Tensor, "x y z"]:
    """Return the true elements and all that touch one of them, at a face, an edge or a corner."""
    for axis in range(3):
        mask = dilate_along(mask, axis)
    return mask


def dilate_along(mask: Bool[Tensor, "x y z"], axis: int) -> Bool[Tensor, "x y z"]:
    """Return the true elements and their neighbors on both sides along one axis."""
    near, n = mask.clone(), mask.shape[axis]
    near.narrow(axis, 1, n - 1).logical_or_(mask.narrow(axis, 0, n - 1))
    near.narrow(axis, 0, n - 1).logical_or_(mask.narrow(axis, 1, n - 1))
    return near
