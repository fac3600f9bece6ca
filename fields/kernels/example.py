"""Inputs on which a numba kernel is compiled, checked against its torch twin, and timed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

SAMPLES_PER_RAY = 32

Function = Callable[..., Any]  # a kernel or its twin


@dataclass(frozen=True)
class KernelExample:
    """A kernel, its twin and the inputs of both.

    Attributes:
        title: the kernel and the sizes of this example.
        kernel: a function that runs the numba kernel, on float32 tensors on a CPU.
        twin: the plain torch function with the same arguments.
        call: calls one of the two with the given leaves; its outputs.
        n_items: samples, rays or nodes that a call works on.
        leaves: tensors with respect to which both are differentiated; none where there is no gradient.
        grads: gradients of the outputs, where there are leaves.
        items: what `n_items` counts.
        baseline: the usual torch implementation, where that is faster than the twin; timed in its place.
    """

    title: str
    kernel: Function
    twin: Function
    call: Callable[[Function, Sequence[Tensor]], Tensor | Sequence[Tensor]]
    n_items: int
    leaves: tuple[Tensor, ...] = ()
    grads: tuple[Tensor, ...] = ()
    items: str = "samples"
    baseline: Function | None = None

    def run(
        self, function: Function, dtype: torch.dtype = torch.float32, backward: bool = True
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the outputs of the kernel or its twin, and the gradients of the leaves where there are any.

        Args:
            dtype: in which the leaves are given.
            backward: False leaves the gradients out.
        """
        backward = backward and bool(self.leaves)
        with torch.enable_grad():
            leaves = [leaf.to(dtype).detach().requires_grad_(backward) for leaf in self.leaves]
            out = self.call(function, leaves)
            outputs = [out] if isinstance(out, Tensor) else list(out)
            if not backward:
                return outputs, []
            grads = torch.autograd.grad(outputs, leaves, [g.to(dtype) for g in self.grads])
        return [output.detach() for output in outputs], list(grads)


def rays_through_box(
    n_rays: int, generator: torch.Generator
) -> tuple[Float[Tensor, "n_rays 3"], Float[Tensor, "n_rays 3"]]:
    """Return origins on a sphere of radius 3 around the box [-1, 1]^3 and unit directions to points within it."""
    rays_o = 3 * torch.nn.functional.normalize(torch.randn(n_rays, 3, generator=generator), dim=-1)
    aim = torch.rand(n_rays, 3, generator=generator) * 1.4 - 0.7
    return rays_o, torch.nn.functional.normalize(aim - rays_o, dim=-1)


def positions_along_rays(n_samples: int, generator: torch.Generator) -> Float[Tensor, "n 3"]:
    """Return positions in [0, 1]^3 as a renderer makes them: neighbors on a ray are neighbors in memory."""
    rays_o, rays_d = rays_through_box(n_samples // SAMPLES_PER_RAY, generator)
    t = 2.4 + torch.arange(SAMPLES_PER_RAY) * (1.2 / SAMPLES_PER_RAY)
    positions = rays_o[:, None] + t[:, None] * rays_d[:, None]
    return ((positions.reshape(-1, 3) + 1) / 2).clamp(0, 1)
