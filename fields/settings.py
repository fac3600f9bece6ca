"""Settings of a run as JSON values, as they are kept in the state from which it may be resumed."""

from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, fields
from typing import Any, ClassVar, Protocol, runtime_checkable

from fieldmorph.fields.types import JsonObject

# Metadata of a setting that files of 0.1 do not have: at its default it is not written, so that their runs resume.
SINCE_0_2: Mapping[str, Any] = {"since": "0.2"}


@runtime_checkable
class Settings(Protocol):
    """A frozen dataclass; its settings of 0.2 have defaults."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


def saved_settings(config: Settings) -> JsonObject:
    """Return the settings that a resumed run must share with the saved one, by name."""
    unchanged = {
        f.name for f in fields(config) if f.metadata == SINCE_0_2 and getattr(config, f.name) == _default(f)
    }
    return {name: value for name, value in asdict(config).items() if name not in unchanged}


def _default(setting: Field[Any]) -> Any:
    return setting.default if setting.default_factory is MISSING else setting.default_factory()
