"""CUDA libraries that are used where they are installed and agree with the torch twins: tinycudann, nerfacc.

Neither is ever required, nor imported before a CUDA tensor needs it. Each part has to agree with the torch twin
on the device first; one that fails to import, to compile or to agree is not used, and the twin serves.

tinycudann encodes the hash grid and runs small perceptrons, on the very parameters of the field. nerfacc
composites and marches.
"""

import functools
import importlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fieldmorph.fields.kernels.composite import Composited, composite_torch
from fieldmorph.fields.kernels.hash import hash_encode_torch
from fieldmorph.fields.kernels.hash_levels import HashLevels, hash_levels
from fieldmorph.fields.kernels.march import Packed, march_torch
from fieldmorph.fields.kernels.nerfacc_backend import composite_nerfacc, march_nerfacc
from fieldmorph.fields.kernels.tcnn_backend import fits_tcnn, hash_encode_tcnn, perceptron_tcnn

# Largest error of a self-test, in units of the largest value. tinycudann computes a level's scale on the device: one
# last bit of it moves a corner's weight by up to 3e-4 at resolution 2048. Its perceptron adds in half precision, whose
# last bit is 5e-4; a few of these meet in a sum over rows, and nothing else of that test is rounded. A wrong index or
# layout errs by about 1. For a march, the fraction of samples that only one of the two has: rounding moves the centre
# of one in ten thousand across a cell's wall; a lattice that is off by a tenth of a step, that of one in ten.
TOLERANCE = {"tinycudann": 2e-3, "tinycudann-mlp": 5e-3, "nerfacc": 1e-4, "nerfacc-march": 5e-3}


@dataclass(frozen=True)
class Accelerator:
    """The result of probing an optional library, or one part of it.

    Attributes:
        name: of the package, and after a dash the part where it is not the first.
        found: it could be imported.
        passed: it agrees with the torch twin within TOLERANCE and is used.
        reason: why not, or the largest error that was seen.
    """

    name: str
    found: bool
    passed: bool
    reason: str


@functools.cache
def accelerators() -> dict[str, Accelerator]:
    """Return every known accelerator by name, probed once per process and only where torch sees a CUDA device."""
    if not torch.cuda.is_available():
        return {name: Accelerator(name, False, False, "no CUDA device") for name in TOLERANCE}
    return {name: probe_accelerator(name, torch.device("cuda")) for name in TOLERANCE}


def probe_accelerator(name: str, device: torch.device) -> Accelerator:
    """Import a library and compare it with the torch twin on a device.

    nerfacc compiles itself at its first use, which takes minutes.
    """
    try:
        importlib.import_module(name.partition("-")[0])
    except Exception as error:  # besides ImportError, OSError without a GPU; whatever it is, the twin serves
        return Accelerator(name, False, False, f"{type(error).__name__}: {error}")
    try:
        error_seen = _SELF_TESTS[name](device)
    except Exception as error:  # compilers and drivers fail in every way
        return Accelerator(name, True, False, f"self-test failed: {type(error).__name__}: {error}")
    passed = error_seen <= TOLERANCE[name]
    verdict = "within" if passed else "over"
    return Accelerator(name, True, passed, f"error {error_seen:.1e}, {verdict} {TOLERANCE[name]:.0e}")


def hash_encode_cuda(positions: Tensor, table: Tensor, levels: HashLevels) -> Tensor:
    """Return `hash_encode` of float32 tensors on CUDA."""
    # tinycudann has no gradient of a gradient for the table, and chokes on an empty batch.
    if len(positions) and not positions.requires_grad and accelerators()["tinycudann"].passed:
        return hash_encode_tcnn(positions, table, levels)
    return hash_encode_torch(positions, table, levels)


def perceptron_cuda(rows: Tensor, weights: Sequence[Tensor], twin: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the ReLU layers without biases of float32 rows on CUDA; `twin` serves where nothing else can."""
    if len(rows) and fits_tcnn(weights) and accelerators()["tinycudann-mlp"].passed:
        return perceptron_tcnn(rows, weights)
    return twin(rows)


def composite_cuda(
    sigma: Tensor, rgb: Tensor, t_starts: Tensor, t_ends: Tensor, offsets: Tensor
) -> Composited:
    """Return `composite` of float32 tensors on CUDA."""
    if len(sigma) and accelerators()["nerfacc"].passed:
        return composite_nerfacc(sigma, rgb, t_starts, t_ends, offsets)
    return composite_torch(sigma, rgb, t_starts, t_ends, offsets)


def march_cuda(
    rays_o: Tensor,
    rays_d: Tensor,
    aabb: Tensor,
    occupied: Tensor,
    render_step_size: float,
    jitter: Tensor,
    near_plane: float,
    far_plane: float,
) -> Packed:
    """Return `march` of tensors on CUDA."""
    marcher = march_nerfacc if len(rays_o) and accelerators()["nerfacc-march"].passed else march_torch
    return marcher(rays_o, rays_d, aabb, occupied, render_step_size, jitter, near_plane, far_plane)


def _test_hash_grid(device: torch.device) -> float:
    generator = torch.Generator().manual_seed(0)
    levels = hash_levels(16, 15, 16, 2 ** (1 / 3))  # the finest is 512: float32 rounding decides its shapes
    table = (torch.rand(levels.n_entries, 2, generator=generator) - 0.5).to(device)
    positions = torch.rand(1000, 3, generator=generator).to(device)
    grad = torch.randn(1000, 32, generator=generator).to(device)
    got = _with_gradients(lambda t: (hash_encode_tcnn(positions, t, levels),), [table], [grad])
    expected = _with_gradients(lambda t: (hash_encode_torch(positions, t, levels),), [table], [grad])
    return _largest_error(got, expected)


def _test_perceptron(device: torch.device) -> float:
    # Small whole numbers: half precision holds every product and all sums but those over rows. With others a value
    # next to zero may fall on either side of it, and the gradient jumps there.
    def whole(largest: int, *shape: int) -> Tensor:
        return torch.randint(-largest, largest + 1, shape, generator=generator).float().to(device)

    generator = torch.Generator().manual_seed(0)
    errors = []
    for widths in ((32, 64, 16), (32, 64, 64, 3)):  # the networks of a hash-grid field
        leaves = [whole(2, 300, widths[0])]
        leaves += [whole(1, n_out, n_in) for n_in, n_out in itertools.pairwise(widths)]
        grads = [whole(1, 300, widths[-1]) * 2.0**-40]  # smaller than half precision holds
        got = _with_gradients(lambda x, *w: (perceptron_tcnn(x, w),), leaves, grads)
        expected = _with_gradients(lambda x, *w: (_layers(x, w),), leaves, grads)
        errors.append(_largest_error(got, expected))
    return max(errors)


def _layers(rows: Tensor, weights: Sequence[Tensor]) -> Tensor:
    for weight in weights[:-1]:
        rows = torch.relu(rows @ weight.T)
    return rows @ weights[-1].T


def _test_composite(device: torch.device) -> float:
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 40, (64,), generator=generator)
    counts[::7] = 0  # rays without samples
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(device)
    n = int(offsets[-1])
    sigma, rgb = torch.rand(n, generator=generator) * 9, torch.rand(n, 3, generator=generator)
    t_starts = torch.rand(n, generator=generator).to(device)
    leaves = [sigma.to(device), rgb.to(device)]
    grads = [torch.randn(shape, generator=generator).to(device) for shape in ((n,), (64, 3), (64,), (64,))]
    rest = (t_starts, t_starts + 0.1, offsets)
    got = _with_gradients(lambda s, c: composite_nerfacc(s, c, *rest), leaves, grads)
    expected = _with_gradients(lambda s, c: composite_torch(s, c, *rest), leaves, grads)
    return _largest_error(got, expected)


def _test_march(device: torch.device) -> float:
    """Return the error for rays from near, far and inside, along axes and past the box, at coarse and fine steps."""
    generator = torch.Generator().manual_seed(0)
    aabb = torch.tensor([-1.0, -0.8, -0.6, 1.0, 0.9, 0.7])
    occupied = torch.rand(20, 24, 28, generator=generator) < 0.3
    aim = torch.rand(64, 3, generator=generator) - 0.5
    rays_o = aim + torch.randn(64, 3, generator=generator) * torch.tensor([0.1, 3, 30, 3]).repeat(16)[:, None]
    rays_d = torch.nn.functional.normalize(aim - rays_o, dim=-1)
    rays_d[:6], rays_o[:6] = torch.cat([torch.eye(3), -torch.eye(3)]), aim[:6]
    rays_d[6:9] = -rays_d[6:9]
    aabb, occupied, jitter = (
        aabb.to(device),
        occupied.to(device),
        torch.rand(64, generator=generator).to(device),
    )
    errors = []
    for n, step in ((64, 0.03), (8, 2 / 512)):
        rays = rays_o[:n].to(device), rays_d[:n].to(device)
        got, expected = (
            f(*rays, aabb, occupied, step, jitter[:n], 0.1, 32.0) for f in (march_nerfacc, march_torch)
        )
        errors.append(_unmatched_fraction(got, expected))
    return max(errors)


def _unmatched_fraction(got: Packed, expected: Packed) -> float:
    """Return the fraction of samples that only one of two marches has; infinite where the packing is invalid."""
    ray_indices, t_starts, _, offsets = got
    owners = torch.arange(len(offsets) - 1, device=offsets.device).repeat_interleave(offsets.diff())
    ordered = (t_starts.diff() > 0) | (ray_indices.diff() > 0)  # false next to a nan
    if not torch.equal(owners, ray_indices) or not ordered.all():
        return math.inf
    samples = [torch.stack([x.double() for x in march[:3]], -1) for march in (got, expected)]
    _, copies = torch.cat(samples).unique(dim=0, return_counts=True)
    return float((copies == 1).sum() / len(samples[1]))


_SELF_TESTS: dict[str, Callable[[torch.device], float]] = {
    "tinycudann": _test_hash_grid,
    "tinycudann-mlp": _test_perceptron,
    "nerfacc": _test_composite,
    "nerfacc-march": _test_march,
}


def _with_gradients(
    function: Callable[..., tuple[Tensor, ...]], leaves: list[Tensor], grads: list[Tensor]
) -> list[Tensor]:
    """Return the outputs, then the gradients of the leaves."""
    with torch.enable_grad():  # the first call may come from a rendering without gradients
        leaves = [leaf.clone().requires_grad_() for leaf in leaves]
        outputs = function(*leaves)
        return [*(out.detach() for out in outputs), *torch.autograd.grad(outputs, leaves, grads)]


def _largest_error(got: list[Tensor], expected: list[Tensor]) -> float:
    errors = [(a - b).abs().max() / b.abs().max() for a, b in zip(got, expected, strict=True)]
    return float(torch.stack(errors).max())  # nan where any is
