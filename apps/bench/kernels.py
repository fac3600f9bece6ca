"""Each numba kernel against its plain torch twin, interleaved in one process so that noise hits both alike."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fieldmorph.fields.kernels.composite import composite_torch
from fieldmorph.fields.kernels.cp import cp_products, cp_products_torch
from fieldmorph.fields.kernels.hash import hash_encode_torch
from fieldmorph.fields.kernels.hash_levels import hash_levels
from fieldmorph.fields.kernels.march import march_torch
from fieldmorph.fields.kernels.ops import composite, hash_encode, march
from fieldmorph.fields.kernels.total_variation import total_variation, total_variation_torch
from fieldmorph.fields.kernels.vm import vm_products
from fieldmorph.fields.kernels.voxels import (
    NodeGrid,
    pack_mask,
    rank_words,
    sparse_trilinear,
    sparse_trilinear_torch,
)
from fieldmorph.fields.runtime import use_threads

N_SAMPLES = 1 << 16
N_RAYS = 2048
BOX = torch.tensor([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])
HASH_GRIDS = ((15, 512), (19, 2048))  # log2 of the entries of a level, finest resolution; 16 levels x 2
VM_GRID = (128, 48)  # nodes per side, components of each of the three modes
CP_GRID = (500, 96)
VOXEL_GRID = (128, 0.15)  # nodes per side, share of them that is active, in a ball
MARCH_GRIDS = (64, 128)
MARCH_STEP = 2 / 256

Result = dict[str, Any]
Outputs = tuple[Tensor, ...]
Run = Callable[..., Any]


def bench_kernels(threads: int = 1, seconds: float = 3.0, seed: int = 0) -> Result:
    """Throughput of kernels and twins, and how far the kernels are from the twins in float64.

    Rates are millions of samples per core-second, of active nodes for total variation, thousands of rays for marching:
    medians over rounds that take turns (kernel, twin, kernel, ...).

    Args:
        threads: for numba and torch alike.
        seconds: of each row, after one round that compiles.
        seed: of inputs and parameters.
    """
    generator = torch.Generator().manual_seed(seed)
    with _threads(threads):
        rows = [
            *(row for grid in HASH_GRIDS for row in _hash_rows(*grid, seconds, generator)),
            *_vm_rows(*VM_GRID, seconds, generator),
            *_cp_rows(*CP_GRID, seconds, generator),
            *_voxel_rows(*VOXEL_GRID, seconds, generator),
            *_variation_rows(*VOXEL_GRID, seconds, generator),
            *(_march_row(resolution, seconds, generator) for resolution in MARCH_GRIDS),
            *_composite_rows(seconds, generator),
        ]
    return {"threads": threads, "seconds": seconds, "seed": seed, "rows": rows}


def kernels_table(result: Result) -> str:
    """A Markdown table of what `bench_kernels` returned."""
    lines = [
        f"| kernel ({result['threads']} thread{'s' * (result['threads'] > 1)}) | per core-second | numba | torch | "
        "ratio | largest error | largest gradient error |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in result["rows"]:
        gradient = "" if row["gradient_error"] is None else f"{row['gradient_error']:.1e}"
        lines.append(
            f"| {row['name']} | {row['unit']} | {row['numba']:.3g} | {row['torch']:.3g} | {row['ratio']:.1f} | "
            f"{row['error']:.1e} | {gradient} |"
        )
    return "\n".join(lines)


def _hash_rows(log2_size: int, finest: int, seconds: float, generator: torch.Generator) -> list[Result]:
    levels = hash_levels(16, log2_size, 16, (finest / 16) ** (1 / 15))
    table = torch.rand(levels.n_entries, 2, generator=generator) - 0.5
    grad = torch.randn(N_SAMPLES, 32, generator=generator)
    positions = _positions_along_rays(generator)

    def run(encode: Run, dtype: torch.dtype, train: bool) -> Outputs:
        leaf = table.to(dtype).requires_grad_(train)
        encoded = encode(positions, leaf, levels)
        return (encoded, *(torch.autograd.grad(encoded, leaf, grad.to(dtype)) if train else ()))

    name = f"hash grid 2^{log2_size}, finest {finest}"
    return _rows(name, run, hash_encode, hash_encode_torch, N_SAMPLES, seconds)


def _vm_rows(resolution: int, components: int, seconds: float, generator: torch.Generator) -> list[Result]:
    planes = torch.rand(3, resolution, resolution, components, generator=generator) - 0.5
    lines = torch.rand(3, resolution, components, generator=generator) - 0.5
    grad = torch.randn(N_SAMPLES, 3 * components, generator=generator)
    positions = _positions_along_rays(generator)

    def run(products: Run, dtype: torch.dtype, train: bool) -> Outputs:
        leaves = [grid.to(dtype).requires_grad_(train) for grid in (planes, lines)]
        out = products(positions.to(dtype), *leaves)
        return (out, *(torch.autograd.grad(out, leaves, grad.to(dtype)) if train else ()))

    name = f"vector-matrix {resolution}^3, 3 x {components} (torch: grid_sample)"
    return _rows(name, run, vm_products, _vm_grid_sample, N_SAMPLES, seconds)


def _vm_grid_sample(positions: Tensor, planes: Tensor, lines: Tensor) -> Tensor:
    """`vm_products` as most would write it. torch reads channels-last grids no slower than its own layout."""
    x, y, z = (2 * positions - 1).unbind(-1)
    on_plane = torch.stack([torch.stack(pair, dim=-1) for pair in ((x, y), (x, z), (y, z))])
    on_line = torch.stack([torch.stack([torch.zeros_like(c), c], dim=-1) for c in (z, y, x)])
    plane = F.grid_sample(planes.permute(0, 3, 1, 2), on_plane[:, :, None], align_corners=True)
    line = F.grid_sample(lines.permute(0, 2, 1)[..., None], on_line[:, :, None], align_corners=True)
    return (plane * line)[..., 0].flatten(0, 1).t()


def _cp_rows(resolution: int, components: int, seconds: float, generator: torch.Generator) -> list[Result]:
    lines = torch.rand(3, resolution, components, generator=generator) - 0.5
    grad = torch.randn(N_SAMPLES, components, generator=generator)
    positions = _positions_along_rays(generator)

    def run(products: Run, dtype: torch.dtype, train: bool) -> Outputs:
        leaf = lines.to(dtype).requires_grad_(train)
        out = products(positions.to(dtype), leaf)
        return (out, *(torch.autograd.grad(out, leaf, grad.to(dtype)) if train else ()))

    return _rows(
        f"three lines of {resolution}, {components} components",
        run,
        cp_products,
        cp_products_torch,
        N_SAMPLES,
        seconds,
    )


def _voxel_rows(resolution: int, share: float, seconds: float, generator: torch.Generator) -> list[Result]:
    grid = _ball(resolution, share)
    values = torch.rand(grid.n_active, 27, generator=generator) - 0.5
    grad = torch.randn(N_SAMPLES, 27, generator=generator)
    positions = _positions_along_rays(generator)

    def run(interpolate: Run, dtype: torch.dtype, train: bool) -> Outputs:
        leaf = values.to(dtype).requires_grad_(train)
        out = interpolate(positions.to(dtype), leaf, grid, 0.0)
        return (out, *(torch.autograd.grad(out, leaf, grad.to(dtype)) if train else ()))

    name = f"sparse voxels {resolution}^3, {share:.0%} active, 27 numbers each"
    return _rows(name, run, sparse_trilinear, sparse_trilinear_torch, N_SAMPLES, seconds)


def _variation_rows(
    resolution: int, share: float, seconds: float, generator: torch.Generator
) -> list[Result]:
    grid = _ball(resolution, share)
    values = torch.rand(grid.n_active, 27, generator=generator) - 0.5

    def run(variation: Run, dtype: torch.dtype, train: bool) -> Outputs:
        leaf = values.to(dtype).requires_grad_(train)
        mean = variation(leaf, grid, 0, grid.n_active) / leaf.numel()
        return (mean, *(torch.autograd.grad(mean, leaf) if train else ()))

    name = f"total variation of voxels {resolution}^3, {share:.0%} active, 27 numbers each"
    return _rows(
        name, run, total_variation, total_variation_torch, grid.n_active, seconds, unit="Mnodes",
    )  # fmt: skip


def _ball(resolution: int, share: float) -> NodeGrid:
    """A grid with this share of its nodes active."""
    radius = torch.cartesian_prod(*[torch.linspace(-1, 1, resolution)] * 3).norm(dim=-1)
    active = radius <= radius.kthvalue(max(1, round(share * resolution**3))).values
    return NodeGrid(*rank_words(pack_mask(active)), resolution, float(resolution - 1))


def _composite_rows(seconds: float, generator: torch.Generator) -> list[Result]:
    offsets = torch.arange(0, N_SAMPLES + 1, 32)
    sigma = torch.rand(N_SAMPLES, generator=generator) * 20
    rgb = torch.rand(N_SAMPLES, 3, generator=generator)
    t_starts = 2 + 0.01 * (torch.arange(N_SAMPLES) % 32)
    t_ends = t_starts + 0.01
    n_rays = len(offsets) - 1
    grads = [torch.randn(n, generator=generator) for n in ((N_SAMPLES,), (n_rays, 3), (n_rays,), (n_rays,))]

    def run(kernel: Run, dtype: torch.dtype, train: bool) -> Outputs:
        leaves = [x.to(dtype).requires_grad_(train) for x in (sigma, rgb)]
        out = kernel(*leaves, t_starts, t_ends, offsets)
        return (*out, *(torch.autograd.grad(out, leaves, [g.to(dtype) for g in grads]) if train else ()))

    return _rows("compositing, 32 samples a ray", run, composite, composite_torch, N_SAMPLES, seconds)


def _march_row(resolution: int, seconds: float, generator: torch.Generator) -> Result:
    axis = (torch.arange(resolution) + 0.5) / resolution * 2 - 1
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    radius = (x * x + y * y + z * z).sqrt()
    occupied = (radius > 0.55) & (radius < 0.65)  # a shell: about as full as the surface of an object
    rays_o, rays_d = _rays(generator)
    jitter = torch.rand(N_RAYS, generator=generator)
    run = (lambda kernel: kernel(rays_o, rays_d, BOX, occupied, MARCH_STEP, jitter)), march, march_torch
    kernel_out, twin_out = run[0](march), run[0](march_torch)
    same = torch.equal(kernel_out[3], twin_out[3])
    error = (
        max(float((a - b).detach().abs().max()) for a, b in zip(kernel_out, twin_out, strict=True))
        if same
        else 1.0
    )
    timing = _race(*run, work=N_RAYS / 1e3, seconds=seconds)
    name = f"marching an occupancy grid of {resolution}^3"
    return {"name": name, "unit": "krays", **timing, "error": error, "gradient_error": None}


def _rows(
    name: str, run: Run, kernel: Run, twin: Run, n: int, seconds: float, unit: str = "Msamples"
) -> list[Result]:
    """Forward, then forward and backward; `run(kernel, dtype, train)` returns outputs, then gradients."""
    got, exact = run(kernel, torch.float32, True), run(twin, torch.float64, True)
    n_outputs = len(run(kernel, torch.float32, False))
    error = max(float((a - b).detach().abs().max()) for a, b in zip(got[:n_outputs], exact, strict=False))
    pairs = zip(got[n_outputs:], exact[n_outputs:], strict=True)
    gradient_error = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
    rows = []
    for train in (False, True):
        race = _race(lambda k, train=train: run(k, torch.float32, train), kernel, twin, n / 1e6, seconds)
        title = f"{name}, {'forward + backward' if train else 'forward'}"
        errors = {"error": error, "gradient_error": gradient_error if train else None}
        rows.append({"name": title, "unit": unit, **race, **errors})
    return rows


def _race(run: Run, kernel: Run, twin: Run, work: float, seconds: float) -> dict[str, float]:
    """Median work per core-second of both, taking turns for about the given time."""
    spent: tuple[list[float], list[float]] = ([], [])
    run(kernel), run(twin)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(spent[0]) < 3:
        for function, times in zip((kernel, twin), spent, strict=True):
            start = time.process_time()
            run(function)
            times.append(time.process_time() - start)
    rates = [work / statistics.median(times) for times in spent]
    return {"numba": rates[0], "torch": rates[1], "ratio": rates[0] / rates[1]}


def _rays(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rays from a sphere round the box to points within it."""
    rays_o = 3 * torch.nn.functional.normalize(torch.randn(N_RAYS, 3, generator=generator), dim=-1)
    aim = torch.rand(N_RAYS, 3, generator=generator) * 1.4 - 0.7
    return rays_o, torch.nn.functional.normalize(aim - rays_o, dim=-1)


def _positions_along_rays(generator: torch.Generator) -> Tensor:
    """Samples in [0, 1]^3 as a renderer makes them: neighbours on a ray are neighbours in memory."""
    rays_o, rays_d = _rays(generator)
    per_ray = N_SAMPLES // N_RAYS
    t = 2.4 + torch.arange(per_ray) * (1.2 / per_ray)
    positions = rays_o[:, None] + t[:, None] * rays_d[:, None]
    return ((positions.reshape(-1, 3) + 1) / 2).clamp(0, 1)


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    use_threads(n)
    try:
        yield
    finally:
        use_threads(before)
