"""Symmetric matrices as vectors, there and back."""

import pytest
import torch

from fieldmorph.bayes.kernels.symmetric import pack, pack_sums, unpack_index

pytestmark = pytest.mark.numerical


@pytest.mark.parametrize("r", [1, 2, 3, 7])
def test_packing_and_back_is_the_matrix(r: int) -> None:
    matrix = torch.randn(4, 5, r, r, generator=torch.Generator().manual_seed(r), dtype=torch.float64)
    matrix = matrix + matrix.mT
    packed = pack(matrix)
    assert packed.shape == (4, 5, r * (r + 1) // 2)
    assert torch.equal(packed[..., unpack_index(r)], matrix)


def test_packing_goes_row_by_row() -> None:
    assert pack(torch.tensor([[1.0, 2.0, 3.0], [0.0, 4.0, 5.0], [0.0, 0.0, 6.0]])).tolist() == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]
    assert unpack_index(3).tolist() == [[0, 1, 2], [1, 3, 4], [2, 4, 5]]


@pytest.mark.parametrize("r", [1, 2, 4])
def test_packed_sums_pair_up_with_packed_matrices(r: int) -> None:
    """sum_ij A_ij S_ij for any A and symmetric S is the packed sums of A times the packed S."""
    generator = torch.Generator().manual_seed(r)
    a = torch.randn(r * r, 3, generator=generator, dtype=torch.float64)
    s = torch.randn(r, r, generator=generator, dtype=torch.float64)
    s = s + s.T
    torch.testing.assert_close(pack(s) @ pack_sums(a, r), s.flatten() @ a, rtol=1e-13, atol=1e-13)
