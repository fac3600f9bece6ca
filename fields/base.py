"""The contract of every representation: points in, density and color out.

A field never sees rays, images, stages, steps or options. Its keyword-only constructor arguments
are its whole configuration and go into the checkpoint as they are.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fieldmorph.fields.decoder import RadianceDecoder
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.types import FieldSettings, ParameterGroup

MAX_LOG_DENSITY = 15.0  # exp(15) per box length is opaque at any step; beyond it fp32 gains nothing


class VolumeField(nn.Module, ABC):
    """A density and a view-dependent color at every point of a box.

    Positions and directions are in world units, directions of unit length. Density is per world unit and
    zero outside the box. Raw network outputs are the logarithm of density *per box length*
    (`extent`), so that a scene and the same scene in other units train alike.

    Subclasses are leaves: they implement `geometry` and `config` and, when they have no decoder,
    `radiance`.
    """

    name: ClassVar[str]
    title: ClassVar[str]  # for people
    presets: ClassVar[dict[str, FieldSettings]]
    sizes: ClassVar[list[FieldSettings]] = []  # settings from small to large, to choose from by size in bytes
    samples_per_step: ClassVar[int] = 1 << 14  # that training on images shades; small steps beat large ones
    conversion_samples: ClassVar[int | None] = None  # samples of a conversion's step; None: those of training
    # What an exponential decay leaves of a conversion's learning rates at its end, in addition to the linear decay.
    conversion_lr_decay: ClassVar[float] = 1.0
    kernels: ClassVar[tuple[str, ...]] = ()  # keys of `KERNELS` that it uses besides those of rendering
    # Conversions train on images at the end, where there are some: the fraction of the budget, and the steps of
    # distillation that must come before it; with fewer the teacher still teaches more than images do.
    finish_fraction: ClassVar[float] = 0.6
    finish_after: ClassVar[int] = 300
    grows: ClassVar[bool] = False  # from coarse to fine, see `refine`

    aabb: Tensor

    def __init__(self, aabb: Sequence[float]):
        super().__init__()
        self.decoder: RadianceDecoder | None = None
        values = [float(v) for v in aabb]
        if len(values) != 6 or not all(map(math.isfinite, values)):
            raise SettingError(f"aabb must be 6 finite numbers, min then max; got {values}")
        if any(hi <= lo for lo, hi in zip(values[:3], values[3:], strict=True)):
            raise SettingError(f"aabb must have min < max on every axis; got {values}")
        self.register_buffer("aabb", torch.tensor(values, dtype=torch.float32), persistent=False)
        self.extent = max(hi - lo for lo, hi in zip(values[:3], values[3:], strict=True))

    @abstractmethod
    def config(self) -> FieldSettings:
        """Return the constructor arguments that rebuild this field, as JSON values (aabb included)."""

    @abstractmethod
    def geometry(
        self, positions: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch features"]]:
        """Return the logarithm of density per world unit, unclamped, and features: the first part of PVD's split.

        Values outside the box mean nothing; `query_density` and `forward` are zero there.
        """

    def radiance(
        self,
        features: Float[Tensor, "*batch features"],
        positions: Float[Tensor, "*batch 3"],
        directions: Float[Tensor, "*batch 3"],
    ) -> Float[Tensor, "*batch 3"]:
        """Return sRGB in [0, 1], by default the decoder's: the second part of PVD's split."""
        assert self.decoder is not None, f"{type(self).__name__} has no decoder and must implement radiance"
        rgb: Tensor = self.decoder(features, directions)
        return rgb

    def forward(
        self, positions: Float[Tensor, "*batch 3"], directions: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch"]]:
        """Return sRGB in [0, 1] and density per world unit; the density equals `query_density`."""
        log_sigma, features = self.geometry(positions)
        rgb = self.radiance(features, positions, directions)
        return rgb, self.density(log_sigma, positions)

    def query_density(self, positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        """Return the density per world unit, at least 0, exactly 0 outside the box."""
        return self.density(self.geometry(positions)[0], positions)

    @abstractmethod
    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw fresh initial parameters."""

    def param_groups(self, lr_grid: float = 2e-2, lr_network: float = 1e-2) -> list[ParameterGroup]:
        """Return parameters with learning rates, grids' the higher ones, and an `optimizer` where it is not Adam."""
        return [{"params": list(self.parameters()), "lr": lr_network}]

    def regularization(self, generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """Return a penalty that belongs to the representation itself; 0 by default.

        Args:
            generator: with it penalties are estimated that would be too expensive at every step. Without it they are
                left out, as in a conversion: they make up for what images leave open, and a teacher leaves nothing.
        """
        return torch.zeros((), device=self.aabb.device)

    def refine(self, progress: float) -> bool:
        """Take the resolution that suits this fraction of training, coarse to fine; 1 gives the final one.

        Returns:
            True where parameters were replaced, so that a new optimizer is needed. Fields that do not grow have
            one resolution.
        """
        return False

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load a state as torch does; where a field grows, its arrays take the loaded shapes: a run may be coarse."""
        if self.grows:
            for name, own in [*self.named_parameters(recurse=False), *self.named_buffers(recurse=False)]:
                loaded = state_dict.get(name)
                if loaded is not None and loaded.shape != own.shape:
                    own.grad, own.data = None, own.data.new_empty(loaded.shape)
        return super().load_state_dict(state_dict, strict, assign)

    def unit_positions(self, positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Return positions rescaled so that the box is [0, 1]^3."""
        return (positions - self.aabb[:3]) / (self.aabb[3:] - self.aabb[:3])

    def contains(self, positions: Float[Tensor, "*batch 3"]) -> Tensor:
        """Return whether each position lies in the closed box, shape (*batch,)."""
        return ((positions >= self.aabb[:3]) & (positions <= self.aabb[3:])).all(-1)

    @classmethod
    def storage_bytes(cls, settings: FieldSettings, occupied: Bool[Tensor, "x y z"]) -> int:
        """Return the bytes of the arrays that a field of these settings stores, at most, without making one.

        Args:
            settings: constructor arguments but for the aabb.
            occupied: cells of the box that have something in them.
        """
        with torch.device("meta"):
            field = cls(aabb=(0, 0, 0, 1, 1, 1), **settings)
        return sum(array.numel() * array.element_size() for array in field.state_dict().values())

    def box(self) -> list[float]:
        """Return the aabb as plain numbers."""
        return [float(v) for v in self.aabb]

    def n_parameters(self) -> int:
        """Return how many numbers are trained."""
        return sum(p.numel() for p in self.parameters())

    def density(
        self, log_sigma: Float[Tensor, "*batch"], positions: Float[Tensor, "*batch 3"]
    ) -> Float[Tensor, "*batch"]:
        """Return the density per world unit from its logarithm: exp in float32 at least, 0 outside the box."""
        limit = MAX_LOG_DENSITY - math.log(self.extent)
        sigma: Tensor = _TruncatedExp.apply(log_sigma, limit)  # type: ignore[no-untyped-call]
        return sigma * self.contains(positions)


class _TruncatedExp(torch.autograd.Function):
    """exp that stops growing at `limit` but keeps a gradient there (Instant-NGP's)."""

    @staticmethod
    def forward(ctx: Any, log_sigma: Tensor, limit: float) -> Tensor:
        sigma = torch.exp(log_sigma.clamp(max=limit))
        ctx.save_for_backward(sigma)
        return sigma

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (sigma,) = ctx.saved_tensors
        return grad * sigma, None
