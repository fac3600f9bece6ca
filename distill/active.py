"""Active learning on three levels: poses, rays and points that the student gets wrong are shown again (PVD-AL, 2023).

Each level is a small sampler with a state of its own. Hardness belongs to things that stay: a pose by its index among
the teacher's cameras, a ray or a point by its place in a block of the sample ring.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmorph.fields.cameras import Cameras, turn_cameras
from fieldmorph.fields.errors import SettingError, known

LEVELS = ("pose", "ray", "point")
REPLAYED = 0.1  # share of a batch that is shown again, and of a batch that counts as hard
POOL_SIZE = 2048  # hard things that are remembered of one block
TURN_DEGREES = 9.0  # the worst poses are turned about the scene by up to so much
MEMORY = 0.9  # of a pose's hardness, from one look to the next
CARRIERS = 0.3  # share of samples, by rendering weight, that carry the picture
OPAQUE = 0.5  # opacity from which a ray has a surface to look at


def check_levels(levels: tuple[str, ...]) -> None:
    """Raises SettingError for a level that does not exist."""
    for level in levels:
        if level not in LEVELS:
            raise known("level of active learning", level, list(LEVELS))
    if len(set(levels)) != len(levels):
        raise SettingError(f"a level of active learning is named twice: {', '.join(levels)}")


class HardPoses:
    """How far the student is off at each of the teacher's poses, and new poses near the worst tenth of them.

    Attributes:
        hardness: of each pose, by the one kind of error that was seen last; all the state there is.
    """

    def __init__(self, n_poses: int):
        self.n_poses = n_poses
        self.hardness: dict[str, Tensor] = {}

    def note(self, poses: Int[Tensor, "n"], errors: Float[Tensor, "n"], kind: str) -> None:
        """Errors seen from poses (indices); each pose remembers a running mean.

        Another kind of error has another scale: with it everything before is forgotten.
        """
        poses, errors = poses.cpu(), errors.cpu()
        before = self.hardness.get(kind, torch.zeros(self.n_poses))
        count = torch.zeros_like(before).index_add_(0, poses, torch.ones_like(errors))
        mean = torch.zeros_like(before).index_add_(0, poses, errors) / count.clamp(min=1)
        fresh = torch.where(before > 0, MEMORY * before + (1 - MEMORY) * mean, mean)
        self.hardness = {kind: torch.where(count > 0, fresh, before)}

    def worst(self) -> Int[Tensor, "n_worst"]:
        """Indices of the worst tenth of the poses seen so far, at least one; none before the first look."""
        hardness = next(iter(self.hardness.values()), torch.zeros(self.n_poses))
        n = min(max(1, int(REPLAYED * self.n_poses)), int((hardness > 0).sum()))
        return hardness.topk(n).indices


def hard_cameras(
    prior: Cameras, worst: Int[Tensor, "n_worst"], n: int, generator: torch.Generator
) -> Cameras:
    """n cameras near the given poses, each turned about the scene by a random few degrees."""
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
        """The indices, the first of them replaced by remembered ones, and which of the memory these are."""
        indices, _ = self._pool(block)
        n = min(int(REPLAYED * len(fresh)), len(indices))
        slots = torch.randperm(len(indices), generator=generator)[:n]
        return torch.cat([indices[slots].to(fresh.device), fresh[n:]]), slots

    def note(self, block: int, drawn: Int[Tensor, "n"], slots: Tensor, errors: Float[Tensor, "n"]) -> None:
        """Refresh what was replayed, and remember the worst tenth of the rest in place of the least hard."""
        indices, remembered = self._pool(block)
        drawn, errors = drawn.cpu(), errors.cpu()
        remembered[slots] = errors[: len(slots)]
        fresh, fresh_errors = drawn[len(slots) :], errors[len(slots) :]
        worst = fresh_errors.topk(int(REPLAYED * len(fresh_errors))).indices
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
        """Forget blocks that left the ring."""
        self.pools = {number: pool for number, pool in self.pools.items() if number in blocks}

    def _pool(self, block: int) -> tuple[Tensor, Tensor]:
        return self.pools.get(block, (torch.zeros(0, dtype=torch.long), torch.zeros(0)))


def carriers(
    weights: Float[Tensor, "n"], opacities: Float[Tensor, "n_rays"], ray_indices: Int[Tensor, "n"]
) -> Tensor:
    """Which samples (n,) carry the picture: the top 30 % by weight among those on rays that meet a surface."""
    surface = (opacities >= OPAQUE)[ray_indices]
    n = int(CARRIERS * len(weights))
    if not n or not surface.any():  # a scene of fog has no surface: all of it is the picture
        return torch.ones_like(surface)
    return surface & (weights >= weights.topk(n).values[-1])
