"""Every parameter goes to the optimiser that its field names, and steps are the textbook's."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fieldmorph.fields import runtime
from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.checkpoint import pack_state, unpack_state
from fieldmorph.fields.optimizer import FieldOptimizer, Muon
from fieldmorph.fields.registry import FIELDS, make_field

pytestmark = pytest.mark.numerical

BOX = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)
SMALL: dict[str, dict[str, Any]] = {
    "hashgrid": {"n_levels": 2, "log2_hashmap_size": 6, "finest_resolution": 32},
    "mlp": {"width": 16, "depth": 2, "n_frequencies": 2},
}


class Pair(VolumeField):
    """A 3 x 5 matrix, learned by Muon where requested, and a number."""

    config = geometry = reset_parameters = None  # type: ignore[assignment]

    def __init__(self, matrix_optimizer: str) -> None:
        super().__init__(BOX)
        self.matrix_optimizer = matrix_optimizer
        self.matrix = nn.Parameter(torch.randn(3, 5, generator=torch.Generator().manual_seed(1)))
        self.number = nn.Parameter(torch.tensor(2.0))

    def param_groups(self, lr_grid: float = 0.1, lr_network: float = 0.01) -> list[dict[str, Any]]:
        return [
            {"params": [self.number], "lr": lr_network},
            {"params": [self.matrix], "lr": lr_grid, "optimizer": self.matrix_optimizer},
        ]


Pair.__abstractmethods__ = frozenset()


def muon_ref(gradient: Tensor, momentum: Tensor) -> tuple[Tensor, Tensor]:
    """Update and momentum of one step (Jordan et al. 2024): five quintic Newton-Schulz steps, in double."""
    momentum = momentum + 0.05 * (gradient - momentum)
    x = (gradient + 0.95 * (momentum - gradient)).double()  # Nesterov's look ahead
    u, s, v = torch.linalg.svd(x / x.norm(), full_matrices=False)
    for _ in range(5):  # on the singular values alone
        s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
    return (u * s) @ v, momentum


def loss_of(field: Pair) -> Tensor:
    target = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    return (field.matrix - target).square().sum() + field.number.square()


def learn(field: VolumeField, optimizer: FieldOptimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        positions = 2 * torch.rand(64, 3, generator=generator) - 1
        rgb, sigma = field(positions, torch.nn.functional.normalize(positions, dim=-1))
        optimizer.step((rgb - 0.3).square().mean() + (sigma - 2).square().mean(), 0.9**step)


def test_muon_gets_exactly_the_hidden_matrices_of_a_perceptron() -> None:
    field = make_field("mlp", aabb=BOX, width=16, depth=3)
    adam, muon = FieldOptimizer(field).parts
    in_muon = {id(p) for group in muon.param_groups for p in group["params"]}
    names = {name for name, p in field.named_parameters() if id(p) in in_muon}
    assert names == {f"trunk.layers.{i}.weight" for i in range(3)}
    in_adam = {id(p) for group in adam.param_groups for p in group["params"]}
    assert in_adam | in_muon == {id(p) for p in field.parameters()}
    assert not in_adam & in_muon


def test_matrices_of_one_shape_step_together_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "bf16_on_cpu", lambda: False)
    generator = torch.Generator().manual_seed(5)
    shapes = [(3, 5), (5, 3), (3, 5), (4, 4), (5, 3), (3, 5)]
    matrices = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    still = nn.Parameter(torch.ones(3, 5))  # has no gradient
    before = [p.detach().clone() for p in matrices]
    momenta = [torch.zeros(shape) for shape in shapes]
    muon = Muon([{"params": [*matrices, still], "lr": 0.1}])
    for _ in range(2):
        for p in matrices:
            p.grad = torch.randn(p.shape, generator=generator)
        muon.step()
        for i, p in enumerate(matrices):
            assert p.grad is not None
            update, momenta[i] = muon_ref(p.grad, momenta[i])
            before[i] = before[i] - 0.1 * max(1.0, p.shape[0] / p.shape[1]) ** 0.5 * update.float()
            torch.testing.assert_close(p.detach(), before[i], rtol=1e-4, atol=1e-4)
    assert torch.equal(still.detach(), torch.ones(3, 5))


def test_a_field_that_requests_none_gets_no_muon() -> None:
    optimizer = FieldOptimizer(make_field("hashgrid", aabb=BOX, **SMALL["hashgrid"]))
    assert [type(part) for part in optimizer.parts] == [torch.optim.Adam]


def test_adam_s_first_steps_are_those_of_the_paper() -> None:
    field = Pair("adam")
    optimizer = FieldOptimizer(field)
    # Kingma & Ba (2015), algorithm 1: the first step is lr times the gradient's sign, whatever its size.
    before, sign = field.matrix.detach().clone(), torch.autograd.grad(loss_of(field), field.matrix)[0].sign()
    optimizer.step(loss_of(field), 1.0)
    assert field.number.item() == pytest.approx(2 - 0.01)
    torch.testing.assert_close(field.matrix.detach(), before - 0.1 * sign)
    # Gradients 4 and a tenth of 3.98, betas 0.9 and 0.99: both moments are unbiased.
    m, v = (0.9 * 0.4 + 0.1 * 0.398) / 0.19, (0.99 * 0.16 + 0.01 * 0.398**2) / (1 - 0.99**2)
    optimizer.step(0.1 * loss_of(field), 0.5)
    assert field.number.item() == pytest.approx(1.99 - 0.5 * 0.01 * m / v**0.5, abs=1e-6)


@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-4), (True, 0.15)])
def test_muon_s_steps_are_orthogonalised_momentum(
    monkeypatch: pytest.MonkeyPatch, bf16: bool, tolerance: float
) -> None:
    monkeypatch.setattr(runtime, "bf16_on_cpu", lambda: bf16)  # a machine without pays no bf16
    field = Pair("muon")
    optimizer, momentum = FieldOptimizer(field), torch.zeros(3, 5)
    for fraction in (1.0, 0.25):
        before = field.matrix.detach().clone()
        (gradient,) = torch.autograd.grad(loss_of(field), field.matrix)
        update, momentum = muon_ref(gradient, momentum)
        optimizer.step(loss_of(field), fraction)
        # scaled by sqrt(max(1, rows / columns)), here 1
        moved = (before - field.matrix.detach()) / (0.1 * fraction)
        torch.testing.assert_close(moved, update.float(), rtol=0, atol=tolerance)
        spectrum = torch.linalg.svdvals(moved)
        assert 0.6 < spectrum.min() <= spectrum.max() < 1.3  # all directions move alike


@pytest.mark.parametrize("kind", ["adam", "muon"])
def test_nothing_decays_without_a_gradient(kind: str) -> None:
    field = Pair(kind)
    optimizer, before = FieldOptimizer(field), field.matrix.detach().clone()
    optimizer.step(field.number.square() + 0 * field.matrix.sum(), 1.0)
    assert torch.equal(field.matrix, before)
    optimizer.step(field.number.square(), 1.0)  # and none is left from the step before
    assert field.matrix.grad is None


def test_learning_rates_replace_the_field_s_own_and_shares_never_add_up() -> None:
    field = Pair("muon")
    optimizer = FieldOptimizer(field, lr_network=0.5)
    adam, muon = (part.param_groups[0] for part in optimizer.parts)
    assert (adam["lr"], muon["lr"]) == (0.5, 0.1)
    for fraction in (0.5, 0.5, 1.0):
        optimizer.step(loss_of(field), fraction)
        assert (adam["lr"], muon["lr"]) == (0.5 * fraction, 0.1 * fraction)
    assert FieldOptimizer(Pair("muon"), lr_grid=0.7).parts[1].param_groups[0]["lr"] == 0.7
    assert FieldOptimizer(Pair("muon"), lr_grid=0.7).parts[0].param_groups[0]["lr"] == 0.01


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_a_saved_state_continues_exactly(name: str) -> None:
    whole = make_field(name, aabb=BOX, **SMALL.get(name, {}))
    optimizer = FieldOptimizer(whole)
    learn(whole, optimizer, range(3))
    saved = copy.deepcopy(whole.state_dict())
    tree, arrays = pack_state(optimizer.state())
    arrays = {key: array.clone() for key, array in arrays.items()}
    learn(whole, optimizer, range(3, 6))

    resumed = make_field(name, aabb=BOX, seed=9, **SMALL.get(name, {}))
    resumed.load_state_dict(saved)
    again = FieldOptimizer(resumed)
    again.load_state(unpack_state(tree, arrays))
    learn(resumed, again, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    fresh = make_field(name, aabb=BOX, seed=9, **SMALL.get(name, {}))
    fresh.load_state_dict(saved)
    learn(fresh, FieldOptimizer(fresh), range(3, 6))  # forgetting the state would show
    assert any(not torch.equal(a, b) for a, b in zip(whole.parameters(), fresh.parameters(), strict=True))


def test_a_state_of_another_shape_is_not_taken() -> None:
    with pytest.raises(ValueError, match="different number of parameter groups"):
        FieldOptimizer(Pair("adam")).load_state(FieldOptimizer(Pair("muon")).state())
