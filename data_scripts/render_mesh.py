"""Render a mesh, textured or not, to a data set in the NeRF-Synthetic layout.

    pip install mitsuba==3.9.1 pillow
    python render_mesh.py MESH.obj --texture TEXTURE.png -o DIR
    python render_mesh.py MESH.obj --look wire -o DIR

mitsuba is needed by this script only. The result is `transforms_{train,test}.json` (OpenGL camera-to-world,
z up) and RGBA images with straight alpha. Lighting is one soft key light and a constant sky; the material
has a faint highlight. The same seed gives the same views and the same noise. `--look` makes the scene hard to
learn, as `mesh_looks.py` says; `--wide` lets cameras come close and go far, above and below.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import mesh_looks
import numpy as np
from mesh_looks import LOOKS

Y_UP_TO_Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
GL_TO_MITSUBA = np.diag([-1.0, 1, -1, 1])  # OpenGL looks along -z with x right; mitsuba along +z with x left

NEAREST, FARTHEST = 0.55, 1.8  # distances of wide views, as multiples of the radius


class InputError(ValueError):
    """A mesh, texture or folder that cannot be used (exit code 3)."""


def look_at_origin(positions: np.ndarray) -> np.ndarray:
    """Return OpenGL camera-to-world matrices (n, 4, 4) at `positions` (n, 3), z up; columns: right, up, back."""
    back = positions / np.linalg.norm(positions, axis=-1, keepdims=True)
    right = np.stack([-back[:, 1], back[:, 0], np.zeros(len(back))], -1)  # z x back
    right[np.linalg.norm(right, axis=-1) < 1e-9] = [1.0, 0.0, 0.0]  # straight above, any right will do
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    poses = np.tile(np.eye(4), (len(back), 1, 1))
    poses[:, :3] = np.stack([right, np.cross(back, right), back, positions], -1)
    return poses


def random_cameras(n: int, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Return poses (n, 4, 4) uniform on the upper hemisphere, as NeRF-Synthetic's training views."""
    return _cameras(rng.uniform(0.0, 1.0, n), rng.uniform(0.0, 2 * np.pi, n), radius)


def spiral_cameras(n: int, radius: float, turns: float = 3.0) -> np.ndarray:
    """Return poses (n, 4, 4) on a smooth spiral that covers the hemisphere evenly, as the test views are a path."""
    t = (np.arange(n) + 0.5) / n
    return _cameras(t, 2 * np.pi * turns * t, radius)


def wide_cameras(n: int, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Return poses (n, 4, 4) uniform on the sphere, at distances uniform in their logarithm."""
    poses = _cameras(rng.uniform(-1.0, 1.0, n), rng.uniform(0.0, 2 * np.pi, n), radius)
    poses[:, :3, 3] *= np.exp(rng.uniform(np.log(NEAREST), np.log(FARTHEST), (n, 1)))
    return poses


def normalisation(vertices: np.ndarray, up: str) -> np.ndarray:
    """Return the similarity (4, 4) that brings `vertices` (n, 3) into [-1, 1]^3, their `up` axis, "y" or "z", to z.

    Raises:
        InputError: When the vertices are not finite or lie in one point.
    """
    rotation = Y_UP_TO_Z_UP if up == "y" else np.eye(3)
    turned = vertices @ rotation.T
    if not len(turned) or not np.isfinite(turned).all() or not np.ptp(turned, axis=0).any():
        raise InputError("the mesh needs finite vertices that are not all one point")
    centre = (turned.min(0) + turned.max(0)) / 2
    scale = 0.95 / np.abs(turned - centre).max()
    matrix = np.eye(4)
    matrix[:3, :3] = scale * rotation
    matrix[:3, 3] = -scale * centre
    return matrix


def fitting_angle(vertices: np.ndarray, poses: np.ndarray, margin: float = 1.05) -> float:
    """Return the smallest field of view, radians, that holds `vertices` (n, 3) in every view, times `margin`."""
    widest = 0.0
    for pose in poses:
        x, y, z = ((vertices - pose[:3, 3]) @ pose[:3, :3]).T
        widest = max(widest, float((np.maximum(np.abs(x), np.abs(y)) / -z).max()))
    return 2 * float(np.arctan(margin * widest))


def to_straight_srgb(premultiplied: np.ndarray) -> np.ndarray:
    """Return 8-bit sRGB with straight alpha (h, w, 4) from linear light with premultiplied alpha.

    Users composite encoded values, `rgb * a + (1 - a) * white`, and volume rendering mixes colours in that
    space too. So the colour of a rim pixel must be the object's own: divide by alpha in linear light, then
    encode. Encoding first and dividing after would leave a bright rim. Alpha is coverage, never encoded.
    """
    alpha = np.clip(premultiplied[..., 3:], 0.0, 1.0)
    linear = np.clip(premultiplied[..., :3] / np.maximum(alpha, 1e-6), 0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    image = np.rint(255 * np.concatenate([encoded, alpha], -1)).astype(np.uint8)
    image[image[..., 3] == 0] = 0
    return image


def render(args: argparse.Namespace) -> None:
    """Write the images, then the two JSON files, so that a killed run leaves no data set."""
    from PIL import Image

    _check_paths(args)
    mi = _mitsuba(args.variant)
    look = LOOKS[args.look]
    scene, vertices = _scene(mi, args)
    rng = np.random.default_rng(args.seed)
    poses = {
        "train": random_cameras(args.train, args.radius, rng),
        "test": spiral_cameras(args.test, args.radius),
    }
    if args.wide:
        poses = {split: wide_cameras(len(cameras), args.radius, rng) for split, cameras in poses.items()}
    angle = fitting_angle(mesh_looks.extent(vertices, look), np.concatenate(list(poses.values())))
    shoot = _through_medium if look.medium else _clear
    for split, cameras in poses.items():
        (args.output / split).mkdir(parents=True, exist_ok=True)
        for i, pose in enumerate(cameras):
            linear = shoot(mi, scene, vertices, pose, angle, args, int(rng.integers(2**31)))
            path = args.output / split / f"r_{i}.png"
            Image.fromarray(to_straight_srgb(linear)).save(path, optimize=True)
    for split, cameras in poses.items():
        rows = enumerate(cameras.tolist())
        frames = [{"file_path": f"./{split}/r_{i}", "transform_matrix": pose} for i, pose in rows]
        text = json.dumps({"camera_angle_x": angle, "frames": frames}, indent=1)
        (args.output / f"transforms_{split}.json").write_text(text + "\n")
    print(f"{args.train} train and {args.test} test views of {args.mesh.name} in {args.output}")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    p = argparse.ArgumentParser(
        description="Render a mesh to a data set in the NeRF-Synthetic layout.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument("mesh", type=Path, help="OBJ or PLY")
    p.add_argument("--texture", type=Path, help="image for the base colour; the mesh must have UVs")
    p.add_argument("-o", "--output", type=Path, required=True, help="new or empty folder")
    p.add_argument("--train", type=_within(int, 1, 9999), default=60, help="random views")
    p.add_argument("--test", type=_within(int, 1, 9999), default=20, help="views on a spiral")
    p.add_argument("--size", type=_within(int, 8, 8192), default=128, help="pixels on a side")
    p.add_argument("--spp", type=_within(int, 1, 65536), default=64, help="samples per pixel")
    p.add_argument("--seed", type=_within(int, 0, 2**63), default=0, help="of the views and the noise")
    p.add_argument("--radius", type=_within(float, 2, 4.5), default=4.0, help="camera distance")
    p.add_argument("--look", choices=list(LOOKS), default="plain", help=_looks())
    p.add_argument(
        "--wide",
        action="store_true",
        help=f"views from all around, at {NEAREST:g} to {FARTHEST:g} times the radius, in both splits",
    )
    p.add_argument("--up", choices=["y", "z"], default="y", help="the file's up axis")
    p.add_argument(
        "--variant",
        choices=["scalar_rgb", "llvm_ad_rgb"],
        default="scalar_rgb",
        help="llvm_ad_rgb is faster and needs a recent LLVM, named in DRJIT_LIBLLVM_PATH; 14 and 15 abort",
    )
    return p


def main(argv: list[str] | None = None) -> int:
    """Run the script and return its exit code."""
    args = parser().parse_args(argv)
    try:
        render(args)
    except (InputError, OSError) as error:
        print(f"render_mesh: {error}", file=sys.stderr)
        return 3
    except ImportError as error:
        print(f"render_mesh: {error}; pip install mitsuba==3.9.1 pillow", file=sys.stderr)
        return 1
    return 0


def _cameras(heights: np.ndarray, azimuths: np.ndarray, radius: float) -> np.ndarray:
    # Archimedes: a height uniform in [0, 1] is uniform in area on the hemisphere.
    ring = np.sqrt(1 - heights**2)
    directions = np.stack([ring * np.cos(azimuths), ring * np.sin(azimuths), heights], -1)
    return look_at_origin(radius * directions)


def _check_paths(args: argparse.Namespace) -> None:
    if args.mesh.suffix.lower() not in (".obj", ".ply"):
        raise InputError(f"expected an .obj or .ply mesh; got {args.mesh}")
    for path in filter(None, (args.mesh, args.texture)):
        if not path.is_file():
            raise InputError(f"no such file: {path}")
    if args.output.exists() and (not args.output.is_dir() or any(args.output.iterdir())):
        raise InputError(f"{args.output} is not an empty folder")


def _mitsuba(variant: str):
    import mitsuba as mi

    try:
        mi.set_variant(variant)
    except ImportError as error:
        print(f"render_mesh: using scalar_rgb, since {variant} does not load: {error}", file=sys.stderr)
        mi.set_variant("scalar_rgb")
    mi.set_log_level(mi.LogLevel.Error)
    return mi


def _clear(mi, scene, vertices, pose, angle: float, args: argparse.Namespace, seed: int) -> np.ndarray:
    """Return one view (size, size, 4), linear and premultiplied."""
    sensor = mi.load_dict(_sensor(mi, pose, angle, args.size))
    return np.array(mi.render(scene, sensor=sensor, spp=args.spp, seed=seed))


def _through_medium(
    mi, scene, vertices, pose, angle: float, args: argparse.Namespace, seed: int
) -> np.ndarray:
    """Return one view as `_clear` does, in a thin medium; the integrator gives depths, too."""
    n, size = mesh_looks.SUBPIXELS, mesh_looks.SUBPIXELS * args.size
    sensor = mi.load_dict(_sensor(mi, pose, angle, size))
    fine = np.array(mi.render(scene, sensor=sensor, spp=-(-args.spp // n**2), seed=seed))
    depths = fine[..., 4] / np.maximum(fine[..., 3], 1e-6)  # the mean over all samples, where misses count 0
    directions, radius = mesh_looks.pixel_rays(pose, angle, size), mesh_looks.medium_radius(vertices)
    return mesh_looks.pooled(mesh_looks.add_medium(fine[..., :4], depths, pose[:3, 3], directions, radius), n)


def _looks() -> str:
    return "; ".join(f"{name}: {look.help}" for name, look in LOOKS.items())


def _sensor(mi, pose: np.ndarray, angle: float, size: int) -> dict:
    return {
        "type": "perspective",
        "fov": float(np.degrees(angle)),
        "to_world": mi.ScalarTransform4f((pose @ GL_TO_MITSUBA).tolist()),
        "sampler": {"type": "multijitter"},
        "film": {
            "type": "hdrfilm",
            "width": size,
            "height": size,
            "pixel_format": "rgba",
            "component_format": "float32",
            "rfilter": {"type": "box"},  # a pixel is the mean over its own area
        },
    }


def _scene(mi, args: argparse.Namespace):
    """Return the mesh in its light, without a camera, and its vertices. It is read twice: first for its extent."""
    look = LOOKS[args.look]
    shape = {"type": args.mesh.suffix.lower()[1:], "filename": str(args.mesh)}
    grey = {"type": "rgb", "value": 0.6}
    bsdf = look.bsdf({"type": "bitmap", "filename": str(args.texture)} if args.texture else grey)
    paths = {"type": "path", "max_depth": 6, "hide_emitters": True}
    try:
        mesh = mi.load_dict(shape)
        vertices = np.array(mi.traverse(mesh)["vertex_positions"], dtype=np.float64).reshape(-1, 3)
        faces = np.array(mi.traverse(mesh)["faces"]).reshape(-1, 3)
        if args.texture and not mesh.has_vertex_texcoords():
            raise InputError(f"{args.mesh} has no texture coordinates for {args.texture}")
        matrix = normalisation(vertices, args.up)
        moved = vertices @ matrix[:3, :3].T + matrix[:3, 3]
        solid = {"mesh": {**shape, "to_world": mi.ScalarTransform4f(matrix.tolist()), "bsdf": bsdf}}
        scene = mi.load_dict(
            {
                "type": "scene",
                "integrator": {"type": "aov", "aovs": "depth:depth", "image": paths}
                if look.medium
                else paths,
                **(mesh_looks.tubes(mesh_looks.wires(moved, faces), bsdf) if look.wires else solid),
                **mesh_looks.lights(mi, look),
            }
        )
        return scene, moved
    except RuntimeError as error:
        raise InputError(f"mitsuba cannot use {args.mesh.name}: {' '.join(str(error).split())}") from error


def _within(convert: type, low: float, high: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        if not low <= (value := convert(text)) <= high:
            raise argparse.ArgumentTypeError(f"expected {low} to {high}; got {text}")
        return value

    return number


if __name__ == "__main__":
    sys.exit(main())
