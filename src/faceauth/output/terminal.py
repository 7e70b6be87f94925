"""The table that a terminal shows."""

from typing import IO, Any, ClassVar, Self

from faceauth.output.rows import Row, made_by, notes, printable, rows
from faceauth.verdict import Verdict


class TableOutput:
    """A table for the terminal, drawn when it is closed. Rows past `limit` are counted, not drawn."""

    STYLES: ClassVar = {"real": "green", "fake": "bold red", "uncertain": "yellow", "no-face": "dim", None: "dim"}

    def __init__(self, stream: IO[str], limit: int = 2000) -> None:
        self._stream, self._limit, self._more = stream, limit, 0
        self._rows: list[Row] = []

    def write(self, verdict: Verdict) -> None:
        """Add an image's rows."""
        for row in rows(verdict):
            if len(self._rows) < self._limit:
                self._rows.append(row)
            else:
                self._more += 1

    def table(self) -> Any:
        """The rich table of what was written so far; without a column of notes where there are none."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        names = ["image", "face", "verdict", "P(fake)", "made by", "note"]
        lines = [_cells(row) for row in self._rows]
        used = [n for n, name in enumerate(names) if name != "note" or any(line[n] for line in lines)]
        for n in used:
            table.add_column(names[n], justify="right" if n in {1, 3} else "left", overflow="fold")
        for row, line in zip(self._rows, lines, strict=True):
            style = self.STYLES[row["label"]]
            table.add_row(*(Text(printable(line[n]), style=style if n == 2 else "") for n in used))
        return table

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        from rich.console import Console

        console = Console(file=self._stream)
        if self._rows:
            console.print(self.table())
        if self._more:
            console.print(f"and {self._more} rows more: write them all with -o FILE")


def _cells(row: Row) -> tuple[str, ...]:
    face = "" if row["face"] is None else str(row["face"] + 1)
    score = "" if row["score"] is None else f"{row['score']:.2f}"
    says = [f"file says {s}" for s in row["says_itself"]]
    if row["error"]:
        noted = [row["error"]]
    else:
        whole = row["face"] is None and row["label"] != "no-face"
        noted = ["no face found: whole image judged"] * whole + notes(row)
    return row["path"], face, row["label"] or "unreadable", score, made_by(row), "; ".join(noted + says)
