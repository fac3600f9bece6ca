"""Random generators: one for each purpose, all from the one number that a user gives."""

import hashlib

import torch


def seeded(seed: int, purpose: str, number: int = 0) -> torch.Generator:
    """Return a generator whose stream is independent of that of another seed, purpose or number.

    They are hashed together: torch keeps 32 bits of a seed, and neighbouring ones (`seed + 1`) would meet again where
    seeds are counted up.
    """
    digest = hashlib.sha256(f"{seed} {purpose} {number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4]))
