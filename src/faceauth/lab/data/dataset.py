"""The data set: which images there are, where each lies and what is known of it.

One type for three tables: an `images.csv` beside its images, the study's Excel manifest, and Parquet with the
columns of either. Nothing is copied; a row refers to a file. A table is edited by hand, so everything that a hand can
spoil is checked. The study's own convention, target 1 = real and 0 = fake, stays in its six columns.
"""

import csv
import functools
import hashlib
import io
import math
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from faceauth.errors import DataError

SPLITS = ("train", "test", "dev")
LABELS = ("real", "fake", "edited")
IMAGES_COLUMNS = ("path", "source", "label", "family", "generator", "group", "sha256")
COLUMNS = ("image_path", "destination_path", "Folder", "split", "target_class", "target")
DETAILS = ("sha256", "width", "height", "group", "family", "face_left", "face_top", "face_right", "face_bottom")
TABLES = ("images.csv", "manifest.xlsx", "manifest.parquet")  # what a folder is searched for, in this order
CLASSES = ("fake", "real")  # of the study, by target
FETCH = "`faceauth lab corpus fetch configs/corpus.csv -o DIR` fetches the corpus, `faceauth lab prepare` makes another"
AGAIN = "the same command goes on where it stopped"
_FACE = DETAILS[5:]
_STUDY_NAMES = {  # the study's names of the columns of an images.csv
    "path": "destination_path", "source": "Folder", "label": "target_class", "generator": "Folder",
    "original": "image_path",
}  # fmt: skip
_NAMED = 5  # rows that an error names; it counts the rest


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image of a data set.

    Attributes:
        path: the file, relative to the data set's folder.
        source: what made it or took it: a generator, a camera collection; in the study its `Folder`.
        label: real, fake or edited; `edited` images are a probe outside both classes and are never trained on.
        family: real, gan, diffusion, swap, restored, ...; generator: by name.
        group: ties what must stay on one side of a split; empty for none.
        kind: sources that share a collection, a generator or persons, and are held out together.
        sha256: of the file, or in a prepared data set of the original's bytes.
        split: train, test or dev; empty where none is assigned.
        face: left, top, right, bottom in pixels; None where no face was found or nothing is known.
        original: the file that a prepared one was made of, or `archive.zip!/member`; width, height: its pixels.
    """

    path: str
    source: str
    label: str
    family: str
    generator: str
    group: str
    kind: str
    sha256: str
    split: str = ""
    face: tuple[float, float, float, float] | None = None
    original: str = ""
    width: int = 0
    height: int = 0

    @property
    def fake(self) -> bool:
        """Whether score = P(fake) should be high."""
        return self.label == "fake"

    @property
    def target(self) -> int:
        """The study's class: 1 = real, 0 = fake."""
        return int(self.label == "real")


@dataclass(frozen=True, slots=True)
class DataSet:
    """Images by reference.

    Attributes:
        rows: the images, in the order of the table.
        root: the folder that paths are relative to.
        sha256: of the table as read: of an images.csv its bytes, of a manifest what its rows say, whatever its format.
    """

    rows: tuple[ImageRow, ...]
    root: Path
    sha256: str

    def file(self, row: ImageRow) -> Path:
        """Where an image lies."""
        return self.root / row.path


def read_dataset(path: Path, kinds: Path | None = None) -> DataSet:
    """Read and check a data set: `.csv`, `.xlsx`, `.parquet`, or a folder with one of `TABLES`. Rows may be deleted.

    Args:
        kinds: a table of source and kind, as `configs/kinds.csv`. Without it, a column `kind` counts; a source that
            neither names is its own kind.

    Raises:
        DataError: no such table, or one that cannot be read; a column that is missing or there twice; and for rows, a
            line for each sort of fault with row numbers as Excel counts them: an unknown split or label, a target that
            contradicts its class, a number or face box that is none, a path outside the folder, a missing file, an
            image that is listed twice, a source under two labels.
    """
    table = _find(path)
    suffix = table.suffix.lower()
    try:
        data = table.read_bytes()
        columns, records = _READERS[suffix](table, data)
    except OSError as error:
        raise DataError(f"cannot read {str(table)!r}: {error.strerror or error}") from error
    _check_columns(table, columns)
    study = set(COLUMNS) <= set(columns) or suffix == ".xlsx"
    needed = COLUMNS if study else IMAGES_COLUMNS
    if missing := [c for c in needed if c not in columns]:
        raise DataError(f"{table} lacks the columns {', '.join(missing)}", f"it needs {', '.join(needed)}")
    rows = _checked(table, study, records, 1 if suffix == ".parquet" else 2)
    sha256 = hashlib.sha256(data).hexdigest() if suffix == ".csv" else digest(rows)
    if kinds is not None:
        of = read_kinds(kinds)
        rows = [replace(row, kind=of.get(row.source, row.source)) for row in rows]
    return DataSet(tuple(rows), table.parent, sha256)


def read_kinds(path: Path) -> dict[str, str]:
    """The kind of each source, of a table with the columns source and kind.

    Raises:
        DataError: no such table, a column missing, a source that is listed twice.
    """
    try:
        columns, records = _from_csv(path, path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read the kinds {str(path)!r}: {error.strerror}", "configs/kinds.csv is one") from error
    if not {"source", "kind"} <= set(columns):
        raise DataError(f"{path} lacks the columns source, kind")
    kinds: dict[str, str] = {}
    for number, record in enumerate(records, 2):
        source, kind = _text(record["source"]), _text(record["kind"])
        if not source or not kind:
            raise DataError(f"{path}: row {number}: no source or no kind")
        if source in kinds:
            raise DataError(f"{path}: row {number}: {source} is in an earlier row already")
        kinds[source] = kind
    return kinds


def manifest_values(row: ImageRow) -> tuple[str | int | float | None, ...]:
    """What a manifest keeps of an image: the study's six columns, `COLUMNS`, then `DETAILS`."""
    study = row.original, row.path, row.source, row.split, CLASSES[row.target], row.target
    return *study, row.sha256, row.width, row.height, row.group, row.family, *(row.face or (None,) * 4)


def digest(rows: Sequence[ImageRow]) -> str:
    """SHA-256 of what the rows say, in whatever order and format they are written down."""
    told = []
    for row in rows:
        values = manifest_values(row)
        told.append(repr((*values[: len(COLUMNS)], row.label, row.generator, *values[len(COLUMNS) :])))
    return hashlib.sha256("\n".join(sorted(told)).encode()).hexdigest()


def check_bytes(path: str, wanted: str, found: str | None) -> None:
    """Raise DataError where the SHA-256 of a file is not the one that a table says; an empty one says nothing."""
    if wanted and found != wanted:
        raise DataError(
            f"{path}: its bytes are not those of the table's sha256", "fetch it again, or make the table anew"
        )


def need_hashes(rows: Sequence[ImageRow]) -> None:
    """Raise DataError where a row has no SHA-256, by which images are told apart and what is computed is kept."""
    if without := [row.path for row in rows if not row.sha256]:
        raise DataError(
            f"{len(without):,} rows have no sha256, the first {without[0]!r}", "write the SHA-256 of each file there"
        )


# --- reading ---

Record = Mapping[str, Any]
Table = tuple[Sequence[str], Sequence[Record]]
Faults = dict[str, list[int]]  # what is wrong, and in which rows


def _find(path: Path) -> Path:
    if path.is_dir():
        found = next((path / name for name in TABLES if (path / name).is_file()), None)
        if found is None:
            raise DataError(f"no data set in {str(path)!r}: none of {', '.join(TABLES)}", FETCH)
        return found
    if not path.is_file():
        raise DataError(f"no data set {str(path)!r}", FETCH)
    if path.suffix.lower() not in _READERS:
        raise DataError(f"{str(path)!r} is no table of images", f"give {', '.join(_READERS)}, or a folder with one")
    return path


def _from_csv(path: Path, data: bytes) -> Table:
    try:
        rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
        return rows.fieldnames or [], list(rows)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no table: {error}", "save it as CSV in UTF-8") from error


def _from_xlsx(path: Path, data: bytes) -> Table:
    """The first sheet, with the columns of the second, if there is one, by destination_path."""
    from python_calamine import CalamineError, CalamineWorkbook

    try:
        with CalamineWorkbook.from_filelike(io.BytesIO(data)) as book:
            sheets = [book.get_sheet_by_name(n).to_python(skip_empty_area=False) for n in book.sheet_names[:2]]
    except CalamineError as error:
        raise DataError(f"{path} is no Excel workbook: {error}", "save it as .xlsx") from error
    columns, table = _of_sheet(sheets[0])
    more_columns, more = _of_sheet(sheets[1]) if len(sheets) > 1 else ([], [])
    if not more or "destination_path" not in columns:
        return columns, table
    if "destination_path" not in more_columns:
        raise DataError(f"{path} lacks the column destination_path on its second sheet", "or delete that sheet")
    _check_columns(path, more_columns)
    details = {str(r["destination_path"]): r for r in more}
    return columns, [details.get(str(record.get("destination_path")), {}) | record for record in table]


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    for column in columns:
        if column and columns.count(column) > 1:
            raise DataError(f"{path} has two columns {column!r}", "delete one of them")


def _of_sheet(sheet: list[list[Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    header = [str(v).strip() for v in sheet[0]] if sheet else []
    return header, [dict(zip(header, values, strict=False)) for values in sheet[1:]]


def _from_parquet(path: Path, data: bytes) -> Table:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(pa.BufferReader(data))
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is no Parquet table: {error}") from error
    return table.column_names, table.to_pylist()


_READERS = {".csv": _from_csv, ".xlsx": _from_xlsx, ".parquet": _from_parquet}


# --- checking ---


def _checked(table: Path, study: bool, records: Sequence[Record], first: int) -> list[ImageRow]:
    columns, fault_of = (COLUMNS, _study_fault) if study else (IMAGES_COLUMNS, _images_fault)
    named = "destination_path" if study else "path"
    faults: Faults = defaultdict(list)
    numbered: list[tuple[int, ImageRow]] = []
    for number, record in enumerate(records, first):
        values = dict.fromkeys(columns, "") | {k: _text(v) for k, v in record.items() if k is not None}
        if not any(values[c] for c in columns):
            continue
        fault = fault_of(values)
        if study:
            values |= {ours: values[theirs] for ours, theirs in _STUDY_NAMES.items()}
        if not fault and leads_outside(values["path"]):
            fault = f"{named} leads outside the table's folder"
        try:
            row = None if fault else _row(values)
        except ValueError as error:
            row, fault = None, str(error)
        if row is None:
            faults[fault].append(number)
        else:
            numbered.append((number, row))
    _check_rows(table.parent, named, study, numbered, faults)
    _raise(table, faults)
    if not numbered:
        raise DataError(f"{table} names no images", FETCH)
    return [row for _, row in numbered]


def _raise(table: Path, faults: Faults) -> None:
    """Raise DataError with a line for each fault; it names a few rows and counts the others."""
    lines = []
    for fault, numbers in faults.items():
        named = ", ".join(map(str, numbers[:_NAMED]))
        more = f" and {len(numbers) - _NAMED:,} more" if len(numbers) > _NAMED else ""
        lines.append(f"{table}: row{'s' if len(numbers) > 1 else ''} {named}{more}: {fault}")
    if lines:
        complete = "is the data set complete? Otherwise " if any("missing" in fault for fault in faults) else ""
        raise DataError("\n".join(lines), f"{complete}correct or delete these rows")


def _text(value: object) -> str:
    """A cell as text: Excel keeps a whole number that was typed in as a float, pandas an empty cell as NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def leads_outside(path: str) -> bool:
    """Whether a relative path of a table leads outside its folder, on any system."""
    windows = PureWindowsPath(path)
    absolute = PurePosixPath(path).is_absolute() or bool(windows.drive or windows.root)
    return absolute or ".." in windows.parts or "\0" in path


def _study_fault(values: Mapping[str, str]) -> str:
    if empty := [c for c in COLUMNS if not values[c]]:
        return f"no {empty[0]}"
    if values["split"] not in SPLITS:
        return f"unknown split {values['split']!r}, one of {', '.join(SPLITS)}"
    if values["target_class"] not in CLASSES:
        return f"unknown target_class {values['target_class']!r}, real or fake"
    if values["target"] not in {"0", "1"}:
        return f"target {values['target']!r} is neither 1 (real) nor 0 (fake)"
    if CLASSES[int(values["target"])] != values["target_class"]:
        return f"target {values['target']} contradicts target_class {values['target_class']}"
    return ""


def _images_fault(values: Mapping[str, str]) -> str:
    if empty := [c for c in ("path", "source", "label") if not values[c]]:
        return f"no {empty[0]}"
    if values["label"] not in LABELS:
        return f"label {values['label']!r} is none of {', '.join(LABELS)}"
    if values.get("split") and values["split"] not in SPLITS:
        return f"unknown split {values['split']!r}, one of {', '.join(SPLITS)}"
    return ""


def _row(values: Mapping[str, str]) -> ImageRow:
    """A row of its cells, by the names that images.csv has for them. Raises ValueError for one that is no number."""
    return ImageRow(
        values["path"], values["source"], values["label"], values.get("family", ""), values["generator"],
        values.get("group", ""), values.get("kind") or values["source"], values.get("sha256", ""),
        values.get("split", ""), _face(values), values.get("original", ""),
        int(_number(values, "width")), int(_number(values, "height")),
    )  # fmt: skip


def _number(values: Mapping[str, str], column: str) -> float:
    """A cell as a number, 0 where it is empty. Raises ValueError, which names the column, for anything else."""
    value = values.get(column) or "0"
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{column} {value!r} is no number")
    return number


def _face(values: Mapping[str, str]) -> tuple[float, float, float, float] | None:
    missing = [c for c in _FACE if not values.get(c)]
    if len(missing) == len(_FACE):
        return None
    if missing:
        raise ValueError(f"no {missing[0]}")
    left, top, right, bottom = (_number(values, c) for c in _FACE)
    if left >= right or top >= bottom:
        raise ValueError("face_left is not below face_right, or face_top not below face_bottom")
    return left, top, right, bottom


def _check_rows(root: Path, named: str, study: bool, rows: Sequence[tuple[int, ImageRow]], faults: Faults) -> None:
    """Note files that are missing or none, in the study's manifest links that lead outside, and what is there twice."""
    top = os.path.realpath(root)
    real = functools.cache(os.path.realpath)  # a data set has many files and few folders
    for number, row in rows:
        path = os.path.join(top, row.path)
        whole = os.path.realpath(path) if os.path.islink(path) else os.path.join(real(os.path.dirname(path)), "x")
        if not os.path.lexists(path):
            faults[f"the file of {named} is missing"].append(number)
        elif study and not whole.startswith(os.path.join(top, "")):
            faults[f"{named} is a link that leads outside the table's folder"].append(number)
        elif not os.path.isfile(path):
            faults[f"{named} is no file"].append(number)
    first: dict[str, int] = {}
    labels: dict[str, tuple[str, int]] = {}
    for number, row in rows:
        if first.setdefault(os.path.normpath(row.path), number) != number:
            faults[f"{named} is in an earlier row already"].append(number)
        label, seen = labels.setdefault(row.source, (row.label, number))
        if label != row.label:
            faults[f"{row.source} is {row.label} here and {label} in row {seen}"].append(number)
