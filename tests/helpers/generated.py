"""Parts of Markdown pages that are made from the code: compared with it, or written anew.

`FIELDMORPH_WRITE_PAGES=1 python -m pytest tests/project` writes them.
"""

import os
import re

from helpers.pages import text_of
from helpers.paths import ROOT


def check_part(page: str, name: str, expected: str) -> None:
    """Compare what stands in a page between `<!-- NAME -->` and `<!-- end of NAME -->` with what the code makes."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end of {name} -->)", re.DOTALL)
    text = text_of(page)
    match = pattern.search(text)
    assert match, f"{page} has no part {name}"
    if os.environ.get("FIELDMORPH_WRITE_PAGES") == "1":
        new = text[: match.end(1)] + expected.strip("\n") + text[match.start(2) :]
        (ROOT / page).write_text(new, encoding="utf-8")
        return
    found = text[match.end(1) : match.start(2)]
    assert found == expected.strip("\n"), f"{page} differs from the code; see tests/helpers/generated.py"
