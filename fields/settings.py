"""Settings of a run as JSON values, as they are kept in the state from which it may be resumed."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, ClassVar, Protocol, runtime_checkable

from fieldmorph.fields.types import JsonObject

# Metadata of a setting that files of 0.1 do not have: at its default it is not written, so that their runs resume.
SINCE_0_2: Mapping[str, Any] = {"since": "0.2"}


@runtime_checkable
class Settings(Protocol):
    """A frozen dataclass that can be made without arguments."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


def saved_settings(config: Settings) -> JsonObject:
    """Return the settings that a resumed run must share with the saved one, by name."""
    default, values = type(config)(), asdict(config)
    new = {f.name for f in fields(config) if f.metadata == SINCE_0_2}
    return {k: v for k, v in values.items() if k not in new or getattr(config, k) != getattr(default, k)}
