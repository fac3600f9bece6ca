"""The optimizers of a field's parameters, stepped as one.

Grids, biases and small networks learn by Adam as Instant-NGP sets it, the hidden matrices of a large perceptron by Muon
(Jordan et al. 2024): its orthogonalised momentum moves all directions of a matrix alike, as suits coordinate networks.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.runtime import network_dtype
from fieldmorph.fields.types import ParameterGroup, StateDict

# Quintic Newton-Schulz iteration, coefficients and number of steps of Jordan et al. 2024.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


class FieldOptimizer:
    """Adam and, for the parameters that the field names, Muon (Jordan et al. 2024).

    Args:
        field: its `param_groups` name parameters, learning rates and `optimizer`: `adam` (default) or `muon`.
        lr_grid, lr_network: replace the field's own learning rates.
    """

    def __init__(self, field: VolumeField, lr_grid: float | None = None, lr_network: float | None = None):
        rates = {"lr_grid": lr_grid, "lr_network": lr_network}
        groups = field.param_groups(**{k: v for k, v in rates.items() if v is not None})
        adam = [g for g in groups if g.get("optimizer", "adam") == "adam"]
        muon = [g for g in groups if g.get("optimizer", "adam") == "muon"]
        # Fused: ten times faster than the loop over a large table.
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.Adam(_plain(adam), betas=(0.9, 0.99), eps=1e-15, fused=True)
        ]
        if muon:
            self.parts.append(Muon(_plain(muon)))
        for group in self._groups():
            group["initial_lr"] = group["lr"]

    def step(self, loss: Tensor, lr_factor: float) -> None:
        """Descend along the loss's gradient at a fraction of the initial learning rates.

        Args:
            loss: a scalar with gradients.
            lr_factor: factor of all learning rates at this step.
        """
        for part in self.parts:
            part.zero_grad(set_to_none=True)
        loss.backward()
        for group in self._groups():
            group["lr"] = group["initial_lr"] * lr_factor
        for part in self.parts:
            part.step()

    def state(self) -> list[StateDict]:
        """Return what `load_state` takes."""
        return [part.state_dict() for part in self.parts]

    def load_state(self, state: list[StateDict]) -> None:
        """Continue from a saved state."""
        for part, saved in zip(self.parts, state, strict=True):
            part.load_state_dict(saved)

    def _groups(self) -> list[ParameterGroup]:
        return [group for part in self.parts for group in part.param_groups]


class Muon(torch.optim.Optimizer):
    """Momentum (Nesterov's), orthogonalised, for matrices.

    torch's own Muon always works in bf16, which costs twenty times as much on a CPU without it; this one takes the
    precision of the networks.

    Args:
        params: groups of matrices with their learning rates.
        momentum: fraction of the past that is kept.
    """

    def __init__(self, params: list[ParameterGroup], momentum: float = 0.95):
        super().__init__(params, {"lr": 1e-2, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step for every matrix that has a gradient."""
        for group in self.param_groups:
            # Matrices of one shape are orthogonalised as one stack: small ones take half the time.
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for shape, matrices in by_shape.items():
                updates = orthogonalize(torch.stack([self._momentum(p, group) for p in matrices]))
                # A tall matrix spreads its unit singular values over more rows.
                factor = -group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for p, update in zip(matrices, updates, strict=True):
                    p.add_(update, alpha=factor)

    def _momentum(self, p: Tensor, group: ParameterGroup) -> Tensor:
        """Return Nesterov's momentum of a matrix after its new gradient."""
        assert p.grad is not None
        if not self.state[p]:
            self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        mean: Tensor = self.state[p]["momentum_buffer"]
        mean.lerp_(p.grad, 1 - group["momentum"])
        return p.grad.lerp(mean, group["momentum"])


def orthogonalize(matrices: Float[Tensor, "*stack rows columns"]) -> Float[Tensor, "*stack rows columns"]:
    """Return about U V' of each singular value decomposition U S V', its singular values between 0.7 and 1.2."""
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    dtype = network_dtype(matrices)
    for _ in range(NEWTON_SCHULZ_STEPS):
        factor = x.to(dtype)  # products alone may be less precise; the sum of the steps is not
        gram = factor @ factor.mT
        x = a * x + (b * gram + c * gram @ gram) @ factor
    result: Tensor = x.mT if tall else x
    return result


def _plain(groups: list[ParameterGroup]) -> list[ParameterGroup]:
    return [{"params": g["params"], "lr": g["lr"]} for g in groups]
