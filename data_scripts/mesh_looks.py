"""Ways to show a mesh, for `render_mesh.py`: as it is, as wires, in a thin medium, as a mirror, nearly black."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

WIRE_CELL, WIRE_RADIUS = 0.25, 0.012  # world units; the mesh is simplified to one vertex in each cell
MEDIUM_SIGMA, MEDIUM_COLOR = 0.8, (0.55, 0.6, 0.66)  # extinction per world unit; linear RGB
SUBPIXELS = 4  # on a side of a pixel; the medium is computed for each, since a pixel may cover several depths

KEY = {"origin": [2.4, 2.4, 5.6], "half_width": 2.0, "radiance": 4.7}  # above every camera's view

Plugin = dict[str, Any]  # of mitsuba


@dataclass(frozen=True)
class Look:
    """One way to show a mesh.

    Attributes:
        help: for `--help`.
        bsdf: plugin of the surface, of the plugin of its base color.
        wires: whether the edges of a simplified mesh are shown instead of its faces.
        medium: whether a ball of a thin medium surrounds it.
        landscape: whether an environment map lights it, instead of the key light and the sky.
    """

    help: str
    bsdf: Callable[[Plugin], Plugin]
    wires: bool = False
    medium: bool = False
    landscape: bool = False


def plastic(color: Plugin) -> Plugin:
    """Return a rough plastic with a faint highlight."""
    return {
        "type": "twosided",
        "skin": {"type": "principled", "base_color": color, "roughness": 0.5, "specular": 0.4},
    }


def paint(*rgb: float) -> Callable[[Plugin], Plugin]:
    """Return a plastic of one linear color, whatever the mesh's own is."""
    return lambda _: plastic({"type": "rgb", "value": list(rgb)})


LOOKS = {
    "plain": Look("the mesh as it is", plastic),
    "wire": Look("edges as thin tubes", paint(0.7, 0.25, 0.1), wires=True),
    "fog": Look("in a ball of a thin medium", plastic, medium=True),
    "mirror": Look(
        "silver in a landscape", lambda _: {"type": "conductor", "material": "Ag"}, landscape=True
    ),
    "dark": Look("nearly black", paint(0.004, 0.004, 0.004)),
}


def wires(vertices: np.ndarray, faces: np.ndarray, cell: float = WIRE_CELL) -> np.ndarray:
    """Return the edges (n, 2, 3) of a mesh whose vertices are merged to their mean in every cell of a lattice.

    Args:
        vertices: (n, 3), in world units.
        faces: indices (m, 3) of the vertices.
        cell: side of a cell.
    """
    _, group = np.unique(np.floor(vertices / cell).astype(int), axis=0, return_inverse=True)
    group = group.reshape(-1)
    sums = np.stack([np.bincount(group, vertices[:, axis]) for axis in range(3)], -1)
    means = sums / np.bincount(group)[:, None]
    pairs = np.sort(group[faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)], axis=1)
    return means[np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)]


def tubes(edges: np.ndarray, bsdf: Plugin) -> Plugin:
    """Return plugins of tubes along edges (n, 2, 3), with balls at their ends, by name."""
    plugins: Plugin = {"wire": bsdf}
    shared = {"type": "ref", "id": "wire"}
    for i, (a, b) in enumerate(edges.tolist()):
        plugins[f"tube_{i}"] = {"type": "cylinder", "p0": a, "p1": b, "radius": WIRE_RADIUS, "bsdf": shared}
    for i, center in enumerate(np.unique(edges.reshape(-1, 3), axis=0).tolist()):
        plugins[f"ball_{i}"] = {"type": "sphere", "center": center, "radius": WIRE_RADIUS, "bsdf": shared}
    return plugins


def lights(mi: Any, look: Look) -> Plugin:
    """Return plugins of the light: a key light and a constant sky, or an environment map."""
    if look.landscape:
        upright = mi.ScalarTransform4f().rotate([1, 0, 0], 90)  # mitsuba's maps have y up
        return {"sky": {"type": "envmap", "bitmap": mi.Bitmap(landscape()), "to_world": upright}}
    frame = mi.ScalarTransform4f().look_at(origin=KEY["origin"], target=[0, 0, 0], up=[0, 0, 1])
    return {
        "sky": {"type": "constant", "radiance": {"type": "rgb", "value": 0.45}},
        "key": {
            "type": "rectangle",
            "to_world": frame @ mi.ScalarTransform4f().scale(KEY["half_width"]),
            "emitter": {"type": "area", "radiance": {"type": "rgb", "value": KEY["radiance"]}},
        },
    }


def landscape(height: int = 128) -> np.ndarray:
    """Return an environment map (height, 2 height, 3), linear: a sky with a sun over a checkered ground."""
    polar, turn = np.meshgrid(
        *((np.arange(n) + 0.5) * np.pi / height for n in (height, 2 * height)), indexing="ij"
    )
    up = np.cos(polar)[..., None]
    sky = 0.25 + (0.35 + 0.5 * up) * np.array([0.5, 0.75, 1.0])
    tiles = (np.floor(6 * turn / np.pi) + np.floor(6 * polar / np.pi))[..., None]
    ground = np.where(tiles % 2 == 0, [0.65, 0.45, 0.25], [0.12, 0.2, 0.1])
    to_sun = np.sin(polar) * np.cos(turn - 1.0) * np.sin(0.7) + np.cos(polar) * np.cos(0.7)
    sun = 6.0 * np.exp(60 * (to_sun - 1))[..., None]
    return (np.where(up > 0, sky, ground) + sun).astype(np.float32)


def medium_radius(vertices: np.ndarray) -> float:
    """Return the radius of the ball of a thin medium around the origin that holds vertices (n, 3)."""
    return 1.02 * float(np.linalg.norm(vertices, axis=1).max())


def extent(vertices: np.ndarray, look: Look) -> np.ndarray:
    """Return points (m, 3) that span all that is to be seen: the vertices, or those of a ball of a thin medium."""
    if not look.medium:
        return vertices
    polar, turn = np.meshgrid(np.linspace(0, np.pi, 33), np.linspace(0, 2 * np.pi, 64))
    ball = np.stack([np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar)], -1)
    return medium_radius(vertices) * ball.reshape(-1, 3)


def pixel_rays(pose: np.ndarray, angle: float, size: int) -> np.ndarray:
    """Return unit directions (size, size, 3), in world coordinates, through the centers of a view's pixels."""
    at = (2 * (np.arange(size) + 0.5) / size - 1) * np.tan(angle / 2)
    x, y = np.meshgrid(at, -at)
    directions = np.stack([x, y, -np.ones_like(x)], -1) @ pose[:3, :3].T
    return directions / np.linalg.norm(directions, axis=-1, keepdims=True)


def add_medium(
    image: np.ndarray, depths: np.ndarray, origin: np.ndarray, directions: np.ndarray, radius: float
) -> np.ndarray:
    """Return an image seen through a ball of a thin medium around the origin, which absorbs light and glows.

    Its transmittance over a length t is exp(-MEDIUM_SIGMA t); light that is scattered twice is left out.

    Args:
        image: linear and premultiplied (h, w, 4).
        depths: distance (h, w) of what covers a pixel, in world units; anything where nothing does.
        origin: the camera's position (3,), outside the ball.
        directions: unit vectors (h, w, 3).
        radius: of the ball, which holds everything in the image.
    """
    middle = -directions @ origin  # along the ray, where it is nearest to the ball's center
    half = np.sqrt(np.maximum(radius**2 - origin @ origin + middle**2, 0.0))
    covered = image[..., 3]
    behind = np.exp(
        -MEDIUM_SIGMA * np.clip(depths - middle + half, 0.0, 2 * half)
    )  # transmittance to the surface
    through = np.exp(-MEDIUM_SIGMA * 2 * half)
    glow = covered * (1 - behind) + (1 - covered) * (1 - through)
    color = behind[..., None] * image[..., :3] + glow[..., None] * np.array(MEDIUM_COLOR)
    return np.concatenate([color, (behind * covered + glow)[..., None]], -1)


def pooled(image: np.ndarray, factor: int) -> np.ndarray:
    """Return the means (h / factor, w / factor, c) over squares of an image (h, w, c)."""
    height, width, channels = image.shape
    return image.reshape(height // factor, factor, width // factor, factor, channels).mean((1, 3))
