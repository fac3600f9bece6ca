"""docs/extending.md: what it adds works, in processes of their own, as a newcomer would run it."""

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.pages import blocks
from helpers.paths import ROOT, TESTS
from PIL import Image

PAGE = "docs/extending.md"
FILES = {
    match.group(1): block
    for block in blocks(PAGE, "python")
    if (match := re.match(r"# (\w+\.py)\n", block)) is not None
}
USES = [block for block in blocks(PAGE, "python") if not re.match(r"# \w+\.py\n", block)]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, few_views: Path, teacher: Path, tensor_csv: Path) -> Path:
    """A folder with the files of the page, a scene, a teacher, a table, and a scene in the page's own format."""
    folder = tmp_path_factory.mktemp("newcomer")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / "apps" / "data").mkdir(parents=True)
    shutil.copytree(few_views, folder / "apps" / "data" / "spot")
    shutil.copytree(few_views / "train", folder / "captured" / "train")
    shutil.copy(teacher, folder / "teacher.fm")
    shutil.copy(tensor_csv, folder / "measurements.csv")
    content = json.loads((few_views / "transforms_train.json").read_text())
    with (folder / "captured" / "cameras.csv").open("w", newline="") as table:
        for frame in content["frames"]:
            image = f"{frame['file_path']}.png"
            with Image.open(few_views / image) as opened:
                focal = opened.width / 2 / math.tan(content["camera_angle_x"] / 2)
            numbers = [x for row in frame["transform_matrix"][:3] for x in row]
            csv.writer(table).writerow([image, focal, *numbers])
    return folder


def run(folder: Path, *arguments: str, cwd: Path | None = None) -> str:
    """Standard output of a Python process that finds the files of the page and the helpers of the tests."""
    paths = [str(folder), str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments], cwd=cwd or folder, capture_output=True, text=True, timeout=600,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_every_use_on_the_page_runs(desk: Path) -> None:
    run(desk, "-c", "\n".join(USES))


def test_the_page_names_every_table() -> None:
    page = (ROOT / PAGE).read_text()
    tables = re.findall(r"\| `([A-Z]+)` in `([\w/.]+)` \|", page)
    assert tables
    for name, file in tables:
        assert re.search(rf"^{name}\b", (ROOT / file).read_text(), re.MULTILINE), (name, file)
