"""Fidelity of a student to its teacher: images from poses that neither was trained on, and test images.

Two sets of poses. *Held-out*: the cameras of test images or, without any, new places between the training cameras.
*Off-trajectory*: to the side of training cameras and at other distances; a student can look right from wherever it was
trained and have floaters in front of every other place.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from fieldmorph.fields.budget import Spent, now
from fieldmorph.fields.cameras import Cameras, look_at_point, resize, sample_cameras
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.metrics import SSIM_WINDOW, capped_psnr, ssim
from fieldmorph.fields.progress import OnCount
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.scene import Split
from fieldmorph.fields.types import JsonObject

POSES_SEED = (
    -1
)  # equal for all runs, so that figures compare; blocks of training samples have seeds from 0 on
TURN_DEGREES = 20.0
DISTANCES = {"closer": 0.75, "farther": 1.25}
SIDES = {"left": (0, -1.0), "right": (0, 1.0), "up": (1, -1.0), "down": (1, 1.0)}  # camera axis and sign

LOW_IS_BAD = (
    "psnr_to_teacher",
    "ssim_to_teacher",
    "teacher_psnr",
    "teacher_ssim",
    "student_psnr",
    "student_ssim",
)


@dataclass(frozen=True, kw_only=True)
class FidelityConfig:
    """Settings of the comparison of a student with its teacher.

    Attributes:
        n_held_out: new poses where there are no test images.
        longest_side: pixels of an image from a new pose, so that the whole measurement takes seconds.
        max_pixels: of all test images that are compared; where there are more, some, spread over the split.
        min_images: test images that are compared even so.

    Raises:
        SettingError: a number below 1.
    """

    n_held_out: int = 12
    longest_side: int = 200
    max_pixels: int = 1 << 19
    min_images: int = 3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise SettingError(f"{name} must be a whole number of at least 1; got {value!r}")


@dataclass(frozen=True)
class ExampleView:
    """Images of one view, in [0, 1] over white.

    Attributes:
        poses: name of the set, `held_out` or `off_trajectory`.
        rank: `typical` (of median PSNR to the teacher) or `worst`.
        psnr: to the teacher, in dB; None where it is not finite.
        test_image: the test image, where there is one.
    """

    poses: str
    rank: str
    view: str
    psnr: float | None
    teacher: Float[Tensor, "h w 3"]
    student: Float[Tensor, "h w 3"]
    test_image: Float[Tensor, "h w 3"] | None = None


@dataclass(frozen=True)
class EvaluationViews:
    """A set of views with the teacher's images, with which any number of students is compared.

    Attributes:
        name: `held_out` or `off_trajectory`.
        source: where the poses come from.
        test_images: test images over white, where there are any.
        teacher_views: what `RenderableField.render` returns for the teacher.
        distances: from the nearest training camera, in world units.
        spent: on the teacher's images.
    """

    name: str
    source: str
    cameras: Cameras
    views: list[str]
    test_images: list[Tensor] | None
    teacher_views: list[dict[str, Tensor]]
    distances: list[float]
    spent: Spent


def reference(
    teacher: RenderableField,
    test_images: Split | None = None,
    on_image: OnCount = lambda _done, _total: None,
    config: FidelityConfig | None = None,
) -> tuple[EvaluationViews, EvaluationViews]:
    """Return the held-out and the off-trajectory views, the teacher rendered once for all students.

    Args:
        config: number and sizes of the images.
        teacher: rendered on its own device.
        test_images: views with images; their cameras are the held-out ones.
        on_image: called with the number of images that are done and that of all.
    """
    config = config or FidelityConfig()
    beyond, names = off_trajectory_cameras(teacher.cameras, teacher.field.box(), config)
    shots = None
    if test_images is None:
        held_out = held_out_cameras(teacher.cameras, config)
        held_names = [f"pose {i + 1}" for i in range(len(held_out))]
        source = "new poses between the training cameras"
    else:
        kept = _spread(len(test_images), test_images.cameras.width * test_images.cameras.height, config)
        held_out = test_images.cameras[torch.tensor(kept)]
        held_names = [test_images.names[i] for i in kept]
        shots = [test_images.view_over(i, torch.ones(3)) for i in kept]
        source = f"the cameras of {len(kept)} of {len(test_images)} test images"
    moved = f"training cameras turned {TURN_DEGREES:g} degrees round the scene, a quarter closer or farther"
    total = len(held_out) + len(beyond)

    def poses(
        name: str, source: str, cameras: Cameras, views: list[str], shots: list[Tensor] | None, first: int
    ) -> EvaluationViews:
        teacher_views, spent = _views(teacher, cameras, first, total, on_image)
        here, there = (c.camera_to_world[:, :, 3].cpu() for c in (cameras, teacher.cameras))
        distances = torch.cdist(here, there).amin(1).tolist()
        return EvaluationViews(name, source, cameras, views, shots, teacher_views, distances, spent)

    return (
        poses("held_out", source, held_out, held_names, shots, 0),
        poses("off_trajectory", moved, beyond, names, None, len(held_out)),
    )


def measure(
    against: tuple[EvaluationViews, EvaluationViews],
    student: RenderableField,
    on_image: OnCount = lambda _done, _total: None,
) -> tuple[JsonObject, list[ExampleView]]:
    """Compare a student with the views of its teacher, by PSNR, SSIM and opacity.

    Each set has, for every view, as mean and as worst, `psnr_to_teacher` in dB, `ssim_to_teacher` and `opacity_error`
    (mean absolute difference of opacities: floaters of the background's color show in no image). With test images the
    held-out set has PSNR and SSIM to them of both fields, and `psnr_drop`, the teacher's less the student's. None
    stands for what is unknown: SSIM of images smaller than its window, figures of an image with NaN in it. The same
    fields give the same figures, except for times.

    Args:
        against: from `reference`.
        student: rendered on its own device.
        on_image: called with the number of images that are done and that of all.

    Returns:
        The figures of both sets as JSON values; the typical and the worst held-out and the worst off-trajectory view.
    """
    held_out, beyond = against
    total = len(held_out.views) + len(beyond.views)
    figures: JsonObject = {"background": "white"}
    examples: list[ExampleView] = []
    for poses, first in ((held_out, 0), (beyond, len(held_out.views))):
        student_views, spent = _views(student, poses.cameras, first, total, on_image)
        figures[poses.name] = _compare(poses, student_views, spent)
        ranks = ("typical", "worst") if poses is held_out and len(poses.views) > 1 else ("worst",)
        examples += [_example(poses, student_views, rank, figures[poses.name]) for rank in ranks]
    return figures, examples


def evaluation_pixels(
    teacher: RenderableField, test_images: Split | None = None, config: FidelityConfig | None = None
) -> int:
    """Return the number of pixels that `measure` renders of each field.

    Args:
        teacher, test_images, config: as for `reference`.
    """
    config, box = config or FidelityConfig(), teacher.field.box()
    sets = [off_trajectory_cameras(teacher.cameras, box, config)[0]]
    if test_images is None:
        sets.append(held_out_cameras(teacher.cameras, config))
    else:
        pixels = test_images.cameras.width * test_images.cameras.height
        sets.append(test_images.cameras[torch.tensor(_spread(len(test_images), pixels, config))])
    return sum(len(cameras) * cameras.width * cameras.height for cameras in sets)


def held_out_cameras(prior: Cameras, config: FidelityConfig | None = None) -> Cameras:
    """Return new places between the training cameras, the same for all students of one teacher.

    Args:
        prior: the training cameras.
        config: number of cameras and sizes of images.
    """
    config, generator = config or FidelityConfig(), torch.Generator().manual_seed(POSES_SEED)
    return _fit(sample_cameras(prior.to("cpu"), config.n_held_out, generator), config)


def off_trajectory_cameras(
    prior: Cameras, aabb: Sequence[float], config: FidelityConfig | None = None
) -> tuple[Cameras, list[str]]:
    """Return eight cameras where no training camera was, and their names.

    Each is one of the training cameras, spread over their order, rotated to its left, right, up or down around the
    common look-at point (moved into the box where it lies outside), drawn closer or pushed away, and aimed at it.

    Args:
        prior: the training cameras.
        aabb: the box in world units, min then max.
        config: sizes of images.
    """
    prior, box = prior.to("cpu"), torch.tensor(aabb, dtype=torch.float32)
    centre = look_at_point(prior).clamp(box[:3], box[3:])
    moves = [(distance, side) for side in SIDES for distance in DISTANCES]
    which = torch.tensor([(2 * i + 1) * len(prior) // (2 * len(moves)) for i in range(len(moves))])
    pose = prior.camera_to_world[which]
    # A camera in the very middle of what it sees has no side; it is taken a little backwards.
    nearest = 0.05 * float((box[3:] - box[:3]).max())
    outward = pose[:, :, 3] - centre
    away = outward.norm(dim=-1, keepdim=True)
    outward = torch.where(away > nearest, outward / away.clamp(min=nearest), -pose[:, :, 2])
    axis = torch.tensor([SIDES[side][0] for _, side in moves])
    sign = torch.tensor([[SIDES[side][1]] for _, side in moves])
    side = sign * pose[torch.arange(len(moves)), :, axis]
    across = F.normalize(side - (side * outward).sum(-1, keepdim=True) * outward, dim=-1)
    turn = math.radians(TURN_DEGREES)
    outward = F.normalize(math.cos(turn) * outward + math.sin(turn) * across, dim=-1)
    distance = torch.tensor([[DISTANCES[word]] for word, _ in moves]) * away.clamp(min=nearest)
    # The old `down` keeps the image upright; where it points at the scene the old `forward` takes its place.
    down = pose[:, :, 1]
    down = torch.where((down * outward).sum(-1, keepdim=True).abs() < 0.99, down, pose[:, :, 2])
    right = F.normalize(torch.linalg.cross(down, -outward), dim=-1)
    aimed = torch.stack(
        [right, torch.linalg.cross(-outward, right), -outward, centre + distance * outward], -1
    )
    aimed_cameras = Cameras(aimed, prior.intrinsics[which], prior.width, prior.height)
    cameras = _fit(aimed_cameras, config or FidelityConfig())
    return cameras, [f"{word}, turned {side}" for word, side in moves]


def _views(
    stored: RenderableField, cameras: Cameras, first: int, total: int, on_image: OnCount
) -> tuple[list[dict[str, Tensor]], Spent]:
    """Render each camera and return the images and the time; they count from `first` of `total` on."""
    stored.render(resize(cameras[0], 16, 16))  # kernels compile at their first use
    seen, spent = [], Spent()
    for i, camera in enumerate(cameras):
        start = now()
        seen.append(stored.render(camera))
        spent += now() - start
        on_image(first + i + 1, total)
    return seen, spent


def _compare(poses: EvaluationViews, student_views: list[dict[str, Tensor]], spent: Spent) -> JsonObject:
    """Return the figures of one set of views as JSON values."""
    scores: dict[str, list[float | None]] = {}
    for i, (teacher, student) in enumerate(zip(poses.teacher_views, student_views, strict=True)):
        found: dict[str, float | None] = {
            "psnr_to_teacher": capped_psnr(student["colors"], teacher["colors"]),
            "ssim_to_teacher": _ssim(student["colors"], teacher["colors"]),
            "opacity_error": float((student["opacities"] - teacher["opacities"]).abs().mean()),
        }
        if poses.test_images is not None:
            shot, psnr = poses.test_images[i], []
            for role, seen in (("teacher", teacher), ("student", student)):
                psnr.append(capped_psnr(seen["colors"], shot))
                found |= {f"{role}_psnr": psnr[-1], f"{role}_ssim": _ssim(seen["colors"], shot)}
            found["psnr_drop"] = psnr[0] - psnr[1]
        for name, value in found.items():
            known = value is not None and math.isfinite(value)  # a field may have NaN somewhere
            scores.setdefault(name, []).append(value if known else None)
    to_teacher = [-math.inf if v is None else v for v in scores["psnr_to_teacher"]]
    n = len(poses.views)
    order = sorted(range(n), key=to_teacher.__getitem__)
    return {
        "source": poses.source,
        "image_size": [poses.cameras.width, poses.cameras.height],
        "views": poses.views,
        "mean": {name: _known(values, lambda v: sum(v) / len(v)) for name, values in scores.items()},
        "worst": {
            name: _known(values, min if name in LOW_IS_BAD else max) for name, values in scores.items()
        },
        "worst_view": order[0],
        "typical_view": order[n // 2],
        "per_view": {**scores, "distance_to_training_camera": poses.distances},
        "core_seconds_per_image": {
            "teacher": poses.spent.core_seconds / n,
            "student": spent.core_seconds / n,
        },
    }


def _example(
    poses: EvaluationViews, student_views: list[dict[str, Tensor]], rank: str, figures: JsonObject
) -> ExampleView:
    """Return the images of the view of a rank."""
    i = figures[f"{rank}_view"]
    teacher, student = poses.teacher_views[i]["colors"], student_views[i]["colors"]
    shot = None if poses.test_images is None else poses.test_images[i]
    psnr = figures["per_view"]["psnr_to_teacher"][i]
    return ExampleView(poses.name, rank, poses.views[i], psnr, teacher, student, shot)


def _fit(cameras: Cameras, config: FidelityConfig) -> Cameras:
    """Return the same cameras with at most `longest_side` pixels along a side, and enough for SSIM along the other."""
    scale = min(1.0, config.longest_side / max(cameras.width, cameras.height))
    width, height = (max(SSIM_WINDOW, round(n * scale)) for n in (cameras.width, cameras.height))
    return resize(cameras, width, height)


def _spread(n: int, pixels: int, config: FidelityConfig) -> list[int]:
    """Return the indices of the test images that are compared: all, or as many as `max_pixels` allows, spread."""
    kept = min(n, max(config.min_images, config.max_pixels // pixels))
    return [(2 * i + 1) * n // (2 * kept) for i in range(kept)]


def _ssim(image: Tensor, reference: Tensor) -> float | None:
    return ssim(image, reference) if min(image.shape[:2]) >= SSIM_WINDOW else None


def _known(values: list[float | None], summary: Callable[[list[float]], float]) -> float | None:
    known = [v for v in values if v is not None]
    return summary(known) if len(known) == len(values) else None
