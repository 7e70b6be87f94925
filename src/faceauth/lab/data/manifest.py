"""Writing the manifest of a prepared data set: the study's Excel workbook, and the same as one Parquet table.

The first sheet has the study's six columns, with target 1 = real and 0 = fake; the second what else is known of an
image. `faceauth.lab.data.dataset` reads both.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from faceauth.errors import DataError
from faceauth.lab.data.dataset import COLUMNS, DETAILS, DataSet, ImageRow, detail_values, digest, study_values
from faceauth.lab.data.files import replacing

NAME = "manifest"
MOST_ROWS = 1_048_575  # of an Excel sheet, below its header


def write_manifest(folder: Path, rows: Sequence[ImageRow]) -> DataSet:
    """Write `manifest.xlsx` and `manifest.parquet` into a folder, each whole or not at all.

    Raises:
        DataError: more rows than an Excel sheet has.
        OSError: nothing can be written there.
    """
    if len(rows) > MOST_ROWS:
        raise DataError(f"{len(rows):,} images are more than an Excel sheet holds", f"at most {MOST_ROWS:,}")
    _write_parquet(folder / f"{NAME}.parquet", rows)
    _write_xlsx(folder / f"{NAME}.xlsx", rows)
    return DataSet(tuple(rows), folder, digest(rows))


def _write_xlsx(path: Path, rows: Sequence[ImageRow]) -> None:
    import xlsxwriter

    with replacing(path) as part, xlsxwriter.Workbook(str(part), {"constant_memory": True}) as book:
        # write_string makes no formula and no link
        _sheet(book.add_worksheet(NAME), COLUMNS, map(study_values, rows))
        _sheet(
            book.add_worksheet("details"), ("destination_path", *DETAILS), ((r.path, *detail_values(r)) for r in rows)
        )


def _sheet(sheet: Any, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    sheet.freeze_panes(1, 0)
    for number, values in enumerate(chain([columns], rows)):
        for column, value in enumerate(values):
            if isinstance(value, str):
                if value:
                    sheet.write_string(number, column, value)
            elif value is not None:
                sheet.write_number(number, column, value)


def _write_parquet(path: Path, rows: Sequence[ImageRow]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    names = (*COLUMNS, *DETAILS)
    columns = list(zip(*((*study_values(r), *detail_values(r)) for r in rows), strict=True)) or [()] * len(names)
    whole = {"target": pa.int64(), "width": pa.int64(), "height": pa.int64()}
    types = [pa.float64() if n.startswith("face_") else whole.get(n, pa.string()) for n in names]
    arrays = [pa.array(values, kind) for values, kind in zip(columns, types, strict=True)]
    with replacing(path) as part:
        parquet.write_table(pa.table(arrays, names=list(names)), part)
