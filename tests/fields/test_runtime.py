"""What importing the package sets up, and kernels under many threads."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fieldmorph.fields import runtime
from fieldmorph.fields.compilation import compile_kernels
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.runtime import bf16_on_cpu, choose_device, network_dtype, peak_memory, use_threads


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    inherited = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "NUMBA_THREADING_LAYER")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=600,  # compilation included, on a busy machine
    )


def test_the_wait_policy_is_set_before_torch_is_there() -> None:
    done = python(
        "import os, sys, fieldmorph.fields;"
        "assert 'torch' not in sys.modules; print(os.environ['OMP_WAIT_POLICY'])"
    )
    assert (done.stdout, done.stderr) == ("PASSIVE\n", "")


@pytest.mark.parametrize("package", ["fieldmorph.distill", "fieldmorph.fields.rendering"])
def test_every_way_in_sets_the_policy_without_a_warning(package: str) -> None:
    done = python(f"import os, {package}; print(os.environ['OMP_WAIT_POLICY'])")
    assert (done.stdout, done.stderr) == ("PASSIVE\n", "")


def test_a_policy_of_the_user_s_own_is_kept() -> None:
    code = "import os, fieldmorph.fields; print(os.environ['OMP_WAIT_POLICY'])"
    assert python(code, OMP_WAIT_POLICY="ACTIVE").stdout == "ACTIVE\n"


def test_torch_before_us_warns_unless_the_policy_is_set() -> None:
    code = "import torch, fieldmorph.fields"
    done = python(code)
    assert done.returncode == 0
    assert "torch was imported before fieldmorph" in done.stderr
    assert python(code, OMP_WAIT_POLICY="passive").stderr == ""


@pytest.mark.parametrize(("value", "expected"), [("0", False), ("off", False), ("", False), ("1", True)])
def test_bf16_can_be_overridden(monkeypatch: pytest.MonkeyPatch, value: str, expected: bool) -> None:
    monkeypatch.setenv("FIELDMORPH_BF16", value)
    assert bf16_on_cpu.__wrapped__() is expected


def test_networks_run_in_bf16_where_the_cpu_does_and_float64_never(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(2, 2)
    for supported, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(runtime, "bf16_on_cpu", lambda supported=supported: supported)
        assert network_dtype(x) == expected
        assert network_dtype(x.double()) == torch.float64


THREADS = """
import fieldmorph.fields, torch, numba
from fieldmorph.fields.encodings import spherical_harmonics
from fieldmorph.fields.runtime import use_threads
{first}
print(torch.get_num_threads())
spherical_harmonics(torch.eye(3))
print(torch.get_num_threads(), torch.get_num_threads() == numba.get_num_threads())
"""


# Starting numba's layer sets OpenMP's threads for the whole process; torch must keep its own number.
@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("use_threads(1)", "1\n1 True\n"),
        ("torch.set_num_threads(1)", "1\n1 False\n"),
        ("use_threads(2)", "2\n2 True\n"),
    ],
)
def test_threads_are_those_requested(first: str, expected: str) -> None:
    done = python(THREADS.format(first=first), NUMBA_NUM_THREADS="2", NUMBA_THREADING_LAYER="omp")
    assert done.stdout == expected, done.stderr


def test_all_cores_of_the_process_are_used_by_default() -> None:
    before = torch.get_num_threads()
    try:
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        assert use_threads() == torch.get_num_threads() == available
    finally:
        use_threads(before)


def test_devices_are_chosen_by_name() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(SettingError, match="auto, cpu or cuda; got 'tpu'"):
        choose_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_cuda_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingError, match="no CUDA device"):
        choose_device("cuda")


# numba's workqueue layer aborts the whole process on concurrent callers unless they take turns.
CONCURRENT = """
import sys, fieldmorph.fields
from concurrent.futures import ThreadPoolExecutor
import torch
from fieldmorph.fields.encodings import spherical_harmonics
from fieldmorph.fields.kernels.hash_levels import hash_levels
from fieldmorph.fields.kernels.launch import threading_layer
from fieldmorph.fields.kernels.ops import composite, hash_encode, march

levels = hash_levels(8, 12, 8, 1.5)
table = torch.rand(levels.n_entries, 2)
box, occupied = torch.tensor([-1.0, -1, -1, 1, 1, 1]), torch.rand(16, 16, 16) < 0.3

def work(seed):
    g = torch.Generator().manual_seed(seed)
    d = torch.nn.functional.normalize(torch.randn(200, 3, generator=g), dim=-1)
    ray_indices, t0, t1, offsets = march(-2 * d, d, box, occupied, 0.02, torch.rand(200, generator=g))
    positions = ((-2 + (t0 + t1) / 2)[:, None] * d[ray_indices] + 1) / 2
    leaf = table.clone().requires_grad_()
    encoded = hash_encode(positions.clamp(0, 1), leaf, levels)
    out = composite(encoded[:, 0].exp(), encoded[:, 1:4].sigmoid(), t0, t1, offsets)
    (grad,) = torch.autograd.grad(out[1].sum(), leaf)
    return [*out, grad, spherical_harmonics(d)]

alone = [work(seed) for seed in range(8)] if sys.argv[1:] != ["cold"] else None
with ThreadPoolExecutor(8) as pool:
    for _ in range(4):
        together = list(pool.map(work, range(8)))
        alone = alone or [work(seed) for seed in range(8)]
        assert all(torch.equal(a, b) for x, y in zip(alone, together) for a, b in zip(x, y))
print(threading_layer())
"""


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
@pytest.mark.parametrize("start", ["warm", "cold"])
def test_eight_threads_give_what_one_gives(layer: str, start: str) -> None:
    code = f"import sys; sys.argv[1:] = [{start!r}]\n{CONCURRENT}"
    done = python(code, NUMBA_THREADING_LAYER=layer)
    if layer == "omp" and "No threading layer could be loaded" in done.stderr:
        pytest.skip("numba finds no OpenMP here")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{layer}\n"


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_a_long_compilation_is_announced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    name = f"waits {seconds} s"  # a name of its own, since each kernel is compiled once in a process
    module = SimpleNamespace(
        example=lambda _: SimpleNamespace(kernel=None, run=lambda _: time.sleep(seconds))
    )
    monkeypatch.setattr("fieldmorph.fields.compilation.KERNELS", {name: module})
    monkeypatch.setattr("fieldmorph.fields.compilation.LOAD_SECONDS", 0.05 if seconds else 60.0)
    with caplog.at_level("INFO", logger="fieldmorph"):
        compile_kernels()
    announced = ["compiling kernels (once, about 40 s)"] if seconds else []
    assert [record.getMessage() for record in caplog.records] == announced


def test_compiling_kernels_draws_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    compile_kernels()
    assert torch.equal(torch.get_rng_state(), before)


COMPILED = """
import fieldmorph.fields, importlib, torch
from fieldmorph.distill.warm_start.als import Factor, alternate
from fieldmorph.fields.cameras import Rays
from fieldmorph.fields.occupancy import OccupancyGrid
from fieldmorph.fields.registry import FIELDS, make_field
from fieldmorph.fields.rendering import render_rays
from fieldmorph.fields.compilation import compile_kernels
from fieldmorph.fields.runtime import use_threads

NAMES = ("composite", "cp", "hash", "march", "normal_equations", "positional", "total_variation", "vm", "voxels")
KERNELS = [f"fieldmorph.fields.kernels.{name}" for name in NAMES]

def compiled():
    modules = [importlib.import_module(name) for name in ("fieldmorph.fields.encodings", *KERNELS)]
    return {
        f"{module.__name__}.{name}": len(kernel.signatures)
        for module in modules
        for name, kernel in vars(module).items()
        if hasattr(kernel, "signatures") and kernel.targetoptions.get("parallel")
    }

def use(name):
    penalties = {"tv_weight": 1.0} if name == "voxels" else {}
    field = make_field(name, aabb=(0, 0, 0, 1, 1, 1), **penalties)
    positions = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    rgb, sigma = field(positions, torch.nn.functional.normalize(positions, dim=-1))
    penalty = field.regularization(torch.Generator().manual_seed(0))
    (rgb.sum() + sigma.sum() + field.query_density(positions).sum() + penalty).backward()
    rays = Rays(torch.tensor([[0.5, 0.5, -1.0]]), torch.tensor([[0.0, 0.0, 1.0]]))
    render_rays(field, rays, OccupancyGrid(8), 0.1, torch.ones(1, 3))

def solve():
    index = torch.arange(50) % 7
    positions = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    block = [Factor(torch.ones(7, 2), index), Factor(torch.ones(7, 2), index.flip(0))]
    alternate([block], torch.ones(3, 2), positions, sweeps=1, ridge=0.1, solve_basis=True)

use_threads(1)
alone = []
for name in FIELDS:  # kernels that a field declares suffice for it
    compile_kernels(FIELDS[name])
    before = compiled()
    use(name)
    if name in ("vm", "cp"):
        solve()  # their warm start
    assert compiled() == before, (name, before, compiled())
    alone.append(sum(map(bool, before.values())))
assert alone[0] < len(before) / 2, (alone, before)  # and are not all that there are
compile_kernels()
before = compiled()
assert all(before.values()), before
assert len({name.rpartition(".")[0] for name in before}) == 1 + len(NAMES), before
solve()
assert compiled() == before, (before, compiled())
"""


def test_nothing_is_left_to_compile() -> None:
    done = python(COMPILED)
    assert done.returncode == 0, done.stderr


def test_the_peak_remembers_what_was_freed() -> None:
    before = peak_memory()
    if before is None:
        pytest.skip("this system does not count it")
    ballast = bytearray(before + (64 << 20))  # more than what is free now, used page by page
    ballast[:: 1 << 12] = b"x" * len(ballast[:: 1 << 12])
    del ballast
    assert peak_memory() > before + (32 << 20)


def test_memory_is_not_stated_where_the_system_does_not_count_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stated = peak_memory(tmp_path / "none")
    assert stated is None or 1 << 24 < stated < 1 << 40
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows: its import fails
    assert peak_memory(tmp_path / "none") is None
