"""Progressive volume distillation: any field into any other, without training images."""

from typing import TYPE_CHECKING

import fieldmorph.fields  # noqa: F401  (sets the OpenMP policy before torch is imported)
from fieldmorph.fields.lazy import lazy_names

if TYPE_CHECKING:
    from fieldmorph.distill.conversion import convert as convert

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "convert": "conversion:convert",
    },
)
