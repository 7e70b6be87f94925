"""Files on disk: written whole or not at all, and locks between processes."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from faceauth.errors import UsageError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and is removed when it does not.

    Raises:
        OSError: nothing can be written there; `path` is as it was.
    """
    part = path.with_name(f".{path.name[:24]}.{secrets.token_hex(6)}.part")
    try:
        yield part
        with open(part, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace the content of a file, as UTF-8. Raises OSError; the file is then as it was."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="")


@contextlib.contextmanager
def locked(path: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock of `path`, the file NAME.lock beside it, which the system lifts when the process ends in any way.

    Args:
        path: what is about to be changed; need not exist, its folder does.
        wait: seconds to wait for another process that holds the lock; negative for no end.

    Raises:
        UsageError: another process holds it.
        OSError: no file can be made there.
    """
    import filelock

    lock = filelock.FileLock(path.with_name(f"{path.name}.lock"), thread_local=False)
    try:
        lock.acquire(timeout=wait)
    except filelock.Timeout as error:
        raise UsageError(
            f"another faceauth is writing {str(path)!r}", "wait until it is done, or choose another folder"
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()  # while it is held: who waits sees that the file has no name
        lock.release()
