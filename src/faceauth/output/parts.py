"""A folder of Parquet parts, `part-00000.parquet` on, each finished while the run goes on.

A run that is killed loses the rows of the part that was not finished; one that is interrupted or fails writes these as
its last part. Rows of at most one part are in memory. All rows of an image are in one part.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from faceauth.errors import FaceAuthError, UsageError
from faceauth.files import locked, replacing
from faceauth.output.resume import Again, KeptImages, Settings, count
from faceauth.output.rows import Row, counted, rows
from faceauth.output.writers import ParquetWriter, needs, pyarrow
from faceauth.verdict import Verdict

PART_ROWS = 10_000
_PART = re.compile(r"part-\d{5,}\.parquet")
_COLUMNS = [
    "path", "path_id", "image_sha256", "label", "face", "score", "threshold", "stability", "version", "model",
    "model_sha256", "learned_sha256", "face_finder",
]  # fmt: skip


def _name(number: int) -> str:
    return f"part-{number:05}.parquet"


def is_folder(name: str) -> bool:
    """Whether the name of an output is that of a folder of parts: it ends in a slash."""
    return name.endswith(("/", os.sep))


def check_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that could not be written, before any work is done. Raises UsageError, MissingExtra."""
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other", "give one of the two")
    try:
        if not folder.parent.is_dir():
            raise UsageError(f"no folder {str(folder.parent)!r}", "make it first")
        found = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.exists() else []
    except OSError as error:
        raise UsageError(f"cannot write {str(folder)!r}: {error.strerror or error}", "name another folder") from error
    if others := [name for name in found if not _PART.fullmatch(name)]:
        raise UsageError(f"{str(folder)!r} holds other files, {others[0]!r} among them", "name a new or empty folder")
    if found and not (resume or overwrite):
        raise UsageError(f"{str(folder)!r} holds parts already", "--resume to go on, or --overwrite to replace them")
    if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{str(folder)!r} is read-only", "name another folder")
    needs(".parquet")


class KeptParts(KeptImages):
    """The images of a folder of parts."""

    def _positions(self) -> Iterator[tuple[int, Row]]:
        self._firsts: dict[Path, int] = {}  # number of the first row of each part
        self._count = 0
        for file in _parts_of(self.path):
            self._firsts[file] = self._count
            for row in _read(file):
                yield self._count, row
                self._count += 1

    def forget(self, entries: set[int]) -> None:
        """Take images' rows out of their parts, which are written anew one by one. Raises OSError."""
        pa, pq = pyarrow()
        ends = [*self._starts[1:], self._count]
        for file, first in self._firsts.items():
            table = pq.read_table(file)
            gone = {e for e in entries if first <= self._starts[e] < first + len(table)}
            if not gone:
                continue
            kept, rows = np.ones(len(table), bool), list(_read(file))
            for entry in gone:
                place = slice(self._starts[entry] - first, ends[entry] - first)
                kept[place] = False
                count(self.tally, rows[place], times=-1)
            with replacing(file) as part:
                pq.write_table(table.filter(pa.array(kept)), part)


def _parts_of(folder: Path) -> list[Path]:
    return sorted((p for p in folder.iterdir() if _PART.fullmatch(p.name)), key=_number)


def _number(part: Path) -> int:
    return int(part.stem.removeprefix("part-"))


def _read(part: Path) -> Iterator[Row]:
    """What telling images apart needs of the rows of a part. Raises UsageError for a file of another making."""
    _, pq = pyarrow()
    try:
        with pq.ParquetFile(part) as opened:
            for batch in opened.iter_batches(columns=_COLUMNS):
                rows = batch.to_pylist()
                if rows and set(rows[0]) != set(_COLUMNS):
                    raise ValueError
                yield from rows
    except (ValueError, OSError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise UsageError(f"{str(part)!r} is not an output of faceauth detect", "name another folder") from error


class PartsOutput:
    """A folder of rows in parts; use as a context, which another process cannot enter for the same folder."""

    def __init__(
        self, folder: Path, *, resume: bool = False, overwrite: bool = False, settings: Settings | None = None
    ) -> None:
        """Lock it; with `resume`, read what it holds. Raises UsageError, MissingExtra."""
        check_folder(folder, resume=resume, overwrite=overwrite)
        self.folder = folder
        self._tally: Counter[str] = Counter()
        self._rows: list[Row] = []
        self._images = self._saved = 0  # images written and, of them, in finished parts
        self._next = 0  # number of the next part
        self._kept: KeptParts | None = None
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(folder))
            except OSError as error:
                raise UsageError(f"cannot write {str(folder)!r}: {error.strerror}", "name another folder") from error
            check_folder(folder, resume=resume, overwrite=overwrite)  # parts may have come into being before the lock
            if resume and folder.exists():
                self._kept = KeptParts(folder, settings)
                self._next = max((_number(part) + 1 for part in _parts_of(folder)), default=0)
            self._stack = stack.pop_all()

    @property
    def tally(self) -> "Counter[str]":
        """Of all images in the folder, also of an earlier run: `resume.count`."""
        return self._tally + self._kept.tally if self._kept else self._tally

    def remaining(self, references: Sequence[str | bytes], largest: int) -> tuple[list[str | bytes], Again]:
        """The images that have to be judged; as `FileOutput.remaining`."""
        if self._kept is None:
            return list(references), Again()
        left, again = self._kept.split(references, largest)
        try:
            self._kept.forget(again.entries)
        except OSError as error:
            raise self._unwritable(error) from error
        return left, again

    def write(self, verdict: Verdict) -> None:
        """Add an image's rows. Raises FaceAuthError where a part cannot be written."""
        found = rows(verdict)
        self._rows += found
        self._images += 1
        count(self._tally, found)
        if len(self._rows) >= PART_ROWS:
            self._finish()

    def where(self) -> str | None:
        """Where the rows are if the run ends now, in words; None where there are none."""
        total = self._saved + (self._kept.tally["images"] if self._kept else 0)
        return f"the rows of {counted(total, 'image')} are in {self.folder}; go on with --resume" if total else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if kind is None:
                if self._rows or not self._next:
                    self._finish()
            elif self._rows:
                with suppress(FaceAuthError):  # `error` is told; `where` counts what was saved
                    self._finish()

    def _finish(self) -> None:
        """Write the rows in memory as the next part; the first replaces earlier ones. Raises FaceAuthError."""
        try:
            self.folder.mkdir(exist_ok=True)
            with replacing(self.folder / _name(self._next)) as part:
                writer = ParquetWriter(part, self.folder)
                try:
                    for row in self._rows:
                        writer.write(row)
                finally:
                    writer.close()
            if not self._next:
                self._forget_earlier()
        except Exception as error:  # pyarrow's errors are as fatal for a part as a full disk
            raise self._unwritable(error) from error
        self._rows, self._saved, self._next = [], self._images, self._next + 1

    def _forget_earlier(self) -> None:
        """Remove the parts of an earlier run, now that the first of this one is in place. Raises OSError."""
        for old in _parts_of(self.folder):
            if old.name != _name(0):
                old.unlink()

    def _unwritable(self, error: Exception) -> FaceAuthError:
        what = f"cannot write {str(self.folder)!r}: {getattr(error, 'strerror', None) or error}"
        return FaceAuthError(what, self.where() or "is the disk full, or read-only?")
