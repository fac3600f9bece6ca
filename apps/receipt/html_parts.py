"""Parts of HTML pages without scripts. Titles are HTML; values from outside must be escaped, as `shown` does."""

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def section(title: str, content: str) -> str:
    """Return a section with a heading; empty where there is no content."""
    return f"<section><h2>{title}</h2>{content}</section>\n" if content else ""


def details(title: str, content: str) -> str:
    """Return content that opens on a click on its title."""
    return f"<details><summary>{title}</summary>{content}</details>"


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    total: bool = False,
    numbers: bool = True,
) -> str:
    """Return a table of cells that are HTML already.

    Args:
        rows: the first cell of each is its heading.
        total: whether the last row is a sum.
        numbers: whether the cells are numbers, which are right-aligned.
    """
    kind = ' class="n"' if numbers else ""
    rows = list(rows)
    lines = []
    for i, (name, *cells) in enumerate(rows):
        last = ' class="total"' if total and i == len(rows) - 1 else ""
        lines.append(
            f'<tr{last}><th scope="row">{name}</th>{"".join(f"<td{kind}>{cell}</td>" for cell in cells)}</tr>'
        )
    first, *others = head
    titles = f'<th scope="col">{first}</th>' + "".join(
        f'<th scope="col"{kind}>{name}</th>' for name in others
    )
    named = f"<caption>{caption}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table>{named}<thead><tr>{titles}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def pairs(values: Mapping[str, Any]) -> str:
    """Return names and JSON values as a description list."""
    rows = [f"<dt>{labelled(name)}</dt><dd>{shown(value)}</dd>" for name, value in values.items()]
    return f'<dl class="pairs">{"".join(rows)}</dl>'


def number(value: float | None, form: str) -> str:
    """Return a formatted number, or a dash for None."""
    return "–" if value is None else format(value, form)


def labelled(name: Any) -> str:
    """Return a key as a label: spaces instead of underscores."""
    return escaped(str(name).replace("_", " "))


def shown(value: Any) -> str:
    """Return any JSON value as one line of HTML."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.5g}"
        case dict():
            return ", ".join(f"{labelled(k)} {shown(v)}" for k, v in value.items()) or "–"
        case list():
            return ", ".join(map(shown, value)) or "–"
    text = escaped(value if isinstance(value, str) else json.dumps(value))
    return f"<code>{text}</code>" if re.fullmatch("[0-9a-f]{64}", text) else text


def escaped(value: Any) -> str:
    """Return a value as text in which no character means markup."""
    return html.escape(str(value), quote=True)
