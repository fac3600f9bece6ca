"""Put the screenshots of each state, at all sizes, light and dark, into one small image of the state.

    python data_scripts/screenshot_sheets.py build/screenshots -o docs/images/states

A sheet has a row for each scheme and a column for each size. It is made from the files STATE_SIZE_SCHEME.png that
`screenshots.py` writes.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageOps

SIZES, SCHEMES = ("desk", "wide", "phone"), ("light", "dark")
HEIGHT, GAP = 400, 8  # pixels of a screenshot, and between two
MIN_SCALE = 0.35  # of a long page, which is higher
QUALITY = 60  # of WebP


def screenshots(folder: Path) -> dict[str, dict[tuple[str, str], Path]]:
    """Return the screenshots in a folder: by state, and then by size and scheme."""
    found: dict[str, dict[tuple[str, str], Path]] = defaultdict(dict)
    for path in sorted(folder.glob("*_*_*.png")):
        state, size, scheme = path.stem.rsplit("_", 2)
        if size in SIZES and scheme in SCHEMES:
            found[state][size, scheme] = path
    return dict(found)


def sheet(files: Mapping[tuple[str, str], Path], height: int = HEIGHT) -> Image.Image:
    """Return the screenshots of one state, at least one, as one image."""
    rows = []
    for scheme in SCHEMES:
        row = [Image.open(files[size, scheme]).convert("RGB") for size in SIZES if (size, scheme) in files]
        row = [ImageOps.scale(image, max(height / image.height, MIN_SCALE)) for image in row]
        rows += [row] if row else []
    width = max(sum(image.width + GAP for image in row) for row in rows) - GAP
    made = Image.new("RGB", (width, sum(max(i.height for i in row) + GAP for row in rows) - GAP), "#888888")
    y = 0
    for row in rows:
        x = 0
        for image in row:
            made.paste(image, (x, y))
            x += image.width + GAP
        y += max(image.height for image in row) + GAP
    return made


def main() -> int:
    """Run the command line, and return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("screenshots", type=Path, help="folder that screenshots.py wrote")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the sheets")
    args = parser.parse_args()
    states = screenshots(args.screenshots)
    if not states:
        print(f"screenshot_sheets: no screenshots in {args.screenshots}", file=sys.stderr)
        return 3
    args.output.mkdir(parents=True, exist_ok=True)
    for state, files in states.items():
        sheet(files).save(args.output / f"{state}.webp", quality=QUALITY, method=6)
    return 0


if __name__ == "__main__":
    sys.exit(main())
