"""The doctor's report, on this machine and on broken ones."""

import json
from typing import Any

import pytest
import torch

from fieldmorph.apps.cli.main import main
from fieldmorph.apps.jobs import doctor as module
from fieldmorph.apps.jobs.doctor import TINYCUDANN_COMMAND, diagnose
from fieldmorph.apps.jobs.exports.table import EXPORTS, ExportFormat
from fieldmorph.fields.kernels.accelerators import Accelerator
from fieldmorph.fields.kernels.table import KERNELS
from fieldmorph.fields.kinds import FIELDS
from fieldmorph.fields.lazy import Line

NAMES = [
    "fieldmorph",
    "python",
    "torch",
    "numba",
    "kernels",
    "fields",
    "scene readers",
    "export formats",
    "tensor kernels",
    "OMP_WAIT_POLICY",
    "bf16 on the CPU",
    "cuda",
    "tinycudann",
    "tinycudann-mlp",
    "nerfacc",
    "nerfacc-march",
    "ffmpeg",
]


def test_every_part_has_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:16].strip() for line in lines] == NAMES
    assert {line.split()[1] for line in lines[:4]} == {"ok"} or "workqueue" in lines[3]


def test_json_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(name, r["status"], r["detail"]) for name, r in report.items()] == diagnose()


def test_kernels_are_compared_with_their_twins(monkeypatch: pytest.MonkeyPatch) -> None:
    names = "hash, march, composite, harmonics, layers, positional, vm, cp, voxels, variation, normal"
    assert ("kernels", "ok", f"{names} agree with torch") in diagnose()
    hashing, marching = KERNELS["hash"], KERNELS["march"]
    monkeypatch.setattr(hashing, "hash_encode_numba", lambda *a: hashing.hash_encode_torch(*a) + 0.01)
    monkeypatch.setattr(marching, "march_numba", lambda *a: tuple(x[:-1] for x in marching.march_torch(*a)))
    status, detail = next((s, d) for name, s, d in diagnose() if name == "kernels")
    assert status == "broken"
    assert detail == "hash is off by 1.0e-02; march is off by inf"
    assert main(["doctor"]) == 1


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("composite", "composite_numba"),
        ("harmonics", "spherical_harmonics"),
        ("layers", "layers_blocked"),
        ("positional", "positional_encoding_numba"),
        ("vm", "vm_products"),
        ("cp", "cp_products"),
        ("voxels", "sparse_trilinear"),
        ("variation", "total_variation"),
        ("normal", "normal_equations"),
    ],
)
def test_a_wrong_kernel_is_named(monkeypatch: pytest.MonkeyPatch, name: str, kernel: str) -> None:
    right = getattr(KERNELS[name], kernel)

    def wrong(*arguments: Any) -> Any:
        values = right(*arguments)
        return tuple(1.01 * v for v in values) if isinstance(values, tuple) else 1.01 * values

    monkeypatch.setattr(KERNELS[name], kernel, wrong)
    errors = module._kernel_errors()
    assert [name for name, error in errors.items() if not error < 1e-4] == [name]


def test_every_line_of_a_table_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = {name: (status, detail) for name, status, detail in module._tables()}
    assert lines["fields"] == ("ok", ", ".join(FIELDS))
    assert lines["export formats"] == ("ok", ", ".join(EXPORTS))
    monkeypatch.setitem(EXPORTS, "clay", ExportFormat("clay", "no_such_module:export", "a file"))
    _, status, detail = next(line for line in module._tables() if line[0] == "export formats")
    assert status == "absent"
    assert detail == f"{', '.join(list(EXPORTS)[:-1])}; clay: No module named 'no_such_module'"
    monkeypatch.setitem(FIELDS._lines, "clay", Line("clay", "Clay", "fieldmorph.fields.mlp:Clay"))
    [line] = [line for line in diagnose() if line[0] == "tables"]
    assert line[1:] == ("broken", "AttributeError: module 'fieldmorph.fields.mlp' has no attribute 'Clay'")


def test_a_check_that_fails_is_a_line_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> bool:
        raise OSError("no such device")

    monkeypatch.setattr(KERNELS["march"], "march_numba", lambda *a: fail())
    monkeypatch.setattr(module, "bf16_on_cpu", fail)
    lines = diagnose()
    assert ("kernels", "broken", "OSError: no such device") in lines
    assert ("bf16", "broken", "OSError: no such device") in lines
    assert lines[-1][0] == "ffmpeg"


def test_a_spinning_policy_is_called_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert next(s for name, s, _ in diagnose() if name == "OMP_WAIT_POLICY") == "slow"


def test_accelerators_say_why_not_and_how(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {
        "tinycudann": Accelerator("tinycudann", False, False, "ModuleNotFoundError: no"),
        "tinycudann-mlp": Accelerator("tinycudann-mlp", True, True, "error 1.0e-04, within 5e-03"),
        "nerfacc": Accelerator("nerfacc", True, False, "error 1.0e+00, over 1e-04"),
        "nerfacc-march": Accelerator("nerfacc-march", True, True, "error 1.0e-04, within 5e-03"),
    }
    monkeypatch.setattr(module, "accelerators", lambda: found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A card")
    lines = {name: (status, detail) for name, status, detail in diagnose()}
    assert lines["cuda"] == ("ok", "A card")
    assert lines["tinycudann"][0] == "absent"
    assert TINYCUDANN_COMMAND in lines["tinycudann"][1]
    assert lines["tinycudann-mlp"] == (
        "ok",
        "error 1.0e-04, within 5e-03; optional, for small networks, in half precision on CUDA",
    )
    assert lines["nerfacc"] == (
        "slow",
        "error 1.0e+00, over 1e-04; optional, for compositing on CUDA",
    )
    assert lines["nerfacc-march"] == ("ok", "error 1.0e-04, within 5e-03; optional, for marching on CUDA")
