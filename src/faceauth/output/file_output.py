"""An output file, from before the first image to after the last: place tried, locked, resumed, finished or kept.

JSON Lines grow in place, so that a run that was broken off can be resumed. Every other format is made at the end from
rows that are kept on disk until then; they stay there, as JSON Lines, where the file cannot be finished, and
`--previous` takes them. An output that is replaced is emptied when the first image is written.
"""

import errno
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from faceauth.errors import FaceAuthError, UsageError
from faceauth.files import beside, locked
from faceauth.output.resume import Again, Kept, Settings, count
from faceauth.output.rows import counted, rows
from faceauth.output.writers import SUFFIXES, line, needs, write_file
from faceauth.verdict import Verdict


def check(path: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse an output that could not be written, before any work is done. Raises UsageError, MissingExtra."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        kind = f"a {suffix} file" if suffix else f"{str(path)!r}, whose name does not end in a format"
        also = "; .html can be printed as PDF from a browser" if suffix == ".pdf" else ""
        raise UsageError(f"cannot write {kind}", f"end the name in {', '.join(SUFFIXES)}{also}")
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other", "give one of the two")
    if resume and suffix != ".jsonl":
        raise UsageError("only a .jsonl file or FOLDER/ can be resumed", "drop --resume, or write one of the two")
    with _refused(path):
        if not path.parent.is_dir():
            raise UsageError(f"no folder {str(path.parent)!r}", "make it first")
        if path.is_dir():
            raise UsageError(f"{str(path)!r} is a folder", "name a file in it, or end in / for Parquet parts")
        exists = path.exists()
        if exists and not (resume or overwrite):
            more = "--resume to go on with it, or " if suffix == ".jsonl" else ""
            raise UsageError(f"{str(path)!r} exists", f"{more}--overwrite to replace it")
        if exists and suffix != ".jsonl" and not path.is_file():
            raise UsageError(f"{str(path)!r} is not a regular file", "write .jsonl there, or name another file")
        if path.is_file():
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND))  # read-only, or open in a spreadsheet on Windows
    needs(suffix)


class FileOutput:
    """A file of rows, opened by suffix; use as a context, which another process cannot enter for the same file.

    Attributes:
        tally: of all images in the output, those that were there before among them (`resume.count`).
        left: files of rows beside it that runs which were broken off have left.
    """

    def __init__(
        self, path: Path, *, resume: bool = False, overwrite: bool = False, settings: Settings | None = None
    ) -> None:
        """Lock and open it; with `resume`, read what it holds.

        Raises:
            UsageError: for a suffix or place that cannot be written, an output that another process writes, and one
                that cannot be resumed, because it is none of ours or was judged under other settings.
            MissingExtra: for Parquet without pyarrow.
        """
        check(path, resume=resume, overwrite=overwrite)
        self.path = path
        self._lines = path.suffix.lower() == ".jsonl"
        self._kept: Kept | None = None
        self.left: tuple[Path, ...] = ()
        self._written = self._judged_again = 0
        self._tally: Counter[str] = Counter()
        with ExitStack() as stack, _refused(path):
            if path.is_file() or not path.exists():
                stack.enter_context(locked(path))
                check(path, resume=resume, overwrite=overwrite)  # it may have come into being before the lock
            if self._lines and resume and path.exists():
                self._kept = Kept(path, settings)
            if self._lines:
                self._rows = path
                self._handle = _open(path, os.O_CREAT | (os.O_APPEND if resume else 0))
            else:
                self.left, self._rows, self._handle = _new_rows(Path(os.path.realpath(path)))
            self._replaces = self._lines and not resume
            self._stack = stack.pop_all()

    @property
    def tally(self) -> "Counter[str]":
        """Of all images in the output, also of an earlier run: `resume.count`."""
        return self._tally + self._kept.tally if self._kept else self._tally

    def remaining(self, references: Sequence[str | bytes], largest: int) -> tuple[list[str | bytes], Again]:
        """The images that have to be judged; the rows of those that the output holds already are taken out of it.

        Args:
            references: paths, or the bytes of a picture on standard input.
            largest: files of more bytes than this are judged again unread.
        """
        if self._kept is None:
            return list(references), Again()
        left, again = self._kept.split(references, largest)
        os.close(self._handle)
        self._handle = -1
        try:
            self._kept.forget(again.entries)
            self._handle = _open(self.path, os.O_APPEND)
        except OSError as error:
            raise self._unwritable(error) from error
        self._judged_again = len(again.entries)
        return left, again

    def write(self, verdict: Verdict) -> None:
        """Add an image's rows, all or none of them. Raises FaceAuthError."""
        found = rows(verdict)
        data = "".join(f"{line(row)}\n" for row in found).encode()
        self._empty()
        before = os.fstat(self._handle).st_size
        try:
            while data:
                data = data[os.write(self._handle, data) :]
        except BaseException as error:
            with suppress(OSError):  # no half image, where the file is one that can be cut
                os.ftruncate(self._handle, before)
            if isinstance(error, OSError):
                raise self._unwritable(error) from error
            raise
        self._written += 1
        count(self._tally, found)

    def _empty(self) -> None:
        """Take the rows out of an output that is replaced, once."""
        if self._replaces:
            with suppress(OSError):  # a pipe or a device holds none
                os.ftruncate(self._handle, 0)
            self._replaces = False

    def where(self) -> str | None:
        """Where the rows are if the run ends now, in words; None where there are none."""
        if self._lines:
            total = self._written + (len(self._kept) - self._judged_again if self._kept else 0)
            return f"{self.path} holds {counted(total, 'image')}; go on with --resume" if total else None
        if not self._written:
            return None
        return f"the rows of {counted(self._written, 'image')} are in {self._rows}; to go on, give it with --previous"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            try:
                if kind is None:
                    self._empty()  # it has no rows at all
                if self._handle >= 0:
                    _close(self._handle)
                if not self._lines and kind is None:
                    self._finish()
            except Exception as failure:  # what a library of a format raises is as fatal for the file as a full disk
                if kind is None:
                    raise self._unwritable(failure) from failure
            if not self._lines and (kind is None or not self._written):
                self._rows.unlink(missing_ok=True)

    def _finish(self) -> None:
        """Make the file of the rows. Raises OSError, and whatever else keeps a writer from it."""
        with open(self._rows, "rb") as stream:
            write_file(self.path, map(json.loads, stream))

    def _unwritable(self, error: Exception) -> FaceAuthError:
        what = f"cannot write {str(self.path)!r}: {getattr(error, 'strerror', None) or error}"
        return FaceAuthError(what, self.where() or _next_step(error))


def _open(path: Path, flags: int) -> int:
    return os.open(path, os.O_WRONLY | flags | getattr(os, "O_BINARY", 0), 0o666)


def _new_rows(path: Path) -> tuple[tuple[Path, ...], Path, int]:
    """Files of rows that were beside an output already, a new one, and its handle. Raises OSError."""
    left: list[Path] = []
    for number in range(1, 1000):
        name = beside(path, ".rows.jsonl" if number == 1 else f".{number}.rows.jsonl")
        try:
            return tuple(left), name, _open(name, os.O_CREAT | os.O_EXCL | os.O_APPEND)
        except FileExistsError:
            left.append(name)
    raise FileExistsError(errno.EEXIST, "too many .rows.jsonl files of runs that were broken off", str(path))


def _close(handle: int) -> None:
    """Close a file whose content is on the disk. Raises OSError."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EROFS}:  # a pipe or a device has no disk behind it
            raise
    finally:
        os.close(handle)


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """What the system says of a place where nothing has been written yet, as one line."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot write {str(path)!r}: {error.strerror or error}", _next_step(error)) from error


def _next_step(error: Exception) -> str:
    if getattr(error, "errno", None) == errno.ENAMETOOLONG:
        return "choose a shorter name"
    return "is the disk full, or read-only?"
