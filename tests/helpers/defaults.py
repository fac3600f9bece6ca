"""Defaults of settings that a test may change where no settings can be handed in, as behind a command."""

import inspect
from typing import TYPE_CHECKING, Any

from fieldmorph.apps.console.progress import ProgressLine
from fieldmorph.distill.config import ConvertConfig
from fieldmorph.distill.fidelity import FidelityConfig
from fieldmorph.distill.teacher_samples import SamplingConfig
from fieldmorph.distill.warm_start.hashgrid import HashGridStart
from fieldmorph.distill.warm_start.lowrank import LowRankStart
from fieldmorph.distill.warm_start.voxels import VoxelStart
from fieldmorph.fields.fit import FitConfig
from fieldmorph.fields.loop import LoopConfig


class Defaults:
    """The defaults of keyword-only settings of a class as attributes, for `monkeypatch.setattr`."""

    def __init__(self, config: type):
        # Under the import hook of the tests `__init__` is wrapped in checks of its arguments.
        values = inspect.unwrap(config.__init__).__kwdefaults__  # type: ignore[misc]
        self.__dict__.update(values, _values=values)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = self.__dict__["_values"][name] = value

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


LOOP, PROGRESS = Defaults(LoopConfig), Defaults(ProgressLine)
CONVERT, FIDELITY, FIT = Defaults(ConvertConfig), Defaults(FidelityConfig), Defaults(FitConfig)
SAMPLING = Defaults(SamplingConfig)
HASHGRID_START, LOWRANK_START = Defaults(HashGridStart), Defaults(LowRankStart)
VOXEL_START = Defaults(VoxelStart)
