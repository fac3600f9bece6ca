"""Summary and tables of the matrix of conversions."""

import statistics

from fieldmorph.apps.bench.runner import Row, failures, markdown
from fieldmorph.distill.finish import IMAGES

FIGURES = (
    "psnr",
    "ssim",
    "psnr_to_teacher",
    "worst_to_teacher",
    "steps",
    "core_seconds",
    "peak_memory_bytes",
)


def summarize(rows: list[Row]) -> list[Row]:
    """Return the medians over its seeds for each pair that was converted without images and with.

    A pair has `teacher_psnr` and `images_psnr`, of the teacher and of the student trained from images for the time of
    teacher and conversion together; for `distilled` and `finished` alike their figures and `gain_db`, the PSNR on test
    images above `images_psnr`; and whether images took part in all seeds (`images_used`). What has no row is None.
    """
    good = [row for row in rows if "error" not in row]
    alone = {(row["kind"], row["field"], row["seed"]): row["psnr"] for row in good if "field" in row}
    pairs: dict[tuple[str, str, int], dict[str, Row]] = {}
    for row in good:
        if "teacher" in row:
            pairs.setdefault((row["teacher"], row["student"], row["seed"]), {})[row["kind"]] = row
    found: dict[tuple[str, str], list[Row]] = {}
    for (teacher, student, seed), kinds in pairs.items():
        if len(kinds) == 2:
            compared = {
                "teacher_psnr": alone[("teacher", teacher, seed)],
                "images_psnr": alone.get(("images", student, seed)),
                "images_used": IMAGES in kinds["finished"]["stages"],
            }
            found.setdefault((teacher, student), []).append({**compared, **_compare(kinds, compared)})
    summary = []
    for (teacher, student), of_seeds in found.items():
        pair: Row = {"teacher": teacher, "student": student}
        for name in of_seeds[0]:
            values = [figures[name] for figures in of_seeds]
            pair[name] = _over_seeds(values)
        summary.append(pair)
    return summary


def matrix_table(result: Row) -> str:
    """Format what `bench_matrix` returned as Markdown tables: fidelity and gains at a glance, then every figure."""
    fields, pairs = result["fields"], {(pair["teacher"], pair["student"]): pair for pair in result["pairs"]}
    seeds = "1 seed" if result["seeds"] == 1 else f"{result['seeds']} seeds (medians)"

    def glance(name: str, sign: str = "") -> str:
        rows = [
            [teacher, *(_db(pairs.get((teacher, student), {}).get(name), sign) for student in fields)]
            for teacher in fields
        ]
        return markdown(["", *fields], rows)

    rows = [
        [
            f"{pair['teacher']} to {pair['student']}",
            *(_db(pair[name]) for name in ("distilled_psnr_to_teacher", "distilled_worst_to_teacher")),
            *(_db(pair[name]) for name in ("distilled_psnr", "finished_psnr")),
            *(_db(pair[name]) for name in ("teacher_psnr", "images_psnr")),
            _db(pair["finished_psnr"] - pair["teacher_psnr"], "+"),
            _db(pair["finished_gain_db"], "+"),
            *(f"{pair[f'{kind}_steps']:.0f}" for kind in ("distilled", "finished")),
            "" if pair["peak_memory_bytes"] is None else f"{pair['peak_memory_bytes'] / 1e9:.2f}",
        ]
        for pair in result["pairs"]
    ]
    head = [
        "pair",
        "to the teacher",
        "worst view",
        "distilled",
        "finished",
        "teacher",
        "from images",
        "finished - teacher",
        "finished - from images",
        "steps distilled",
        "steps finished",
        "peak GB",
    ]
    lines = [
        f"Scene {result['scene']}, {seeds}, {result['threads']} threads, scale {result['scale']:g}, all fields small, "
        "PSNR in dB on test views. Core-seconds: {:.0f} for a teacher, {:.0f} for a conversion, {:.0f} from "
        "images.".format(*result["budgets"]),
        "",
        "PSNR to the teacher without images (rows: teacher, columns: student):",
        "",
        glance("distilled_psnr_to_teacher"),
        "",
        "PSNR on test images of students finished on images, less that of the student trained from images for the time "
        "of teacher and conversion together:",
        "",
        glance("finished_gain_db", "+"),
        "",
        *_about_gains(result["pairs"]),
        markdown(head, rows),
    ]
    return "\n".join([*lines, *failures(result)])


def _compare(kinds: dict[str, Row], compared: Row) -> Row:
    """Return the figures of both conversions of a pair."""
    found: Row = {}
    for kind, row in kinds.items():
        found |= {f"{kind}_{name}": row[name] for name in FIGURES}
        base = compared["images_psnr"]
        found[f"{kind}_gain_db"] = None if base is None else row["psnr"] - base
    peaks = [found.pop(f"{kind}_peak_memory_bytes") for kind in kinds]
    found["peak_memory_bytes"] = None if None in peaks else max(peaks)
    return found


def _over_seeds(values: list[float | bool | None]) -> float | bool | None:
    """Return the median; None where a value is missing, and for truth values whether all are true."""
    present = [value for value in values if value is not None]
    if len(present) < len(values):
        return None
    return all(present) if isinstance(present[0], bool) else statistics.median(present)


def _about_gains(pairs: list[Row]) -> list[str]:
    """Return lines that sum up the gains, and name the students that no image finished."""
    gains = [pair["finished_gain_db"] for pair in pairs if pair["finished_gain_db"] is not None]
    lines = []
    if gains:
        kept = sum(gain >= -0.3 for gain in gains)
        lines.append(
            f"Of {len(gains)} pairs {sum(gain > 0 for gain in gains)} gain, {kept} lose at most 0.3 dB, and the worst "
            f"has {min(gains):+.2f} dB."
        )
    without = [f"{pair['teacher']} to {pair['student']}" for pair in pairs if not pair["images_used"]]
    if without:
        lines.append(
            f"No image finished these, by the default of the student or for lack of time: {', '.join(without)}."
        )
    return [*lines, ""] if lines else []


def _db(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.2f}"
