"""Any field into any other: one loop over the stages, teacher and student on the same samples."""

import importlib.metadata
import logging
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from fieldmorph.distill.active import LEVELS, HardPoses, ReplayPool, carriers, check_levels
from fieldmorph.distill.losses import (
    LOSSES,
    Comparison,
    StudentValues,
    empty_space_loss,
    point_errors,
    ray_errors,
    stopped,
)
from fieldmorph.distill.stages import PVD_STAGES, Stage, plan_stages, stage_at, transplant_decoder
from fieldmorph.distill.teacher_samples import Block, Pixels, SamplePool, TeacherSamples, make_block
from fieldmorph.distill.warm_start.registry import STARTS
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.budget import Budget, Spent, now
from fieldmorph.fields.kernels.ops import composite
from fieldmorph.fields.loop import FEWEST_STEPS, LoopReport, Progress, run_loop
from fieldmorph.fields.metrics import psnr_from_mse
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.optimizer import FieldOptimizer
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.rng import seeded
from fieldmorph.fields.runtime import compile_kernels

PROBE_BLOCK = (1 << 20) - 1  # number of a block that no step reaches
PROBE_RAYS = 2048
WARMUP_STEPS = 30
LAST_SHARE = 0.005  # of the learning rates, left at the very end
NOTE_EVERY = 4  # steps between two notes of what the student gets wrong
LONG_START = 0.5  # share of the budget that leaves too little to learn in

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConvertConfig:
    """Settings of a conversion.

    Attributes:
        stages: in order; those that do not suit the pair are dropped.
        start: whether a closed form begins, where the student has one; None: where that helps.
        active: levels of active learning: `pose`, `ray`, `point`.
        samples_per_step: of a step; None takes the student's own.
        empty_share: points from anywhere in the box, beside the samples of a step.
        lr_grid, lr_network: learning rates at the start; None takes the student's own.
        lr_share: what all learning rates are multiplied with.
        lr_decay: what they fall to exponentially, beside the straight fall to nothing that all of them take.
        fresh: the student knows nothing yet: it takes the teacher's decoder and grows from coarse to fine.
        seed: of everything random.
        probe_seed: of the rays at which the quality is looked at; None takes `seed`.
    """

    stages: tuple[Stage, ...] = PVD_STAGES
    start: bool | None = None
    active: tuple[str, ...] = LEVELS
    samples_per_step: int | None = None
    empty_share: float = 0.2
    lr_grid: float | None = None
    lr_network: float | None = None
    lr_share: float = 1.0
    lr_decay: float = 0.1
    fresh: bool = True
    seed: int = 0
    probe_seed: int | None = None

    def __post_init__(self) -> None:
        check_levels(self.active)


@dataclass(frozen=True)
class StageReport:
    """Steps that a stage took and their time, without looks at the quality."""

    name: str
    steps: int
    seconds: float
    core_seconds: float

    def plus(self, spent: Spent) -> "StageReport":
        """After one more step."""
        return StageReport(
            self.name, self.steps + 1, self.seconds + spent.seconds, self.core_seconds + spent.core_seconds
        )


@dataclass(frozen=True)
class ConvertReport:
    """The loop's report, the stages that ran and, by name, why others did not."""

    loop: LoopReport
    stages: tuple[StageReport, ...]
    dropped: dict[str, str]


def convert(
    teacher: RenderableField,
    student: VolumeField,
    budget: Budget,
    config: ConvertConfig | None = None,
    *,
    state_path: Path | None = None,
    resume: bool = False,
    settings: dict[str, Any] | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> tuple[RenderableField, ConvertReport]:
    """Teach `student`, in place, to be what `teacher` is; needs no photographs.

    Where both have the same kind of decoder the teacher's is transplanted. The student is returned with an occupancy
    grid of its own and with its provenance. State, `resume` and errors are `run_loop`'s.

    Raises:
        InputError: the teacher is empty.
    """
    compile_kernels()
    config, started = config or ConvertConfig(), now()
    stages, dropped = plan_stages(config.stages, teacher.field, student, config.start)
    learner = _Distillation(teacher, student, stages, config)
    everything = {**(settings or {}), **asdict(config), "student": student.name, **student.config()}
    best, report = run_loop(
        learner, budget, state_path=state_path, resume=resume, settings=everything, on_progress=on_progress,
        started=started, fewest_steps=1 if learner.solves else FEWEST_STEPS,
    )  # fmt: skip
    looped = now()
    if learner.solves and (report.steps == 1 or learner.begun > LONG_START):
        log.warning(
            "the closed-form start took more than half of the budget; a longer one would serve better"
        )
    student.load_state_dict(best["field"])
    student.refine(1.0)
    occupancy = OccupancyGrid(teacher.occupancy.resolution)
    occupancy.rebuild(student, teacher.render_step_size, seeded(config.seed, "occupancy"))
    provenance = {
        "job": "convert", "teacher": {"field": teacher.field.name, "provenance": teacher.provenance},
        "stages": [stage.name for stage in stages], "dropped": dropped, "seed": config.seed, "steps": report.steps,
        "fieldmorph": importlib.metadata.version("fieldmorph"),
    }  # fmt: skip
    stored = RenderableField(student, occupancy, teacher.render_step_size, teacher.cameras, provenance)
    report = replace(report, spent=report.spent + (now() - looped))
    return stored, ConvertReport(report, tuple(learner.reports.values()), dropped)


class _Distillation:
    """Student, optimiser, pools and generator of one conversion."""

    def __init__(
        self, teacher: RenderableField, student: VolumeField, stages: tuple[Stage, ...], config: ConvertConfig
    ):
        self.teacher, self.student, self.stages, self.config = teacher, student, stages, config
        if config.fresh:
            transplant_decoder(teacher.field, student)
        self._new_optimizer()
        self.pool = SamplePool(teacher, config.seed)
        self.hard_poses = HardPoses(len(teacher.cameras))
        self.replay = {"ray": ReplayPool(), "point": ReplayPool()}
        self.generator = seeded(config.seed, "distillation")
        self.n_samples = config.samples_per_step or student.samples_per_step
        self.n_steps = 0
        self.begun = 0.0
        self.solves = stages[0].source == "solve"
        self.lr_share = config.lr_share * (STARTS[student.name].lr_share if self.solves else 1.0)
        self.reports = {stage.name: StageReport(stage.name, 0, 0.0, 0.0) for stage in stages}
        probe_seed = config.seed if config.probe_seed is None else config.probe_seed
        self.probe_at, self.probe_pixels = make_block(teacher, probe_seed, PROBE_BLOCK).rays(
            torch.arange(PROBE_RAYS)
        )

    def step(self, progress: float) -> None:
        began = now()
        if self.solves and self.n_steps == 0:
            stage = self.stages[0]
            STARTS[self.student.name].solve(self.teacher, self.student, self.generator)
            self._new_optimizer()
        else:
            if self.solves and self.n_steps == 1:
                self.begun = progress  # the stages share what a closed form has left
            progress = (progress - self.begun) / (1 - self.begun)
            stage = stage_at(self.stages, progress)
            # What was solved for, or learned, at the final resolution stays there.
            grows = self.config.fresh and not self.solves
            if grows and self.student.refine(progress):
                self._new_optimizer()
            self._descend(stage, progress)
        self.n_steps += 1
        self.reports[stage.name] = self.reports[stage.name].plus(now() - began)

    def _descend(self, stage: Stage, progress: float) -> None:
        worst = self.hard_poses.worst() if "pose" in self.config.active else None
        block = self.pool.block(self.n_steps, self.generator, worst)
        comparison = (self._at_rays if stage.source == "rays" else self._at_points)(block, stage)
        loss = self.student.regularization() + self._empty_space_loss(block)
        for name, weight in stage.losses.items():
            loss = loss + weight * LOSSES[name](comparison)
        warmup = min(1.0, (self.n_steps + 1) / WARMUP_STEPS)
        fall = self.config.lr_decay**progress * (1 - progress) + LAST_SHARE
        self.optimizer.step(loss, warmup * self.lr_share * fall)

    def _new_optimizer(self) -> None:
        self.optimizer = FieldOptimizer(self.student, self.config.lr_grid, self.config.lr_network)

    @torch.no_grad()
    def probe(self) -> float:
        at, pixels = self.probe_at, self.probe_pixels
        white = torch.ones_like(pixels.colors)
        learned = self._values(at, pixels=pixels)
        comparison = Comparison(at, learned, self.teacher.render_step_size, pixels, white)
        return psnr_from_mse(F.mse_loss(*comparison.both_pixels()))

    def result(self) -> dict[str, Any]:
        return {"field": {k: v.detach().clone() for k, v in self.student.state_dict().items()}}

    def state(self) -> dict[str, Any]:
        return {
            **self.result(),
            "optimizer": self.optimizer.state(),
            "generator": self.generator.get_state(),
            "n_steps": self.n_steps,
            "begun": self.begun,
            "pool": self.pool.state(),
            "hardness": self.hard_poses.hardness,
            "replay": {level: pool.pools for level, pool in self.replay.items()},
            "stages": [astuple(report) for report in self.reports.values()],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.student.load_state_dict(state["field"])
        self.optimizer.load_state(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.n_steps, self.begun = state["n_steps"], state["begun"]
        self.pool.load_state(state["pool"])
        self.hard_poses.hardness = state["hardness"]
        for level, pool in self.replay.items():
            pool.pools = state["replay"][level]
        self.reports = {saved[0]: StageReport(*saved) for saved in state["stages"]}

    def _values(
        self, at: TeacherSamples, with_rgb: bool = True, pixels: Pixels | None = None
    ) -> StudentValues:
        log_sigma, features = self.student.geometry(at.positions)
        sigma = self.student.density(log_sigma, at.positions)
        if not with_rgb:
            return StudentValues(sigma, features)
        rgb = self.student.radiance(features, at.positions, at.directions)
        if pixels is None:
            return StudentValues(sigma, features, rgb)
        s = pixels.samples
        weights, colors, opacities, _ = composite(sigma, rgb, s.t_starts, s.t_ends, s.offsets)
        return StudentValues(sigma, features, rgb, colors, opacities, weights)

    def _at_points(self, block: Block, stage: Stage) -> Comparison:
        which = block.draw_points(self.n_samples, self.generator)
        which, slots = self._replayed("point", block, which)
        taught = block.along[which]
        learned = self._values(taught, with_rgb="color" in stage.losses)
        comparison = Comparison(taught, learned, self.teacher.render_step_size)
        if self.config.active and self.n_steps % NOTE_EVERY == 0:
            rays = block.pixels.samples.ray_indices[which]
            self._note("point", block, which, slots, rays, point_errors(comparison))
        return comparison

    def _at_rays(self, block: Block, stage: Stage) -> Comparison:
        which = block.draw_rays(self.n_samples, self.generator)
        which, slots = self._replayed("ray", block, which)
        taught, pixels = block.rays(which)
        learned = self._values(taught, pixels=pixels)
        background = torch.rand(len(pixels.colors), 3, generator=self.generator).to(pixels.colors.device)
        comparison = Comparison(taught, learned, self.teacher.render_step_size, pixels, background)
        if self.config.active and self.n_steps % NOTE_EVERY == 0:
            self._note("ray", block, which, slots, which, ray_errors(comparison))
        if "point" in self.config.active:
            comparison = comparison.at_samples(self._carriers(comparison))
        return comparison

    def _carriers(self, c: Comparison) -> torch.Tensor:
        """The samples that carry the teacher's or the student's picture."""
        assert c.pixels is not None
        assert c.student.weights is not None
        assert c.student.opacities is not None
        rays = c.pixels.samples.ray_indices
        taught = carriers(c.teacher.weights, c.pixels.opacities, rays)
        return taught | carriers(c.student.weights.detach(), c.student.opacities.detach(), rays)

    def _replayed(self, level: str, block: Block, fresh: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch with its tenth of hard things, where the level is on, and which of the memory they are."""
        if level not in self.config.active:
            return fresh, torch.zeros(0, dtype=torch.long)
        return self.replay[level].draw(block.number, fresh, self.generator)

    def _note(
        self,
        level: str,
        block: Block,
        which: torch.Tensor,
        slots: torch.Tensor,
        rays: torch.Tensor,
        errors: torch.Tensor,
    ) -> None:
        """Tell the samplers now and then how wrong a batch was: each time would cost a tenth of the steps."""
        if level in self.config.active:
            self.replay[level].note(block.number, which, slots, errors)
            self.replay[level].keep(set(self.pool.blocks))
        if "pose" in self.config.active:
            # What is shown again for being hard says nothing about its pose.
            fresh = slice(len(slots), None)
            self.hard_poses.note(block.poses[rays[fresh]], errors[fresh], level)

    def _empty_space_loss(self, block: Block) -> torch.Tensor:
        """Of points anywhere in the box: floaters would hide there, off every taught ray."""
        n, step = int(self.config.empty_share * self.n_samples), self.teacher.render_step_size
        if not n:
            return torch.zeros(())
        positions, sigma = block.draw_empty(n, self.generator)
        return empty_space_loss(stopped(self.student.query_density(positions), step), stopped(sigma, step))
