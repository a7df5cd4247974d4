"""One self-contained page: tables and pictures of a report, an evaluation or a bench, nothing loaded from elsewhere."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from indexer.errors import DataError
from indexer.table import Table

_STYLE = """
:root { color-scheme: light dark; --line: #8886; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
figure { margin: 1.5rem 0; } figure svg { max-width: 100%; height: auto; background: #fff; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
"""


def page(title: str, intro: str, tables: Sequence[Table], pictures: Sequence[tuple[str, str]]) -> str:
    """The page as HTML.

    Args:
        title: of the page.
        intro: a paragraph.
        tables: in order.
        pictures: (caption, SVG) in order; our own SVG, put in as it is.
    """
    parts = [f"<h1>{escape(title)}</h1><p>{escape(intro)}</p>"]
    for table in tables:
        head = "".join(f"<th scope=col>{escape(column)}</th>" for column in table.columns)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.cells())
        parts.append(f"<h2>{escape(table.title)}</h2><div class=wide tabindex=0><table><thead><tr>{head}</tr></thead>")
        parts.append(f"<tbody>{body}</tbody></table></div><p>{escape(table.remark)}</p>")
    for caption, picture in pictures:
        parts.append(f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>")
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    head += f"<style>{_STYLE}</style>"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def write_page(path: Path, html: str) -> None:
    """Write a page, making its folder if it is not there.

    Raises:
        DataError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error
