"""What makes up a prepared data set, put in its place: each chosen image, and the manifest.

An image is read, hashed and decoded, its face is found, and it is stored: cropped by the detector's preprocessing and
saved once as JPEG, or as it is. Both classes come through here, and nothing here knows which is which. Files are moved
so that none is lost whenever the process is killed: the whole plan is written down first, and at every moment each file
lies whole at its origin, at its destination or at both, so a run after a kill takes the plan up again.

The manifest is the study's Excel workbook, and the same as one Parquet table. The first sheet has the study's six
columns, with target 1 = real and 0 = fake; the second what else is known of an image.
"""

import errno
import hashlib
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from faceauth import images
from faceauth.errors import DataError, ImageError
from faceauth.faces import finder
from faceauth.files import replacing
from faceauth.lab.data.archives import Item
from faceauth.lab.data.dataset import AGAIN, COLUMNS, DETAILS, DataSet, ImageRow, digest, manifest_values
from faceauth.lab.data.sampling import Outcome
from faceauth.preprocess import PreprocessSpec

SPEC = PreprocessSpec(size=256, crop=1.3)
JPEG: dict[str, Any] = {"format": "JPEG", "quality": 95, "subsampling": 0}  # 4:4:4
IMAGES = "images"
MOST_ROWS = 1_048_575  # of an Excel sheet, below its header
_MEND = "restore it, or delete its line from moves.jsonl, and give the same command again"
Move = tuple[Path, Path, str]  # origin, target, SHA-256 of the bytes


@dataclass(frozen=True, slots=True)
class Job:
    """One image to be read and stored: `target` is the file to write, by way of `scratch`, a folder beside it;
    `mode` is crop, copy, link or move."""

    item: Item
    target: str
    scratch: str
    mode: str


def destination(folder: str, name: str, mode: str) -> str:
    """Where an image is stored, relative to the data set: readable, and unique for a name within its source."""
    stem, suffix = os.path.splitext(name)
    clean = re.sub(r"[^A-Za-z0-9.-]+", "_", stem).strip("._")[-80:]
    unique = hashlib.sha256(name.encode()).hexdigest()[:10]
    return f"{IMAGES}/{folder}/{clean}-{unique}{'.jpg' if mode == 'crop' else suffix.lower()}"


def store(job: Job) -> Outcome:
    """Read one image and store it; with `move` it is read only.

    Raises:
        DataError: the data set's folder cannot be written. An unreadable image is an outcome, no error.
    """
    try:
        data = job.item.read()
        image = images.decode(data)
    except ImageError as error:
        return Outcome(error=error.message)
    faces = finder()(image)
    face = tuple(map(float, faces[0].box)) if faces else None
    try:
        face = _write(job, data, image, face)
    except OSError as error:
        if job.mode == "link" and error.errno in {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP}:
            what, hint = f"link {job.item.origin!r} into the data set", "use --copy instead"
        else:
            what, hint = f"write {job.target!r}", AGAIN
        raise DataError(f"cannot {what}: {error.strerror}", hint) from error
    box = (round(face[0], 2), round(face[1], 2), round(face[2], 2), round(face[3], 2)) if face else None
    return Outcome(hashlib.sha256(data).hexdigest(), images.dhash(image), image.width, image.height, box)


def _write(job: Job, data: bytes, image: Image.Image, face: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Store as the mode says; returns the face box in the stored file."""
    part = f"{job.scratch}/{socket.gethostname()}-{os.getpid()}.part"  # of one process of a cluster
    if job.mode == "crop":
        region = SPEC.region(face, *image.size)
        Image.fromarray(SPEC.resize(image, region)).save(part, **JPEG)
        k = SPEC.size / (region[2] - region[0])
        face = face and tuple((v - region[i % 2]) * k for i, v in enumerate(face))
    elif job.mode == "copy":
        Path(part).write_bytes(data)
    elif job.mode == "link":
        for old in (part, job.target):  # a rename between two links to one file would leave both
            Path(old).unlink(missing_ok=True)
        os.link(os.path.join(job.item.place.file, job.item.name), part)
    if job.mode != "move":
        os.replace(part, job.target)
    return face


def move_all(moves: Iterable[Move]) -> Iterator[Path]:
    """Carry out a plan, or what is left of one; yields each target when its file is there.

    Raises:
        DataError: a file that is at neither place, or is not what the plan says; nothing is deleted then.
    """
    for origin, target, sha256 in moves:
        try:
            _move(origin, target, sha256)
        except OSError as error:
            raise DataError(f"cannot move {str(origin)!r}: {error.strerror}", AGAIN) from error
        yield target


def _move(origin: Path, target: Path, sha256: str) -> None:
    if not os.path.lexists(origin):
        if not target.is_file():
            raise DataError(f"{str(origin)!r} is gone and did not arrive at {str(target)!r}", _MEND)
    elif target.exists():
        _need_unchanged(target, sha256)
        os.unlink(origin)
    else:
        _need_unchanged(origin, sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(origin, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy_over(origin, target, sha256)
            os.unlink(origin)


def _copy_over(origin: Path, target: Path, sha256: str) -> None:
    """Across file systems: the original goes only when the copy is on the disk and was read back."""
    part = target.with_name(f"{target.name}.part")
    with open(origin, "rb") as source, open(part, "wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
        copy.flush()
        os.fsync(copy.fileno())
    shutil.copystat(origin, part)
    _need_unchanged(part, sha256)
    os.replace(part, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _need_unchanged(path: Path, sha256: str) -> None:
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise DataError(f"{str(path)!r} has changed since it was chosen", _MEND)


def write_manifest(folder: Path, rows: Sequence[ImageRow]) -> DataSet:
    """Write `manifest.xlsx` and `manifest.parquet` into a folder, each whole or not at all.

    Raises:
        DataError: more rows than an Excel sheet has.
        OSError: nothing can be written there.
    """
    import pyarrow as pa
    import xlsxwriter
    from pyarrow import parquet

    if len(rows) > MOST_ROWS:
        raise DataError(f"{len(rows):,} images are more than an Excel sheet holds", f"at most {MOST_ROWS:,}")
    names = (*COLUMNS, *DETAILS)
    columns = list(zip(*map(manifest_values, rows), strict=True)) or [()] * len(names)
    whole = {"target": pa.int64(), "width": pa.int64(), "height": pa.int64()}
    types = [pa.float64() if n.startswith("face_") else whole.get(n, pa.string()) for n in names]
    arrays = [pa.array(values, kind) for values, kind in zip(columns, types, strict=True)]
    with replacing(folder / "manifest.parquet") as part:
        parquet.write_table(pa.table(arrays, names=list(names)), part)
    study = len(COLUMNS)
    with replacing(folder / "manifest.xlsx") as part, xlsxwriter.Workbook(str(part), {"constant_memory": True}) as book:
        _sheet(book.add_worksheet("manifest"), COLUMNS, (manifest_values(row)[:study] for row in rows))
        details = ((row.path, *manifest_values(row)[study:]) for row in rows)
        _sheet(book.add_worksheet("details"), ("destination_path", *DETAILS), details)
    return DataSet(tuple(rows), folder, digest(rows))


def _sheet(sheet: Any, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    sheet.freeze_panes(1, 0)
    for number, values in enumerate(chain([columns], rows)):
        for column, value in enumerate(values):
            if isinstance(value, str):
                if value:
                    sheet.write_string(number, column, value)  # which makes no formula and no link
            elif value is not None:
                sheet.write_number(number, column, value)
