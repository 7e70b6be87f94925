"""A folder of Parquet parts, `part-00000.parquet` on, each finished while the run goes on.

A run that is killed loses the rows of the part that was not finished; one that is interrupted or fails writes these as
its last part. Rows of at most one part are in memory. All rows of an image are in one part.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from faceauth.errors import FaceAuthError, UsageError
from faceauth.files import locked, replacing
from faceauth.output.resume import Again, count
from faceauth.output.rows import Row, rows
from faceauth.output.writers import ParquetWriter, needs
from faceauth.verdict import Verdict

PART_ROWS = 10_000
_PART = re.compile(r"part-\d{5,}\.parquet")


def _name(number: int) -> str:
    return f"part-{number:05}.parquet"


def is_folder(name: str) -> bool:
    """Whether the name of an output is that of a folder of parts: it ends in a slash."""
    return name.endswith(("/", os.sep))


def check_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that could not be written, before any work is done. Raises UsageError, MissingExtra."""
    if resume:
        raise UsageError("only a .jsonl output can be resumed", "drop --resume, or write .jsonl")
    try:
        if not folder.parent.is_dir():
            raise UsageError(f"no folder {str(folder.parent)!r}", "make it first")
        found = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) if folder.exists() else []
    except OSError as error:
        raise UsageError(f"cannot write {str(folder)!r}: {error.strerror or error}", "name another folder") from error
    if others := [name for name in found if not _PART.fullmatch(name)]:
        raise UsageError(f"{str(folder)!r} holds other files, {others[0]!r} among them", "name a new or empty folder")
    if found and not overwrite:
        raise UsageError(f"{str(folder)!r} holds parts already", "--overwrite to replace them, or name another folder")
    if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{str(folder)!r} is read-only", "name another folder")
    needs(".parquet")


class PartsOutput:
    """A folder of rows in parts; use as a context, which another process cannot enter for the same folder.

    Attributes:
        tally: of all images written (`resume.count`).
    """

    def __init__(self, folder: Path, *, resume: bool = False, overwrite: bool = False) -> None:
        """Lock it. Raises UsageError, MissingExtra, as `check_folder` does."""
        check_folder(folder, resume=resume, overwrite=overwrite)
        self.folder = folder
        self.tally: Counter[str] = Counter()
        self._rows: list[Row] = []
        self._images = self._saved = self._parts = 0  # images written and, of them, in finished parts
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(folder))
            except OSError as error:
                raise UsageError(f"cannot write {str(folder)!r}: {error.strerror}", "name another folder") from error
            check_folder(folder, resume=resume, overwrite=overwrite)  # parts may have come into being before the lock
            self._stack = stack.pop_all()

    def remaining(self, references: Sequence[str | bytes], largest: int) -> tuple[list[str | bytes], Again]:
        """All images: a folder of parts is not resumed."""
        return list(references), Again()

    def write(self, verdict: Verdict) -> None:
        """Add an image's rows. Raises FaceAuthError where a part cannot be written."""
        found = rows(verdict)
        self._rows += found
        self._images += 1
        count(self.tally, found)
        if len(self._rows) >= PART_ROWS:
            self._finish()

    def where(self) -> str | None:
        """Where the rows are if the run ends now, in words; None where there are none."""
        return f"the rows of {self._saved} images are in {self.folder}" if self._parts else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if kind is None:
                if self._rows or not self._parts:
                    self._finish()
            elif self._rows:
                with suppress(FaceAuthError):  # `error` is told; `where` counts what was saved
                    self._finish()

    def _finish(self) -> None:
        """Write the rows in memory as the next part; the first replaces earlier ones. Raises FaceAuthError."""
        try:
            self.folder.mkdir(exist_ok=True)
            with replacing(self.folder / _name(self._parts)) as part:
                writer = ParquetWriter(part, self.folder)
                try:
                    for row in self._rows:
                        writer.write(row)
                finally:
                    writer.close()
            if not self._parts:
                self._forget_earlier()
        except Exception as error:  # pyarrow's errors are as fatal for a part as a full disk
            what = f"cannot write {str(self.folder)!r}: {getattr(error, 'strerror', None) or error}"
            raise FaceAuthError(what, self.where() or "is the disk full, or read-only?") from error
        self._rows, self._saved, self._parts = [], self._images, self._parts + 1

    def _forget_earlier(self) -> None:
        """Remove the parts of an earlier run, now that the first of this one is in place. Raises OSError."""
        for old in list(self.folder.iterdir()):
            if _PART.fullmatch(old.name) and old.name != _name(0):
                old.unlink()
