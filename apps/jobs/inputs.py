"""Files of fields that jobs read, with a message that names the right command where one is of another kind."""

from pathlib import Path

from fieldmorph.fields.cameras import resize
from fieldmorph.fields.checkpoint import read_header
from fieldmorph.fields.compilation import announced_compilation
from fieldmorph.fields.errors import InputError
from fieldmorph.fields.renderable import RenderableField
from fieldmorph.fields.store import load_field

MEASUREMENTS = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".parquet", ".pq", ".nc", ".nc4", ".cdf", ".netcdf")


def open_field(path: str | Path) -> RenderableField:
    """Return the field in a file.

    Raises:
        InputError: it holds none, or cannot be used; what to do with a file of measurements or a tensor model.
        UnsafeError: a pickle.
    """
    refuse_measurements(path, "a field")
    if Path(path).is_file() and read_header(path)["kind"] == "posterior":
        raise InputError(
            f"{path} is a tensor model, not a field; `fieldmorph tensor scene {path} -o FIELD.fm` makes a field of it"
        )
    return load_field(path)


def compile_for(stored: RenderableField) -> None:
    """Compile the kernels that render a field, by a tiny image; the log says so where that takes its time."""
    with announced_compilation():
        stored.render(resize(stored.cameras[0], 16, 16))


def refuse_measurements(path: str | Path, expected: str) -> None:
    """Check that a file is none of those that `fieldmorph tensor fit` reads, by its ending.

    Args:
        expected: what it should be, for the message.

    Raises:
        InputError: it is; which command reads it.
    """
    if str(path).lower().endswith(MEASUREMENTS) and Path(path).is_file():
        raise InputError(
            f"{path} has measurements and is not {expected}; `fieldmorph tensor fit {path} -o MODEL.fm` fits a model "
            "to them, and `fieldmorph tensor scene MODEL.fm -o FIELD.fm` makes a field of that"
        )
