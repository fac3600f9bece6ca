"""How well a student keeps to its teacher: pictures from poses that neither learned from, and photographs.

Two sets of poses. *Held-out*: the cameras of photographs kept out of training or, without photographs, new places
between the training cameras. *Off-trajectory*: to the side of training cameras and at other distances; a student can
look right from wherever it was taught and have floaters in front of every other place.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from fieldmorph.fields.budget import Spent, now
from fieldmorph.fields.cameras import Cameras, look_at_point, sample_cameras
from fieldmorph.fields.metrics import SSIM_WINDOW, capped_psnr, ssim
from fieldmorph.fields.scene import Split
from fieldmorph.fields.store import StoredField
from fieldmorph.fields.views import picture, resize, view

N_HELD_OUT = 12  # new poses where there are no photographs
POSES_SEED = (
    -1
)  # blocks of training samples have seeds from 0 on; equal for all runs, so that figures compare
LONGEST_SIDE = 200  # pixels of a picture from a new pose: the whole measurement shall take seconds
MOST_PIXELS = 1 << 19  # of photographs that are looked at; where there are more, some, spread over the split
FEWEST_PHOTOGRAPHS = 3
TURN_DEGREES = 20.0
DISTANCES = {"closer": 0.75, "farther": 1.25}
SIDES = {"left": (0, -1.0), "right": (0, 1.0), "up": (1, -1.0), "down": (1, 1.0)}  # camera axis and sign

OnPicture = Callable[[int, int], None]
LOW_IS_BAD = (
    "psnr_to_teacher",
    "ssim_to_teacher",
    "teacher_psnr",
    "teacher_ssim",
    "student_psnr",
    "student_ssim",
)


@dataclass(frozen=True)
class Exhibit:
    """Pictures of one view, in [0, 1] over white.

    Attributes:
        poses: the set, `held_out` or `off_trajectory`.
        rank: `typical` (the median to the teacher) or `worst`.
        psnr: to the teacher.
    """

    poses: str
    rank: str
    view: str
    psnr: float | None
    teacher: Float[Tensor, "h w 3"]
    student: Float[Tensor, "h w 3"]
    photograph: Float[Tensor, "h w 3"] | None = None


def measure(
    teacher: StoredField,
    student: StoredField,
    photographs: Split | None = None,
    on_picture: OnPicture = lambda _done, _total: None,
) -> tuple[dict[str, Any], list[Exhibit]]:
    """Figures of both sets as JSON values, and the typical and the worst held-out and the worst off-trajectory view.

    Each set has, for every view, as mean and as worst, `psnr_to_teacher` in dB, `ssim_to_teacher` and `opacity_error`
    (mean absolute difference of opacities: floaters of the background's colour show in no picture). With photographs
    the held-out set has PSNR and SSIM to them of both fields, and `psnr_drop`, the teacher's less the student's.
    None is what cannot be told: SSIM of photographs smaller than its window, figures of a picture with NaN in it.
    The same fields give the same figures, but for times.
    """
    poses, names = off_trajectory_cameras(teacher.cameras, teacher.field.box())
    if photographs is None:
        held_out, kept = held_out_cameras(teacher.cameras), None
        held_names = [f"pose {i + 1}" for i in range(len(held_out))]
        source = "new poses between the training cameras"
    else:
        kept = _spread(len(photographs), photographs.cameras.width * photographs.cameras.height)
        held_out = photographs.cameras[torch.tensor(kept)]
        held_names = [photographs.names[i] for i in kept]
        source = f"the cameras of {len(kept)} of {len(photographs)} photographs"
    total = len(held_out) + len(poses)

    def seen(first: int) -> Callable[[int], None]:
        return lambda i: on_picture(first + i + 1, total)

    for stored in (teacher, student):
        picture(stored, resize(held_out[0], 16, 16))  # kernels compile at their first use
    shots = (
        None
        if kept is None or photographs is None
        else [photographs.view_over(i, torch.ones(3)) for i in kept]
    )
    known, first = _compare(teacher, student, held_out, held_names, shots, seen(0))
    beyond, second = _compare(teacher, student, poses, names, None, seen(len(held_out)))
    exhibits = [
        _exhibit("held_out", "typical", known, first),
        _exhibit("held_out", "worst", known, first),
        _exhibit("off_trajectory", "worst", beyond, second),
    ]
    moved = f"training cameras turned {TURN_DEGREES:g} degrees round the scene, a quarter closer or farther"
    figures = {
        "background": "white",
        "held_out": {"source": source, **known},
        "off_trajectory": {"source": moved, **beyond},
    }
    return figures, exhibits if len(held_out) > 1 else exhibits[1:]


def held_out_cameras(prior: Cameras) -> Cameras:
    """New places between the training cameras, the same for all students of one teacher, at a size of `_fit`."""
    generator = torch.Generator().manual_seed(POSES_SEED)
    return _fit(sample_cameras(prior.to("cpu"), N_HELD_OUT, generator))


def off_trajectory_cameras(prior: Cameras, aabb: Sequence[float]) -> tuple[Cameras, list[str]]:
    """Eight cameras where no training camera was, and what they are called.

    Each is one of the training cameras, spread over their order, turned to its left, right, up or down about the common
    look-at point (moved into the box where it lies outside), drawn closer or pushed away, and aimed at that point.
    """
    prior, box = prior.to("cpu"), torch.tensor(aabb, dtype=torch.float32)
    centre = look_at_point(prior).clamp(box[:3], box[3:])
    moves = [(distance, side) for side in SIDES for distance in DISTANCES]
    which = torch.tensor([(2 * i + 1) * len(prior) // (2 * len(moves)) for i in range(len(moves))])
    pose = prior.camera_to_world[which]
    # A camera in the very middle of what it sees has no side; it is taken a little backwards.
    least = 0.05 * float((box[3:] - box[:3]).max())
    outward = pose[:, :, 3] - centre
    away = outward.norm(dim=-1, keepdim=True)
    outward = torch.where(away > least, outward / away.clamp(min=least), -pose[:, :, 2])
    axis = torch.tensor([SIDES[side][0] for _, side in moves])
    sign = torch.tensor([[SIDES[side][1]] for _, side in moves])
    side = sign * pose[torch.arange(len(moves)), :, axis]
    across = F.normalize(side - (side * outward).sum(-1, keepdim=True) * outward, dim=-1)
    turn = math.radians(TURN_DEGREES)
    outward = F.normalize(math.cos(turn) * outward + math.sin(turn) * across, dim=-1)
    distance = torch.tensor([[DISTANCES[word]] for word, _ in moves]) * away.clamp(min=least)
    # The old `down` keeps the picture upright; where it points at the scene the old `forward` takes its place.
    down = pose[:, :, 1]
    down = torch.where((down * outward).sum(-1, keepdim=True).abs() < 0.99, down, pose[:, :, 2])
    right = F.normalize(torch.linalg.cross(down, -outward), dim=-1)
    aimed = torch.stack(
        [right, torch.linalg.cross(-outward, right), -outward, centre + distance * outward], -1
    )
    cameras = _fit(Cameras(aimed, prior.intrinsics[which], prior.width, prior.height))
    return cameras, [f"{word}, turned {side}" for word, side in moves]


def _compare(
    teacher: StoredField,
    student: StoredField,
    cameras: Cameras,
    names: list[str],
    photographs: list[Tensor] | None,
    on_view: Callable[[int], None],
) -> tuple[dict[str, Any], list[list[Tensor]]]:
    """Figures of one set of poses, and each view's teacher's and student's picture (and photograph)."""
    scores: dict[str, list[float | None]] = {}
    pictures: list[list[Tensor]] = []
    spent = [Spent(), Spent()]
    for i, camera in enumerate(cameras):
        both = []
        for k, stored in enumerate((teacher, student)):
            start = now()
            both.append(view(stored, camera))
            spent[k] += now() - start
        taught, learned = both
        found: dict[str, float | None] = {
            "psnr_to_teacher": capped_psnr(learned["colors"], taught["colors"]),
            "ssim_to_teacher": _ssim(learned["colors"], taught["colors"]),
            "opacity_error": float((learned["opacities"] - taught["opacities"]).abs().mean()),
        }
        shown = [taught["colors"], learned["colors"]]
        if photographs is not None:
            for role, image in zip(("teacher", "student"), shown, strict=True):
                found[f"{role}_psnr"] = capped_psnr(image, photographs[i])
                found[f"{role}_ssim"] = _ssim(image, photographs[i])
            taught_psnr, learned_psnr = (capped_psnr(image, photographs[i]) for image in shown)
            found["psnr_drop"] = taught_psnr - learned_psnr
            shown.append(photographs[i])
        for name, value in found.items():
            known = value is not None and math.isfinite(value)  # a field may have NaN somewhere
            scores.setdefault(name, []).append(value if known else None)
        pictures.append(shown)
        on_view(i)
    here, there = (c.camera_to_world[:, :, 3].cpu() for c in (cameras, teacher.cameras))
    nearest = torch.cdist(here, there).amin(1)
    to_teacher = [-math.inf if v is None else v for v in scores["psnr_to_teacher"]]
    order = sorted(range(len(names)), key=to_teacher.__getitem__)
    figures = {
        "image_size": [cameras.width, cameras.height],
        "views": names,
        "mean": {name: _known(values, lambda v: sum(v) / len(v)) for name, values in scores.items()},
        "worst": {
            name: _known(values, min if name in LOW_IS_BAD else max) for name, values in scores.items()
        },
        "worst_view": order[0],
        "typical_view": order[len(names) // 2],
        "per_view": {**scores, "distance_to_training_camera": nearest.tolist()},
        "core_seconds_per_image": {
            role: total.core_seconds / len(names)
            for role, total in zip(("teacher", "student"), spent, strict=True)
        },
    }
    return figures, pictures


def _exhibit(poses: str, rank: str, figures: dict[str, Any], pictures: list[list[Tensor]]) -> Exhibit:
    i = figures[f"{rank}_view"]
    return Exhibit(poses, rank, figures["views"][i], figures["per_view"]["psnr_to_teacher"][i], *pictures[i])


def _fit(cameras: Cameras) -> Cameras:
    """The same pictures with at most `LONGEST_SIDE` pixels along a side, and enough for SSIM along the other."""
    scale = min(1.0, LONGEST_SIDE / max(cameras.width, cameras.height))
    width, height = (max(SSIM_WINDOW, round(n * scale)) for n in (cameras.width, cameras.height))
    return resize(cameras, width, height)


def _spread(n: int, pixels: int) -> list[int]:
    """Indices of the photographs that are looked at: all, or as many as `MOST_PIXELS` allow, evenly spread."""
    kept = min(n, max(FEWEST_PHOTOGRAPHS, MOST_PIXELS // pixels))
    return [(2 * i + 1) * n // (2 * kept) for i in range(kept)]


def _ssim(image: Tensor, reference: Tensor) -> float | None:
    return ssim(image, reference) if min(image.shape[:2]) >= SSIM_WINDOW else None


def _known(values: list[float | None], summary: Callable[[list[float]], float]) -> float | None:
    known = [v for v in values if v is not None]
    return summary(known) if len(known) == len(values) else None
