"""The manifest: which images make up a prepared data set, where each lies and which split it is in.

An Excel workbook of the study's six columns, with what else is known of an image on a second sheet, and the same
as one Parquet table. Its own convention of the class, target 1 = real and 0 = fake, stays in it. It knows nothing
of how the images were chosen or cut.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from faceauth.errors import DataError

COLUMNS = ("image_path", "destination_path", "Folder", "split", "target_class", "target")
DETAILS = ("sha256", "width", "height", "group", "family", "face_left", "face_top", "face_right", "face_bottom")
NAME = "manifest"


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
    """Write `manifest.xlsx` and `manifest.parquet` into a folder, each in one go."""
    table = _table(rows)
    xlsx, parquet = folder / f"{NAME}.xlsx", folder / f"{NAME}.parquet"
    options = {"options": {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False}}
    with pd.ExcelWriter(f"{xlsx}.part", engine="xlsxwriter", engine_kwargs=options) as writer:
        table[list(COLUMNS)].to_excel(writer, sheet_name="manifest", index=False)
        table[["destination_path", *DETAILS]].to_excel(writer, sheet_name="details", index=False)
    table.to_parquet(f"{parquet}.part", index=False)
    os.replace(f"{parquet}.part", parquet)
    os.replace(f"{xlsx}.part", xlsx)
    return Manifest(folder, tuple(rows), _digest(rows))


def read_manifest(path: Path) -> Manifest:
    """Read and check a manifest: `.xlsx` (the second sheet may be missing) or `.parquet`.

    Raises:
        DataError: no such file, a column missing, a value that is none, a path outside the folder, a missing file.
    """
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
        else:
            sheets = pd.read_excel(path, sheet_name=None, engine="calamine")
            table, *more = sheets.values()
            if more:
                table = table.merge(more[0], on="destination_path", how="left")
    except OSError as error:
        raise DataError(f"cannot read the manifest {str(path)!r}: {error.strerror}") from error
    missing = [c for c in COLUMNS if c not in table.columns]
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}")
    rows = [_row(record) for record in table.to_dict("records")]
    return Manifest(path.parent, tuple(rows), _digest(rows))


def _table(rows: list[Row]) -> pd.DataFrame:
    nowhere = (None, None, None, None)
    return pd.DataFrame(
        [
            (
                *(r.image_path, r.destination_path, r.folder, r.split, "real" if r.target else "fake", r.target),
                *(r.sha256, r.width, r.height, r.group, r.family, *(r.face or nowhere)),
            )
            for r in rows
        ],
        columns=[*COLUMNS, *DETAILS],
    )


def _row(record: dict[str, object]) -> Row:
    known = {k: v for k, v in record.items() if not pd.isna(v)}
    face = tuple(float(str(known[k])) for k in DETAILS[5:] if k in known)
    return Row(
        image_path=str(known["image_path"]),
        destination_path=str(known["destination_path"]),
        folder=str(known["Folder"]),
        split=str(known["split"]),
        target=int(str(known["target"])),
        sha256=str(known.get("sha256", "")),
        width=int(float(str(known.get("width", 0)))),
        height=int(float(str(known.get("height", 0)))),
        group=str(known.get("group", "")),
        family=str(known.get("family", "")),
        face=(face[0], face[1], face[2], face[3]) if len(face) == 4 else None,
    )


def _digest(rows: list[Row]) -> str:
    return hashlib.sha256("\n".join(sorted(map(repr, rows))).encode()).hexdigest()
