"""Interactive exploration of a tensor model: maps at slider positions, curves through a place, next measurements.

The functions' moments at a map's cells and at the sliders' stops are computed once; an image then takes only a few
products of small matrices.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from fieldmorph.apps.tensor.date_words import words_for
from fieldmorph.apps.tensor.map_layers import NO_LAYERS, MapLayers, check_kept, map_modes
from fieldmorph.apps.tensor.maps import map_ratio
from fieldmorph.bayes.experimental_design import where_next
from fieldmorph.bayes.posterior import GridAxis, Posterior, Prediction
from fieldmorph.fields.errors import InputError, SettingError, known

CELLS, MIN_CELLS = 240, 60  # along the longer and the shorter side of a map
MAX_STOPS = 240  # of a slider; a mode with fewer points stops at each of them
CURVE = 400  # coordinates along a curve, in addition to the stops
CANDIDATES = 22  # along the longer side of a map, of places where one might measure
MIN_CANDIDATES = 60  # that a mask leaves, if the map has so many; or else they are closer together
MAX_PICKS = 12
RANGE_SAMPLES = 1e5  # values from which the color range of all maps is computed
QUANTITIES = {"mean": "mean", "sd": "latent_sd"}  # of a prediction

Place = Sequence[int]  # the number of a stop for each mode


@dataclass(frozen=True)
class Picks:
    """Next places to measure on one map, the most informative first.

    Attributes:
        places: the index of a stop for each mode.
        sd: root of the function's mean variance on the map, in the value's unit: now, and as expected after each of the
            measurements.
    """

    places: list[list[int]]
    sd: list[float]


class Explorer:
    """A model with precomputed moments at the cells and stops of its maps and sliders.

    Attributes:
        across, up: horizontal and vertical mode of the map; None for a model of one mode, which has no map.
        sliders: the other modes, time first.
        ratio: width of the map over its height.
        stops: coordinates of each mode, ascending: a map's cells or a slider's stops.
        limits: lowest and highest value of each quantity on all maps, of cells that the mask keeps.
        layers: mask, coastlines and measured places.
        kept: whether a map's cells have a value, (up, across); None if all have.
    """

    def __init__(self, posterior: Posterior, layers: MapLayers = NO_LAYERS):
        self.posterior, self.layers = posterior, layers
        points = [process.points for process in posterior.processes]
        self.stops = [_stops(p) for p in points]
        self.along = [torch.cat([stops, _spread(stops, CURVE)]).unique() for stops in self.stops]
        self.across: int | None = None
        self.up: int | None = None
        self.sliders, self.ratio = [0], 1.0
        if len(points) > 1:
            self.across, self.up, first = map_modes(posterior.modes)
            rest = [k for k in range(len(points)) if k not in (self.across, self.up, first)]
            self.sliders = rest if first is None else [first, *rest]
            self.ratio = map_ratio(posterior.modes, self.across, self.up, points)
            for k, fraction in ((self.across, self.ratio), (self.up, 1 / self.ratio)):
                self.stops[k] = _spread(points[k], max(MIN_CELLS, round(CELLS * min(1.0, fraction))))
        self.kept = None
        if self.across is not None and self.up is not None:
            self.kept = layers.kept(self.stops[self.across], self.stops[self.up])
        if self.kept is not None:
            check_kept(self.kept, layers)
        self._words = [
            words_for(mode, stops) for mode, stops in zip(posterior.modes, self.stops, strict=True)
        ]
        self._at_stops, self._along = posterior.factors(self.stops), posterior.factors(self.along)
        self.limits = {name: self._limits(name) for name in QUANTITIES}

    def middle(self) -> list[int]:
        """Return the place in the middle of all modes; on a map with a mask the nearest place that is kept."""
        place = [len(stops) // 2 for stops in self.stops]
        if self.kept is not None:
            across, up = self.map_modes()
            rows, columns = self.kept.nonzero()
            nearest = np.hypot(rows - place[up], columns - place[across]).argmin()
            place[up], place[across] = int(rows[nearest]), int(columns[nearest])
        return place

    def coordinates(self, place: Place) -> Float[Tensor, "modes"]:
        """Return a place's coordinates in the model's units.

        Raises:
            InputError: not a place of this model.
        """
        if not isinstance(place, list | tuple) or len(place) != len(self.stops):
            raise InputError(f"a place has {len(self.stops)} stops, one for each mode")
        for mode, stops, i in zip(self.posterior.modes, self.stops, place, strict=True):
            _check(i, 0, len(stops) - 1, f"stops of {mode.name}")
        return torch.stack([stops[i] for stops, i in zip(self.stops, place, strict=True)])

    def words(self, mode: int) -> list[str]:
        """Return every stop of a mode as text."""
        return self._words[mode](self.stops[mode])

    def map(self, place: Place) -> Prediction:
        """Return predictions at all cells, (up, across), with the sliders at the place.

        Raises:
            InputError: not a place of this model.
            SettingError: the model has no map.
        """
        across, up = self.map_modes()
        found = self._at(place, {across: self._at_stops, up: self._at_stops})
        return found if up < across else _changed(found, torch.t)

    def image(self, quantity: str, place: Place) -> bytes:
        """Return a map as a gray PNG, its last row first: 0 at the quantity's lower limit, 255 at the upper.

        Cells that the mask leaves out are transparent.

        Raises:
            InputError: not a place of this model.
            SettingError: an unknown quantity.
        """
        if quantity not in QUANTITIES:
            raise known("quantity", quantity, list(QUANTITIES))
        low, high = self.limits[quantity]
        values = getattr(self.map(place), QUANTITIES[quantity])
        levels = ((values - low) * (255 / (high - low))).round().clamp(0, 255).byte().flip(0).numpy()
        drawn, encoded = Image.fromarray(levels), io.BytesIO()
        if self.kept is not None:
            drawn.putalpha(Image.fromarray(np.where(self.kept[::-1], 255, 0).astype(np.uint8)))
        drawn.save(encoded, format="PNG")
        return encoded.getvalue()

    def curve(self, place: Place, mode: int) -> tuple[Float[Tensor, "n"], Prediction]:
        """Return coordinates along one mode and the predictions there, with all other modes at the place.

        Raises:
            InputError: not a place or a mode of this model.
        """
        _check(mode, 0, len(self.stops) - 1, "modes of the model")
        return self.along[mode], self._at(place, {mode: self._along})

    def where_next(self, place: Place, n: int) -> Picks:
        """Return the n places of a map whose measurement would reduce its mean variance most.

        Places that the mask leaves out are not chosen, and the variance there does not count.

        Raises:
            InputError: not a place of this model, or more places than can be shown.
            SettingError: the model has no map, or the mask leaves fewer places.
        """
        coordinates = self.coordinates(place)
        _check(n, 1, MAX_PICKS, "places to pick")
        sides, cells = self.map_modes(), self._candidates()
        if len(cells) < n and self.layers.mask is not None:
            raise SettingError(f"the mask {self.layers.mask.words} leaves {len(cells)} places to choose from")
        candidates = coordinates.repeat(len(cells), 1)
        for k, column in zip(sides, cells.unbind(1), strict=True):
            candidates[:, k] = self.stops[k][column]
        design = where_next(self.posterior, candidates, n)
        picked = [dict(zip(sides, cell, strict=True)) for cell in cells[design.rows].tolist()]
        places = [[cell.get(k, i) for k, i in enumerate(place)] for cell in picked]
        return Picks(places, design.variance.clamp(min=0).sqrt().tolist())

    def map_modes(self) -> tuple[int, int]:
        """Return the horizontal and the vertical mode of the map.

        Raises:
            SettingError: the model has no map.
        """
        if self.across is None or self.up is None:
            raise SettingError("a model of one mode has no map")
        return self.across, self.up

    def _candidates(self) -> Int[Tensor, "n 2"]:
        """Return evenly spread cells of a map (across, up), without those that the mask leaves out."""
        map_modes = self.map_modes()
        longest = max(len(self.stops[k]) for k in map_modes)
        many = CANDIDATES
        while True:
            sides = []
            for k in map_modes:
                n = max(1, round(many * len(self.stops[k]) / longest))
                sides.append(((torch.arange(n) + 0.5) * len(self.stops[k]) / n).long())
            cells = torch.cartesian_prod(*sides)
            if self.kept is None:
                return cells
            cells = cells[torch.from_numpy(self.kept)[cells[:, 1], cells[:, 0]]]
            if len(cells) >= MIN_CANDIDATES or many >= longest:
                return cells
            many = min(2 * many, longest)

    def _at(self, place: Place, whole: dict[int, list[GridAxis]]) -> Prediction:
        """Return predictions at all rows of some modes' tables and the place's stop of every other mode."""
        self.coordinates(place)
        axes = [
            whole[k][k] if k in whole else table[i : i + 1]
            for k, (table, i) in enumerate(zip(self._at_stops, place, strict=True))
        ]
        kept = tuple(slice(None) if k in whole else 0 for k in range(len(axes)))
        return _changed(self.posterior.predict_grid(axes), lambda values: values[kept])

    def _limits(self, quantity: str) -> tuple[float, float]:
        many = int(RANGE_SAMPLES ** (1 / len(self.stops)))
        axes = [stops[:: max(1, len(stops) // many)] for stops in self.stops]
        values = getattr(self.posterior.predict_grid(self.posterior.factors(axes)), QUANTITIES[quantity])
        if self.kept is not None:
            across, up = self.map_modes()
            steps = [max(1, len(self.stops[k]) // many) for k in (up, across)]
            kept = torch.from_numpy(self.kept[:: steps[0], :: steps[1]].copy())
            values = values.movedim((up, across), (0, 1))
            values = values[kept] if kept.any() else values
        low, high = (0.0 if quantity == "sd" else float(values.min())), float(values.max())
        return low, high if high > low else low + 1.0


def _stops(points: Float[Tensor, "n"]) -> Float[Tensor, "_"]:
    return points if len(points) <= MAX_STOPS else _spread(points, MAX_STOPS)


def _spread(points: Float[Tensor, "n"], n: int) -> Float[Tensor, "_"]:
    """Return n evenly spaced coordinates over the points' range."""
    return torch.linspace(float(points[0]), float(points[-1]), n, dtype=torch.float64)


def _check(number: object, low: int, high: int, what: str) -> None:
    if type(number) is not int or not low <= number <= high:
        raise InputError(f"{what}: {low} to {high}; got {number!r:.40}")


def _changed(found: Prediction, change: Callable[[Tensor], Tensor]) -> Prediction:
    mean, latent_sd, sd = (change(part) for part in (found.mean, found.latent_sd, found.sd))
    return replace(found, mean=mean, latent_sd=latent_sd, sd=sd)
