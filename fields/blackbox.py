"""Fields made of any Python callable: teachers that need no training code and no file."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.cameras import Cameras, orbit_box
from fieldmorph.fields.errors import InputError, SettingError
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.rendering import step_size_for
from fieldmorph.fields.rng import seeded
from fieldmorph.fields.types import FieldSettings

Function = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

POINTS_PER_CALL = 1 << 16
PRIOR_ELEVATIONS = (-30.0, 0.0, 30.0, 60.0)  # degrees; of the cameras around a box without cameras of its own
PRIOR_PER_TURN = 12


class CallableField(VolumeField):
    """The field of `function(positions, directions) -> (rgb, sigma)`.

    It has no parameters, no decoder and cannot be saved.

    Args:
        function: gets positions (n, 3) in world units and unit directions (n, 3), float32 on the CPU, and returns sRGB
            colors (n, 3) in [0, 1] and densities per world unit (n,), at least 0 and the same for all directions.
        aabb: the box in world units, min then max; it is never called for points outside.

    Raises:
        InputError: at use, where a result is not what it should be; the message names the first such point.
    """

    name = "callable"
    title = "Function"
    presets = {}

    def __init__(self, function: Function, aabb: Sequence[float]):
        super().__init__(aabb)
        self._functions = (
            function,
        )  # in a tuple, or torch would take a module of the user's for a part of this one

    def config(self) -> FieldSettings:
        return {"aabb": self.box()}

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Do nothing: there are no parameters."""

    def geometry(
        self, positions: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch 0"]]:
        up = positions.new_tensor([0.0, 0.0, 1.0]).expand(positions.shape)
        _, sigma = self(positions, up)
        return torch.log(sigma), positions[..., :0]

    def radiance(
        self,
        features: Float[Tensor, "*batch 0"],
        positions: Float[Tensor, "*batch 3"],
        directions: Float[Tensor, "*batch 3"],
    ) -> Float[Tensor, "*batch 3"]:
        result: Tensor = self(positions, directions)[0]
        return result

    @torch.no_grad()
    def forward(
        self, positions: Float[Tensor, "*batch 3"], directions: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch"]]:
        """Return color and density, each point queried once; black and empty outside the box."""
        inside = self.contains(positions)
        rgb, sigma = positions.new_zeros(positions.shape), positions.new_zeros(positions.shape[:-1])
        if inside.any():
            at = zip(
                positions[inside].split(POINTS_PER_CALL),
                directions[inside].split(POINTS_PER_CALL),
                strict=True,
            )
            values = [self._call(p, d) for p, d in at]
            rgb[inside] = torch.cat([colors for colors, _ in values])
            sigma[inside] = torch.cat([densities for _, densities in values])
        return rgb, sigma

    def _call(self, positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        result = self._functions[0](positions.cpu(), directions.cpu())
        n = len(positions)
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise InputError(f"the callable must return (rgb, sigma); got {type(result).__name__}")
        rgb, sigma = (torch.as_tensor(value, dtype=torch.float32) for value in result)
        if rgb.shape != (n, 3) or sigma.shape != (n,):
            raise InputError(
                f"the callable must return rgb ({n}, 3) and sigma ({n},) for {n} points; "
                f"got {tuple(rgb.shape)} and {tuple(sigma.shape)}"
            )
        bad = {
            "a density that is not a finite number of at least 0": ~(sigma.isfinite() & (sigma >= 0)),
            "a color outside [0, 1]": ~((rgb >= 0) & (rgb <= 1)).all(-1),
        }
        for what, where in bad.items():
            if where.any():
                i = int(where.nonzero()[0, 0])
                point = ", ".join(f"{v:g}" for v in positions[i].tolist())
                raise InputError(
                    f"the callable returned {what} at ({point}): rgb {rgb[i].tolist()}, sigma {float(sigma[i])}"
                )
        return rgb.to(positions.device), sigma.to(positions.device)


def callable_teacher(
    function: Function,
    aabb: Sequence[float],
    *,
    cameras: Cameras | None = None,
    resolution: int = 64,
    render_step_size: float | None = None,
    seed: int = 0,
) -> RenderableField:
    """Return a teacher for `fieldmorph.distill.convert` from any callable.

    Args:
        function: gets positions (n, 3) in world units and unit directions (n, 3), float32 on the CPU, and returns sRGB
            colors (n, 3) in [0, 1] and densities per world unit (n,), at least 0 and the same for all directions.
        aabb: the box in world units, min then max; the function is never called for points outside.
        cameras: from which it will be seen; by default four orbits around the box.
        resolution: cells per axis of its occupancy grid.
        render_step_size: world units; by default a pixel's footprint at the box.
        seed: of the points at which the occupancy grid samples it.

    Raises:
        InputError: the callable's values cannot be used, or it is empty everywhere.
        SettingError: a bad box, resolution or render step.
    """
    if resolution < 1 or not (render_step_size is None or render_step_size > 0):
        raise SettingError(
            f"resolution and render_step_size must be positive; got {resolution} and {render_step_size}"
        )
    field = CallableField(function, aabb)
    cameras = cameras or box_cameras(aabb)
    step = render_step_size or step_size_for(cameras, field)
    occupancy = OccupancyGrid(resolution)
    occupancy.rebuild(field, step, seeded(seed, "occupancy"))
    if not occupancy.occupied.any():
        raise InputError(f"the callable is empty: no density anywhere in the box {field.box()}")
    return RenderableField(field, occupancy, step, cameras, {"job": "callable"})


def box_cameras(aabb: Sequence[float]) -> Cameras:
    """Return cameras for a box without any of its own: four full circles that see all of it."""
    turns = [orbit_box(aabb, PRIOR_PER_TURN, elevation=e) for e in PRIOR_ELEVATIONS]
    return Cameras(
        torch.cat([turn.camera_to_world for turn in turns]),
        torch.cat([turn.intrinsics for turn in turns]),
        turns[0].width,
        turns[0].height,
    )
