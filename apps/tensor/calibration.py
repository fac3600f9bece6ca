"""Which rows `tensor fit` holds out to learn how wide intervals must be: single rows, or blocks of them."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)

# isort: split
from jaxtyping import Int
from torch import Tensor

from fieldmorph.apps.tensor.grid_axes import STEPS, find_mode
from fieldmorph.bayes.calibration import blocks_of
from fieldmorph.bayes.data.coordinates import Mode
from fieldmorph.bayes.data.observations import Observations
from fieldmorph.fields.errors import SettingError


@dataclass(frozen=True)
class Calibration:
    """How rows are held out.

    Attributes:
        share: of the rows, or of their blocks, that is held out at once.
        by: rows that are alike in all of these modes are one block. For each mode how long an interval of it counts as
            alike, as a user writes it: "10", of times "30D", or "" where each coordinate is one.
        rounds: parts of this size that are held out one after the other, each with a fit of its own.
    """

    share: float
    by: Mapping[str, str] = field(default_factory=dict)
    rounds: int = 1

    def blocks(self, observations: Observations) -> Int[Tensor, "n"] | None:
        """A label for every row; None where rows are held out one by one.

        Raises:
            SettingError: a name that is no mode, named twice, or a length that cannot be.
        """
        widths: dict[str, float] = {}
        for name, text in self.by.items():
            mode = find_mode(observations.modes, name)
            if mode.name in widths:
                raise SettingError(f"{mode.name} is given twice")
            widths[mode.name] = block_width(mode, text)
        return blocks_of(observations, widths) if widths else None


def block_width(mode: Mode, text: str) -> float:
    """In the mode's unit, seconds for times; 0 for no text.

    Raises:
        SettingError: it is no positive length.
    """
    number, unit = text, 1
    if mode.kind == "time" and text:
        match = re.fullmatch(rf"(.*?)({'|'.join(STEPS)})", text)
        number, unit = (match[1], STEPS[match[2]]) if match else ("", 1)
    try:
        width = float(number) * unit if text else 0.0
    except ValueError:
        width = math.nan
    if text and not 0 < width < math.inf:
        like = f"30D ({', '.join(STEPS)})" if mode.kind == "time" else "10"
        raise SettingError(f"{mode.name}: a block is as long as {like}; got {text!r}")
    return width
