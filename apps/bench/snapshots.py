"""Quality over time: snapshots of a field during a run, evaluated when it is over."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.budget import now
from fieldmorph.fields.cameras import Rays, camera_rays
from fieldmorph.fields.metrics import psnr_from_mse
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.progress import OnProgress, Progress
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.rendering import render_rays
from fieldmorph.fields.scene import Split

FIRST_SNAPSHOT = 0.02  # fraction of the run's time

Curve = list[tuple[float, float]]


class SnapshotRecorder:
    """An `on_progress` that takes n snapshots of a field at times in equal ratios.

    Evaluating them later costs the run no time. Time is CPU time since this was made: make it right before the run.

    Args:
        field: what is trained, in place.
        n: number of snapshots.
        line: another `on_progress` to call.
        early: also take one after the first step.
    """

    def __init__(self, field: VolumeField, n: int, line: OnProgress, early: bool = False):
        self.field, self.n, self.line, self.early = field, n, line, early
        self.taken: list[tuple[float, dict[str, Tensor]]] = []
        self.due = FIRST_SNAPSHOT
        self.start = now()

    def __call__(self, progress: Progress) -> None:
        if self.early and progress.step == 1:
            self._record()
        elif self.due <= progress.fraction < 1:
            self._record()
            while self.due <= progress.fraction:
                self.due *= FIRST_SNAPSHOT ** (-1 / self.n)
        self.line(progress)

    def end(self) -> float:
        """Take the last snapshot and return the core-seconds of the whole run."""
        self._record()
        return self.taken[-1][0]

    def curve(
        self,
        stored: RenderableField,
        rays: Rays,
        colors: Float[Tensor, "n_rays 3"],
        between: Callable[[], None] = lambda: None,
        resolution: int | None = None,
    ) -> Curve:
        """Return core-seconds and PSNR in dB of every snapshot.

        Args:
            stored: the field when the run is over; its parameters are put back.
            rays, colors: pixels to evaluate on.
            between: called before each evaluation.
            resolution: of the occupancy grids; by default that of the field.
        """
        kept = {name: value.clone() for name, value in stored.field.state_dict().items()}
        curve = []
        for at, weights in self.taken:
            between()
            stored.field.load_state_dict(weights)
            curve.append((at, pixel_psnr(with_own_grid(stored, resolution), rays, colors)))
        stored.field.load_state_dict(kept)
        return curve

    def _record(self) -> None:
        weights = {name: value.clone() for name, value in self.field.state_dict().items()}
        self.taken.append(((now() - self.start).core_seconds, weights))


def with_own_grid(stored: RenderableField, resolution: int | None = None) -> RenderableField:
    """Return the field with an occupancy grid rebuilt from itself, so that no teacher's grid hides floaters.

    Args:
        resolution: cells per axis; by default as many as the field's grid has.
    """
    occupancy = OccupancyGrid(resolution or stored.occupancy.resolution)
    occupancy.rebuild(stored.field, stored.render_step_size, torch.Generator().manual_seed(0))
    return replace(stored, occupancy=occupancy)


def evaluation_pixels(
    views: Split, n_pixels: int = 8192, seed: int = 0
) -> tuple[Rays, Float[Tensor, "n_rays 3"]]:
    """Return rays of random pixels of all views, the same for equal seeds, and the images' colours over white."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(len(views), (n_pixels,), generator=generator)
    size = torch.tensor([views.cameras.width, views.cameras.height])
    pixels = (torch.rand(n_pixels, 2, generator=generator) * size).long()
    return camera_rays(views.cameras, which, pixels), views.pixels_over(
        which, pixels, torch.ones(n_pixels, 3)
    )


@torch.no_grad()
def ray_colors(stored: RenderableField, rays: Rays) -> Float[Tensor, "n_rays 3"]:
    """Render the rays over white."""
    white = torch.ones_like(rays.rays_o)
    return render_rays(stored.field, rays, stored.occupancy, stored.render_step_size, white).colors.clamp(
        0, 1
    )


def pixel_psnr(stored: RenderableField, rays: Rays, colors: Float[Tensor, "n_rays 3"]) -> float:
    """Return the PSNR in dB over all pixels together."""
    return psnr_from_mse((ray_colors(stored, rays) - colors).square().mean())
