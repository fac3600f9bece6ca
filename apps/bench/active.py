"""Effect of active learning: no level, each alone, and all of them, at equal time."""

import statistics
from pathlib import Path

from fieldmorph.apps.bench.runner import Bench, Row, distil, failures, markdown
from fieldmorph.distill.levels import LEVELS

TEACHER, STUDENT = "hashgrid", "mlp"
TEACHER_CORE_SECONDS = 300.0
STUDENT_CORE_SECONDS = 180.0
SETTINGS: dict[str, tuple[str, ...]] = {"off": (), **{level: (level,) for level in LEVELS}, "all": LEVELS}


def bench_active(
    data: str | Path | None = None,
    output: str | Path = "bench_output",
    *,
    downscale: int = 1,
    n_seeds: int = 3,
    scale: float = 1.0,
    force: bool = False,
    quiet: bool = False,
) -> Row:
    """Convert one hash grid to an MLP with every setting and seed; return JSON values.

    The teacher is trained once. Runs of one seed differ in the levels only, and each seed begins with another
    setting, so that a machine that slows down favours none. Rows are resumed as `Bench` says.

    Args:
        scale: multiplies all budgets.

    Raises:
        SettingError, InputError: before anything is written.
    """
    bench = Bench.of_scene("active", data, output, downscale, force, quiet)
    teacher, budget = (
        bench.train_teacher(TEACHER, scale * TEACHER_CORE_SECONDS, seed=0),
        scale * STUDENT_CORE_SECONDS,
    )
    names = list(SETTINGS)
    for seed in range(n_seeds):
        first = seed % len(names)
        for name in names[first:] + names[:first]:
            what = {"kind": "conversion", "active": name, "budget": budget, "seed": seed}
            if "error" in teacher:
                bench.fail(what, f"no teacher: {teacher['error']}")
                continue
            bench.run(
                {**what, "teacher_sha256": teacher["sha256"]},
                distil,
                **bench.settings,
                teacher=teacher["path"],
                student=STUDENT,
                output=bench.fields() / f"{name}_{seed}.fm",
                budget=budget,
                seed=seed,
                active=SETTINGS[name],
            )
    result = {"scale": scale, "seeds": n_seeds, "budget": budget, "summary": summarize(bench.rows)}
    return bench.finish(result, active_table)


def summarize(rows: list[Row]) -> list[Row]:
    """Summarise each setting over the seeds: `mean`, `std` and `spread` (maximum minus minimum).

    `..._gain` are differences to `off` of the same seed; with few seeds only a gain well above its own `std` is
    significant.
    """
    good = [row for row in rows if row["kind"] == "conversion" and "error" not in row]
    by_run = {(row["active"], row["seed"]): row for row in good}
    summary = []
    for name in SETTINGS:
        mine = [row for row in good if row["active"] == name]
        if not mine:
            continue
        entry: Row = {"active": name, "steps": statistics.mean(row["steps"] for row in mine)}
        for figure in ("psnr_to_teacher", "worst_to_teacher", "psnr"):
            entry[figure] = _over_seeds([row[figure] for row in mine])
            off = [(row, by_run[("off", row["seed"])]) for row in mine if ("off", row["seed"]) in by_run]
            entry[f"{figure}_gain"] = _over_seeds([row[figure] - other[figure] for row, other in off])
        summary.append(entry)
    return summary


def active_table(result: Row) -> str:
    """Format what `bench_active` returned as a Markdown table."""
    rows = []
    for entry in result["summary"]:
        gain = entry["psnr_to_teacher_gain"]
        apart = ", ".join(f"{value:+.2f}" for value in gain["values"])
        plain = entry["active"] == "off" or not gain["values"]
        rows.append(
            [
                entry["active"],
                *(_shown(entry[name]) for name in ("psnr_to_teacher", "worst_to_teacher", "psnr")),
                "" if plain else f"{gain['mean']:+.2f} ± {gain['std']:.2f} ({apart})",
                "" if plain else f"{entry['worst_to_teacher_gain']['mean']:+.2f}",
                f"{entry['steps']:.0f}",
            ]
        )
    head = ["active", "to the teacher", "worst view", "to test images", "against off", "worst view", "steps"]
    about = (
        f"Scene {result['scene']}, {TEACHER} to {STUDENT}, both small, {result['budget']:.0f} core-seconds, "
        f"{result['seeds']} seeds, {result['threads']} threads. PSNR in dB on test views: mean ± standard deviation "
        "(maximum minus minimum); against off: differences by seed."
    )
    return "\n".join([about, "", markdown(head, rows), *failures(result)])


def _over_seeds(values: list[float]) -> Row:
    if not values:
        return {"values": [], "mean": None, "std": None, "spread": None}
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return {
        "values": values,
        "mean": statistics.mean(values),
        "std": std,
        "spread": max(values) - min(values),
    }


def _shown(figure: Row) -> str:
    return f"{figure['mean']:.2f} ± {figure['std']:.2f} ({figure['spread']:.2f})"
