"""State spaces of scaled kernels, sums and products (Särkkä & Solin 2019, chapter 12)."""

import torch
from gpytorch.kernels import AdditiveKernel, ProductKernel, ScaleKernel
from torch import Tensor

from fieldmorph.bayes.state_space import StateSpace, block_diagonal, from_gpytorch, positive


def scaled(kernel: ScaleKernel) -> StateSpace:
    """Return the base kernel's state space with a larger stationary covariance."""
    base = from_gpytorch(kernel.base_kernel)
    return StateSpace(
        base.feedback, base.emission, positive(kernel.outputscale) * base.stationary, base.transition
    )


def added(kernel: AdditiveKernel) -> StateSpace:
    """Return the parts' states side by side; h is theirs one after the other."""
    parts = [from_gpytorch(part) for part in kernel.kernels]
    return StateSpace(
        torch.block_diag(*[p.feedback for p in parts]),
        torch.cat([p.emission for p in parts]),
        torch.block_diag(*[p.stationary for p in parts]),
        lambda distances: block_diagonal([p.transition(distances) for p in parts]),
    )


def multiplied(kernel: ProductKernel) -> StateSpace:
    """Return Kronecker products of the parts' states, two at a time."""
    parts = [from_gpytorch(part) for part in kernel.kernels]
    whole = parts[0]
    for part in parts[1:]:
        whole = _multiplied(whole, part)
    return whole


def _multiplied(a: StateSpace, b: StateSpace) -> StateSpace:
    def transition(distances: Tensor) -> Tensor:
        product = torch.einsum("nij,nkl->nikjl", a.transition(distances), b.transition(distances))
        return product.flatten(3, 4).flatten(1, 2)

    one_a, one_b = torch.eye(len(a.emission)).double(), torch.eye(len(b.emission)).double()
    feedback = torch.kron(a.feedback, one_b) + torch.kron(one_a, b.feedback)
    return StateSpace(
        feedback, torch.kron(a.emission, b.emission), torch.kron(a.stationary, b.stationary), transition
    )
