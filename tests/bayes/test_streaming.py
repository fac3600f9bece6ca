"""Updates: their bound against dense divergences, what they gain over no update and lose to a fit of all rows."""

import math
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpytorch import kernels as gp
from helpers.paths import SHARED_DATA
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Gamma, MultivariateNormal, kl_divergence

from fieldmorph.bayes.conformal import Intervals
from fieldmorph.bayes.core import TuckerCore
from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.data.observations import Observations
from fieldmorph.bayes.fitting import FitConfig, fit
from fieldmorph.bayes.inference import space_of
from fieldmorph.bayes.markov_gp import Process, draw_prior
from fieldmorph.bayes.metrics import scores_of
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.bayes.sparse_gp import fit_sparse
from fieldmorph.bayes.store import describe_posterior, load_posterior, save_posterior
from fieldmorph.bayes.streaming import update
from fieldmorph.fields.errors import InputError, SettingError

pytestmark = pytest.mark.numerical

TENSOR_DATA = SHARED_DATA / "tensor"
cores = pytest.mark.parametrize("cp", [False, True], ids=["tucker", "cp"])
Rows = tuple[Tensor, Tensor]


def observations(rows: Rows) -> Observations:
    modes = tuple(Mode(name) for name in "abcd"[: rows[0].shape[1]])
    return Observations(*rows, modes, "y", None, 0, 0, "test")


def fitted(rows: Rows, **config: Any) -> Posterior:
    usual = {"kernels": ("matern32",), "restarts": 1, "sweeps": 15}
    return fit(observations(rows), FitConfig(**{**usual, **config}))[0]


def waves(n: int, modes: int, seed: int, latest: float = 2.0) -> Rows:
    """Rows at tenths between 0 and 2, the last mode's up to `latest`; values that are no product."""
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.rand(n, modes, generator=generator, dtype=torch.float64)
    x[:, -1] *= latest / 2
    x = (10 * x).round() / 10
    noise = torch.randn(n, generator=generator, dtype=torch.float64)
    return x, 1 + (2 * x.sum(1)).sin() + 0.2 * noise


def tensor(cp: bool, seed: int = 0, rows: int = 4000, sizes: tuple[int, ...] = (15, 15, 60)) -> Rows:
    """Rank 2, values of variance 1 and noise of 0.2; the last mode, from 0 to 10, is time."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.stack([torch.randint(size, (rows,), generator=generator) for size in sizes], dim=1)
    points, at = [], []
    for size, lengthscale, column in zip(sizes, (3.0, 3.0, 1.5), index.unbind(1), strict=True):
        kernel = gp.MaternKernel(nu=1.5).double()
        kernel.lengthscale = lengthscale
        points.append(10 * torch.rand(size, generator=generator, dtype=torch.float64).sort().values)
        at.append(draw_prior(space_of(kernel), points[-1], 2, generator)[column])
    core = torch.randn(2, 2, 2, generator=generator, dtype=torch.float64)
    values = torch.einsum("na,na,na->n" if cp else "abc,na,nb,nc->n", *([] if cp else [core]), *at)
    noise = torch.randn(rows, generator=generator, dtype=torch.float64)
    x = torch.stack([p[i] for p, i in zip(points, index.unbind(1), strict=True)], dim=1)
    return x, values / values.std() + 0.2 * noise


def in_time(rows: Rows, fraction: float, slices: int) -> tuple[Rows, list[Rows]]:
    """The first rows in time, and the others in slices."""
    x, y = rows
    order = x[:, -1].argsort(stable=True)
    first, rest = order.split([round(fraction * len(x)), len(x) - round(fraction * len(x))])
    return (x[first], y[first]), [(x[part], y[part]) for part in rest.tensor_split(slices)]


def streamed(posterior: Posterior, slices: list[Rows]) -> Posterior:
    for rows in slices:
        posterior, report = update(posterior, *rows)
        assert report.converged
    return posterior


def kron(vectors: list[Tensor]) -> Tensor:
    return reduce(torch.kron, [v.contiguous() for v in vectors])


def gram(kernel: gp.Kernel, points: Tensor) -> Tensor:
    with torch.no_grad():
        return kernel(points[:, None]).to_dense()


def dense(kernel: gp.Kernel, process: Process, points: Tensor) -> MultivariateNormal:
    """A mode's functions at points among which are the process's; those of one point stand together."""
    r, at = process.eta.shape[1], torch.searchsorted(points, process.points)
    eta, lam = torch.zeros(len(points), r).double(), torch.zeros(len(points), r, r).double()
    eta[at], lam[at] = process.eta, process.lam
    prior = torch.kron(gram(kernel, points), torch.eye(r).double())
    covariance = torch.linalg.inv(torch.linalg.inv(prior) + torch.block_diag(*lam))
    return MultivariateNormal(covariance @ eta.flatten(), (covariance + covariance.T) / 2)


def bound_ref(before: Posterior, after: Posterior, rows: Rows) -> float:
    """E[log p(y | z, gamma, tau)] of the rows less the divergences of `after` from `before`, all dense."""
    divergence, marginals = 0.0, []
    for kernel, old, new in zip(before.kernels, before.processes, after.processes, strict=True):
        marginals.append(dense(kernel, new, new.points))
        divergence += float(kl_divergence(marginals[-1], dense(kernel, old, new.points)))
    if isinstance(before.core, TuckerCore) and isinstance(after.core, TuckerCore):
        old, new = (MultivariateNormal(c.mean, c.covariance) for c in (before.core, after.core))
        divergence += float(kl_divergence(new, old))
        gamma, gammas = new.mean, new.covariance_matrix + torch.outer(new.mean, new.mean)
    else:
        ones = torch.eye(after.ranks[0]).double()
        gamma = sum((kron([one] * len(after.ranks)) for one in ones), torch.zeros(()).double())
        gammas = torch.outer(gamma, gamma)
    shape, rate = torch.tensor([after.noise.shape, after.noise.rate]).double()
    earlier = torch.tensor([before.noise.shape, before.noise.rate]).double()
    divergence += float(kl_divergence(Gamma(shape, rate), Gamma(*earlier)))
    found = 0.0
    for place, y in zip(rows[0], (rows[1] - before.shift) / before.scale, strict=True):
        means, seconds = [], []
        for q, process, x, r in zip(marginals, after.processes, place, after.ranks, strict=True):
            at = slice(int((process.points == x).nonzero()) * r, int((process.points == x).nonzero()) * r + r)
            means.append(q.mean[at])
            seconds.append(q.covariance_matrix[at, at] + torch.outer(q.mean[at], q.mean[at]))
        loss = y * y - 2 * y * (gamma @ kron(means)) + (gammas * kron(seconds)).sum()
        found += float(torch.digamma(shape) - rate.log() - math.log(2 * math.pi) - shape / rate * loss) / 2
    return found - divergence


@cores
@pytest.mark.parametrize("ranks", [(1,), (2, 2), (2, 1, 3)], ids=str)
def test_the_bound_is_what_dense_matrices_say(ranks: tuple[int, ...], cp: bool) -> None:
    ranks = (ranks[0],) * len(ranks) if cp else ranks
    before = fitted(waves(40, len(ranks), 0), ranks=ranks, cp=cp, sweeps=8)
    rows = waves(25, len(ranks), 1, latest=3.0)
    assert rows[0][:, -1].max() > before.processes[-1].points[-1]
    for sweeps in (1, 3):
        after, report = update(before, *rows, sweeps=sweeps)
        assert report.bounds[-1] == pytest.approx(bound_ref(before, after, rows), rel=1e-6, abs=1e-5)
        assert len(report.bounds) == sweeps


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 20),
    st.booleans(),
    st.sampled_from(["matern12", "matern32", "matern52"]),
    st.sampled_from([None, 4.0]),
    st.integers(0, 999),
)
def test_the_bound_never_falls(
    modes: int, n: int, cp: bool, kernel: str, student: float | None, seed: int
) -> None:
    model = fitted(
        waves(20, modes, seed), ranks=(2,), kernels=(kernel,), cp=cp, sweeps=3, student=student, seed=seed
    )
    for part in range(2):
        model, report = update(model, *waves(n, modes, seed + 1 + part, latest=4.0), sweeps=9, tolerance=0.0)
        for earlier, later in pairwise(report.bounds):
            assert later >= earlier - 1e-8 * (1 + abs(earlier))


@cores
def test_it_is_nearly_as_good_as_a_fit_of_all_rows(cp: bool) -> None:
    """Of 80 % of the rows, the first 60 % in time are fitted and the others come in four slices."""
    x, y = tensor(cp, seed=1)
    test, (first, slices) = (x[3200:], y[3200:]), in_time((x[:3200], y[:3200]), 0.6, 4)
    config = {"ranks": (2,), "cp": cp, "restarts": 2, "sweeps": 100}
    early, whole = fitted(first, **config), fitted((x[:3200], y[:3200]), **config)
    scores = {
        "early": scores_of(early, *test),
        "streamed": scores_of(streamed(early, slices), *test),
        "batch": scores_of(whole, *test),
    }
    rmse = {name: score["rmse"] for name, score in scores.items()}
    assert rmse["streamed"] < 0.5 * rmse["early"]
    assert rmse["streamed"] < 1.05 * rmse["batch"]
    assert scores["streamed"]["nlpd"] < scores["batch"]["nlpd"] + 0.05 < scores["early"]["nlpd"]
    assert scores["streamed"]["cov95"] > 0.9


def test_one_slice_is_as_good_as_several() -> None:
    x, y = tensor(cp=False, seed=2)
    test, (first, slices) = (x[3200:], y[3200:]), in_time((x[:3200], y[:3200]), 0.6, 4)
    early = fitted(first, ranks=(2,), restarts=2, sweeps=100)
    whole = [(torch.cat([a for a, _ in slices]), torch.cat([b for _, b in slices]))]
    several, once = (streamed(early, parts).predict(test[0]) for parts in (slices, whole))
    assert (several.mean - once.mean).square().mean().sqrt() < 0.05  # a quarter of the noise
    errors = [float((found.mean - test[1]).square().mean()) for found in (several, once)]
    assert errors[0] == pytest.approx(errors[1], rel=0.1)


def test_one_mode_is_gaussian_process_regression_on_all_rows() -> None:
    """Each row with the noise that was believed in when it came; the first rows are not shown again."""
    first, later = waves(30, 1, 0), waves(30, 1, 1, latest=4.0)
    before = fitted(first, ranks=(1,), cp=True)
    after, _ = update(before, *later)
    process, points = after.processes[0], after.processes[0].points
    precision = process.lam[:, 0, 0].clone()
    old = torch.searchsorted(points, before.processes[0].points)
    precision[old] -= before.processes[0].lam[:, 0, 0]
    counts = torch.zeros_like(points).index_add_(
        0, torch.searchsorted(points, later[0][:, 0].contiguous()), torch.ones(30).double()
    )
    torch.testing.assert_close(precision, counts * precision.max() / counts.max())
    x, y = (torch.cat([a, b]) for a, b in zip(first, later, strict=True))
    variance = torch.full((60,), float(counts.max() / precision.max())).double()
    earlier = before.processes[0].lam[:, 0, 0]
    at, rows = first[0][:, 0].unique(return_counts=True)
    assert torch.equal(at, before.processes[0].points)
    variance[:30] = float(rows[0] / earlier[0])
    query = torch.linspace(-1, 5, 13).double()
    with torch.no_grad():
        known, cross = after.kernels[0](x).to_dense(), after.kernels[0](query[:, None], x).to_dense()
    expected = cross @ torch.linalg.solve(known + variance.diag(), (y - before.shift) / before.scale)
    torch.testing.assert_close(
        after.predict(query[:, None]).mean, before.shift + before.scale * expected, rtol=1e-6, atol=1e-6
    )


def test_neither_order_nor_repetition_nor_rows_without_weight_matter() -> None:
    before = fitted(waves(80, 2, 0), ranks=(2,))
    x, y = waves(30, 2, 1, latest=3.0)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    weights = 1.0 + (torch.arange(31) < 10).double()
    weights[-1] = 0
    with_one = (
        torch.cat([x, torch.tensor([[50.0, 50.0]]).double()]),
        torch.cat([y, torch.tensor([1e9]).double()]),
    )
    twice = torch.cat([x, x[:10]]), torch.cat([y, y[:10]])
    query = waves(40, 2, 2, latest=4.0)[0]
    plain, mixed, weighted, repeated = (
        update(before, *rows, weights=w)[0].predict(query)
        for rows, w in (((x, y), None), ((x[order], y[order]), None), (with_one, weights), (twice, None))
    )
    for one, other in ((plain, mixed), (weighted, repeated)):
        torch.testing.assert_close(one.mean, other.mean, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(one.sd, other.sd, rtol=1e-7, atol=1e-7)
    assert (plain.mean - repeated.mean).abs().max() > 1e-3


def test_the_model_before_stays_and_its_settings_continue() -> None:
    before = fitted(waves(60, 2, 0), ranks=(2,), student=5.0)
    before = replace(before, intervals=Intervals((0.5, 0.95), (0.7, 2.1), 0.97))
    _, arrays = describe_posterior(before)
    copies = {name: array.clone() for name, array in arrays.items()}
    noise = before.noise
    after, report = update(before, *waves(20, 2, 1, latest=3.0))
    assert all(torch.equal(array, copies[name]) for name, array in describe_posterior(before)[1].items())
    assert before.noise == noise
    assert "updates" not in before.provenance
    assert (after.shift, after.scale, after.intervals) == (before.shift, before.scale, before.intervals)
    assert (after.kernels, after.modes) == (before.kernels, before.modes)
    assert after.noise.degrees == 5
    assert after.noise.shape == pytest.approx(noise.shape + 10)
    assert after.provenance["rows"] == 80
    assert after.provenance["updates"] == [
        {"rows": 20, "sweeps": len(report.bounds), "converged": report.converged}
    ]


@cores
def test_it_continues_from_a_file(tmp_path: Path, cp: bool) -> None:
    parts = [waves(30, 2, seed, latest=1.0 + seed) for seed in range(3)]
    before = fitted(parts[0], ranks=(2,), cp=cp)
    once, _ = update(before, *parts[1])
    save_posterior(tmp_path / "once.fm", once)
    loaded = load_posterior(tmp_path / "once.fm")
    query = waves(40, 2, 5, latest=4.0)[0]
    torch.testing.assert_close(loaded.predict(query).sd, once.predict(query).sd, rtol=1e-9, atol=1e-9)
    (there, reported), (here, expected) = (update(model, *parts[2]) for model in (loaded, once))
    assert reported.bounds == pytest.approx(expected.bounds, rel=1e-6)
    torch.testing.assert_close(there.predict(query).mean, here.predict(query).mean, rtol=1e-7, atol=1e-7)
    save_posterior(tmp_path / "twice.fm", there)
    assert [reported["rows"] for reported in load_posterior(tmp_path / "twice.fm").provenance["updates"]] == [
        30,
        30,
    ]


def test_what_is_kept_grows_with_coordinates_not_with_rows() -> None:
    model = fitted(waves(50, 3, 0), ranks=(2,))
    model, _ = update(model, *waves(400, 3, 1), sweeps=2)
    sizes = {name: array.numel() for name, array in describe_posterior(model)[1].items()}
    assert [len(process.points) for process in model.processes] == [21, 21, 21]
    for seed in (2, 3):
        model, _ = update(model, *waves(2000, 3, seed), sweeps=2)
    assert {name: array.numel() for name, array in describe_posterior(model)[1].items()} == sizes


def test_outliers_affect_a_student_t_model_little() -> None:
    rows, (x, y) = waves(400, 2, 0), waves(200, 2, 1)
    wild = y.clone()
    wild[::20] += 30
    spread, away = {}, {}
    for student in (None, 4.0):
        model = fitted(rows, ranks=(3,), student=student)
        found = [update(model, x, values)[0].predict(x) for values in (y, wild)]
        spread[student] = float(found[1].sd.mean() / found[0].sd.mean())
        away[student] = float((found[0].mean - found[1].mean).abs().max())
    assert spread[4.0] < 1.3 < 3 < spread[None]
    assert away[4.0] < 0.05


def test_a_residual_process_stays_and_functions_learn_what_it_leaves() -> None:
    (x, y), (later, values) = waves(60, 2, 0), waves(30, 2, 1, latest=3.0)
    residual = fit_sparse(x, y, columns=[0], n_inducing=9)
    bare = fitted((x, y - residual.at(x)[0]), ranks=(2,))
    after, _ = update(replace(bare, residual=residual), later, values)
    plain, _ = update(bare, later, values - residual.at(later)[0])
    assert after.residual is residual
    query = waves(40, 2, 2, latest=4.0)[0]
    expected = plain.predict(query).mean + residual.at(query)[0]
    torch.testing.assert_close(after.predict(query).mean, expected, rtol=1e-9, atol=1e-9)


def test_what_is_known_is_not_changed_by_what_is_not() -> None:
    """A smooth function goes astray beyond its data; new times give way to what is known of the rest from the first."""
    generator = torch.Generator().manual_seed(0)
    x = 6 * torch.rand(600, 2, generator=generator, dtype=torch.float64)
    x[300:, 1] += 6
    y = (1.5 + x[:, 0].sin()) * x[:, 1].sin() + 0.1 * torch.randn(600, generator=generator).double()
    model = fitted((x[:300], y[:300]), ranks=(2,), kernels=("matern52",), centre=False)
    after, report = update(model, x[300:], y[300:])
    assert report.bounds[-1] - report.bounds[0] < 30  # a tenth of a nat for each row
    assert (after.predict(x).mean - y).square().mean().sqrt() < 0.12


def test_two_modes_may_be_new_at_once() -> None:
    """Where nothing is known of two functions of a product, both being 0 is a saddle of the bound."""
    generator = torch.Generator().manual_seed(0)
    x = 3 * torch.rand(900, 2, generator=generator, dtype=torch.float64)
    x[300:] += 1000
    y = x[:, 0].sin() * x[:, 1].cos() + 0.1 * torch.randn(900, generator=generator, dtype=torch.float64)
    model = fitted((x[:300], y[:300]), ranks=(2,), centre=False)
    after, _ = update(model, x[300:600], y[300:600])
    assert (after.predict(x[600:]).mean - y[600:]).square().mean().sqrt() < 0.15
    assert (after.predict(x[:300]).mean - y[:300]).square().mean().sqrt() < 0.15


@pytest.mark.parametrize(
    ("rows", "weights", "reported"),
    [
        (
            ([[1.0, 2.0, 3.0]], [1.0]),
            None,
            "expected a coordinate for each of the modes a, b; got 3 in each row",
        ),
        (([[1.0, 2.0], [1.0, math.nan]], [1.0, 2.0]), None, "b, row 2: expected a number, got nan"),
        (([[math.inf, 2.0]], [1.0]), None, "a, row 1: expected a number, got inf"),
        (([[1.0, 2.0]], [math.nan]), None, "y, row 1: expected a number, got nan"),
        (([[1.0, 2.0]], [1.0]), [math.inf], "weight, row 1: expected a number, got inf"),
        (([[1.0, 2.0]], [1.0]), [0.0], "an update needs rows"),
    ],
)
def test_rows_that_cannot_be_learned_are_refused(
    rows: tuple[list, list], weights: list | None, reported: str
) -> None:
    model = fitted(waves(20, 2, 0), ranks=(1,), sweeps=2)
    x, y = (torch.tensor(part, dtype=torch.float64) for part in rows)
    with pytest.raises(InputError, match=reported):
        update(model, x, y, weights=None if weights is None else torch.tensor(weights, dtype=torch.float64))


def test_no_rows_and_no_sweeps_are_refused() -> None:
    model = fitted(waves(20, 2, 0), ranks=(1,), sweeps=2)
    with pytest.raises(InputError, match="an update needs rows"):
        update(model, torch.zeros(0, 2).double(), torch.zeros(0).double())
    with pytest.raises(SettingError, match="sweeps must be a whole number of at least 1; got 0"):
        update(model, *waves(5, 2, 1), sweeps=0)


@pytest.mark.skipif(not TENSOR_DATA.is_dir(), reason="needs the folder shared/data/tensor")
@pytest.mark.slow
def test_beijings_air_can_be_streamed() -> None:
    with np.load(TENSOR_DATA / "beijing_PM2.5.npz") as data:
        x, y = (torch.from_numpy(data[name]).double() for name in ("coords", "y"))
        train, held = (torch.from_numpy(data[name][0]).long() for name in ("train", "test"))
    first, slices = in_time((x[train], y[train]), 0.6, 4)
    early = fitted(first, ranks=(3,), kernels=("matern12",), sweeps=40)
    whole = fitted((x[train], y[train]), ranks=(3,), kernels=("matern12",), sweeps=40)
    rmse = [scores_of(model, x[held], y[held])["rmse"] for model in (early, streamed(early, slices), whole)]
    assert rmse[1] < 0.5 * rmse[0]
    assert rmse[1] < 1.05 * rmse[2]
