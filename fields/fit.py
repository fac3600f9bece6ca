"""Training of any field from posed images (Müller et al. 2022, appendix E)."""

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field as field_of
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.budget import Budget, now
from fieldmorph.fields.cameras import Rays, camera_rays
from fieldmorph.fields.compilation import compile_kernels
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.loop import LoopConfig, LoopReport, run_loop
from fieldmorph.fields.metrics import psnr_from_mse
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.optimizer import FieldOptimizer
from fieldmorph.fields.progress import OnProgress
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.rendering import (
    render_rays,
    sample_rays,
    shade_samples,
    step_size_for,
    visible_samples,
)
from fieldmorph.fields.rng import seeded
from fieldmorph.fields.scene import Split
from fieldmorph.fields.settings import SINCE_0_2, saved_settings
from fieldmorph.fields.types import JsonObject, StateDict


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Settings of a training run.

    Attributes:
        samples_per_step: shaded samples that a step aims at; None takes the field's own.
        lr_grid, lr_network: learning rates at the start; None takes the field's own.
        lr_decay: fraction of them that is left at the end.
        occupancy_resolution: cells per axis.
        occupancy_every: steps between two updates of the occupancy grid.
        seed: of everything random.
        probe_rays: on which the quality is evaluated during training.
        probe_seed: of these rays; None takes `seed`.
        warmup_steps: over which the learning rates rise linearly.
        lr_share: factor of all learning rates.
        lr_hold: fraction of the run in which the rates stay as they are; from then on they fall linearly.
        fresh: the field is untrained and grows from coarse to fine.
        loop: evaluations and saving on the way.
    """

    samples_per_step: int | None = None
    lr_grid: float | None = None
    lr_network: float | None = None
    lr_decay: float = 0.05
    occupancy_resolution: int = 64
    occupancy_every: int = 16
    seed: int = 0
    probe_rays: int = field_of(default=2048, metadata=SINCE_0_2)
    probe_seed: int | None = field_of(default=None, metadata=SINCE_0_2)
    warmup_steps: int = field_of(default=50, metadata=SINCE_0_2)
    lr_share: float = field_of(default=1.0, metadata=SINCE_0_2)
    lr_hold: float = field_of(default=0.2, metadata=SINCE_0_2)
    fresh: bool = field_of(default=True, metadata=SINCE_0_2)
    loop: LoopConfig = field_of(default_factory=LoopConfig, metadata=SINCE_0_2)

    def __post_init__(self) -> None:
        counts = (self.samples_per_step, self.occupancy_resolution, self.occupancy_every)
        if any(n is not None and n < 1 for n in counts):
            raise SettingError(f"samples and occupancy settings must be at least 1; got {self}")
        if not 0 <= self.lr_hold < 1:
            raise SettingError(f"lr_hold is at least 0 and below 1; got {self.lr_hold}")


def fit_images(
    field: VolumeField,
    views: Split,
    budget: Budget,
    config: FitConfig | None = None,
    *,
    state_path: Path | None = None,
    resume: bool = False,
    settings: JsonObject | None = None,
    on_progress: OnProgress = lambda _: None,
    on_start: Callable[[RenderableField], None] = lambda _: None,
) -> tuple[RenderableField, LoopReport]:
    """Train `field` in place on posed images.

    Transparent images are composited over a random background, so that colored low density lowers no loss.

    Args:
        field: a fresh one, from `make_field`.
        views: training images with their cameras, such as `load_scene(...).splits["train"]`.
        budget: steps or time.
        config: settings; the defaults of `FitConfig` if left out.
        state_path: file in which the run is saved every few seconds; the caller removes it at the end.
        resume: continue from `state_path` if it exists.
        settings: JSON values that must be the same when the run is resumed.
        on_progress: called after each step.
        on_start: called once before the first step, with the field and its occupancy grid as they change from then on.

    Returns:
        The trained field with its occupancy grid, ready to be rendered or saved, and a report.

    Raises:
        SettingError: no image, or the saved run had other settings.
        FruitlessError: the time was too short to do anything, or the run diverged.
        Interrupted: after SIGINT or SIGTERM, the state being saved.
    """
    compile_kernels(field)
    config, started = config or FitConfig(), now()
    learner = ImageLearner(field, views, config)
    on_start(RenderableField(field, learner.occupancy, learner.render_step_size, views.cameras))
    everything = {**(settings or {}), **saved_settings(config), "field": field.name, **field.config()}
    best, report = run_loop(
        learner,
        budget,
        state_path=state_path,
        resume=resume,
        settings=everything,
        on_progress=on_progress,
        started=started,
        config=config.loop,
    )
    field.load_state_dict(best["field"])
    field.refine(1.0)
    occupancy = OccupancyGrid.from_density(best["density"], best["occupied"])
    return RenderableField(field, occupancy, learner.render_step_size, views.cameras), report


class ImageLearner:
    """The `Learner` of one training run: field, optimizer, occupancy grid and generator.

    Args:
        render_step_size: distance between samples, in world units; by default it follows from the cameras.

    Raises:
        SettingError: there is no image.
    """

    def __init__(
        self, field: VolumeField, views: Split, config: FitConfig, render_step_size: float | None = None
    ):
        if not len(views):
            raise SettingError("training needs at least one image; got none")
        self.field, self.views, self.config = field, views, config
        self.optimizer = FieldOptimizer(field, config.lr_grid, config.lr_network)
        self.occupancy = OccupancyGrid(config.occupancy_resolution)
        self.generator = seeded(config.seed, "training")
        self.render_step_size = render_step_size or step_size_for(views.cameras, field)
        self.target = config.samples_per_step or field.samples_per_step
        self.n_steps = 0
        self.samples_per_ray = 64.0  # a guess that the first steps correct
        probe_seed = config.seed if config.probe_seed is None else config.probe_seed
        probe, n_probe = seeded(probe_seed, "probe"), config.probe_rays
        self.probe_rays, self.probe_pixels = self._pixels(n_probe, probe, torch.ones(n_probe, 3))

    def step(self, progress: float) -> None:
        """Descend on the pixels of random rays, the occupancy grid updated every few steps."""
        config, generator, field = self.config, self.generator, self.field
        if config.fresh and field.refine(progress):
            self.optimizer = FieldOptimizer(field, config.lr_grid, config.lr_network)
        if self.n_steps % config.occupancy_every == 0:
            # Query expensive fields at fewer cells, so that the grid costs no more than the training.
            queries = self.target * (16 if self.n_steps < 256 else 4)
            fraction = 1.0 if self.n_steps == 0 else queries / self.occupancy.density.numel()
            self.occupancy.update(field, self.render_step_size, generator, fraction=fraction)
        n_rays = max(16, min(1 << 16, int(self.target / self.samples_per_ray)))
        background = torch.rand(n_rays, 3, generator=generator)
        rays, pixels = self._pixels(n_rays, generator, background)
        jitter = torch.rand(n_rays, generator=generator).to(rays.rays_o.device)
        samples = sample_rays(rays, field, self.occupancy, self.render_step_size, jitter)
        samples = visible_samples(field, rays, samples)
        self.samples_per_ray += 0.1 * (max(len(samples) / n_rays, 1.0) - self.samples_per_ray)
        rendered = shade_samples(field, rays, samples, background.to(rays.rays_o.device))
        loss = F.smooth_l1_loss(rendered.colors, pixels, beta=0.1)
        loss = loss + field.regularization(generator)
        warmup = min(1.0, (self.n_steps + 1) / config.warmup_steps)
        fallen = max(0.0, progress - config.lr_hold) / (1 - config.lr_hold)
        rate = config.lr_share * (1 - (1 - config.lr_decay) * fallen)
        self.optimizer.step(loss, warmup * rate)
        self.n_steps += 1

    @torch.no_grad()
    def probe(self, occupancy: OccupancyGrid | None = None) -> float:
        """Return the PSNR in dB on pixels of the training images over white.

        Args:
            occupancy: cells that are evaluated, where they are not the learner's own.
        """
        white = torch.ones_like(self.probe_pixels)
        grid = occupancy or self.occupancy
        colors = render_rays(self.field, self.probe_rays, grid, self.render_step_size, white).colors
        return psnr_from_mse(F.mse_loss(colors.clamp(0, 1), self.probe_pixels))

    def result(self) -> StateDict:
        """Return a copy of the field's state and its occupancy grid."""
        return {
            "field": {k: v.detach().clone() for k, v in self.field.state_dict().items()},
            "density": self.occupancy.density.clone(),
            "occupied": self.occupancy.occupied.clone(),
        }

    def state(self) -> StateDict:
        """Return everything that changes during a run; the keys are those of saved states."""
        return {
            **self.result(),
            "optimizer": self.optimizer.state(),
            "generator": self.generator.get_state(),
            "n_steps": self.n_steps,
            "samples_per_ray": self.samples_per_ray,
        }

    def load_state(self, state: StateDict) -> None:
        """Continue from what `state` returned."""
        self.field.load_state_dict(state["field"])
        self.occupancy = OccupancyGrid.from_density(state["density"], state["occupied"])
        self.optimizer.load_state(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.n_steps, self.samples_per_ray = state["n_steps"], state["samples_per_ray"]

    def _pixels(self, n: int, generator: torch.Generator, background: Tensor) -> tuple[Rays, Tensor]:
        """Return rays of random pixels of random views, and their colors over the background."""
        cameras = self.views.cameras
        which = torch.randint(len(cameras), (n,), generator=generator)
        x = torch.randint(cameras.width, (n,), generator=generator)
        y = torch.randint(cameras.height, (n,), generator=generator)
        at = torch.stack([x, y], dim=-1)
        rays, colors = camera_rays(cameras, which, at), self.views.pixels_over(which, at, background)
        device = self.field.aabb.device
        return Rays(rays.rays_o.to(device), rays.rays_d.to(device)), colors.to(device)
