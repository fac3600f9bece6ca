"""TensoRF's fields: grids of density and appearance as sums of few low-rank components (Chen et al. 2022)."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fieldmorph.fields.base import VolumeField
from fieldmorph.fields.decoder import RadianceDecoder
from fieldmorph.fields.errors import SettingError
from fieldmorph.fields.kernels.cp import cp_products, cp_sum
from fieldmorph.fields.kernels.vm import vm_products, vm_sum
from fieldmorph.fields.perceptron import Perceptron
from fieldmorph.fields.types import FieldSettings, ParameterGroup

RANGES = {"resolution": (2, 4096), "density_components": (1, 1024), "app_components": (1, 1024)}

INITIAL_FRACTION = 1 / 3  # of the final resolution, where training begins
REFINE_AT = (0.05, 0.1, 0.17, 0.27, 0.4)  # fractions of training where the resolution grows
SHIFT = -1.5  # log density per box length where all components are zero: nearly clear


class LowRank(VolumeField):
    """The common part of VM and CP: grids of components, a basis matrix to 15 features, the decoder, coarse to fine.

    Every grid is (mode, nodes, components) or (mode, nodes, nodes, components) with `resolution` nodes along each side
    of the box, the outermost on its faces: cells are as long, wide and high as the box. The density
    components sum to a logarithm; TensoRF's shifted softplus of the sum trained no better (lego, 40 core-seconds: 32.25
    against 32.28 dB on training pixels).
    """

    decoder: RadianceDecoder
    grows = True
    INITIAL_STD: ClassVar[float]
    # Density grids start so much larger and learn so much faster: a logarithm spans more than a feature does.
    DENSITY_SCALE: ClassVar[float]

    def __init__(
        self,
        aabb: Sequence[float],
        n_products: int,
        resolution: int,
        density_components: int,
        app_components: int,
        l1_weight: float,
        tv_weight: float,
    ):
        super().__init__(aabb)
        settings: FieldSettings = {
            "resolution": resolution,
            "density_components": density_components,
            "app_components": app_components,
            "l1_weight": l1_weight,
            "tv_weight": tv_weight,
        }
        for key, (low, high) in RANGES.items():
            value = settings[key]
            if type(value) is not int or not low <= value <= high:  # a bool is no number here
                raise SettingError(
                    f"{self.name} needs {key} to be a whole number {low}..{high}; got {value!r}"
                )
        for key in ("l1_weight", "tv_weight"):
            value = settings[key]
            if type(value) not in (int, float) or not 0 <= value < math.inf:
                raise SettingError(f"{self.name} needs {key} to be a finite number >= 0; got {value!r}")
        self._settings = settings
        self.basis = Perceptron(n_products, 15, width=0, depth=0, bias=False)
        self.decoder = RadianceDecoder(n_features=15)

    @abstractmethod
    def _density_sum(self, unit: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """Return the sum of the density components at positions in [0, 1]^3."""

    @abstractmethod
    def _app_products(self, unit: Float[Tensor, "n 3"]) -> Float[Tensor, "n products"]:
        """Return the appearance components at positions in [0, 1]^3."""

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw grids from a normal distribution, networks He-uniformly."""
        for grid in (*self._density_grids(), *self._app_grids()):
            nn.init.normal_(grid, std=self.INITIAL_STD, generator=generator)
        with torch.no_grad():
            for grid in self._density_grids():
                grid.mul_(self.DENSITY_SCALE)
        self.basis.reset_parameters(generator)
        self.decoder.reset_parameters(generator)

    def config(self) -> FieldSettings:
        return {"aabb": self.box(), **self._settings}

    def geometry(
        self, positions: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch features"]]:
        unit = self.unit_positions(positions).clamp(0, 1).reshape(-1, 3)
        features = self.basis(self._app_products(unit)).reshape(*positions.shape[:-1], 15)
        return self._log_density(unit).reshape(positions.shape[:-1]), features

    def query_density(self, positions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        # The same numbers as geometry's without the appearance, which costs three times as much.
        unit = self.unit_positions(positions).clamp(0, 1).reshape(-1, 3)
        return self.density(self._log_density(unit).reshape(positions.shape[:-1]), positions)

    def _log_density(self, unit: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        return self._density_sum(unit) + (SHIFT - math.log(self.extent))

    def param_groups(self, lr_grid: float = 2e-2, lr_network: float = 3e-3) -> list[ParameterGroup]:
        networks = [*self.basis.parameters(), *self.decoder.parameters()]
        return [
            {"params": self._density_grids(), "lr": self.DENSITY_SCALE * lr_grid},
            {"params": self._app_grids(), "lr": lr_grid},
            {"params": networks, "lr": lr_network},
        ]

    def regularization(self, generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """Return the weighted L1 of density components and total variation of all grids (TensoRF, section 4.4)."""
        l1_weight, tv_weight = self._settings["l1_weight"], self._settings["tv_weight"]
        total = torch.zeros((), device=self.aabb.device)
        if l1_weight:
            total = total + l1_weight * torch.stack([g.abs().mean() for g in self._density_grids()]).sum()
        if tv_weight:
            grids = (*self._density_grids(), *self._app_grids())
            total = total + tv_weight * torch.stack([_variation(g) for g in grids]).sum()
        return total

    def refine(self, progress: float) -> bool:
        resolution = _resolution_at(progress, self._settings["resolution"])
        grids = (*self._density_grids(), *self._app_grids())
        stale = [grid for grid in grids if grid.shape[1] != resolution]
        for grid in stale:
            grid.grad, grid.data = None, resample(grid.detach(), resolution)
        return bool(stale)

    def _density_grids(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters(recurse=False) if name.startswith("density")]

    def _app_grids(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters(recurse=False) if name.startswith("app")]


class VM(LowRank):
    """Planes times lines: the vector-matrix decomposition.

    Args:
        aabb: the box in world units, min then max.
        resolution: nodes along each side of the box.
        density_components, app_components: ranks of each of the three modes.
        l1_weight: weight in the loss of the mean magnitude of the density components.
        tv_weight: weight in the loss of the total variation of all grids.
    """

    name = "vm"
    title = "Planes and lines (TensoRF-VM)"
    kernels = ("vm", "normal")
    INITIAL_STD = 0.1  # TensoRF's
    DENSITY_SCALE = 1.75
    presets = {
        "small": {"resolution": 128, "density_components": 16, "app_components": 24},
        "paper": {"resolution": 300, "density_components": 16, "app_components": 48},
    }
    sizes = [
        {"resolution": n, "density_components": density, "app_components": app}
        for n, density, app in (
            (32, 4, 8),
            (48, 8, 8),
            (64, 8, 8),
            (64, 8, 16),
            (96, 8, 16),
            (96, 16, 16),
            (128, 16, 16),
            (128, 16, 24),
            (160, 16, 24),
            (192, 16, 32),
            (256, 16, 32),
            (300, 16, 48),
        )
    ]

    def __init__(
        self,
        *,
        aabb: Sequence[float],
        resolution: int = 128,
        density_components: int = 16,
        app_components: int = 24,
        l1_weight: float = 0.0,
        tv_weight: float = 0.0,
    ):
        super().__init__(
            aabb, 3 * app_components, resolution, density_components, app_components, l1_weight, tv_weight
        )
        self.density_planes = nn.Parameter(torch.zeros(3, resolution, resolution, density_components))
        self.density_lines = nn.Parameter(torch.zeros(3, resolution, density_components))
        self.app_planes = nn.Parameter(torch.zeros(3, resolution, resolution, app_components))
        self.app_lines = nn.Parameter(torch.zeros(3, resolution, app_components))

    def _density_sum(self, unit: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        return vm_sum(unit, self.density_planes, self.density_lines)

    def _app_products(self, unit: Float[Tensor, "n 3"]) -> Float[Tensor, "n products"]:
        return vm_products(unit, self.app_planes, self.app_lines)


class CP(LowRank):
    """Products of three lines: the CP decomposition, far smaller than any other representation.

    Args:
        aabb: the box in world units, min then max.
        resolution: nodes along each side of the box.
        density_components, app_components: ranks.
        l1_weight: weight in the loss of the mean magnitude of the density components.
        tv_weight: weight in the loss of the total variation of all grids.
    """

    name = "cp"
    title = "Lines (TensoRF-CP)"
    kernels = ("cp", "normal")
    INITIAL_STD = 0.2  # TensoRF's
    DENSITY_SCALE = 1.25
    presets = {
        "small": {"resolution": 256, "density_components": 96, "app_components": 96},
        "paper": {"resolution": 500, "density_components": 96, "app_components": 288},
    }
    sizes = [
        {"resolution": n, "density_components": density, "app_components": app}
        for n, density, app in (
            (64, 16, 16),
            (96, 24, 24),
            (128, 32, 32),
            (192, 48, 48),
            (192, 64, 64),
            (256, 64, 64),
            (256, 96, 96),
            (384, 96, 96),
            (384, 96, 192),
            (500, 96, 288),
        )
    ]

    def __init__(
        self,
        *,
        aabb: Sequence[float],
        resolution: int = 256,
        density_components: int = 96,
        app_components: int = 96,
        l1_weight: float = 0.0,
        tv_weight: float = 0.0,
    ):
        super().__init__(
            aabb, app_components, resolution, density_components, app_components, l1_weight, tv_weight
        )
        self.density_lines = nn.Parameter(torch.zeros(3, resolution, density_components))
        self.app_lines = nn.Parameter(torch.zeros(3, resolution, app_components))

    def _density_sum(self, unit: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        return cp_sum(unit, self.density_lines)

    def _app_products(self, unit: Float[Tensor, "n 3"]) -> Float[Tensor, "n products"]:
        return cp_products(unit, self.app_lines)


def resample(grid: Float[Tensor, "modes *nodes components"], resolution: int) -> Float[Tensor, "..."]:
    """Return the grid with `resolution` nodes along each side, linearly interpolated; the outermost stay on faces."""
    for axis in range(1, grid.dim() - 1):
        last = grid.shape[axis] - 1
        at = torch.linspace(0, last, resolution, dtype=torch.float64, device=grid.device)
        low = at.long().clamp(max=last - 1)
        fraction = (at - low).to(grid.dtype).reshape(-1, *[1] * (grid.dim() - axis - 1))
        grid = torch.lerp(grid.index_select(axis, low), grid.index_select(axis, low + 1), fraction)
    return grid


def _resolution_at(progress: float, final: int) -> int:
    """Return the nodes along each side at a fraction of training: TensoRF's, evenly spaced in logarithm."""
    level = sum(progress >= start for start in REFINE_AT) / len(REFINE_AT)
    resolution: float = max(2.0, final * INITIAL_FRACTION ** (1 - level))
    return round(resolution)


def _variation(grid: Float[Tensor, "modes *nodes components"]) -> Float[Tensor, ""]:
    """Return the mean squared difference of neighbouring nodes, summed over the axes."""
    differences = [grid.diff(dim=axis).square().mean() for axis in range(1, grid.dim() - 1)]
    return torch.stack(differences).sum()
