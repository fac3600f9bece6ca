"""The last stage of a conversion where images are at hand: the student trains on them, without its teacher.

What the teacher has learned by heart about its training views does not stay with the student, which may pass it.
"""

import copy
from dataclasses import astuple

from fieldmorph.distill.learner import ConvertLearner
from fieldmorph.distill.stages import StageReport
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.budget import now
from fieldmorph.fields.fit import FitConfig, ImageLearner
from fieldmorph.fields.scene import Split
from fieldmorph.fields.types import StateDict

IMAGES = "images"  # name of the stage
PILOT_STEPS = 16  # after which the number of steps that the budget allows is known well enough


class FinishingLearner:
    """The `Learner` of a conversion with images: distillation first, then training as `fit_images` does.

    The quality is evaluated on pixels of the training images all along, so that evaluations of both parts compare.

    Args:
        distilling: learner of the first part.
        views: training images; never those that quality is measured on.

    Attributes:
        fraction: part of the budget for the images; None until it is chosen.
        distilled: a copy of the student at the end of the first part; None before.
    """

    def __init__(self, distilling: ConvertLearner, views: Split):
        config = distilling.config
        self.distilling, self.views = distilling, views
        self.config = FitConfig(
            lr_share=config.lr_share * config.finish_lr_share,
            lr_hold=0.0,
            fresh=False,
            occupancy_resolution=distilling.teacher.occupancy.resolution,
            seed=config.seed,
            probe_rays=config.probe_rays,
            probe_seed=config.probe_seed,
        )
        self._begin_images()
        self.fraction = config.finish
        self.first = 0.0  # progress after the first step
        self.distilled: VolumeField | None = None
        self.report = StageReport(IMAGES, 0, 0.0, 0.0)

    @property
    def activity(self) -> str:
        """Return the name of the latest step's stage."""
        return self.distilling.activity if self.distilled is None else IMAGES

    def step(self, progress: float) -> None:
        """Take a step of the part that this fraction of the budget belongs to."""
        self._choose_fraction(progress)
        fraction = self.fraction or 0.0
        if progress < 1 - fraction:
            self.distilling.step(progress / (1 - fraction))
            return
        if self.distilled is None:
            self.distilling.student.refine(1.0)
            self.distilled = copy.deepcopy(self.distilling.student)
            self._begin_images()
        began = now()
        self.images.step((progress - (1 - fraction)) / fraction)
        self.report = self.report.plus(now() - began)

    def probe(self) -> float:
        """Return the PSNR in dB on pixels of the training images."""
        return self.images.probe(self.distilling.teacher.occupancy if self.distilled is None else None)

    def result(self) -> StateDict:
        """Return a copy of the student's state."""
        return self.distilling.result()

    def state(self) -> StateDict:
        """Return everything that changes during a run."""
        return {
            "distilling": self.distilling.state(),
            "images": None if self.distilled is None else self.images.state(),
            "fraction": self.fraction,
            "first": self.first,
            "distilled": None if self.distilled is None else self.distilled.state_dict(),
            "report": astuple(self.report),
        }

    def load_state(self, state: StateDict) -> None:
        """Continue from what `state` returned."""
        self.distilling.load_state(state["distilling"])
        self.fraction, self.first = state["fraction"], state["first"]
        self.report = StageReport(*state["report"])
        if state["distilled"] is not None:
            self.distilled = copy.deepcopy(self.distilling.student)
            self.distilled.load_state_dict(state["distilled"])
            self._begin_images()
            self.images.load_state(state["images"])

    def _choose_fraction(self, progress: float) -> None:
        """Choose the part of the images, once the speed of the distillation is known.

        Until then there is none, so that the distillation only ever moves forward.
        """
        steps, student = self.distilling.n_steps, self.distilling.student
        if steps == 1:
            self.first = progress  # a closed form may take long
        distilled = 1 - student.finish_fraction  # part of the budget, with images
        if self.fraction is not None or (steps < PILOT_STEPS and progress < distilled):
            return
        expected = (distilled - self.first) * (steps - 1) / (progress - self.first) if steps > 1 else 0.0
        # An extension continues a student that has learned from its teacher.
        enough = not self.distilling.config.fresh or expected >= student.finish_after
        self.fraction = student.finish_fraction if enough else 0.0
        self.distilling.begun /= 1 - self.fraction

    def _begin_images(self) -> None:
        """Give the student, as it is now, a new optimizer and an occupancy grid of its own."""
        step = self.distilling.teacher.render_step_size
        self.images = ImageLearner(self.distilling.student, self.views, self.config, step)
