"""Estimates of the receipt's images: the right number of pixels, and times that follow from what is measured."""

from pathlib import Path

import pytest

from fieldmorph.apps.jobs.estimate import receipt_seconds
from fieldmorph.distill.fidelity import FidelityConfig, evaluation_pixels, measure, reference
from fieldmorph.fields.registry import make_field
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.scene import load_scene
from fieldmorph.fields.store import load_field


@pytest.mark.parametrize("with_images", [True, False])
def test_pixels_are_those_that_are_rendered(
    few_views: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch, with_images: bool
) -> None:
    stored = load_field(teacher)
    views = load_scene(few_views).splits["test"] if with_images else None
    rendered, render = [], RenderableField.render

    def count(self: RenderableField, camera, background: float = 1.0):
        rendered.append(camera.width * camera.height)
        return render(self, camera, background)

    monkeypatch.setattr(RenderableField, "render", count)
    against = reference(stored, views)
    extra = 2 * 16 * 16  # one for each set, with which kernels compile
    assert sum(rendered) - extra == evaluation_pixels(stored, views)
    rendered.clear()
    measure(against, stored)
    assert sum(rendered) - extra == evaluation_pixels(stored, views)


def test_seconds_are_those_of_a_small_image_scaled(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stored, clock = load_field(teacher), [0.0]
    seconds = {"hashgrid": 2.0, "mlp": 7.0}

    def render(self: RenderableField, camera, background: float = 1.0):
        clock[0] += seconds[self.field.name] * camera.width * camera.height
        return {}

    monkeypatch.setattr(RenderableField, "render", render)
    monkeypatch.setattr("fieldmorph.apps.jobs.estimate.time.monotonic", lambda: clock[0])
    student = make_field("mlp", aabb=stored.field.box(), width=16, depth=2)
    pixels = evaluation_pixels(stored)
    expected = {"teacher": 2.0 * pixels, "student": 7.0 * pixels}
    assert receipt_seconds(stored, student, None) == pytest.approx(expected)
    config = FidelityConfig(longest_side=8, n_held_out=2)
    fewer = evaluation_pixels(stored, None, config)
    assert fewer < pixels
    assert receipt_seconds(stored, student, None, config)["teacher"] == pytest.approx(2.0 * fewer)
