"""docs/extending.md and its second page: what they add works, in processes of their own, as a newcomer would run it."""

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

PAGES = ("docs/extending.md", "docs/extending-the-program.md")
BLOCKS = [block for page in PAGES for block in blocks(page, "python")]
FILES = {
    match.group(1): block for block in BLOCKS if (match := re.match(r"# (\w+\.py)\n", block)) is not None
}
USES = [block for block in BLOCKS if not re.match(r"# \w+\.py\n", block)]
VIEW = """
import json, sys, urllib.request
import register_field
from helpers.view_fields import request_of, served
from pathlib import Path
with served([Path("student_blobs.fm")], resolution=16) as (url, viewer):
    scene = viewer.scenes[0]
    camera = scene.stored.cameras[0]
    body = json.dumps({"scenes": [scene.id], **request_of(camera)}).encode()
    request = urllib.request.Request(f"{url}tiles", body, {"content-type": "application/json"})
    print(len(urllib.request.urlopen(request, timeout=60).read()))
"""


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
        [sys.executable, "-W", "ignore", *arguments],
        cwd=cwd or folder,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_field_has_at_most_60_lines() -> None:
    assert FILES["gaussians.py"].count("\n") <= 60


def test_the_field_passes_the_contract_suite(desk: Path) -> None:
    suite = str(TESTS / "fields" / "test_field_contract.py")
    flags = ["-q", "-p", "no:cacheprovider", "-p", "register_field", "-k", "gaussians"]
    reported = run(desk, "-m", "pytest", *flags, suite, cwd=ROOT)
    passed = re.search(r"(\d+) passed", reported)
    assert passed is not None
    assert int(passed.group(1)) > 25
    assert "failed" not in reported


def test_every_use_on_the_page_runs(desk: Path) -> None:
    run(desk, "-c", "\n".join(USES))
    written = {path.name for path in desk.iterdir()}
    assert {"blobs.fm", "student_blobs.fm", "blobs.html", "orbit", "points.xyz"} <= written
    points = [[float(x) for x in line.split()] for line in (desk / "points.xyz").read_text().splitlines()]
    assert 10 < len(points) <= 2000
    assert all(len(point) == 6 and 0 <= min(point[3:]) <= max(point[3:]) <= 255 for point in points)


def test_the_field_shows_in_the_viewer(desk: Path) -> None:
    if not (desk / "student_blobs.fm").exists():
        run(desk, "-c", USES[0])
    assert int(run(desk, "-c", VIEW).split()[-1]) > 100


def test_the_page_names_every_table() -> None:
    page = "".join((ROOT / page).read_text() for page in PAGES)
    tables = re.findall(r"\| `([A-Z]+)` in `([\w/.]+)` \|", page)
    assert len(tables) >= 8
    assert "A sampler" in page
    assert "An export format" in page
    for name, file in tables:
        assert re.search(rf"^{name}\b", (ROOT / file).read_text(), re.MULTILINE), (name, file)
