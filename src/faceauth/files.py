"""State on disk: files written whole or not at all, locks between processes, and the folders of the user.

Every temporary file has a unique name of bounded length in the folder of the file that it becomes, so that the move
is atomic, two processes never write into one, and a long name leaves room for it.
"""

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from faceauth.errors import UsageError

LONGEST_NAME = 255  # bytes, on the file systems in use


def data_folder() -> Path:
    """Where what the user keeps lies: $FACEAUTH_HOME, else the system's folder for application data."""
    if home := os.environ.get("FACEAUTH_HOME"):
        return Path(home)
    import platformdirs

    return platformdirs.user_data_path("faceauth", appauthor=False)


def temporary(path: Path, suffix: str = ".part") -> Path:
    """A new empty file beside `path`, of a name that no other process has. Raises OSError."""
    while True:
        part = path.with_name(f".{path.name[:24]}.{secrets.token_hex(6)}{suffix}")
        with contextlib.suppress(FileExistsError):
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            return part


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of `path` when the block ends well, and is removed when it does not.

    The content is on the disk before the name changes. A symbolic link is followed: its target is replaced. The
    permissions are those of the file replaced, or those that a new file gets.

    Raises:
        OSError: nothing can be written there; `path` is as it was.
    """
    target = Path(os.path.realpath(path))
    part = temporary(target)
    try:
        yield part
        with open(part, "rb+") as stream:
            os.fsync(stream.fileno())
        with contextlib.suppress(OSError):  # there is none yet, or the file system keeps no permissions
            os.chmod(part, target.stat().st_mode & 0o7777)
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    _sync_folder(target.parent)


def write_text(path: Path, text: str) -> None:
    """Replace the content of a file, as UTF-8. Raises OSError; the file is then as it was."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", newline="")


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the content of a file. Raises OSError; the file is then as it was."""
    with replacing(path) as part:
        part.write_bytes(data)


def beside(path: Path, suffix: str) -> Path:
    """NAME + suffix in the same folder; where that is longer than a name may be, a digest of NAME + suffix."""
    name = path.name + suffix
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}{suffix}"
    return path.with_name(name)


@contextlib.contextmanager
def locked(path: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock of `path`, the file NAME.lock beside it, which the system lifts when the process ends in any way.

    Args:
        path: what is about to be changed; need not exist.
        wait: seconds to wait for another process that holds the lock.

    Raises:
        UsageError: another process holds it.
        OSError: no file can be made there.
    """
    import filelock

    target = Path(os.path.realpath(path))
    name = beside(target, ".lock")
    lock = filelock.FileLock(name, thread_local=False)
    try:
        lock.acquire(timeout=wait)
    except filelock.Timeout as error:
        raise UsageError(
            f"another faceauth is writing {str(path)!r}", "wait until it is done, or choose another name"
        ) from error
    except OSError as error:
        if error.errno not in {errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK}:
            raise
        yield  # a file system without locks: the run goes on, as unprotected as everything there
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            name.unlink()  # while it is held: who waits for it sees that the file has no name, and makes another
        lock.release()


def _sync_folder(folder: Path) -> None:
    """Make a change of names last through a power cut, where folders can be synchronised."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
