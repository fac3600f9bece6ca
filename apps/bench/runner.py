"""Common part of the benchmarks: jobs in child processes, and rows that survive an interruption."""

import contextlib
import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fieldmorph.apps.bench.turns import run_in_turns
from fieldmorph.apps.console.progress import ProgressLine
from fieldmorph.apps.jobs.convert import convert_file
from fieldmorph.apps.jobs.evaluate import EvalResult, Evaluation, evaluate_file
from fieldmorph.apps.jobs.lifecycle import SavedRun
from fieldmorph.apps.jobs.request import ConversionRequest
from fieldmorph.apps.jobs.scenes import bundled_scene, digest, open_scene
from fieldmorph.apps.jobs.train import train_scene
from fieldmorph.apps.jobs.worker import WorkerCall, run_in_child
from fieldmorph.distill.levels import LEVELS
from fieldmorph.fields.budget import Budget
from fieldmorph.fields.checkpoint import write_file
from fieldmorph.fields.errors import known
from fieldmorph.fields.files import check_folder, file_sha256, write_json
from fieldmorph.fields.runtime import peak_memory
from fieldmorph.fields.scene import Scene
from fieldmorph.fields.types import JsonObject

SHOWN = (
    "kind",
    "field",
    "teacher",
    "student",
    "stages_on",
    "data",
    "fold",
    "method",
    "coordinates",
    "rows",
    "seed",
)

Row = JsonObject  # of a benchmark's table


@dataclass(frozen=True)
class Contestant:
    """A run that takes turns with those it is compared with.

    Attributes:
        what: key of its row.
        job: function of `settings` and `report`, which makes a `Turn`; returns the row.
        settings: JSON values or paths.
    """

    what: Row
    job: Callable[..., Row]
    settings: Row


class Bench:
    """One benchmark's folder: the settings of all its rows, and `<name>.jsonl`, to which rows are appended.

    A row is run once: a later run in the same folder finds it by its key, which consists of `about`, `threads`,
    the version and what the row is of. Rows that failed are run again; rows with other keys stay in the file, unused.

    Args:
        about: what all rows have in common.
        settings: of every job.
        force: discard existing rows, and write into a folder with other files.

    Raises:
        SettingError, InputError: before anything is written.
    """

    def __init__(
        self,
        name: str,
        output: str | Path,
        about: Row,
        settings: Row,
        force: bool = False,
        quiet: bool = False,
    ):
        self.name, self.folder, self.settings, self.quiet = name, Path(output), settings, quiet
        path = self.folder / f"{name}.jsonl"
        # The folder need not be empty: its rows may be those that this run continues, or another benchmark's.
        check_folder(self.folder, force or any(self.folder.glob("*.jsonl")))
        self.common: Row = {
            **about,
            "threads": torch.get_num_threads(),
            "fieldmorph": importlib.metadata.version("fieldmorph"),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        if force:
            path.unlink(missing_ok=True)
        self.path, self.before = path, _whole_rows(path)
        self.rows: list[Row] = []

    @classmethod
    def of_scene(
        cls, name: str, data: str | Path | None, output: str | Path, downscale: int, force: bool, quiet: bool
    ) -> "Bench":
        """Open a benchmark of fields made from the images of one scene, by default the bundled one.

        Its rows are of a kind, fields, a budget in core-seconds, a seed and the teacher's sha256.
        """
        data = Path(data or bundled_scene())
        scene = open_scene(data, "train", "test", downscale=downscale)
        about = {"scene": scene.name, "scene_sha256": _digest(scene), "downscale": downscale}
        settings = {"data": data, "downscale": downscale, "quiet": quiet}
        return cls(name, output, about, settings, force, quiet)

    def run(self, what: Row, job: Callable[..., Row], product: Path | None = None, **settings: Any) -> Row:
        """Return the row of `what`: from the file, or of `job(**settings)` in a child process.

        Args:
            product: file that the job writes; where it is missing the row is run again. Its sha256 is `sha256` of the
                row.
        """
        row = self._found(what, product)
        if row is None:
            self._announce(what)
            result = in_child(job, threads=self.common["threads"], **settings)
            row = self._keep({**result, **self.common, **what})
        return row

    def run_in_turns(self, contestants: Sequence[Contestant]) -> None:
        """Add the rows of runs that are compared: from the file, or of child processes that take turns.

        A row is in the file as soon as its run has ended. A run that was cut off starts anew the next time.
        """
        missing = [contestant for contestant in contestants if self._found(contestant.what) is None]
        for contestant in missing:
            self._announce(contestant.what)
        threads = self.common["threads"]
        calls = [WorkerCall.of(one.job, one.settings, threads=threads, reports=True) for one in missing]
        run_in_turns(
            calls, lambda index, result: self._keep({**result, **self.common, **missing[index].what})
        )

    def fail(self, what: Row, error: str) -> Row:
        """Add the row of something that cannot be run."""
        return self._keep({"error": error, **self.common, **what})

    def train_teacher(
        self,
        field: str,
        core_seconds: float,
        seed: int,
        job: Callable[..., Row] | None = None,
        **settings: Any,
    ) -> Row:
        """Return the row of a field that `train`, or another job, makes from the images, with its file in `path`.

        Args:
            settings: of another job, in addition to those of `train`.
        """
        output = self.fields() / f"{field}_{seed}.fm"
        what = {"kind": "teacher", "field": field, "budget": core_seconds, "seed": seed}
        row = self.run(
            what,
            job or train,
            output,
            **self.settings,
            output=output,
            field=field,
            budget=core_seconds,
            seed=seed,
            **settings,
        )
        return {**row, "path": output}

    def fields(self) -> Path:
        """Return the folder of the fields that the rows made."""
        folder = self.folder / f"{self.name}_fields"
        folder.mkdir(exist_ok=True)
        return folder

    def finish(self, result: Row, table: Callable[[Row], str]) -> Row:
        """Write `<name>.json` and `<name>.md`; return the result with settings and rows."""
        failed = sum("error" in row for row in self.rows)
        result = {"bench": self.name, **self.common, **result, "rows": self.rows, "failed": failed}
        write_json(self.folder / f"{self.name}.json", result)
        write_file(self.folder / f"{self.name}.md", (table(result) + "\n").encode())
        return result

    def _found(self, what: Row, product: Path | None = None) -> Row | None:
        """Return the latest good row of the file, which becomes one of this run; None where there is none."""
        key = {**self.common, **what}
        for row in reversed(self.before):
            same = all(name in row and row[name] == value for name, value in key.items())
            if same and "error" not in row and (product is None or _is_file(product, row["sha256"])):
                self.rows.append(row)
                return row
        return None

    def _announce(self, what: Row) -> None:
        if not self.quiet:
            shown = ", ".join(f"{name} {value}" for name, value in what.items() if "sha256" not in name)
            print(f"bench {self.name}: {shown}", file=sys.stderr, flush=True)

    def _keep(self, row: Row) -> Row:
        with open(self.path, "a", encoding="utf-8") as file:
            print(json.dumps(row, allow_nan=False), file=file, flush=True)
        self.rows.append(row)
        return row


def in_child(job: Callable[..., Any], *, threads: int, **settings: Any) -> Any:
    """Return what a module's function returns in a child process, or `error`.

    So its memory is its own, and its crash costs one row.

    Args:
        settings: keyword arguments, JSON values or paths.
    """
    return run_in_child(WorkerCall.of(job, settings, threads=threads))


def train(data: str, downscale: int, output: str, field: str, budget: float, seed: int, quiet: bool) -> Row:
    """Train a field from images as a job; return its time, memory and quality on the test views."""
    with ProgressLine("train", quiet) as progress:
        run = train_scene(
            data,
            output,
            Budget(core_seconds=budget),
            field=field,
            downscale=downscale,
            seed=seed,
            force=True,
            on_progress=progress,
        )
    spent = {**spent_by(run), "sha256": run.sha256}
    return {**spent, **quality(measure(output, data, downscale, quiet).evaluation)}


def distil(
    data: str,
    downscale: int,
    teacher: str,
    student: str,
    output: str,
    budget: float,
    seed: int,
    quiet: bool,
    active: Sequence[str] = LEVELS,
    finish: float | None = 0.0,
) -> Row:
    """Convert a field as a job; return its time, memory and the student's quality on the test views.

    Args:
        finish: as that of `ConversionRequest`; the scene's images are not opened where it is 0.
    """
    request = ConversionRequest(
        Budget(core_seconds=budget), to=student, active=tuple(active), finish=finish, receipt=False, seed=seed
    )
    images = None if finish == 0 else data
    with ProgressLine("convert", quiet) as progress:
        run = convert_file(
            teacher, output, request, data=images, downscale=downscale, force=True, on_progress=progress
        )
    spent = {**spent_by(run), "sha256": run.sha256, "stages": run.stages, "dropped": run.dropped}
    return {**spent, **quality(measure(output, data, downscale, quiet, teacher).evaluation)}


def measure(file: str, data: str, downscale: int, quiet: bool, teacher: str | None = None) -> EvalResult:
    """Return what `fieldmorph eval` measures of a file on the test views."""
    with ProgressLine("eval", quiet) as progress:
        return evaluate_file(file, data, downscale=downscale, teacher=teacher, on_image=progress.count)


def spent_by(run: SavedRun) -> Row:
    """Return steps, time and size of a training or a conversion, and the peak memory up to now, in bytes."""
    return {
        "steps": run.steps,
        "seconds": run.seconds,
        "core_seconds": run.core_seconds,
        "params": run.params,
        "bytes": run.bytes,
        "peak_memory_bytes": peak_memory(),
    }


def quality(measured: Evaluation) -> Row:
    """Return means over the test views, and the lowest PSNR to the teacher, in dB."""
    kept: Row = {"psnr": measured.psnr, "ssim": measured.ssim}
    if measured.psnr_to_teacher_per_view is not None:
        kept["psnr_to_teacher"] = measured.psnr_to_teacher
        kept["worst_to_teacher"] = min(measured.psnr_to_teacher_per_view)
    return kept


def chosen(
    only: Sequence[str] | None, names: Sequence[str], kind: str = "field of this benchmark"
) -> list[str]:
    """Return the names in `only`, in the order of `names`; all where it is None.

    Args:
        kind: of a name, for the message.

    Raises:
        SettingError: a name is not among them.
    """
    for name in only or ():
        if name not in names:
            raise known(kind, name, list(names))
    return [name for name in names if only is None or name in only]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table whose first column is text."""
    lines = [" | ".join(head), " | ".join(["---", *["---:"] * (len(head) - 1)]), *map(" | ".join, rows)]
    return "\n".join(f"| {line} |" for line in lines)


def failures(result: Row) -> list[str]:
    """Return lines that say which rows failed and why."""
    lines = []
    for row in result["rows"]:
        if "error" in row:
            shown = [str(row[name]) for name in SHOWN if name in row]
            lines.append(f"- failed: {', '.join(shown)}: {row['error']}")
    return ["", *lines] if lines else []


def _digest(scene: Scene) -> str:
    parts = [f"{name} {digest(views)}" for name, views in sorted(scene.splits.items())]
    return hashlib.sha256(f"{scene.aabb} {parts}".encode()).hexdigest()


def _whole_rows(path: Path) -> list[Row]:
    """Read the rows of a file; incomplete lines, which an interruption leaves, are removed from the file."""
    if not path.exists():
        return []
    lines, rows = path.read_bytes().splitlines(keepends=True), []
    for line in lines:
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and line.endswith(b"\n"):
                rows.append(row)
    if len(rows) < len(lines):
        write_file(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return rows


def _is_file(path: Path, sha256: str) -> bool:
    return path.exists() and file_sha256(path) == sha256
