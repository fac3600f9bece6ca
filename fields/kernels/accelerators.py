"""CUDA libraries that take over where they are installed and give our numbers: tinycudann, nerfacc.

Neither is ever required, nor imported before a CUDA tensor asks for it. Each has to agree with the torch twin on
the device first; one that fails to import, to compile or to agree is left aside, and the twin serves.

tinycudann encodes the hash grid, on the very table of the field. nerfacc composites. It does not march: its
samples start on another lattice than ours (no half-step offset, no jitter per ray, cut at cell walls), so pictures
would depend on what is installed; marching on CUDA is the torch twin's.
"""

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fieldmorph.fields.kernels.composite import Composited, composite_torch
from fieldmorph.fields.kernels.hash import hash_encode_torch
from fieldmorph.fields.kernels.hash_levels import HashLevels, hash_levels

# Largest error of a self-test, in units of the largest value. tinycudann computes a level's scale on the device: one
# last bit of it moves a corner's weight by up to 3e-4 at resolution 2048. A wrong index or layout errs by about 1.
TOLERANCE = {"tinycudann": 2e-3, "nerfacc": 1e-4}


@dataclass(frozen=True)
class Accelerator:
    """What became of an optional library.

    Attributes:
        name: of the package.
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
    """Every known accelerator by name, probed once per process and only where torch sees a CUDA device."""
    if not torch.cuda.is_available():
        return {name: Accelerator(name, False, False, "no CUDA device") for name in TOLERANCE}
    return {name: probe_accelerator(name, torch.device("cuda")) for name in TOLERANCE}


def probe_accelerator(name: str, device: torch.device) -> Accelerator:
    """Import a library and hold it against the torch twin on a device.

    nerfacc compiles itself at its first use, which takes minutes.
    """
    try:
        importlib.import_module(name)
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
    """`hash_encode` of float32 tensors on CUDA."""
    # tinycudann has no gradient of a gradient for the table, and chokes on an empty batch.
    if len(positions) and not positions.requires_grad and accelerators()["tinycudann"].passed:
        return _hash_encode_tinycudann(positions, table, levels)
    return hash_encode_torch(positions, table, levels)


def composite_cuda(
    sigma: Tensor, rgb: Tensor, t_starts: Tensor, t_ends: Tensor, offsets: Tensor
) -> Composited:
    """`composite` of float32 tensors on CUDA."""
    if len(sigma) and accelerators()["nerfacc"].passed:
        return _composite_nerfacc(sigma, rgb, t_starts, t_ends, offsets)
    return composite_torch(sigma, rgb, t_starts, t_ends, offsets)


def _hash_encode_tinycudann(positions: Tensor, table: Tensor, levels: HashLevels) -> Tensor:
    encoding = _tinycudann_encoding(tuple(levels.settings.items()), table.shape[1], str(table.device))
    # Our table stands in for the module's own flat parameters, so there is one copy and one gradient.
    return torch.func.functional_call(encoding, {"params": table.reshape(-1)}, (positions.float(),)).float()


@functools.lru_cache(maxsize=8)
def _tinycudann_encoding(settings: tuple[tuple[str, Any], ...], n_features: int, device: str) -> Any:
    tinycudann = importlib.import_module("tinycudann")
    config = {
        "otype": "HashGrid",
        "interpolation": "Linear",
        "n_features_per_level": n_features,
        **dict(settings),
    }
    with torch.device(device):
        encoding = tinycudann.Encoding(3, config, dtype=torch.float32)
    encoding.params = torch.nn.Parameter(torch.empty(0, device=device))  # ours stand in: free the memory
    return encoding


def _composite_nerfacc(
    sigma: Tensor, rgb: Tensor, t_starts: Tensor, t_ends: Tensor, offsets: Tensor
) -> Composited:
    nerfacc = importlib.import_module("nerfacc")
    counts = offsets.diff()
    packed_info = torch.stack([offsets[:-1], counts], dim=-1)
    weights, _, _ = nerfacc.render_weight_from_density(t_starts, t_ends, sigma, packed_info=packed_info)
    values = torch.cat([rgb.float(), torch.ones_like(rgb[:, :1]), ((t_starts + t_ends) / 2)[:, None]], dim=-1)
    ray_indices = torch.repeat_interleave(torch.arange(len(counts), device=sigma.device), counts)
    rays = nerfacc.accumulate_along_rays(weights, values, ray_indices, len(counts))
    return weights, rays[:, :3], rays[:, 3], rays[:, 4]


def _test_tinycudann(device: torch.device) -> float:
    generator = torch.Generator().manual_seed(0)
    levels = hash_levels(16, 15, 16, 2 ** (1 / 3))  # the finest is 512: float32 rounding decides its shapes
    table = (torch.rand(levels.n_entries, 2, generator=generator) - 0.5).to(device)
    positions = torch.rand(1000, 3, generator=generator).to(device)
    grad = torch.randn(1000, 32, generator=generator).to(device)
    got = _with_gradients(lambda t: (_hash_encode_tinycudann(positions, t, levels),), [table], [grad])
    expected = _with_gradients(lambda t: (hash_encode_torch(positions, t, levels),), [table], [grad])
    return _largest_error(got, expected)


def _test_nerfacc(device: torch.device) -> float:
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
    got = _with_gradients(lambda s, c: _composite_nerfacc(s, c, *rest), leaves, grads)
    expected = _with_gradients(lambda s, c: composite_torch(s, c, *rest), leaves, grads)
    return _largest_error(got, expected)


_SELF_TESTS: dict[str, Callable[[torch.device], float]] = {
    "tinycudann": _test_tinycudann,
    "nerfacc": _test_nerfacc,
}


def _with_gradients(
    function: Callable[..., tuple[Tensor, ...]], leaves: list[Tensor], grads: list[Tensor]
) -> list[Tensor]:
    """Outputs, then the gradients of the leaves."""
    with torch.enable_grad():  # the first call may come from a picture
        leaves = [leaf.clone().requires_grad_() for leaf in leaves]
        outputs = function(*leaves)
        return [*(out.detach() for out in outputs), *torch.autograd.grad(outputs, leaves, grads)]


def _largest_error(got: list[Tensor], expected: list[Tensor]) -> float:
    errors = [(a - b).abs().max() / b.abs().max() for a, b in zip(got, expected, strict=True)]
    return float(torch.stack(errors).max())  # nan where any is
