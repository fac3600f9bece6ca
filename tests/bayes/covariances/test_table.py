"""The table of covariances: whatever has a line there can be fitted, saved, named and chosen."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gpytorch.kernels import Kernel, MaternKernel

from fieldmorph.apps.cli.main import main
from fieldmorph.apps.tensor.labels import kernel_words
from fieldmorph.bayes.covariances import table
from fieldmorph.bayes.covariances.matern import matern
from fieldmorph.bayes.covariances.table import COVARIANCES, Covariance, choice, choices
from fieldmorph.bayes.data.observations import Mode, Observations
from fieldmorph.bayes.fitting import FitConfig, fit
from fieldmorph.bayes.residual_gp import ResidualConfig
from fieldmorph.bayes.state_space import StateSpace, approximation_error, from_gpytorch
from fieldmorph.bayes.store import build_kernel, describe_kernel, load_posterior, save_posterior
from fieldmorph.fields.errors import SettingError


class Rough(MaternKernel):
    """Stands for a kernel that somebody adds: a Matern-1/2 that goes by another name."""

    def __init__(self, **settings):
        super().__init__(nu=0.5, **settings)


def rough_space(kernel: Kernel) -> StateSpace:
    return matern(kernel)


@pytest.fixture
def rough(monkeypatch: pytest.MonkeyPatch) -> str:
    """One more line in the table."""
    line = Covariance(
        "Rough",
        f"{__name__}:Rough",
        f"{__name__}:rough_space",
        numbers=("lengthscale",),
        smoothness="very rough",
    )
    monkeypatch.setitem(COVARIANCES, "mine", line)
    return "mine"


def make(name: str) -> Kernel:
    """A kernel of each line, with parts where it needs some."""
    parts = {"scaled": ["matern32"], "sum": ["matern12", "constant"], "product": ["matern52", "cosine"]}
    return COVARIANCES[name].make(*(make(part) for part in parts.get(name, [])))


@pytest.mark.parametrize("name", COVARIANCES)
def test_every_line_has_a_state_space_words_and_a_description(name: str) -> None:
    kernel = make(name)
    assert table.of_kernel(kernel) is COVARIANCES[name]
    described = describe_kernel(kernel)
    assert table.of_description(described) is COVARIANCES[name]
    assert describe_kernel(build_kernel(described)) == described
    assert approximation_error(kernel, 1.0) < 5e-3
    assert kernel_words(described, "number", None)


@pytest.mark.parametrize("name", choices())
def test_choices_have_a_lengthscale_for_each_of_several_columns(name: str) -> None:
    assert choice(name).make(ard_num_dims=2).lengthscale.shape == (1, 2)
    assert kernel_words(describe_kernel(make(name)), "number", None).startswith(COVARIANCES[name].title)


def test_the_titles_of_matern_kernels_distinguish_them() -> None:
    assert [choice(name).title for name in choices()] == ["Matern-1/2", "Matern-3/2", "Matern-5/2"]


def test_other_names_are_refused_and_the_known_ones_listed() -> None:
    with pytest.raises(SettingError, match=r"^unknown kernel 'rbf'; known: matern12, matern32, matern52$"):
        choice("rbf")


def test_the_commands_help_names_every_choice(rough: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["tensor", "fit", "--help"])
    reported = " ".join(capsys.readouterr().out.split())
    for name, entry in choices().items():
        assert f"{name} ({entry.smoothness})" in reported
    assert "mine (very rough)" in reported


def test_a_line_is_all_that_a_new_kernel_takes(rough: str, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    at = torch.rand(40, 2, generator=generator, dtype=torch.float64)
    values = (4 * at[:, 0]).sin() * at[:, 1] + 0.1 * torch.randn(40, generator=generator, dtype=torch.float64)
    rows = Observations(at, values, (Mode("a"), Mode("b")), "v", None, 0, 0, "here")
    settings = {"ranks": (2,), "restarts": 1, "sweeps": 4}
    mine, known = (fit(rows, FitConfig(kernels=(name,), **settings))[0] for name in (rough, "matern12"))
    assert torch.equal(mine.predict(at).mean, known.predict(at).mean)
    save_posterior(tmp_path / "model.fm", mine)
    loaded = load_posterior(tmp_path / "model.fm")
    assert torch.equal(loaded.predict(at).sd, mine.predict(at).sd)
    assert [type(kernel).__name__ for kernel in loaded.kernels] == ["Rough", "Rough"]
    assert kernel_words(describe_kernel(loaded.kernels[0]), "number", None).startswith("Rough, lengthscale")
    assert ResidualConfig(("a",), kernel=rough).kernel == rough


def test_a_class_without_a_line_is_refused_where_it_is_used() -> None:
    for use in (from_gpytorch, describe_kernel):
        with pytest.raises(SettingError, match="Rough"):
            use(Rough().double())


def test_the_table_is_light() -> None:
    heavy = "{'torch', 'numpy', 'gpytorch'}"
    code = f"import sys, fieldmorph.bayes.covariances.table; assert not {heavy} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
