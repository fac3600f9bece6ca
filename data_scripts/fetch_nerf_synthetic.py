"""Unpack and check NeRF-Synthetic, the eight Blender scenes of Mildenhall et al. (2020).

    python fetch_nerf_synthetic.py --zip nerf_synthetic.zip -o data

The authors offer `nerf_synthetic.zip` in a Google Drive folder (`HOME` below), which a browser opens and a
plain download does not. `--url` is for a mirror that you trust, or for the authors' smaller example archive,
`nerf_example_data.zip`, which holds the lego scene. The authors publish no checksum, so none is checked here.

Each scene has the licence of its model, as the archive's README lists them. None is bundled with fieldmorph:

    chair      1DInc             CC0           lego       Heinzelnisse       CC BY-NC
    drums      bryanajones       CC BY         materials  elbrujodelatribu   CC0
    ficus      Herberhold        CC0           mic        up3d.de            CC0
    hotdog     erickfree         CC0           ship       gregzaal           CC BY-SA
"""

import argparse
import http.client
import json
import shutil
import stat
import sys
import tempfile
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath

HOME = "https://drive.google.com/drive/folders/128yBriW1IG_3NJ5Rp7APSTZsJqdJdfc1"
WHERE = f"get nerf_synthetic.zip from {HOME} with a browser, then pass --zip"
SCENES = ("chair", "drums", "ficus", "hotdog", "lego", "materials", "mic", "ship")
COUNTS = {"train": 100, "val": 100, "test": 200}
MAX_ENTRIES = 50_000
CHUNK = 1 << 20


class InputError(ValueError):
    """A file or address that cannot be used (exit code 3)."""

    exit_code = 3


class UnsafeError(InputError):
    """An archive with entries outside its folder, or too large (exit code 4)."""

    exit_code = 4


def extract(archive: Path, output: Path, max_bytes: int) -> None:
    """Unpack a zip into the folder `output`, wholly or not at all.

    Raises:
        UnsafeError: An entry is absolute, climbs with `..`, is a link, or the whole is above `max_bytes`.
        InputError: The zip is damaged, or would replace something that is there.
    """
    try:
        with zipfile.ZipFile(archive) as pack:
            entries = pack.infolist()
            total = sum(e.file_size for e in entries)
            if total > max_bytes or len(entries) > MAX_ENTRIES:
                raise UnsafeError(f"{archive} holds {len(entries)} files, {total} bytes; allowed {max_bytes}")
            for entry in entries:
                _check_entry(entry)
            output.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".unpack-", dir=output) as scratch:
                for entry in entries:
                    _write(pack, entry, Path(scratch))
                _move_all(Path(scratch), output)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise InputError(f"{archive} is not a zip that can be read: {error}") from error


def check_scene(folder: Path) -> dict[str, int]:
    """Return the number of views per split of a scene in the NeRF-Synthetic layout.

    Raises:
        InputError: A split is missing or damaged, names an image that is not there, or, for one of the eight
            scenes, has not the published number of views.
    """
    counts = {}
    for split, published in COUNTS.items():
        path = folder / f"transforms_{split}.json"
        try:
            frames = json.loads(path.read_text())["frames"]
            images = [folder / f"{frame['file_path']}.png" for frame in frames]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise InputError(f"cannot read {path}: {error}") from error
        missing = [image for image in images if not image.is_file()]
        if missing:
            raise InputError(f"{path} names {len(missing)} images that are not there, first {missing[0]}")
        if folder.name in SCENES and len(images) != published:
            raise InputError(f"{path} has {len(images)} views; {published} are published")
        counts[split] = len(images)
    return counts


def download(url: str, target: Path, max_bytes: int) -> None:
    """Write what `url` (https or http) holds to `target`, at most `max_bytes`."""
    if not url.startswith(("https://", "http://")):
        raise InputError(f"expected an https or http address; got {url}")
    size = 0
    try:
        with urllib.request.urlopen(url, timeout=60) as source, target.open("wb") as sink:
            while size <= max_bytes and (block := source.read(CHUNK)):
                size += len(block)
                sink.write(block)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise InputError(f"cannot download {url}: {error}; {WHERE}") from error
    if size > max_bytes:
        raise UnsafeError(f"{url} is above {max_bytes} bytes")
    if not zipfile.is_zipfile(target):
        raise InputError(f"{url} is not a zip (Google Drive answers with a page); {WHERE}")


def fetch(args: argparse.Namespace) -> None:
    """Unpack `--zip` or `--url`, check every scene found and print its counts."""
    max_bytes = args.max_gb * 10**9
    if args.zip:
        extract(args.zip, args.output, max_bytes)
    else:
        with tempfile.TemporaryDirectory(prefix="fetch-") as scratch:
            archive = Path(scratch) / "download.zip"
            download(args.url, archive, max_bytes)
            extract(archive, args.output, max_bytes)
    scenes = sorted(p for name in SCENES for p in args.output.glob(f"**/{name}") if p.is_dir())
    if not scenes:
        raise InputError(f"no scene in the archive; expected folders {', '.join(SCENES)}")
    for folder in scenes:
        counts = check_scene(folder)
        print(folder, ", ".join(f"{n} {split}" for split, n in counts.items()))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    p = argparse.ArgumentParser(description=f"Unpack and check NeRF-Synthetic: {WHERE}.")
    source = p.add_mutually_exclusive_group(required=True)
    source.add_argument("--zip", type=Path, help="the archive, downloaded by hand")
    source.add_argument("--url", help="https address of a mirror")
    p.add_argument("-o", "--output", type=Path, required=True, help="folder to unpack into")
    p.add_argument("--max-gb", type=int, default=8, help="refuse more than this (default %(default)s)")
    return p


def main(argv: list[str] | None = None) -> int:
    """Run the script and return its exit code."""
    args = parser().parse_args(argv)
    try:
        fetch(args)
    except (InputError, OSError) as error:
        print(f"fetch_nerf_synthetic: {error}", file=sys.stderr)
        return getattr(error, "exit_code", InputError.exit_code)
    return 0


def _check_entry(entry: zipfile.ZipInfo) -> None:
    # zipfile turns the system's own separator into "/"; what is left of "\\" or ":" is Windows's.
    path = PurePosixPath(entry.filename)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or set(entry.filename) & {"\\", ":"}:
        raise UnsafeError(f"the archive has an entry outside its folder: {entry.filename!r}")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UnsafeError(f"the archive has an entry that is no plain file: {entry.filename!r}")


def _write(pack: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    """Write one entry, at most its declared size; macOS's shadow files are left out."""
    if entry.filename.startswith("__MACOSX/") or entry.filename.endswith(".DS_Store"):
        return
    target = folder / entry.filename
    if entry.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with pack.open(entry) as source, target.open("xb") as sink:
        shutil.copyfileobj(source, sink, CHUNK)  # zipfile stops at file_size and compares the checksum


def _move_all(scratch: Path, output: Path) -> None:
    tops = list(scratch.iterdir())
    for top in tops:
        if (output / top.name).exists():
            raise InputError(f"{output / top.name} is there already")
    for top in tops:
        top.rename(output / top.name)


if __name__ == "__main__":
    sys.exit(main())
