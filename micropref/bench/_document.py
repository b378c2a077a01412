"""A report as a few blocks, written as markdown or as one HTML page."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Heading:
    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Grid:
    """A table: the first `n_text` columns are words, the others figures.

    A row of one cell, where the table has more columns, is the heading of the rows below it.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    n_text: int
    caption: str = ""


@dataclass(frozen=True)
class Image:
    path: Path
    text: str


Block = Heading | Paragraph | Grid | Image

_STYLE = """
:root { color-scheme: light dark; --line: #c9ced6; --soft: #f3f5f8; --ink: #1b1f24; --quiet: #59636e; --back: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3d444d; --soft: #1c2128; --ink: #e6edf3; --quiet: #9aa4af; --back: #0d1117; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back); margin: 2rem auto;
  max-width: 92rem; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 .6rem; }
p { max-width: 60rem; }
div.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
caption { caption-side: top; text-align: left; color: var(--quiet); padding: .3rem 0; max-width: 60rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { background: var(--soft); }
td.text, th.text { text-align: left; }
tbody tr:hover { background: var(--soft); }
img { max-width: 100%; background: #fff; border: 1px solid var(--line); border-radius: 4px; }
"""


def as_markdown(blocks: Sequence[Block]) -> str:
    """The report for a README or a terminal."""
    parts = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"{'#' * block.level} {block.text}")
        elif isinstance(block, Paragraph):
            parts.append(block.text)
        elif isinstance(block, Image):
            parts.append(f"![{block.text}]({block.path.name})")
        else:
            table = "\n".join(_aligned(block))
            parts.append(f"{block.caption}\n\n{table}" if block.caption else table)
    return "\n\n".join(parts) + "\n"


def _aligned(grid: Grid) -> list[str]:
    """Lines of a table whose columns are aligned, so that it can be read in a terminal too."""
    n = len(grid.header)
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (grid.header, *grid.rows)]
    whole = [row for row in rows if len(row) == n]
    width = [max(3, *(len(row[i]) for row in whole)) for i in range(n)]
    if 1 < n == grid.n_text:
        width[-1] = 3  # nothing follows the last column of words

    def line(cells: Sequence[str]) -> str:
        sides = ["<" if i < grid.n_text else ">" for i in range(n)]
        return f"| {' | '.join(f'{cells[i]:{sides[i]}{width[i]}}' for i in range(n))} |"

    rules = ["-" * width[i] if i < grid.n_text else "-" * (width[i] - 1) + ":" for i in range(n)]
    headed = [line(row) if len(row) == n else f"| **{row[0]}** |" + " |" * (n - 1) for row in rows[1:]]
    return [line(rows[0]), line(rules), *headed]


def as_html(title: str, blocks: Sequence[Block]) -> str:
    """The report as one page that needs no other file."""
    parts = []
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"<h{block.level}>{html.escape(block.text)}</h{block.level}>")
        elif isinstance(block, Paragraph):
            parts.append(f"<p>{html.escape(block.text)}</p>")
        elif isinstance(block, Image):
            picture = base64.b64encode(block.path.read_bytes()).decode()
            parts.append(f'<p><img alt="{html.escape(block.text)}" src="data:image/png;base64,{picture}"></p>')
        else:
            parts.append(_table(block))
    head = f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>'
    view = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "\n".join(parts)
    return f"{head}\n{view}\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"


def _table(grid: Grid) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        kinds = [' class="text"' if i < grid.n_text else "" for i in range(len(cells))]
        return "".join(f"<{tag}{kind}>{html.escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))

    caption = f"<caption>{html.escape(grid.caption)}</caption>" if grid.caption else ""

    def row_of(cells: Sequence[str]) -> str:
        if len(cells) < len(grid.header):
            return f'<tr><th class="text" colspan="{len(grid.header)}">{html.escape(cells[0])}</th></tr>'
        return f"<tr>{line(cells, 'td')}</tr>"

    body = "\n".join(map(row_of, grid.rows))
    head = f"<thead><tr>{line(grid.header, 'th')}</tr></thead>"
    return f'<div class="wide"><table>{caption}{head}\n<tbody>\n{body}\n</tbody></table></div>'
