"""The manifest: which images make up a prepared data set, where each lies and which split it is in.

An Excel workbook of the study's six columns, with what else is known of an image on a second sheet, and the same
as one Parquet table. Its own convention of the class, target 1 = real and 0 = fake, stays in it. A workbook is
made to be edited by hand, so reading one checks everything that a hand can spoil. It knows nothing of how the
images were chosen or cut.
"""

import functools
import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from faceauth.errors import DataError
from faceauth.lab.data.splits import SPLITS

COLUMNS = ("image_path", "destination_path", "Folder", "split", "target_class", "target")
DETAILS = ("sha256", "width", "height", "group", "family", "face_left", "face_top", "face_right", "face_bottom")
NAME = "manifest"
MOST_ROWS = 1_048_575  # of an Excel sheet, below its header
_NAMED = 5  # rows that an error names; it counts the rest
_CLASSES = ("fake", "real")  # by target


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a prepared data set.

    Attributes:
        image_path: the original: a file, or `archive.zip!/member`.
        destination_path: the prepared file, relative to the manifest's folder.
        folder: the source's label in the study.
        split: train, test or dev.
        target: 1 = real, 0 = fake.
        sha256: of the original's bytes; width, height: of the original in pixels.
        group: ties what must stay on one side of a split; empty for none.
        family: what kind of source: real, gan, diffusion, swap, laundered.
        face: left, top, right, bottom in pixels of the prepared file; None where no face was found or nothing is known.
    """

    image_path: str
    destination_path: str
    folder: str
    split: str
    target: int
    sha256: str = ""
    width: int = 0
    height: int = 0
    group: str = ""
    family: str = ""
    face: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A prepared data set; `root` is the manifest's folder, `sha256` the hash of what its rows say."""

    root: Path
    rows: tuple[Row, ...]
    sha256: str

    def file(self, row: Row) -> Path:
        """Where a prepared image lies."""
        return self.root / row.destination_path


def write_manifest(folder: Path, rows: list[Row]) -> Manifest:
    """Write `manifest.xlsx` and `manifest.parquet` into a folder, each in one go.

    Raises:
        DataError: more rows than an Excel sheet has.
    """
    if len(rows) > MOST_ROWS:
        raise DataError(f"{len(rows):,} images are more than an Excel sheet holds", f"at most {MOST_ROWS:,}")
    _write_parquet(folder / f"{NAME}.parquet", rows)
    _write_xlsx(folder / f"{NAME}.xlsx", rows)
    return Manifest(folder, tuple(rows), _digest(rows))


def _main(r: Row) -> tuple[str | int, ...]:
    return r.image_path, r.destination_path, r.folder, r.split, _CLASSES[r.target], r.target


def _details(r: Row) -> tuple[str | int | float | None, ...]:
    return r.sha256, r.width, r.height, r.group, r.family, *(r.face or (None,) * 4)


def _write_xlsx(path: Path, rows: Sequence[Row]) -> None:
    import xlsxwriter

    part = f"{path}.part"
    with xlsxwriter.Workbook(part, {"constant_memory": True}) as book:  # write_string makes no formula and no link
        _sheet(book.add_worksheet(NAME), COLUMNS, map(_main, rows))
        details = ((r.destination_path, *_details(r)) for r in rows)
        _sheet(book.add_worksheet("details"), ("destination_path", *DETAILS), details)
    os.replace(part, path)


def _sheet(sheet: Any, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    sheet.freeze_panes(1, 0)
    for number, values in enumerate(chain([columns], rows)):
        for column, value in enumerate(values):
            if isinstance(value, str):
                if value:
                    sheet.write_string(number, column, value)
            elif value is not None:
                sheet.write_number(number, column, value)


def _write_parquet(path: Path, rows: Sequence[Row]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    columns = list(zip(*((*_main(r), *_details(r)) for r in rows), strict=True)) or [()] * len(COLUMNS + DETAILS)
    kinds = {"target": pa.int64(), "width": pa.int64(), "height": pa.int64()}
    names = (*COLUMNS, *DETAILS)
    types = [pa.float64() if n.startswith("face_") else kinds.get(n, pa.string()) for n in names]
    arrays = [pa.array(values, kind) for values, kind in zip(columns, types, strict=True)]
    parquet.write_table(pa.table(arrays, names=list(names)), f"{path}.part")
    os.replace(f"{path}.part", path)


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest: `.xlsx` (the second sheet may be missing) or `.parquet`. Rows may be deleted by hand.

    Raises:
        DataError: no such file or one that is no table; a column that is missing; and for rows, a line for each kind of
            fault with row numbers as Excel counts them: an unknown split or class, a target that contradicts its
            class, a path outside the folder, a missing file, an image that stands twice, a source under both classes.
    """
    if not path.is_file():
        raise DataError(f"no manifest {str(path)!r}", "faceauth lab prepare makes one")
    first = 2 if path.suffix.lower() != ".parquet" else 1
    try:
        records = _from_parquet(path) if first == 1 else _from_xlsx(path)
    except OSError as error:
        raise DataError(f"cannot read the manifest {str(path)!r}: {error.strerror or error}") from error
    faults = _Faults()
    rows = [_row(number, record, faults) for number, record in enumerate(records, first)]
    good = [(number, row) for number, row in enumerate(rows, first) if row is not None]
    _check_files(path.parent, good, faults)
    _check_twins(good, faults)
    faults.raise_for(path)
    kept = [row for _, row in good]
    if not kept:
        raise DataError(f"{path} names no images", "prepare the data set again")
    return Manifest(path.parent, tuple(kept), _digest(kept))


Record = dict[str, Any]


def _from_xlsx(path: Path) -> list[Record]:
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        with CalamineWorkbook.from_path(str(path)) as book:
            sheets = [book.get_sheet_by_name(n).to_python(skip_empty_area=False) for n in book.sheet_names[:2]]
    except CalamineError as error:
        raise DataError(f"{path} is no Excel workbook: {error}", "save it as .xlsx") from error
    table = _records(path, sheets[0], COLUMNS)
    if len(sheets) == 1 or not sheets[1]:
        return table
    details = {str(r["destination_path"]): r for r in _records(path, sheets[1], ("destination_path",))}
    return [details.get(str(record["destination_path"]), {}) | record for record in table]


def _records(path: Path, sheet: list[list[Any]], needed: Sequence[str]) -> list[Record]:
    header = [str(v).strip() for v in sheet[0]] if sheet else []
    _need(path, header, needed)
    return [dict(zip(header, values, strict=False)) for values in sheet[1:]]


def _from_parquet(path: Path) -> list[Record]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is no Parquet table: {error}") from error
    _need(path, table.column_names, COLUMNS)
    records: list[Record] = table.to_pylist()
    return records


def _need(path: Path, columns: Sequence[str], needed: Sequence[str]) -> None:
    missing = [c for c in needed if c not in columns]
    if missing:
        raise DataError(
            f"{path} lacks the columns {', '.join(missing)}", f"the first sheet has the columns {', '.join(COLUMNS)}"
        )


@dataclass(slots=True)
class _Faults:
    """What is wrong with which rows."""

    rows: dict[str, list[int]] = field(default_factory=dict)

    def add(self, fault: str, number: int) -> None:
        self.rows.setdefault(fault, []).append(number)

    def raise_for(self, path: Path) -> None:
        lines = []
        for fault, numbers in self.rows.items():
            named = ", ".join(map(str, numbers[:_NAMED]))
            more = f" and {len(numbers) - _NAMED:,} more" if len(numbers) > _NAMED else ""
            lines.append(f"{path}: row{'s' if len(numbers) > 1 else ''} {named}{more}: {fault}")
        if lines:
            raise DataError("\n".join(lines), "mend or delete these rows")


def _row(number: int, record: Record, faults: _Faults) -> Row | None:
    """A row, or None where it is empty or faulty."""
    values = {k: _text(v) for k, v in record.items()}
    if not any(values[c] for c in COLUMNS):
        return None
    fault = _fault(values)
    if fault:
        faults.add(fault, number)
        return None
    try:
        face = tuple(float(values[c]) for c in DETAILS[5:] if values.get(c))
        return Row(
            values["image_path"], values["destination_path"], values["Folder"], values["split"],
            int(values["target"]), values.get("sha256", ""),
            int(float(values.get("width") or 0)), int(float(values.get("height") or 0)),
            values.get("group", ""), values.get("family", ""),
            (face[0], face[1], face[2], face[3]) if len(face) == 4 else None,
        )  # fmt: skip
    except ValueError:
        faults.add("a width, height or face that is no number", number)
        return None


def _text(value: object) -> str:
    """A cell as text: Excel keeps a whole number that was typed in as a float."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _fault(values: dict[str, str]) -> str:
    empty = [c for c in COLUMNS if not values[c]]
    if empty:
        return f"no {empty[0]}"
    if values["split"] not in SPLITS:
        return f"unknown split {values['split']!r}, one of {', '.join(SPLITS)}"
    if values["target_class"] not in _CLASSES:
        return f"unknown target_class {values['target_class']!r}, real or fake"
    if values["target"] not in {"0", "1"}:
        return f"target {values['target']!r} is neither 1 (real) nor 0 (fake)"
    if _CLASSES[int(values["target"])] != values["target_class"]:
        return f"target {values['target']} contradicts target_class {values['target_class']}"
    path = values["destination_path"]
    windows = PureWindowsPath(path)
    if PurePosixPath(path).is_absolute() or windows.drive or windows.root or ".." in windows.parts or "\0" in path:
        return "destination_path leads outside the manifest's folder"
    return ""


def _check_files(root: Path, rows: list[tuple[int, Row]], faults: _Faults) -> None:
    top = os.path.realpath(root)
    real = functools.cache(os.path.realpath)  # a data set has many files and few folders

    for number, row in rows:
        path = os.path.join(top, row.destination_path)
        try:
            mode = os.lstat(path).st_mode
        except OSError:
            faults.add("the file of destination_path is missing", number)
            continue
        whole = os.path.realpath(path) if stat.S_ISLNK(mode) else os.path.join(real(os.path.dirname(path)), "x")
        if not whole.startswith(os.path.join(top, "")):
            faults.add("destination_path is a link that leads outside the manifest's folder", number)
        elif not os.path.isfile(path):
            faults.add("destination_path is no file", number)


def _check_twins(rows: list[tuple[int, Row]], faults: _Faults) -> None:
    first: dict[str, int] = {}
    classes: dict[str, tuple[int, int]] = {}
    for number, row in rows:
        before = first.setdefault(os.path.normpath(row.destination_path), number)
        if before != number:
            faults.add("destination_path stands in an earlier row already", number)
        target, seen = classes.setdefault(row.folder, (row.target, number))
        if target != row.target:
            faults.add(f"{row.folder} is {_CLASSES[row.target]} here and {_CLASSES[target]} in row {seen}", number)


def _digest(rows: list[Row]) -> str:
    return hashlib.sha256("\n".join(sorted(map(repr, rows))).encode()).hexdigest()
