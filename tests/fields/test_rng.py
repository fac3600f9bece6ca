"""Streams of one seed are independent of each other."""

import itertools

import torch

from fieldmorph.fields.rng import seeded


def drawn(*which) -> torch.Tensor:
    return torch.rand(1000, generator=seeded(*which))


def test_the_same_three_give_the_same_stream() -> None:
    assert torch.equal(drawn(3, "rays", 2), drawn(3, "rays", 2))


def test_streams_of_seeds_purposes_and_numbers_share_nothing() -> None:
    # 4096 << 20 and 1 << 32 are 0 in the 32 bits that torch keeps.
    seeds = (0, 1, 4096, 1 << 32)
    streams = [drawn(*w) for w in itertools.product(seeds, ("rays", "weights"), (0, 1, 2))]
    streams += [drawn(1, "rays", 11), drawn(11, "rays", 1)]
    for a, b in itertools.combinations(streams, 2):
        assert len(set(a.tolist()) & set(b.tolist())) < 5  # floats of 24 bits meet now and then
        assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 0.2
