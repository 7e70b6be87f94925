"""Moving files so that none is lost, whenever the process is killed.

The whole plan is written down first. At every moment each file lies whole at its origin, at its destination or at
both, so a run after a kill takes the plan up again: what has arrived is checked and what has not is moved.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from faceauth.errors import DataError

_MEND = "restore it, or delete its line from moves.jsonl, and give the same command again"
Move = tuple[Path, Path, str]  # origin, destination, SHA-256 of the bytes


def move_all(moves: Iterable[Move]) -> Iterator[Path]:
    """Carry out a plan, or what is left of one; yields each destination when its file is there.

    Raises:
        DataError: a file that is at neither place, or is not what the plan says; nothing is deleted then.
    """
    for origin, destination, sha256 in moves:
        try:
            _move(origin, destination, sha256)
        except OSError as error:
            raise DataError(
                f"cannot move {str(origin)!r}: {error.strerror}", "the same command goes on where it stopped"
            ) from error
        yield destination


def _move(origin: Path, destination: Path, sha256: str) -> None:
    if not os.path.lexists(origin):
        if not destination.is_file():
            raise DataError(f"{str(origin)!r} is gone and did not arrive at {str(destination)!r}", _MEND)
        return
    if destination.exists():
        _check(destination, sha256)
        os.unlink(origin)
        return
    _check(origin, sha256)
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(origin, destination)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_over(origin, destination, sha256)
        os.unlink(origin)


def _copy_over(origin: Path, destination: Path, sha256: str) -> None:
    """Across file systems: the original goes only when the copy is on the disk and was read back."""
    part = destination.with_name(f"{destination.name}.part")
    with open(origin, "rb") as source, open(part, "wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
        copy.flush()
        os.fsync(copy.fileno())
    shutil.copystat(origin, part)
    _check(part, sha256)
    os.replace(part, destination)
    folder = os.open(destination.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check(path: Path, sha256: str) -> None:
    with open(path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise DataError(f"{str(path)!r} has changed since it was chosen", _MEND)
