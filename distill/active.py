"""Active learning on three levels: poses, rays and points that the student gets wrong are drawn again (PVD-AL, 2023).

Each level is a small sampler with a state of its own. A difficulty belongs to what stays: to a pose by its index among
the teacher's cameras, to a ray or a point by its place in a block of the sample ring.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fieldmorph.fields.cameras import Cameras, turn_cameras

REPLAYED_FRACTION = 0.1  # of a batch that is drawn again, and of a batch that counts as hard
POOL_SIZE = 2048  # hard rays or points that are remembered of one block
TURN_DEGREES = 9.0  # largest angle by which the worst poses are rotated around the scene
MOMENTUM = 0.9  # of a pose's difficulty, from one error to the next
SALIENT_FRACTION = 0.3  # of the samples, by rendering weight
SURFACE_OPACITY = 0.5  # opacity from which a ray has a surface


class HardPoses:
    """The student's error at each of the teacher's poses, and new poses near the worst tenth of them.

    Attributes:
        difficulty: of each pose, under the one kind of error that was seen last; all the state there is.
    """

    def __init__(self, n_poses: int):
        self.n_poses = n_poses
        self.difficulty: dict[str, Tensor] = {}

    def note(self, poses: Int[Tensor, "n"], errors: Float[Tensor, "n"], kind: str) -> None:
        """Update each pose's running mean with errors seen from poses (indices).

        Another kind of error has another scale: with it everything before is forgotten.
        """
        poses, errors = poses.cpu(), errors.cpu()
        before = self.difficulty.get(kind, torch.zeros(self.n_poses))
        count = torch.zeros_like(before).index_add_(0, poses, torch.ones_like(errors))
        mean = torch.zeros_like(before).index_add_(0, poses, errors) / count.clamp(min=1)
        fresh = torch.where(before > 0, MOMENTUM * before + (1 - MOMENTUM) * mean, mean)
        self.difficulty = {kind: torch.where(count > 0, fresh, before)}

    def worst(self) -> Int[Tensor, "n_worst"]:
        """Return the indices of the worst tenth of the poses seen so far, at least one; none before an error."""
        difficulty = next(iter(self.difficulty.values()), torch.zeros(self.n_poses))
        n = min(max(1, int(REPLAYED_FRACTION * self.n_poses)), int((difficulty > 0).sum()))
        return difficulty.topk(n).indices


def hard_cameras(
    prior: Cameras, worst: Int[Tensor, "n_worst"], n: int, generator: torch.Generator
) -> Cameras:
    """Return n cameras near the given poses, each rotated around the scene by a random few degrees.

    Args:
        prior: the teacher's cameras.
        worst: indices of the poses among them.
        n: number of cameras.
        generator: draws poses, axes and angles.
    """
    which = worst[torch.randint(len(worst), (n,), generator=generator)]
    return turn_cameras(prior, which, TURN_DEGREES, generator)


class ReplayPool:
    """The worst rays (or points) of each block of the ring; a tenth of every batch is drawn from them again.

    Attributes:
        pools: by number of a block, indices and their errors; all the state there is.
    """

    def __init__(self) -> None:
        self.pools: dict[int, tuple[Tensor, Tensor]] = {}

    def draw(
        self, block: int, fresh: Int[Tensor, "n"], generator: torch.Generator
    ) -> tuple[Int[Tensor, "n"], Int[Tensor, "n_replayed"]]:
        """Return the indices, the first of them replaced by remembered ones, and the latter's places in memory.

        Args:
            block: its number.
            fresh: indices into the block, drawn anew.
            generator: chooses what is replayed.
        """
        indices, _ = self._pool(block)
        n = min(int(REPLAYED_FRACTION * len(fresh)), len(indices))
        slots = torch.randperm(len(indices), generator=generator)[:n]
        return torch.cat([indices[slots].to(fresh.device), fresh[n:]]), slots

    def note(self, block: int, drawn: Int[Tensor, "n"], slots: Tensor, errors: Float[Tensor, "n"]) -> None:
        """Update the errors of what was replayed, and remember the worst tenth of the rest.

        Args:
            block: its number.
            drawn, slots: as `draw` returned them.
            errors: of all drawn samples, in the same order.
        """
        indices, remembered = self._pool(block)
        drawn, errors = drawn.cpu(), errors.cpu()
        remembered[slots] = errors[: len(slots)]
        fresh, fresh_errors = drawn[len(slots) :], errors[len(slots) :]
        worst = fresh_errors.topk(int(REPLAYED_FRACTION * len(fresh_errors))).indices
        known_again = torch.isin(indices, fresh[worst])  # drawn anew as well: the newest error counts, once
        newest, first = fresh[worst].unique(return_inverse=True)
        newest_errors = torch.zeros(len(newest)).scatter_reduce(0, first, fresh_errors[worst], "amax")
        indices = torch.cat([indices[~known_again], newest])
        remembered = torch.cat([remembered[~known_again], newest_errors])
        if len(indices) > POOL_SIZE:
            kept = remembered.topk(POOL_SIZE).indices
            indices, remembered = indices[kept], remembered[kept]
        self.pools[block] = indices, remembered

    def keep(self, blocks: set[int]) -> None:
        """Remove blocks that left the ring, keeping the given ones."""
        self.pools = {number: pool for number, pool in self.pools.items() if number in blocks}

    def _pool(self, block: int) -> tuple[Tensor, Tensor]:
        return self.pools.get(block, (torch.zeros(0, dtype=torch.long), torch.zeros(0)))


def salient_samples(
    weights: Float[Tensor, "n"], opacities: Float[Tensor, "n_rays"], ray_indices: Int[Tensor, "n"]
) -> Bool[Tensor, "n"]:
    """Return which samples make up the image: the top 30 % by rendering weight, on rays that meet a surface.

    Args:
        weights: rendering weight of each sample.
        opacities: of the rays.
        ray_indices: the ray of each sample.
    """
    surface = (opacities >= SURFACE_OPACITY)[ray_indices]
    n = int(SALIENT_FRACTION * len(weights))
    if not n or not surface.any():  # where no ray is opaque, all samples make up the image
        return torch.ones_like(surface)
    return surface & (weights >= weights.topk(n).values[-1])
