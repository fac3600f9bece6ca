"""Where to measure next, against all candidates tried one by one with dense matrices."""

from typing import NamedTuple

import pytest
import torch
from gpytorch import kernels as gp
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.data.observations import Observations
from fieldmorph.bayes.experimental_design import Design, _gains, where_next
from fieldmorph.bayes.fitting import FitConfig, fit
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.fields.errors import SettingError

pytestmark = pytest.mark.numerical

CANDIDATES = torch.linspace(-0.3, 1.3, 60, dtype=torch.float64)[:, None]
REFERENCES = torch.linspace(0.2, 0.7, 31, dtype=torch.float64)[:, None]


def observed(coordinates: Tensor, values: Tensor) -> Observations:
    modes = tuple(Mode(f"x{k}") for k in range(coordinates.shape[1]))
    return Observations(coordinates, values, modes, "y", None, 0, 0, "test")


@pytest.fixture(scope="module")
def process() -> Posterior:
    """A Gaussian process of one mode: 12 measurements, a third of them repeated, and more noise than nothing."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(12, 1, generator=generator, dtype=torch.float64)
    x = torch.cat([x, x[:4]])
    y = 20 * (6 * x[:, 0]).sin() + 8 * torch.randn(16, generator=generator, dtype=torch.float64)
    kernel = gp.MaternKernel(nu=1.5).double()
    kernel.lengthscale = 0.1
    return fit(observed(x, y), FitConfig(ranks=(1,), cp=True, learn_every=0), kernels=[kernel])[0]


def covariance_ref(posterior: Posterior, at: Tensor) -> Tensor:
    """Of the function there, from the kernel's matrices."""
    process = posterior.processes[0]
    with torch.no_grad():
        whole = posterior.kernels[0](torch.cat([process.points, at[:, 0]])[:, None]).to_dense()
    n = len(process.points)
    known = whole[:n, :n] + torch.diag(1 / process.lam[:, 0, 0])
    return posterior.scale**2 * (whole[n:, n:] - whole[n:, :n] @ torch.linalg.solve(known, whole[:n, n:]))


class Dense(NamedTuple):
    """The covariance of candidates and references, in this order, and the variance of the noise."""

    covariance: Tensor
    n_candidates: int
    noise: float

    @classmethod
    def of(cls, posterior: Posterior, candidates: Tensor, references: Tensor) -> "Dense":
        covariance = covariance_ref(posterior, torch.cat([candidates, references]))
        return cls(covariance, len(candidates), posterior.scale**2 / posterior.noise.mean)


def variance_ref(dense: Dense, rows: list[int]) -> float:
    """Mean over the references after measurements at these candidates (textbook conditioning, all at once)."""
    whole, n = dense.covariance, dense.n_candidates
    own = whole[rows][:, rows] + dense.noise * torch.eye(len(rows)).double()
    across = whole[n:][:, rows]
    fallen = (across * torch.linalg.solve(own, across.T).T).sum(1)
    return float((whole[n:, n:].diagonal() - fallen).mean())


def greedy_ref(dense: Dense, n: int) -> list[int]:
    rows: list[int] = []
    for _ in range(n):
        others = [row for row in range(dense.n_candidates) if row not in rows]
        rows.append(min(others, key=lambda row: variance_ref(dense, [*rows, row])))
    return rows


@pytest.mark.parametrize("references", [None, REFERENCES], ids=["candidates", "elsewhere"])
def test_picks_are_those_of_trying_all(
    process: Posterior, references: Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With samples whose covariance is the exact one, so many that chance is nothing."""

    def exact(self: Posterior, at: Tensor, n_samples: int, _generator: torch.Generator) -> Tensor:
        values, vectors = torch.linalg.eigh(covariance_ref(self, at))
        root = (vectors * values.clamp(min=0).sqrt()).T * len(at) ** 0.5
        return self.predict(at).mean + root.repeat(n_samples // len(at), 1)

    monkeypatch.setattr(Posterior, "sample", exact)
    dense = Dense.of(process, CANDIDATES, CANDIDATES if references is None else references)
    samples = 6000 // len(dense.covariance) * len(dense.covariance)
    found = where_next(process, CANDIDATES, 6, references=references, n_samples=samples)
    expected = greedy_ref(dense, 6)
    assert found.rows.tolist() == expected
    variances = [variance_ref(dense, expected[:k]) for k in range(7)]
    torch.testing.assert_close(found.variance, torch.tensor(variances).double(), rtol=2e-3, atol=0)
    assert torch.equal(found.coordinates, CANDIDATES[found.rows])


@pytest.mark.parametrize("references", [None, REFERENCES], ids=["candidates", "elsewhere"])
def test_picks_from_samples_are_nearly_as_informative(process: Posterior, references: Tensor | None) -> None:
    dense = Dense.of(process, CANDIDATES, CANDIDATES if references is None else references)
    before = variance_ref(dense, [])
    best = before - variance_ref(dense, greedy_ref(dense, 4))
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        found = where_next(process, CANDIDATES, 4, references=references, generator=generator)
        fallen = before - variance_ref(dense, found.rows.tolist())
        assert fallen > 0.95 * best
        assert float(found.variance[0]) == pytest.approx(before, rel=1e-6)
        assert float(found.variance[0] - found.variance[-1]) == pytest.approx(fallen, rel=0.15)


def test_chance_does_not_outweigh_what_few_places_would_learn(generator: torch.Generator) -> None:
    # 128 samples: A informs about fifty of 5,000 references, B about none, but has a hundred times A's variance.
    samples, references = 128, 5000
    drawn = torch.randn(samples, references, generator=generator, dtype=torch.float64)
    other = torch.randn(samples, 2, generator=generator, dtype=torch.float64)
    drawn[:, :50] = drawn[:, :1]
    a, b = 0.5 * drawn[:, 0] + 0.2 * other[:, 0], 5 * other[:, 1]
    gains = _gains(torch.stack([a, b], dim=1) / samples**0.5, drawn / samples**0.5, noise=1.0)
    assert float(gains[0]) == pytest.approx(50 * 0.25 / 5000 / 1.29, rel=0.4)
    assert abs(float(gains[1])) < 0.25 * float(gains[0])


def test_gaps_in_a_tensor_are_measured_first(generator: torch.Generator) -> None:
    coordinates = torch.rand(300, 2, generator=generator, dtype=torch.float64)
    coordinates = coordinates[(coordinates[:, 0] - 0.5).abs() > 0.2]
    noise = 0.05 * torch.randn(len(coordinates), generator=generator, dtype=torch.float64)
    values = (5 * coordinates[:, 0]).sin() * (4 * coordinates[:, 1]).cos() + noise
    posterior, _ = fit(observed(coordinates, values), FitConfig(ranks=(2,), restarts=1, sweeps=30))
    candidates = torch.rand(200, 2, generator=generator, dtype=torch.float64)
    found = where_next(posterior, candidates, 5, generator=generator)
    assert ((found.coordinates[:, 0] - 0.5).abs() < 0.2).sum() >= 4
    assert len(found.rows.unique()) == 5
    assert (found.variance.diff() < 0).all()
    latent = posterior.predict(candidates).latent_sd
    assert float(found.variance[0]) == pytest.approx(float(latent.square().mean()), rel=1e-9)


def test_a_place_is_picked_once_and_seeds_decide(process: Posterior) -> None:
    found: list[Design] = [
        where_next(process, CANDIDATES[::12], 5, n_samples=16, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert sorted(found[0].rows.tolist()) == list(range(5))
    assert torch.equal(found[0].variance, found[1].variance)
    assert not torch.equal(found[0].variance, found[2].variance)
    # One of these informs about the references, with much noise: it would be measured again before the others are.
    far = torch.tensor([[0.45], [30.0], [40.0]], dtype=torch.float64)
    assert where_next(process, far, 2, references=REFERENCES).rows.tolist()[0] == 0
    assert where_next(process, far, 3, references=REFERENCES).rows.sort().values.tolist() == [0, 1, 2]
    default = where_next(process, CANDIDATES[::12], 5, n_samples=16)
    assert torch.equal(default.variance, found[0].variance)


def test_impossible_designs_are_refused(process: Posterior) -> None:
    for n in (0, 61):
        with pytest.raises(
            SettingError, match=f"n must be between 1 and 60, the number of candidates; got {n}"
        ):
            where_next(process, CANDIDATES, n)
    for settings in ({"n_samples": 1}, {"references": CANDIDATES[:0]}):
        with pytest.raises(SettingError, match="two samples"):
            where_next(process, CANDIDATES, 1, **settings)


def test_work_grows_with_the_candidates_and_no_faster(
    monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    """Products with all pairs of candidates would take 16 times as many operations for 4 times as many of these."""
    coordinates = torch.rand(500, 3, generator=generator, dtype=torch.float64)
    posterior, _ = fit(observed(coordinates, coordinates.prod(1)), FitConfig(restarts=1, sweeps=3))
    candidates = torch.rand(2000, 3, generator=generator, dtype=torch.float64)
    queried: list[int] = []
    for name in ("predict", "sample"):
        truly = getattr(Posterior, name)
        monkeypatch.setattr(
            Posterior, name, lambda self, at, *rest, of=truly: queried.append(len(at)) or of(self, at, *rest)
        )
    n_operations = []
    for n_candidates, n in ((500, 10), (2000, 10), (2000, 20)):
        with FlopCounterMode(display=False) as counted:
            where_next(posterior, candidates[:n_candidates], n, n_samples=64)
        n_operations.append(counted.get_total_flops())
    assert n_operations[0] < n_operations[1] <= 4 * n_operations[0]
    assert n_operations[1] < n_operations[2] <= 2 * n_operations[1]
    assert queried == [500, 500, 2000, 2000, 2000, 2000]  # once each, however many places are chosen
