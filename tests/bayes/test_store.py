"""A model in a file is the same model: kernels, predictions, and where they came from."""

from pathlib import Path

import pytest
import torch
from gpytorch import kernels as gp

from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.data.observations import Observations
from fieldmorph.bayes.fitting import FitConfig, fit
from fieldmorph.bayes.store import build_kernel, describe_kernel, load_posterior, save_posterior
from fieldmorph.fields.checkpoint import write_checkpoint
from fieldmorph.fields.errors import InputError, SettingError

pytestmark = pytest.mark.numerical

KERNELS = {
    "matern": lambda: gp.MaternKernel(nu=1.5),
    "scaled": lambda: gp.ScaleKernel(gp.MaternKernel(nu=2.5)),
    "sum": lambda: gp.ConstantKernel() + gp.MaternKernel(nu=0.5),
    "product": lambda: gp.PeriodicKernel() * gp.RBFKernel(),
    "cosine": lambda: gp.CosineKernel(),
}


def observations(n: int, generator: torch.Generator) -> Observations:
    coordinates = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    values = (5 * coordinates[:, 0]).sin() * coordinates[:, 1] + 4
    modes = (Mode("x", unit="m"), Mode("day", "time", "s"))
    return Observations(coordinates, values, modes, "height", "mm", 0, 0, "test")


def moved(kernel: gp.Kernel) -> gp.Kernel:
    """With hyperparameters that float32 does not hold."""
    kernel = kernel.double()
    for parameter in kernel.parameters():
        parameter.data += 0.123456789123
    return kernel


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_come_back_to_the_last_digits(name: str) -> None:
    kernel = moved(KERNELS[name]())
    rebuilt = build_kernel(describe_kernel(kernel))
    x = torch.linspace(-2, 3, 7, dtype=torch.float64)[:, None]
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(x).to_dense(), kernel(x).to_dense(), rtol=1e-13, atol=1e-13)


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(SettingError, match="unknown kernel 'LinearKernel'"):
        build_kernel({"kernel": "LinearKernel"})


@pytest.mark.parametrize("cp", [False, True])
def test_a_model_comes_back(tmp_path: Path, generator: torch.Generator, cp: bool) -> None:
    """Kernels of the caller's, more beginnings than one: what is saved is what the best of them learned."""
    given = [moved(gp.MaternKernel(nu=1.5)), moved(gp.ConstantKernel() + gp.MaternKernel(nu=0.5))]
    before = [describe_kernel(kernel) for kernel in given]
    config = FitConfig(ranks=(2,), cp=cp, restarts=3, warm_sweeps=7, sweeps=7)
    posterior, _ = fit(observations(50, generator), config, kernels=given)
    assert [describe_kernel(kernel) for kernel in given] == before
    assert [describe_kernel(kernel) for kernel in posterior.kernels] != before
    sha256 = save_posterior(tmp_path / "model.safetensors", posterior)
    loaded = load_posterior(tmp_path / "model.safetensors")
    query = 3 * torch.rand(20, 2, generator=generator, dtype=torch.float64) - 1
    for name in ("mean", "latent_sd", "sd"):
        got, expected = (getattr(p.predict(query), name) for p in (loaded, posterior))
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert (loaded.modes, loaded.value_name, loaded.value_unit) == (posterior.modes, "height", "mm")
    assert loaded.ranks == posterior.ranks == (2, 2)
    assert save_posterior(tmp_path / "again.safetensors", posterior) == sha256


@pytest.mark.parametrize("missing", ["points.0", "lam.1", "core.mean"])
def test_a_file_without_something_is_refused(
    tmp_path: Path, generator: torch.Generator, missing: str
) -> None:
    from fieldmorph.bayes.store import describe_posterior

    posterior, _ = fit(observations(20, generator), FitConfig(restarts=1, sweeps=1))
    header, arrays = describe_posterior(posterior)
    del arrays[missing]
    write_checkpoint(tmp_path / "bad.safetensors", header, arrays, kind="posterior")
    with pytest.raises(InputError, match=r"bad\.safetensors does not hold a model"):
        load_posterior(tmp_path / "bad.safetensors")
