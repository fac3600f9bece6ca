"""Layers of maps in addition to a model's values: a mask, coastlines, and the places that were measured."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from fieldmorph.apps.tensor.globe import NEEDED, coastlines, has_land
from fieldmorph.apps.tensor.jobs import read_measurements
from fieldmorph.apps.tensor.masks import Mask, Numbers, on_globe, open_mask
from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.posterior import Posterior
from fieldmorph.fields.errors import SettingError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MapSettings:
    """Settings of maps and grids.

    Attributes:
        mask: cells that have a value, as `open_mask` takes them; None for all.
        points: file of measurements, to draw them and to measure distances from them.
    """

    mask: str | None = None
    points: str | Path | None = None


@dataclass(frozen=True, eq=False)
class MapLayers:
    """Layers of the maps of one model.

    Attributes:
        mask: None if all cells have a value.
        measured: x and y of each measured place once; None if they are not known.
        area: west, east, south and north of the maps if they have coastlines; None for no coastlines.
    """

    mask: Mask | None = None
    measured: tuple[Numbers, Numbers] | None = None
    area: tuple[float, float, float, float] | None = None

    @cached_property
    def coasts(self) -> list[NDArray[np.float64]]:
        """Coastlines as lines of longitudes and latitudes; traced when they are first needed."""
        return [] if self.area is None else coastlines(*self.area)

    def kept(self, x: Float[Tensor, "nx"], y: Float[Tensor, "ny"]) -> NDArray[np.bool_] | None:
        """Return whether cells have a value, (y, x); None if all have."""
        return None if self.mask is None else self.mask.keeps(x.numpy(), y.numpy())


NO_LAYERS = MapLayers()


def open_layers(posterior: Posterior, settings: MapSettings, with_coasts: bool = True) -> MapLayers:
    """Return the layers of a model's maps; without the package that has coastlines a warning says so.

    Args:
        with_coasts: whether coastlines are drawn.

    Raises:
        SettingError: the mask is none, it needs what was not given, or the model has no map.
        InputError: a file that cannot be used.
    """
    if len(posterior.modes) < 2:
        if settings != MapSettings():
            raise SettingError("a model of one mode has no map that a mask or points could be drawn on")
        return NO_LAYERS
    across, up, _ = map_modes(posterior.modes)
    x, y, measured = posterior.modes[across], posterior.modes[up], None
    if settings.points is not None:
        at = read_measurements(settings.points, posterior)[0]
        places = at[:, [across, up]].unique(dim=0).numpy()
        measured = places[:, 0], places[:, 1]
    mask = None if settings.mask is None else open_mask(settings.mask, x, y, measured)
    area = None
    if with_coasts and on_globe(x, y):
        if has_land():
            west, east, south, north = (
                float(posterior.processes[k].points[end]) for k in (across, up) for end in (0, -1)
            )
            area = west, east, south, north
        else:
            log.warning("maps have no coastlines: %s", NEEDED)
    return MapLayers(mask, measured, area)


def check_kept(kept: NDArray[np.bool_], layers: MapLayers) -> None:
    """Check that a mask leaves a cell of a map.

    Raises:
        SettingError: it leaves none.
    """
    if layers.mask is not None and not kept.any():
        raise SettingError(f"the mask {layers.mask.words} leaves no cell of the map")


def map_modes(modes: Sequence[Mode]) -> tuple[int, int, int | None]:
    """Return the horizontal and the vertical mode of a map, and the one that differs between maps, preferably time."""
    kinds = [mode.kind for mode in modes]
    if "longitude" in kinds and "latitude" in kinds:
        across, up = kinds.index("longitude"), kinds.index("latitude")
    else:
        across, up = (1, 0) if kinds[1] == "time" else (0, 1)
    rest = [k for k in range(len(modes)) if k not in (across, up)]
    times = [k for k in rest if kinds[k] == "time"]
    return across, up, next(iter([*times, *rest]), None)
