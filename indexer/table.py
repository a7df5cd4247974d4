"""A table that is shown as Markdown, as CSV and on a page; made without torch."""

import csv
import io
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table with a title and a remark.

    Args:
        name: of its files.
        title: one line.
        columns: headings.
        rows: cells; numbers are shown with two decimals.
        remark: how to read it.
    """

    name: str
    title: str
    columns: list[str]
    rows: list[list[object]]
    remark: str

    def cells(self) -> list[list[str]]:
        """The rows as text."""
        return [[f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row] for row in self.rows]

    def markdown(self) -> str:
        """The table as GitHub shows it."""
        lines = [self.columns, ["---"] * len(self.columns), *self.cells()]
        body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"## {self.title}\n\n{body}\n\n{self.remark}\n"

    def csv(self) -> str:
        """The table with commas; a cell that holds one, or a quote, is quoted."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.columns, *self.cells()])
        return text.getvalue()
