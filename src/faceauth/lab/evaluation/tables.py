"""Rows as tables: Markdown and CSV. An interval is a mapping of value, low and high."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a title, with a sentence on how to read them; `key` names its file."""

    key: str
    title: str
    note: str
    rows: Sequence[Row]

    @property
    def heads(self) -> list[str]:
        """See `heads`."""
        return heads(self.rows)


def heads(rows: Sequence[Row]) -> list[str]:
    """The columns: every row's keys, in the order in which they first come. Rows need not have the same."""
    return list(dict.fromkeys(head for row in rows for head in row))


def cell(value: Any) -> str:
    """One value as text: three decimals, an interval in parentheses, a dash for what is not defined."""
    if isinstance(value, Mapping):
        between = cell(None) if value["low"] is None else f"{cell(value['low'])}-{cell(value['high'])}"
        return f"{cell(value['value'])} ({between})"
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def markdown(rows: Sequence[Row]) -> str:
    """A Markdown table, a dash where a row lacks a column. HTML and bars in the values are made harmless."""
    columns = heads(rows)
    lines = [f"| {' | '.join(map(_plain, columns))} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(_plain(cell(row.get(head))) for head in columns)} |" for row in rows]
    return "\n".join(lines)


def _plain(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|")
    return " ".join(escaped.split())


def to_csv(rows: Sequence[Row]) -> str:
    """Comma-separated values at full precision; an interval takes three columns."""
    flat = [_flat(row) for row in rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, heads(flat), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for head, value in row.items():
        if isinstance(value, Mapping):
            flat |= {head: value["value"], f"{head} low": value["low"], f"{head} high": value["high"]}
        else:
            flat[head] = value
    return flat
