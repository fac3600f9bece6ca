"""PVD's own pair, a hash grid and NeRF's 8 x 256 perceptron, at a CPU's budget, next to what the authors' logs say."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fieldmorph.apps.bench.comparison import TEACHER, number, run_contestants, teach
from fieldmorph.apps.bench.convert import learn
from fieldmorph.apps.bench.convert_summary import CONTESTANTS, total_time
from fieldmorph.apps.bench.runner import Bench, Row, failures, markdown
from fieldmorph.apps.bench.turns import SLICE_CORE_SECONDS
from fieldmorph.apps.jobs.scenes import bundled_scene, open_scene

STUDENT = "mlp-paper"
KINDS = ("distilled", "finished", "images_total")

# PSNR in dB on test images of 800 x 800 in the training logs of the teachers that the authors of PVD published, trained
# on GPUs: of lego, and the mean of NeRF-Synthetic's eight scenes.
PUBLISHED = {"hash grid": (35.70, 32.60), "TensoRF (VM)": (34.72, 31.52), "MLP (NeRF)": (33.64, 30.79)}


@dataclass(frozen=True, kw_only=True)
class PaperPlan:
    """Budgets at the scale 1, at which all runs take about two hours on two cores, and how often runs are evaluated.

    Attributes:
        teacher, student: core-seconds of a training and of a conversion.
        min_core_seconds: of both, however small the scale.
        slice_core_seconds: of CPU time in which one contestant computes before the next one does.
        evaluations: of each run on the way, at times in equal ratios.
        n_pixels: of the held-out test views that such an evaluation renders.
    """

    teacher: float = 2400.0
    student: float = 3000.0
    min_core_seconds: float = 0.5
    slice_core_seconds: float = SLICE_CORE_SECONDS
    evaluations: int = 8
    n_pixels: int = 4096

    def scaled(self, scale: float) -> "PaperPlan":
        """Return the plan with all budgets multiplied, and slices that are shorter where the budgets are."""
        return replace(
            self,
            teacher=max(scale * self.teacher, self.min_core_seconds),
            student=max(scale * self.student, self.min_core_seconds),
            slice_core_seconds=min(scale, 1.0) * self.slice_core_seconds,
        )

    def core_seconds(self) -> float:
        """Return the core-seconds of all runs, without evaluations."""
        return 2 * self.teacher + 3 * self.student


def bench_paper(
    data: str | Path | None = None,
    output: str | Path = "bench_output",
    *,
    downscale: int = 1,
    scale: float = 1.0,
    force: bool = False,
    quiet: bool = False,
    plan: PaperPlan | None = None,
) -> Row:
    """Distil a hash grid into NeRF's perceptron, both of the size of the papers; return JSON values.

    Three runs with the seed 0 take turns: distilled without images, distilled and finished on images, and from images
    in the time of teacher and conversion together. For the images of the paper give a scene of 800 x 800 pixels. Rows
    are resumed as `Bench` says.

    Args:
        scale: multiplies all budgets.
        plan: budgets and evaluations at the scale 1.

    Raises:
        SettingError, InputError: before anything is written.
    """
    plan = (plan or PaperPlan()).scaled(scale)
    bench = Bench.of_scene("paper", data, output, downscale, force, quiet)
    views = open_scene(data or bundled_scene(), "train", "test", downscale=downscale).splits
    teacher = bench.train_teacher(TEACHER, plan.teacher, 0, teach, preset="paper")
    budgets = dict.fromkeys(KINDS, plan.student) | {"images_total": plan.teacher + plan.student}
    contestants: list[Row] = [
        {"kind": kind, "student": STUDENT, "budget": budget, "seed": 0} for kind, budget in budgets.items()
    ]
    settings: Row = {"evaluations": plan.evaluations, "n_pixels": plan.n_pixels}
    run_contestants(bench, teacher, learn, contestants, settings, plan.slice_core_seconds)
    cameras = views["train"].cameras
    result = {
        "scale": scale,
        "image_size": [cameras.width, cameras.height],
        "training_views": len(views["train"]),
        "budgets_core_seconds": plan.core_seconds(),
        "published": {name: list(values) for name, values in PUBLISHED.items()},
    }
    return bench.finish(result, paper_table)


def paper_table(result: Row) -> str:
    """Format what `bench_paper` returned as Markdown: its rows, and apart from them what the authors' logs say."""
    good = [row for row in result["rows"] if "error" not in row]
    teacher = next((row for row in good if row["kind"] == "teacher"), None)
    paid = 0.0 if teacher is None else teacher["core_seconds"]
    views = "no test views" if teacher is None else number(teacher["views"], "test view")
    width, height = result["image_size"]
    about = (
        f"Scene {result['scene']}, {result['training_views']} training images of {width} x {height}, seed 0, "
        f"{number(result['threads'], 'thread')} of a CPU, scale {result['scale']:g}: "
        f"{result['budgets_core_seconds']:,.0f} core-seconds in all, without evaluations. {TEACHER} paper to mlp paper "
        f"(8 x 256). PSNR in dB, means over {views}; `total` includes the teacher's time."
    )
    rows = [] if teacher is None else [_shown(f"teacher, {TEACHER} paper", teacher, paid)]
    for row in good:
        if row["kind"] in KINDS:
            rows.append(_shown(CONTESTANTS[row["kind"]], row, total_time(row, paid, row["core_seconds"])))
    head = ["", "core-seconds", "total", "steps", "to test images", "to the teacher"]
    return "\n".join(
        [about, "", markdown(head, rows), "", *_published(result["published"]), *failures(result)]
    )


def _shown(title: str, row: Row, total: float) -> list[str]:
    to_teacher = row.get("psnr_to_teacher")
    return [
        title,
        f"{row['core_seconds']:.1f}",
        f"{total:.1f}",
        f"{row['steps']:,}",
        f"{row['psnr']:.2f}",
        "" if to_teacher is None else f"{to_teacher:.2f}",
    ]


def _published(values: dict[str, Sequence[float]]) -> list[str]:
    """Return the lines of the figures that others measured, labelled as such."""
    rows = [[name, *(f"{value:.2f}" for value in found)] for name, found in values.items()]
    return [
        "Not measured here, and not comparable with the above: test PSNR in the authors' training logs of PVD's "
        "teachers, on GPUs, with 100 images of 800 x 800 of each NeRF-Synthetic scene:",
        "",
        markdown(["teacher", "lego", "mean of eight scenes"], rows),
    ]
