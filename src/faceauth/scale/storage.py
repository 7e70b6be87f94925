"""Folders and files by path or address (s3://, gs://, ...), by pyarrow or fsspec; failures are tried again."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from faceauth.console import notice
from faceauth.errors import FaceAuthError, UsageError
from faceauth.files import replacing

PATIENCE = 300.0  # seconds in which a store that fails is asked again
FIRST = 0.5  # seconds to the second try; twice as many to each that follows
FOR_GOOD = (
    "ACCESS_DENIED",
    "INVALID_OBJECT_STATE",
    "NO_SUCH_BUCKET",
    "INVALID_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH",
)

T = TypeVar("T")


class Refused(FaceAuthError):
    """A store says that there is no such file, or that it is not for us."""


def is_remote(name: str) -> bool:
    """Whether a name is an address rather than a path."""
    return "://" in name


class Storage:
    """One file system, and a folder or file in it.

    Attributes:
        root: the folder's path as the file system names it, without a slash at its end.
    """

    def __init__(self, address: str) -> None:
        """Open a path or an address. Raises UsageError where no file system is known for it."""
        from pyarrow import fs

        self._fs = fs
        try:
            self._system, root = _opened(address) if is_remote(address) else (fs.LocalFileSystem(), address)
        except (ValueError, OSError, ImportError) as error:
            raise UsageError(f"{address!r}: {error}", "give s3://bucket/prefix, or a path") from error
        self.is_local = self._system.type_name == "local"
        self.root = os.path.abspath(root) if self.is_local else root.rstrip("/")

    def files(self) -> list[tuple[str, int, int]]:
        """Every file below the folder, or the file itself: (path, bytes, time of change in ns), sorted.

        Raises FaceAuthError where the store does not answer.
        """
        found = [retried(lambda: self._system.get_file_info(self.root))]
        if found[0].type != self._fs.FileType.File:
            selector = self._fs.FileSelector(self.root, allow_not_found=True, recursive=True)
            found = retried(lambda: self._system.get_file_info(selector))
        return sorted((f.path, f.size, f.mtime_ns or 0) for f in found if f.type == self._fs.FileType.File)

    def exists(self, path: str) -> bool:
        """Whether there is such a file. Raises FaceAuthError."""
        return bool(retried(lambda: self._system.get_file_info(path)).type == self._fs.FileType.File)

    def read(self, path: str, largest: int | None = None) -> bytes:
        """All bytes of a file; of a larger one, one more than `largest`. Raises Refused, FaceAuthError."""

        def once() -> bytes:
            with self._system.open_input_stream(path) as stream:
                return bytes(stream.read(None if largest is None else largest + 1))

        return retried(once)

    def fetch(self, path: str, target: BinaryIO) -> None:
        """Copy a file's bytes. Raises Refused, FaceAuthError."""

        def once() -> None:
            target.seek(0)
            target.truncate()
            with self._system.open_input_stream(path) as stream:
                shutil.copyfileobj(stream, target, 1 << 20)
            target.seek(0)

        retried(once)

    def put(self, part: Path, path: str) -> None:
        """Write a local file's bytes, whole or not at all, over what is there. Raises FaceAuthError, OSError."""
        if self.is_local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with replacing(Path(path)) as new:
                shutil.copyfile(part, new)
            return
        data = part.read_bytes()

        def once() -> None:
            with self._system.open_output_stream(path) as stream:
                stream.write(data)

        retried(once)

    def remove(self, path: str) -> None:
        """Remove a file. Raises FaceAuthError."""
        retried(lambda: self._system.delete_file(path))


def _opened(address: str) -> tuple[Any, str]:
    """A file system of pyarrow's, else of fsspec's, and the path in it."""
    import fsspec
    from pyarrow import fs

    try:
        system, path = fs.FileSystem.from_uri(address)
    except ValueError:  # a scheme that pyarrow does not know
        system, path = fsspec.url_to_fs(address)
        system = fs.PyFileSystem(fs.FSSpecHandler(system))
    return system, path


def retried(work: Callable[[], T]) -> T:
    """What the call returns; a store that answers 503 or does not answer is asked again for `PATIENCE` seconds.

    Raises:
        Refused: there is no such file, or it is not for us.
        FaceAuthError: the store has not answered in time.
    """
    end, pause = time.monotonic() + PATIENCE, FIRST
    while True:
        try:
            return work()
        except FileNotFoundError as error:
            raise Refused("no such file", "check the address") from error
        except OSError as error:
            reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
            if isinstance(error, PermissionError) or any(word in reason for word in FOR_GOOD):
                raise Refused(f"the storage refuses: {reason}", "check its name and the credentials") from error
            if time.monotonic() + pause > end:
                raise FaceAuthError(f"the storage does not answer: {reason}", "go on later with --resume") from error
            if pause == FIRST:
                notice(f"the storage does not answer, and is asked again for {PATIENCE:g} s: {reason}")
        time.sleep(pause)
        pause = min(2 * pause, 20.0)
