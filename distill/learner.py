"""The learner of a conversion: every step draws from the teacher's samples and descends on the losses of its stage."""

from dataclasses import astuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fieldmorph.distill.active import HardPoses, ReplayPool
from fieldmorph.distill.comparison import PointComparison, compare_rays
from fieldmorph.distill.config import ConvertConfig
from fieldmorph.distill.losses import LOSSES, empty_space_loss
from fieldmorph.distill.samplers import SOLVE, SOURCES
from fieldmorph.distill.stages import Stage, StageReport, stage_at, transplant_decoder
from fieldmorph.distill.teacher_samples import Block, SamplePool, make_block
from fieldmorph.distill.warm_start.registry import STARTS
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.budget import now
from fieldmorph.fields.kernels.composite import alpha_from_density
from fieldmorph.fields.metrics import psnr_from_mse
from fieldmorph.fields.optimizer import FieldOptimizer
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.rng import seeded
from fieldmorph.fields.types import StateDict

PROBE_BLOCK = (1 << 20) - 1  # number of a block that no step reaches


class ConvertLearner:
    """The `Learner` of one conversion: student, optimizer, sample pool and generator.

    Args:
        stages: as `plan_stages` returns them.

    Raises:
        InputError: the teacher is empty.
    """

    def __init__(
        self, teacher: RenderableField, student: VolumeField, stages: tuple[Stage, ...], config: ConvertConfig
    ):
        self.teacher, self.student, self.stages, self.config = teacher, student, stages, config
        if config.fresh and config.transplant:
            transplant_decoder(teacher.field, student)
        self._new_optimizer()
        self.pool = SamplePool(teacher, config.seed, config.sampling)
        self.hard_poses = HardPoses(len(teacher.cameras))
        self.replay = {"ray": ReplayPool(), "point": ReplayPool()}
        self.generator = seeded(config.seed, "distillation")
        own = student.conversion_samples or student.samples_per_step
        self.n_samples = config.samples_per_step or own
        self.lr_decay = config.lr_decay or student.conversion_lr_decay
        self.n_steps = 0
        self.begun = 0.0
        self.activity = stages[0].name  # name of the latest step's stage
        self.solves = stages[0].source == SOLVE
        self.lr_share = config.lr_share * (STARTS[student.name].lr_share if self.solves else 1.0)
        self.reports = {stage.name: StageReport(stage.name, 0, 0.0, 0.0) for stage in stages}
        probe_seed = config.seed if config.probe_seed is None else config.probe_seed
        probe_block = make_block(teacher, probe_seed, PROBE_BLOCK, config=config.sampling)
        self.probe_at, self.probe_pixels = probe_block.rays(torch.arange(config.probe_rays))

    def step(self, progress: float) -> None:
        """Solve the closed form at the first step, where a stage wants it; else descend on the stage's losses."""
        began = now()
        if self.solves and self.n_steps == 0:
            stage = self.stages[0]
            STARTS[self.student.name].solve(self.teacher, self.student, self.generator)
            self._new_optimizer()
        else:
            if self.solves and self.n_steps == 1:
                self.begun = progress  # the stages divide the time that the closed form leaves
            progress = (progress - self.begun) / (1 - self.begun)
            stage = stage_at(self.stages, progress)
            # What was solved for, or learned, at the final resolution stays there.
            grows = self.config.fresh and not self.solves
            if grows and self.student.refine(progress):
                self._new_optimizer()
            self._descend(stage, progress)
        self.n_steps += 1
        self.activity = stage.name
        self.reports[stage.name] = self.reports[stage.name].plus(now() - began)

    def _descend(self, stage: Stage, progress: float) -> None:
        worst = self.hard_poses.worst() if "pose" in self.config.active else None
        block = self.pool.block(self.n_steps, self.generator, worst)
        comparison = self._compare(block, stage)
        loss = self.student.regularization() + self._empty_space_loss(block)
        for name, weight in stage.losses.items():
            loss = loss + weight * LOSSES[name](comparison)
        config = self.config
        warmup = min(1.0, (self.n_steps + 1) / config.warmup_steps)
        decay = self.lr_decay**progress * (1 - progress) + config.lr_final
        self.optimizer.step(loss, warmup * self.lr_share * decay)

    def _new_optimizer(self) -> None:
        self.optimizer = FieldOptimizer(self.student, self.config.lr_grid, self.config.lr_network)

    @torch.no_grad()
    def probe(self) -> float:
        """Return the PSNR in dB against the teacher's pixels over white."""
        white = torch.ones_like(self.probe_pixels.colors)
        comparison = compare_rays(
            self.student, self.probe_at, self.probe_pixels, white, self.teacher.render_step_size
        )
        return psnr_from_mse(F.mse_loss(*comparison.pixels()))

    def result(self) -> StateDict:
        """Return a copy of the student's state."""
        return {"field": {k: v.detach().clone() for k, v in self.student.state_dict().items()}}

    def state(self) -> StateDict:
        """Return everything that changes during a run; the keys are those of saved states."""
        return {
            **self.result(),
            "optimizer": self.optimizer.state(),
            "generator": self.generator.get_state(),
            "n_steps": self.n_steps,
            "begun": self.begun,
            "pool": self.pool.state(),
            "hardness": self.hard_poses.difficulty,
            "replay": {level: pool.pools for level, pool in self.replay.items()},
            "stages": [astuple(report) for report in self.reports.values()],
        }

    def load_state(self, state: StateDict) -> None:
        """Continue from what `state` returned."""
        self.student.load_state_dict(state["field"])
        self.optimizer.load_state(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.n_steps, self.begun = state["n_steps"], state["begun"]
        self.pool.load_state(state["pool"])
        self.hard_poses.difficulty = state["hardness"]
        for level, pool in self.replay.items():
            pool.pools = state["replay"][level]
        self.reports = {saved[0]: StageReport(*saved) for saved in state["stages"]}

    def _compare(self, block: Block, stage: Stage) -> PointComparison:
        """Draw samples, some of them hard ones again, and compare teacher and student there."""
        source, config = SOURCES[stage.source], self.config
        which = source.draw(block, self.n_samples, self.generator)
        which, slots = self._replayed(source.level, block, which)
        with_rgb = any("rgb" in LOSSES[loss].needs for loss in stage.losses)
        comparison = source.compare(
            block, which, self.student, self.teacher.render_step_size, with_rgb, self.generator
        )
        if config.active and self.n_steps % config.note_every == 0:
            rays = source.rays(block, which)
            self._note(source.level, block, which, slots, rays, comparison.errors())
        return comparison.salient() if "point" in config.active else comparison

    def _replayed(self, level: str, block: Block, fresh: Tensor) -> tuple[Tensor, Tensor]:
        """Return a batch with remembered hard rays or points where the level is on, and their slots."""
        if level not in self.config.active:
            return fresh, torch.zeros(0, dtype=torch.long)
        return self.replay[level].draw(block.number, fresh, self.generator)

    def _note(
        self,
        level: str,
        block: Block,
        which: Tensor,
        slots: Tensor,
        rays: Tensor,
        errors: Tensor,
    ) -> None:
        """Update the difficulties; called at some steps only, since at every step it would cost a tenth of the time."""
        if level in self.config.active:
            self.replay[level].note(block.number, which, slots, errors)
            self.replay[level].keep(set(self.pool.blocks))
        if "pose" in self.config.active:
            # Replayed samples are no fair sample of their pose.
            fresh = slice(len(slots), None)
            self.hard_poses.note(block.poses[rays[fresh]], errors[fresh], level)

    def _empty_space_loss(self, block: Block) -> Tensor:
        """Return the loss at points anywhere in the box, where floaters would appear off the teacher's rays."""
        n, step = int(self.config.empty_share * self.n_samples), self.teacher.render_step_size
        if not n:
            return torch.zeros(())
        positions, sigma = block.draw_empty(n, self.generator)
        student = self.student.query_density(positions)
        return empty_space_loss(alpha_from_density(student, step), alpha_from_density(sigma, step))
