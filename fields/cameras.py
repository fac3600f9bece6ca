"""Cameras, the rays through their pixels, orbits, and new cameras like given ones.

Axes are OpenCV's everywhere: x right, y down, z forward. The centre of pixel (x, y) lies at
(x + 0.5, y + 0.5), and `cx`, `cy` are measured the same way.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fieldmorph.fields.errors import SettingError

N_NEIGHBOURS = 4  # a sampled camera lies between a camera and one of its nearest few
JITTER_DEGREES = 3.0  # standard deviation of its random rotation around each camera axis


@dataclass(frozen=True)
class Cameras:
    """Pinhole cameras of one image size.

    Attributes:
        camera_to_world: rotation and position, world units.
        intrinsics: fl_x, fl_y, cx, cy in pixels.
        width: image width in pixels.
        height: image height in pixels.
    """

    camera_to_world: Float[Tensor, "n 3 4"]
    intrinsics: Float[Tensor, "n 4"]
    width: int
    height: int

    def __len__(self) -> int:
        return len(self.camera_to_world)

    def __iter__(self) -> Iterator["Cameras"]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int | slice | Tensor) -> "Cameras":
        """Return the cameras at `index`; a single number gives Cameras of length 1."""
        rows = [index] if isinstance(index, int) else index
        return replace(self, camera_to_world=self.camera_to_world[rows], intrinsics=self.intrinsics[rows])

    def to(self, device: torch.device | str) -> "Cameras":
        """Return the cameras on a device."""
        return replace(
            self, camera_to_world=self.camera_to_world.to(device), intrinsics=self.intrinsics.to(device)
        )


@dataclass(frozen=True)
class Rays:
    """Origins in world units and directions of unit length."""

    rays_o: Float[Tensor, "n_rays 3"]
    rays_d: Float[Tensor, "n_rays 3"]

    def __len__(self) -> int:
        return len(self.rays_o)

    def __getitem__(self, index: slice | Tensor) -> "Rays":
        return Rays(self.rays_o[index], self.rays_d[index])


def camera_rays(
    cameras: Cameras,
    camera_indices: Int[Tensor, "n_rays"],
    pixels: Float[Tensor, "n_rays 2"] | Int[Tensor, "n_rays 2"],
) -> Rays:
    """Return the rays through the centers of the given pixels (x, y).

    Args:
        cameras: all that `camera_indices` count.
        camera_indices: the camera of each ray.
        pixels: columns and rows from 0, whole or not; the ray passes through (x + 0.5, y + 0.5).
    """
    pose = cameras.camera_to_world[camera_indices]
    focal, centre = cameras.intrinsics[camera_indices].split(2, dim=-1)
    slopes = (pixels + 0.5 - centre) / focal
    directions = (pose[:, :, :2] * slopes[:, None]).sum(-1) + pose[:, :, 2]
    return Rays(pose[:, :, 3], torch.nn.functional.normalize(directions, dim=-1))


def image_rays(camera: Cameras) -> Rays:
    """Return the height * width rays of a whole image, row after row.

    Raises:
        SettingError: `camera` is not exactly one camera.
    """
    _require_one(camera)
    device = camera.intrinsics.device
    y, x = torch.meshgrid(
        torch.arange(camera.height, device=device), torch.arange(camera.width, device=device), indexing="ij"
    )
    pixels = torch.stack([x, y], dim=-1).reshape(-1, 2)
    return camera_rays(camera, torch.zeros(len(pixels), dtype=torch.long, device=device), pixels)


def project(
    camera: Cameras, positions: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n"]]:
    """Return image points (x, y) in pixels and depths along the camera's axis in world units.

    The image points of positions that are not in front of the camera (depth <= 0) mean nothing.

    Raises:
        SettingError: `camera` is not exactly one camera.
    """
    _require_one(camera)
    pose, focal, centre = camera.camera_to_world[0], camera.intrinsics[0, :2], camera.intrinsics[0, 2:]
    local = (positions - pose[:, 3]) @ pose[:, :3]
    return focal * local[:, :2] / local[:, 2:] + centre, local[:, 2]


def look_at_point(cameras: Cameras) -> Float[Tensor, "3"]:
    """Return the point nearest to all optical axes in the least-squares sense.

    Where the axes leave it open (one camera, parallel cameras) it is the point nearest to the origin.
    """
    pose = cameras.camera_to_world.double()
    forward, origins = pose[:, :, 2], pose[:, :, 3]
    eye = torch.eye(3, dtype=pose.dtype, device=pose.device)
    across = eye - forward[:, :, None] * forward[:, None]  # projects onto the plane across each axis
    point = torch.linalg.solve(across.mean(0) + 1e-6 * eye, (across @ origins[:, :, None]).mean(0))
    result: Tensor = point[:, 0].float()
    return result


def orbit_cameras(
    centre: Sequence[float],
    radius: float,
    n: int,
    *,
    elevation: float,
    intrinsics: Sequence[float],
    width: int,
    height: int,
    up: Sequence[float] = (0.0, 0.0, 1.0),
) -> Cameras:
    """Return `n` cameras on a full circle around the axis `up` through `centre`, all looking at `centre`.

    Args:
        radius: distance from the centre, world units.
        elevation: degrees above the plane across `up`.
        intrinsics: fl_x, fl_y, cx, cy in pixels.
        up: any length but 0. The circle is counter-clockwise seen from there; with z up it starts at +x.

    Raises:
        SettingError: `n` < 1 or `radius` is not positive.
    """
    if n < 1 or not radius > 0:
        raise SettingError(f"an orbit needs n >= 1 and radius > 0; got n={n}, radius={radius}")
    axis = torch.nn.functional.normalize(torch.tensor(up, dtype=torch.float32), dim=0)
    side = torch.eye(3)[0] if abs(axis[0]) < 0.9 else torch.eye(3)[1]
    start = torch.nn.functional.normalize(side - (side @ axis) * axis, dim=0)
    quarter = torch.linalg.cross(axis, start)
    azimuth = torch.arange(n)[:, None] * (2 * math.pi / n)
    tilt = math.radians(elevation)
    outward = math.cos(tilt) * (azimuth.cos() * start + azimuth.sin() * quarter) + math.sin(tilt) * axis
    right = azimuth.cos() * quarter - azimuth.sin() * start  # along the turn, so poles are fine too
    down = torch.linalg.cross(-outward, right)
    position = torch.tensor(centre, dtype=torch.float32) + radius * outward
    return Cameras(
        torch.stack([right, down, -outward, position], dim=-1),
        torch.tensor(intrinsics, dtype=torch.float32).expand(n, 4).clone(),
        width,
        height,
    )


def orbit_box(
    aabb: Sequence[float],
    n: int,
    *,
    elevation: float = 25.0,
    fov: float = 40.0,
    width: int = 400,
    height: int = 400,
) -> Cameras:
    """Return `n` cameras on a full circle around z, far enough for the whole box to be in every image.

    Args:
        elevation: degrees above the horizontal.
        fov: full angle of view of the shorter image side, degrees.
    """
    box = torch.tensor(aabb, dtype=torch.float32)
    half = math.radians(fov) / 2
    focal = 0.5 * min(width, height) / math.tan(half)
    ball = 0.5 * float((box[3:] - box[:3]).norm())  # around the box; it just fits into the image
    radius = ball / math.sin(half)
    return orbit_cameras(
        ((box[:3] + box[3:]) / 2).tolist(),
        radius,
        n,
        elevation=elevation,
        intrinsics=(focal, focal, width / 2, height / 2),
        width=width,
        height=height,
    )


def orbit_like(cameras: Cameras, aabb: Sequence[float], n: int) -> Cameras:
    """Return `n` cameras on a full circle that resembles the given cameras.

    It goes around their common look-at point (moved into the box where it lies outside) at their
    mean distance and median elevation, with their up direction and median intrinsics.
    """
    pose = cameras.camera_to_world.cpu()
    box = torch.tensor(aabb, dtype=torch.float32)
    centre = look_at_point(cameras).cpu().clamp(box[:3], box[3:])
    up = up_direction(pose)
    outward = pose[:, :, 3] - centre
    distances = outward.norm(dim=-1)
    sines = (outward @ up) / distances.clamp(min=1e-9)
    return orbit_cameras(
        centre.tolist(),
        float(distances.mean()),
        n,
        elevation=math.degrees(float(sines.clamp(-1, 1).asin().median())),
        intrinsics=cameras.intrinsics.cpu().median(0).values.tolist(),
        width=cameras.width,
        height=cameras.height,
        up=up.tolist(),
    )


def sample_cameras(prior: Cameras, n: int, generator: torch.Generator) -> Cameras:
    """Return `n` new cameras near the given ones: between neighbors, rotated by a few degrees.

    Each lies at a random place between a random camera of `prior`, whose intrinsics it takes, and one of
    that camera's nearest neighbors. The same generator state gives the same cameras.
    """
    device, source = prior.intrinsics.device, generator.device
    first = torch.randint(len(prior), (n,), generator=generator, device=source).to(device)
    fraction = torch.rand(n, 1, 1, generator=generator, device=source).to(device)
    rank = torch.rand(n, generator=generator, device=source).to(device)
    turn = torch.randn(n, 3, generator=generator, device=source).to(device) * math.radians(JITTER_DEGREES)

    n_near = min(N_NEIGHBOURS, len(prior) - 1)
    second = first
    if n_near:
        positions = prior.camera_to_world[:, :, 3]
        apart = torch.cdist(positions, positions).fill_diagonal_(math.inf)
        near = apart.topk(n_near, largest=False).indices
        second = near[first, (rank * n_near).long().clamp(max=n_near - 1)]
    blend = torch.lerp(prior.camera_to_world[first], prior.camera_to_world[second], fraction)
    rotations = _nearest_rotations(blend[:, :, :3]) @ _rotations(turn)
    return Cameras(
        torch.cat([rotations, blend[:, :, 3:]], dim=-1), prior.intrinsics[first], prior.width, prior.height
    )


def turn_cameras(
    prior: Cameras, indices: Int[Tensor, "n"], degrees: float, generator: torch.Generator
) -> Cameras:
    """Return the cameras of `prior` at `indices`, each rotated around their common look-at point.

    Args:
        degrees: largest angle of a rotation; its axis is random.
    """
    device, source = prior.intrinsics.device, generator.device
    axis = torch.nn.functional.normalize(
        torch.randn(len(indices), 3, generator=generator, device=source), dim=-1
    )
    angle = math.radians(degrees) * torch.rand(len(indices), 1, generator=generator, device=source)
    turn = _rotations((angle * axis).to(device))
    centre, pose = look_at_point(prior), prior.camera_to_world[indices]
    position = centre + (turn @ (pose[:, :, 3:] - centre[:, None]))[:, :, 0]
    return Cameras(
        torch.cat([turn @ pose[:, :, :3], position[:, :, None]], dim=-1),
        prior.intrinsics[indices],
        prior.width,
        prior.height,
    )


def nearest_cameras(cameras: Cameras, prior: Cameras) -> Int[Tensor, "n"]:
    """Return the index of the camera of `prior` whose position is nearest to that of each of `cameras`."""
    return torch.cdist(cameras.camera_to_world[:, :, 3], prior.camera_to_world[:, :, 3]).argmin(1)


def resize(cameras: Cameras, width: int, height: int) -> Cameras:
    """Return the cameras with another image size, in pixels: the whole old image is in the new one, centered."""
    scale = min(width / cameras.width, height / cameras.height)
    old = torch.tensor([cameras.width / 2, cameras.height / 2]).to(cameras.intrinsics)
    new = torch.tensor([width / 2, height / 2]).to(cameras.intrinsics)
    focal, centre = cameras.intrinsics.split(2, dim=-1)
    intrinsics = torch.cat([focal * scale, (centre - old) * scale + new], dim=-1)
    return Cameras(cameras.camera_to_world, intrinsics, width, height)


def up_direction(pose: Float[Tensor, "n 3 4"]) -> Float[Tensor, "3"]:
    """Return the direction across all cameras' x axes (none is rolled), nearest to their mean up."""
    right = pose[:, :, 0].double()
    mean_up = -pose[:, :, 1].double().mean(0)
    spread = right.T @ right / len(right) - 1e-6 * torch.outer(mean_up, mean_up)
    up = torch.linalg.eigh(spread).eigenvectors[:, 0]
    result: Tensor = (-up if up @ mean_up < 0 else up).float()
    return result


def _require_one(cameras: Cameras) -> None:
    if len(cameras) != 1:
        raise SettingError(f"one camera expected; got {len(cameras)}")


def _nearest_rotations(matrices: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n 3 3"]:
    """Return the rotation nearest to each matrix in the Frobenius norm (orthogonal Procrustes)."""
    u, _, vh = torch.linalg.svd(matrices)
    flip = torch.ones(len(matrices), 3, 1, device=matrices.device)
    flip[:, 2, 0] = torch.linalg.det(u @ vh).sign()
    result: Tensor = u @ (flip * vh)
    return result


def _rotations(vectors: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    """Return the rotations about `vectors` by their length in radians."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(-1, 3, 3)
    result: Tensor = torch.linalg.matrix_exp(skew)
    return result
