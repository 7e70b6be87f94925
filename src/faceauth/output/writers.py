"""One writer of rows per format, chosen by suffix. Each writes a new file, from a first row to `close`.

JSON holds a row as it is; a table has the columns it was opened with, empty where a row lacks one.
"""

import csv
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from faceauth.errors import MissingExtra
from faceauth.files import replacing
from faceauth.output.gallery import HtmlWriter
from faceauth.output.rows import FIELDS, Row, encodable, flat, printable

SHEET_ROWS = 1_048_576  # of an Excel sheet, the header's among them
CELL_CHARACTERS = 32_767  # of an Excel cell
INTEGERS = ("face", "width", "height", "frame", "track", "frames", "judged", "real", "uncertain", "fake")
FLOATS = ("score", "stability", "threshold", "false_alarm_rate", "ms", "time", "from", "to", "lowest", "highest")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet takes text that begins so for a formula


class Writer(Protocol):
    """Takes rows until it is closed."""

    def write(self, row: Row) -> None:
        """Add one row."""

    def close(self) -> None:
        """Finish the file. Raises OSError."""


class LinesWriter:
    """A JSON object a line."""

    def __init__(self, path: Path, folder: Path, fields: Sequence[str]) -> None:
        self._file = open(path, "w", encoding="ascii", newline="")  # noqa: SIM115

    def write(self, row: Row) -> None:
        self._file.write(f"{line(row)}\n")

    def close(self) -> None:
        self._file.close()


class JsonWriter:
    """One JSON array of objects, one a line."""

    def __init__(self, path: Path, folder: Path, fields: Sequence[str]) -> None:
        self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115
        self._separator = "[\n"

    def write(self, row: Row) -> None:
        self._file.write(self._separator + line(row))
        self._separator = ",\n"

    def close(self) -> None:
        try:
            self._file.write("[]\n" if self._separator == "[\n" else "\n]\n")
        finally:
            self._file.close()


class CsvWriter:
    """UTF-8 with a byte-order mark, without which Excel takes the names for another encoding.

    Text that a spreadsheet takes for a formula is led by an apostrophe, but for `path`, which has to stay a path and
    which `faceauth.inputs.harmless` has seen to.
    """

    def __init__(self, path: Path, folder: Path, fields: Sequence[str]) -> None:
        self._blank: Row = dict.fromkeys(fields)
        self._file = open(path, "w", encoding="utf-8-sig", errors="backslashreplace", newline="")  # noqa: SIM115
        self._writer = csv.DictWriter(self._file, fields)
        self._writer.writeheader()

    def write(self, row: Row) -> None:
        values = flat(self._blank | row)
        self._writer.writerow({n: v if n == "path" else no_formula(v) for n, v in values.items()})

    def close(self) -> None:
        self._file.close()


class XlsxWriter:
    """A workbook; all text stays text. What does not fit on a sheet goes on to the next."""

    def __init__(self, path: Path, folder: Path, fields: Sequence[str]) -> None:
        import xlsxwriter

        self._blank: Row = dict.fromkeys(fields)
        # Rows lie in files until the book is closed: beside the output, whose disk is known to take them.
        self._scratch = tempfile.TemporaryDirectory(prefix=".faceauth-", dir=folder, ignore_cleanup_errors=True)
        options = {"constant_memory": True, "tmpdir": self._scratch.name}
        self._book = xlsxwriter.Workbook(str(path), options)
        self._bold = self._book.add_format({"bold": True})
        self._sheets = 0
        self._next_sheet()

    def write(self, row: Row) -> None:
        if self._count + 1 >= SHEET_ROWS:
            self._next_sheet()
        self._count += 1
        for column, value in enumerate(flat(self._blank | row).values()):
            if isinstance(value, str):
                self._sheet.write_string(self._count, column, printable(value)[:CELL_CHARACTERS])
            elif value is not None:
                self._sheet.write_number(self._count, column, value)

    def close(self) -> None:
        failure, hook = None, sys.unraisablehook
        sys.unraisablehook = lambda _: None  # a ZIP file that failed does so again, aloud, when it goes with its error
        try:
            self._book.close()
        except Exception as error:
            failure = _by_the_system(error)
        finally:
            sys.unraisablehook = hook
            self._scratch.cleanup()
        if failure:
            raise failure

    def _next_sheet(self) -> None:
        self._sheets += 1
        self._sheet = self._book.add_worksheet("faces" if self._sheets == 1 else f"faces {self._sheets}")
        self._sheet.freeze_panes(1, 0)
        names = list(self._blank)
        self._sheet.set_column(names.index("path"), names.index("path"), 48)
        self._sheet.write_row(0, 0, names, self._bold)
        self._count = 0


class ParquetWriter:
    """Row groups of 10,000; numbers keep their types and `box` is a list of integers."""

    def __init__(self, path: Path, folder: Path, fields: Sequence[str] = FIELDS) -> None:
        pa, pq = pyarrow()
        kinds = (
            {"box": pa.list_(pa.int32())} | dict.fromkeys(INTEGERS, pa.int32()) | dict.fromkeys(FLOATS, pa.float64())
        )
        self._blank: Row = dict.fromkeys(fields)
        self._schema = pa.schema([(name, kinds.get(name, pa.string())) for name in fields])
        self._table = pa.Table
        self._writer = pq.ParquetWriter(path, self._schema)
        self._rows: list[Row] = []

    def write(self, row: Row) -> None:
        row = self._blank | row
        text = flat(row) | {"box": row["box"]}
        self._rows.append({k: encodable(v) if isinstance(v, str) else v for k, v in text.items()})
        if len(self._rows) >= 10_000:
            self._flush()

    def close(self) -> None:
        try:
            self._flush()
        finally:
            self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(self._table.from_pylist(self._rows, self._schema))
        self._rows = []


def pyarrow() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet. Raises MissingExtra."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtra("writing Parquet needs pyarrow", "parquet") from error
    return pa, pq


def line(row: Row) -> str:
    """A row as a JSON object on one line, in ASCII; never NaN, which is not JSON."""
    return json.dumps(row, allow_nan=False)


def needs(suffix: str) -> None:
    """Raises MissingExtra where a format needs a package that is not installed."""
    if suffix == ".parquet":
        pyarrow()


def _by_the_system(error: Exception) -> OSError:
    """What the system said; xlsxwriter wraps it in classes of its own."""
    said = error.args[0] if error.args and isinstance(error.args[0], OSError) else error
    return OSError(getattr(said, "errno", None), getattr(said, "strerror", None) or str(error))


def no_formula(value: Any) -> Any:
    """The value of a cell, led by an apostrophe where a spreadsheet would take it for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


# Opened with the path to write, the folder in which the finished file will lie, and the columns of a table.
WRITERS: dict[str, Callable[[Path, Path, Sequence[str]], Writer]] = {
    ".jsonl": LinesWriter, ".json": JsonWriter, ".csv": CsvWriter, ".xlsx": XlsxWriter, ".parquet": ParquetWriter,
    ".html": HtmlWriter,
}  # fmt: skip
SUFFIXES = tuple(WRITERS)


def write_file(path: Path, rows: Iterable[Row], fields: Sequence[str] = FIELDS) -> None:
    """Write rows to a file in the format of its suffix: all of it, or nothing where anything fails.

    Args:
        path: with one of `SUFFIXES`; a file that exists is replaced.
        rows: dicts with some of the keys `fields`.
        fields: columns of a table, in their order.

    Raises:
        OSError: it cannot be written; and whatever `rows` or the library of a format raises.
    """
    with replacing(path) as part:
        writer = WRITERS[path.suffix.lower()](part, Path(os.path.realpath(path)).parent, fields)
        try:
            for row in rows:
                writer.write(row)
        except BaseException:
            with suppress(Exception):
                writer.close()
            raise
        writer.close()
