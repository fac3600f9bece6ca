"""Shape checks on every public signature, and fields whose values are known everywhere."""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fieldmorph.fields  # sets the OpenMP policy before torch is imported

# isort: split
import jaxtyping

# Signatures are checked under pytest only. The hook decorates what is inside @numba.njit as well, which numba cannot
# compile: kernels and whatever else holds one stay as they are, and their callers are checked.
_ROOT = Path(fieldmorph.fields.__path__[0]).parent
_CHECKED = [
    ".".join(("fieldmorph", *path.relative_to(_ROOT).with_suffix("").parts))
    for package in ("fields", "bayes")
    for path in (_ROOT / package).rglob("[a-z]*.py")
    if "@numba" not in path.read_text() and path.parent != _ROOT / "fields" / "kernels"
]
_CHECKED += ["fieldmorph.distill", "fieldmorph.apps"]
_BEARTYPE = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"  # an int is a float
jaxtyping.install_import_hook(_CHECKED, _BEARTYPE)

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from torch import Tensor  # noqa: E402

from fieldmorph.fields.base import VolumeField  # noqa: E402
from fieldmorph.fields.kernels.table import KERNELS  # noqa: E402
from fieldmorph.fields.runtime import use_threads  # noqa: E402

# New examples are drawn locally; CI repeats the same ones. A busy machine is no error.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_sessionstart() -> None:
    """Have every second of several workers compile kernels from the table's end: what one compiles, others load."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        return
    for module in list(KERNELS.values())[:: -1 if int(worker[2:]) % 2 else 1]:
        example = module.example(torch.Generator().manual_seed(0))
        example.run(example.kernel)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files with many slow tests first, so that no worker of several is left with one of them at the end."""
    slow = Counter(
        item.path for item in items for name in ("slow", "browser") if item.get_closest_marker(name)
    )
    items.sort(key=lambda item: -slow[item.path])


class AnalyticField(VolumeField):
    """A field without parameters: any log-density; the colour is the direction, moved from [-1, 1] to [0, 1]."""

    name = "analytic"
    presets: dict[str, dict[str, Any]] = {}

    def __init__(self, aabb: tuple[float, ...], log_density: Callable[[Tensor], Tensor]) -> None:
        super().__init__(aabb)
        self.log_density = log_density

    def config(self) -> dict[str, Any]:
        return {"aabb": self.box(), "log_density": self.log_density}

    def geometry(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        return self.log_density(positions), positions

    def radiance(self, features: Tensor, positions: Tensor, directions: Tensor) -> Tensor:
        return (directions + 1) / 2

    def reset_parameters(self, generator: torch.Generator) -> None:
        pass


@pytest.fixture
def soft_sphere() -> VolumeField:
    """Density 40 at the origin of the box [-1, 1]^3, half of it at radius 0.5, an edge about 0.1 wide."""

    def log_density(positions: Tensor) -> Tensor:
        return math.log(40) + torch.nn.functional.logsigmoid((0.5 - positions.norm(dim=-1)) / 0.025)

    return AnalyticField((-1.0, -1.0, -1.0, 1.0, 1.0, 1.0), log_density)


@pytest.fixture
def uniform_field() -> Callable[..., VolumeField]:
    """A box of constant density: uniform_field(density, aabb)."""

    def make(density: float, aabb: tuple[float, ...]) -> VolumeField:
        return AnalyticField(aabb, lambda positions: torch.full(positions.shape[:-1], math.log(density)))

    return make


@pytest.fixture(scope="session")
def few_views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled scene's folder with 12 views to train and 3 to test, 16 x 16."""
    from fieldmorph.apps.jobs.scenes import bundled_scene

    folder = tmp_path_factory.mktemp("few") / "spot"
    for split, every in (("train", 5), ("test", 7)):
        (folder / split).mkdir(parents=True)
        content = json.loads(bundled_scene().joinpath(f"transforms_{split}.json").read_text())
        content["frames"] = content["frames"][::every]
        for frame in content["frames"]:
            name = f"{frame['file_path']}.png"
            with Image.open(bundled_scene() / name) as image:
                image.reduce(16).save(folder / name)
        (folder / f"transforms_{split}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory, few_views: Path) -> Path:
    """A file of a little hash grid, briefly trained on these views."""
    from fieldmorph.fields.budget import Budget
    from fieldmorph.fields.fit import FitConfig, fit_images
    from fieldmorph.fields.registry import make_field
    from fieldmorph.fields.scene import load_scene
    from fieldmorph.fields.store import save_field

    path, scene = tmp_path_factory.mktemp("teacher") / "t.fm", load_scene(few_views, splits=["train"])
    field = make_field("hashgrid", aabb=scene.aabb, n_levels=4, log2_hashmap_size=10, finest_resolution=32)
    config = FitConfig(occupancy_resolution=32, samples_per_step=1 << 12)
    save_field(path, fit_images(field, scene.splits["train"], Budget(steps=25), config)[0])
    return path


@pytest.fixture(scope="session")
def tensor_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """480 rows of (2 + sin(lat / 10)) (1 + lon / 40) cos(2 pi day / 60) + 0.05 noise, random places and days."""
    import numpy as np

    path = tmp_path_factory.mktemp("tensor") / "train.csv"
    random = np.random.default_rng(0)
    lat, lon = random.uniform(-30, 30, 480).round(2), random.uniform(-20, 20, 480).round(2)
    day, noise = random.integers(0, 60, 480), 0.05 * random.standard_normal(480)
    value = (2 + np.sin(lat / 10)) * (1 + lon / 40) * np.cos(2 * np.pi * day / 60) + noise
    dates = (np.datetime64("2020-01-01") + day.astype("timedelta64[D]")).astype(str)
    rows = [f"{a},{b},{c},{v:.5f}" for a, b, c, v in zip(lat, lon, dates, value, strict=True)]
    path.write_text("\n".join(["lat,lon,time,temp [K]", *rows]) + "\n")
    return path


@pytest.fixture(scope="session")
def tensor_model(tensor_csv: Path) -> Path:
    """A model of these rows in a file."""
    from fieldmorph.apps.tensor.jobs import fit_file
    from fieldmorph.bayes.fitting import FitConfig

    path = tensor_csv.with_name("model.fm")
    fit_file(tensor_csv, path, FitConfig(ranks=(2,), kernels=("matern52",), restarts=1, sweeps=40))
    return path


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Seed torch, and begin with one thread: workers have a core each, and the work of most tests is small."""
    torch.manual_seed(0)
    use_threads(1)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Shape and type checks off, as for a user: what the library itself says of a bad value."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
