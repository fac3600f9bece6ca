"""Table and plot of `bench convert`: who is how good at equal time, and when each first reaches the other's end."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from fieldmorph.apps.bench.comparison import TEACHER, number, over_seeds
from fieldmorph.apps.bench.runner import Row, failures, markdown

CONTESTANTS = {
    "distilled": "distilled without images",
    "finished": "distilled and finished on images",
    "images": "from images, time of the distillation",
    "images_total": "from images, total time T",
    "images_4_total": "from images, 4 T",
}
# Whose curve first reaches whose end.
REACHES = {
    "finished_to_images_total": ("finished", "images_total"),
    "finished_to_images_4_total": ("finished", "images_4_total"),
    "images_4_total_to_finished": ("images_4_total", "finished"),
}


def summarize(rows: Sequence[Row]) -> list[Row]:
    """Summarise each student over the seeds of which no run is missing.

    `gain_db` is the PSNR of the finished student above that of training from images at equal total time, `total` the
    core-seconds of a contestant with its teacher's. `reaches` has for each pair of `REACHES` the total time at which
    the first is as good as the second is at its end, by seed, and their median; None: never.
    """
    teachers = {row["seed"]: row for row in rows if row["kind"] == "teacher"}
    runs: dict[str, dict[int, dict[str, Row]]] = {}
    for row in rows:
        if row["kind"] in CONTESTANTS:
            runs.setdefault(row["student"], {}).setdefault(row["seed"], {})[row["kind"]] = row
    summary = []
    for student, seeds in runs.items():
        complete = {seed: kinds for seed, kinds in seeds.items() if len(kinds) == len(CONTESTANTS)}
        complete = {seed: kinds for seed, kinds in complete.items() if seed in teachers}
        if complete:
            paid = {seed: teachers[seed]["core_seconds"] for seed in complete}
            summary.append({"student": student, "seeds": list(complete), **_figures(complete, paid)})
    return summary


def first_reached(curve: Sequence[Sequence[float]], goal: float) -> float | None:
    """Return the time at which a curve first reaches a PSNR, linear between its points; None: never."""
    before: Sequence[float] | None = None
    for at, psnr in curve:
        if psnr >= goal:
            if before is None:
                return at
            return before[0] + (at - before[0]) * (goal - before[1]) / (psnr - before[1])
        before = (at, psnr)
    return None


def convert_table(result: Row) -> str:
    """Format what `bench_convert` returned as Markdown: a reading of it, qualities, and times."""
    good = [row for row in result["rows"] if "error" not in row]
    summary, first = result["summary"], next((row for row in good if "held_out_views" in row), None)
    teachers = [row for row in good if row["kind"] == "teacher"]
    views = "no test views" if first is None else number(first["views"], "test view")
    others = "no others" if first is None else f"{first['held_out_views']} others"
    about = [
        f"Scene {result['scene']}, images reduced {result['downscale']} times, {number(result['seeds'], 'seed')}, "
        f"scale {result['scale']:g}, {number(result['threads'], 'thread')}. PSNR in dB, means over {views}; medians "
        "over the seeds (maximum minus minimum).",
        f"Teacher: {_about_teachers(teachers)}; `total` includes its time. The contestants of one student and seed "
        f"took turns in slices of {result['slice_core_seconds']:g} core-seconds.",
        f"All runs of this table have {result['budgets_core_seconds']:,.0f} core-seconds; all students at scale 1 with "
        f"3 seeds {result['whole_core_seconds']:,.0f}, both without evaluations.",
    ]
    qualities = [_quality_row(entry, kind) for entry in summary for kind in CONTESTANTS]
    head = ["student", "contestant", "core-seconds", "total", "steps", "to test images", "to the teacher"]
    lines = [_reading(summary), "", *about, "", markdown(head, qualities)]
    lines += [
        "",
        "Total core-seconds at which one first reaches the other's end, of how many the other took (medians), on "
        f"{result['n_pixels']} pixels of {others}, which choose nothing; linear between evaluations:",
        "",
        markdown(
            ["student", "finished: end at T", "finished: end at 4 T", "images, 4 T: end of finished"],
            [_reaches_row(entry) for entry in summary],
        ),
        *_unfinished(good),
        *failures(result),
    ]
    return "\n".join(lines)


def plot_runs(rows: Sequence[Row], students: Sequence[str], path: Path) -> None:
    """Plot PSNR over total core-seconds: a panel per student, a color per kind, a line per seed.

    The curves of distilled students begin where their teacher's training ends, at a vertical line.
    """
    from matplotlib.figure import Figure  # takes a second

    paid = {row["seed"]: row["core_seconds"] for row in rows if row["kind"] == "teacher"}
    figure = Figure(figsize=(5.2 * len(students), 4), layout="constrained")
    for axes, student in zip(figure.subplots(1, len(students), squeeze=False)[0], students, strict=True):
        for color, (kind, title) in enumerate(CONTESTANTS.items()):
            lines = [row for row in rows if row["kind"] == kind and row.get("student") == student]
            for i, row in enumerate(lines):
                times = [total_time(row, paid[row["seed"]], at) for at, _ in row["curve"]]
                psnr = [value for _, value in row["curve"]]
                axes.plot(times, psnr, color=f"C{color}", lw=1.5, label=None if i else title)
        for i, end in enumerate(paid.values()):
            axes.axvline(end, color="0.5", lw=1, ls=":", label=None if i else "end of the teacher's training")
        axes.set(title=student, xscale="log", xlabel="core-seconds, the teacher's included")
        axes.set_ylabel("PSNR on held-out rays, dB")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=140)


def total_time(row: Row, teacher_core_seconds: float, at: float) -> float:
    """Return core-seconds into a run, with those of the teacher where the run needs one."""
    return at if row["kind"].startswith("images") else teacher_core_seconds + at


def _figures(seeds: dict[int, dict[str, Row]], paid: dict[int, float]) -> Row:
    figures: Row = {}
    for kind in CONTESTANTS:
        rows = [kinds[kind] for kinds in seeds.values()]
        figures[kind] = {
            "core_seconds": statistics.median(row["core_seconds"] for row in rows),
            "total": statistics.median(
                total_time(row, paid[row["seed"]], row["core_seconds"]) for row in rows
            ),
            "steps": statistics.median(row["steps"] for row in rows),
            "psnr": over_seeds([row["psnr"] for row in rows]),
            "psnr_to_teacher": over_seeds([row["psnr_to_teacher"] for row in rows]),
        }
    gains = [kinds["finished"]["psnr"] - kinds["images_total"]["psnr"] for kinds in seeds.values()]
    reaches: Row = {}
    for name, (one, other) in REACHES.items():
        times = []
        for seed, kinds in seeds.items():
            at = first_reached(kinds[one]["curve"], kinds[other]["curve"][-1][1])
            times.append(None if at is None else total_time(kinds[one], paid[seed], at))
        reaches[name] = {"values": times, "median": _median(times)}
    return {**figures, "gain_db": over_seeds(gains), "reaches": reaches}


def _median(times: Sequence[float | None]) -> float | None:
    """Return the median of times of which None is the latest."""
    median = statistics.median(math.inf if time is None else time for time in times)
    return None if math.isinf(median) else median


def _reading(summary: Sequence[Row]) -> str:
    """Return one line: who is better at equal total time, and by how much."""
    if not summary:
        return "No student has all its runs."
    return (
        "At equal total time, the teacher's training included: "
        f"{'; '.join(_compared(entry['student'], entry['gain_db']) for entry in summary)}."
    )


def _compared(student: str, gain: Row) -> str:
    values = ", ".join(f"{value:+.2f}" for value in gain["values"])
    better, worse = (all(sign * value > 0 for value in gain["values"]) for sign in (1, -1))
    size = f"by {abs(gain['median']):.2f} dB (by seed {values})"
    if better:
        return f"{student} distilled and finished beats training from images {size}"
    if worse:
        return f"{student} from images beats distilling and finishing {size}"
    return f"{student} undecided, the seeds disagree (finished above images by seed {values} dB)"


def _about_teachers(teachers: Sequence[Row]) -> str:
    if not teachers:
        return "none"
    psnr, spent = (statistics.median(row[name] for row in teachers) for name in ("psnr", "core_seconds"))
    return f"{TEACHER} small, {psnr:.2f} dB after {spent:.1f} core-seconds"


def _quality_row(entry: Row, kind: str) -> list[str]:
    figures = entry[kind]
    return [
        entry["student"],
        CONTESTANTS[kind],
        f"{figures['core_seconds']:.1f}",
        f"{figures['total']:.1f}",
        f"{figures['steps']:,.0f}",
        *(
            f"{figures[name]['median']:.2f} ({figures[name]['spread']:.2f})"
            for name in ("psnr", "psnr_to_teacher")
        ),
    ]


def _reaches_row(entry: Row) -> list[str]:
    cells = [entry["student"]]
    for name, (_, other) in REACHES.items():
        at = entry["reaches"][name]["median"]
        cells.append(f"{'never' if at is None else f'{at:.1f}'} of {entry[other]['total']:.1f}")
    return cells


def _unfinished(rows: Sequence[Row]) -> list[str]:
    """Return lines that say which students had no part of their time for images, and why."""
    lines = []
    for row in rows:
        if row["kind"] == "finished" and "images" not in row["stages"]:
            why = row["dropped"].get("images", "its own part of the budget for images is 0")
            lines.append(f"- not finished on images: {row['student']}, seed {row['seed']}: {why}")
    return ["", *lines] if lines else []
