"""What a file says of a tensor model, without building it."""

import math
import subprocess
import sys

import pytest
from helpers.paths import TESTS

from fieldmorph.bayes.model_header import describe_model
from fieldmorph.bayes.store import load_posterior
from fieldmorph.fields.checkpoint import KINDS, describe_contents, read_checkpoint

FILES = TESTS / "data" / "v0_1"


@pytest.mark.parametrize("name", ["plain", "student", "residual"])
def test_a_model_is_described_as_it_is(name: str) -> None:
    path = FILES / f"tensor_{name}.fm"
    posterior, described = load_posterior(path), describe_model(*read_checkpoint(path, kind="posterior"))
    assert described["noise_sd"] == pytest.approx(posterior.scale * math.sqrt(posterior.noise.variance))
    assert [mode["rank"] for mode in described["modes"]] == list(posterior.ranks)
    assert [mode["points"] for mode in described["modes"]] == [len(p.points) for p in posterior.processes]
    assert (described["residual"] is None) == (posterior.residual is None)


def test_a_header_that_is_none_is_a_lookup_error() -> None:
    with pytest.raises(LookupError):
        describe_contents("posterior", {}, {})


def test_describing_a_model_takes_no_gpytorch() -> None:
    code = (
        "import sys; from fieldmorph.apps.jobs.info import describe_file, info_table; "
        f"info_table(describe_file({str(FILES / 'tensor_plain.fm')!r})); assert 'gpytorch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_checkpoint_is_described_by_its_owner(kind: str) -> None:
    header = {
        "noise": {"shape": 1.0, "rate": 1.0},
        "core": {"kind": "cp", "ranks": []},
        "modes": [],
        "kernels": [],
        "provenance": {},
        "value": {},
        "scale": 1.0,
        "settings": {},
    }
    assert set(describe_contents(kind, header, {})) <= {
        *("field", "config", "aabb", "params", "render_step_size", "image_size", "cameras", "provenance"),
        *("settings", "value", "rows", "core", "noise_sd", "modes", "residual"),
    }
