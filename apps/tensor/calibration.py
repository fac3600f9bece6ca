"""Settings of calibration: which rows, or blocks of rows, `tensor fit` holds out."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Int
from torch import Tensor

from fieldmorph.apps.tensor.grid_axes import STEPS, find_mode
from fieldmorph.bayes.calibration import blocks_of
from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.data.observations import Observations
from fieldmorph.fields.errors import SettingError


@dataclass(frozen=True)
class Calibration:
    """Rows that are held out to calibrate intervals.

    Attributes:
        fraction: of the rows, or of their blocks, that are held out at once, in (0, 1).
        by: rows that agree in all of these modes are one block. Values are the widths of intervals that count as
            equal, as a user writes them: "10", for times "30D", or "" for equal coordinates.
        rounds: number of disjoint parts of this size that are held out one after the other, each with its own fit.
    """

    fraction: float
    by: Mapping[str, str] = field(default_factory=dict)
    rounds: int = 1

    def blocks(self, observations: Observations) -> Int[Tensor, "n"] | None:
        """Return a block label for every row; None if every row is a block.

        Raises:
            SettingError: an unknown mode, one that is given twice, or a width that is not positive.
        """
        widths: dict[str, float] = {}
        for name, text in self.by.items():
            mode = find_mode(observations.modes, name)
            if mode.name in widths:
                raise SettingError(f"{mode.name} is given twice")
            widths[mode.name] = block_width(mode, text)
        return blocks_of(observations, widths) if widths else None


def block_width(mode: Mode, text: str) -> float:
    """Return a block's width in the mode's unit, seconds for times; 0 for an empty text.

    Raises:
        SettingError: the text is not a positive width.
    """
    number, factor = text, 1
    if mode.kind == "time" and text:
        match = re.fullmatch(rf"(.*?)({'|'.join(STEPS)})", text)
        number, factor = (match[1], STEPS[match[2]]) if match else ("", 1)
    try:
        width = float(number) * factor if text else 0.0
    except ValueError:
        width = math.nan
    if text and not 0 < width < math.inf:
        example = f"30D ({', '.join(STEPS)})" if mode.kind == "time" else "10"
        raise SettingError(f"{mode.name}: expected a block width such as {example}; got {text!r}")
    return width
