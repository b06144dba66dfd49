"""One HTML file that needs nothing else: no network, no other file, no script.

Everything that comes from files goes through `escape`; the page's own policy forbids
whatever would be loaded or run.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from acidmpi.report.pictures import Picture
from acidmpi.report.table import Column, Table

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff;
  max-width: 74rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin-top: 2.4rem;
  border-bottom: 1px solid #ddd; padding-bottom: .2rem; }
p, figcaption { max-width: 46rem; }
figcaption, .small { color: #555; font-size: .88rem; }
figure { margin: 1.6rem 0; } img { max-width: 100%; height: auto; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; } th.word, td.word { text-align: left; }
thead th { border-bottom: 2px solid #888; vertical-align: bottom; }
tbody tr:nth-child(even) { background: #f4f6f8; }
.missing { border-left: 4px solid #D55E00; background: #fdf3ec; padding: .6rem 1rem; }
.missing ul { margin: .3rem 0; } code { font-size: .88em; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Content:
    """What a page says."""

    title: str
    intro: str
    missing: Sequence[tuple[str, str]]
    """Runs that are not finished, and what they lack."""

    comparison: Table
    columns: Sequence[Column]
    pictures: Sequence[Picture]
    runs: Table
    common: dict[str, Any]
    versions: dict[str, Any]


def render(content: Content) -> str:
    """The page."""
    parts = [
        f"<h1>{escape(content.title)}</h1>",
        f'<p class="small">{escape(content.intro)}</p>',
        _missing(content.missing),
        "<h2>Comparison</h2>",
        _table(content.comparison)
        if content.comparison.rows
        else "<p>No run has finished.</p>",
        _explanations(content.comparison, content.columns),
        *_figures(content.pictures),
        "<h2>Runs</h2>",
        _table(content.runs),
        "<h2>What all runs have alike</h2>",
        _pairs(content.common),
        "<h2>Versions</h2>" if content.versions else "",
        _pairs(content.versions),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(content.title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        "<body>\n" + "\n".join(part for part in parts if part) + "\n</body>\n</html>\n"
    )


def _missing(missing: Sequence[tuple[str, str]]) -> str:
    if not missing:
        return ""
    items = "".join(
        f"<li><code>{escape(path)}</code>: {escape(what)}</li>"
        for path, what in missing
    )
    return (
        f'<div class="missing"><b>Not finished: {len(missing)}.</b> The pictures show '
        f"them as far as they go; the comparison leaves them out.<ul>{items}</ul></div>"
    )


def _table(table: Table) -> str:
    head = _row(table.header, "th", table.words)
    body = "".join(_row(row, "td", table.words) for row in table.rows)
    return (
        f'<div class="scroll"><table><thead>{head}</thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _row(cells: Sequence[str], tag: str, words: int) -> str:
    inner = "".join(
        f"<{tag}{' class=word' if number < words else ''}>{escape(cell)}</{tag}>"
        for number, cell in enumerate(cells)
    )
    return f"<tr>{inner}</tr>\n"


def _explanations(table: Table, columns: Sequence[Column]) -> str:
    shown = [column for column in columns if column.name in table.header]
    text = "; ".join(f"<b>{escape(c.name)}</b>: {escape(c.explanation)}" for c in shown)
    if not shown:
        return ""
    return (
        '<p class="small">Mean over runs ± standard deviation. In brackets, of how many '
        f"runs, where not all have a value. {text}.</p>"
    )


def _figures(pictures: Sequence[Picture]) -> list[str]:
    found, before = [], ""
    for picture in pictures:
        heading = picture.title.partition(" (")[0]
        if heading != before:
            found.append(f"<h2>{escape(heading)}</h2>")
            before = heading
        data = base64.b64encode(picture.png).decode("ascii")
        found.append(
            f'<figure><img alt="{escape(picture.title)}" '
            f'src="data:image/png;base64,{data}">'
            f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
        )
    return found


def _pairs(values: dict[str, Any]) -> str:
    if not values:
        return ""
    words = "  ·  ".join(
        f"{escape(str(key))} <b>{escape(_text(value))}</b>"
        for key, value in values.items()
    )
    return f'<p class="small">{words}</p>'


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
