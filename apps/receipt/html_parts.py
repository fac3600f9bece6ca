"""Pieces of HTML for pages without scripts; every value from outside is escaped."""

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>\n" if content else ""


def details(title: str, content: str) -> str:
    return f"<details><summary>{title}</summary>{content}</details>"


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    total: bool = False,
    numbers: bool = True,
) -> str:
    """A table of cells that are HTML already; the first column names the rows."""
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
    rows = [f"<dt>{labelled(name)}</dt><dd>{shown(value)}</dd>" for name, value in values.items()]
    return f'<dl class="pairs">{"".join(rows)}</dl>'


def number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def labelled(name: Any) -> str:
    return escaped(str(name).replace("_", " "))


def shown(value: Any) -> str:
    """Any JSON value in a line of HTML."""
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
    return html.escape(str(value), quote=True)
