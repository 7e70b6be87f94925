"""The file of what a user has taught: read, checked, written whole or not at all. It knows nothing of images.

One JSON file for all models; each entry says which model file it belongs to, and is of no use to another. It lies in
$FACEAUTH_HOME, or where the system keeps the data of applications, and holds mean embeddings, never a picture.
"""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from faceauth.attribution import Kind, Taught, pack, unpack
from faceauth.errors import UsageError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

FORMAT = 1
LARGEST = 20_000_000  # bytes; a thousand classes of 4096 values each take 22 million
LONGEST_NAME = 60
PATIENCE = 5.0  # seconds to wait for another process that changes the file


def default_file() -> Path:
    """`learned.json` in $FACEAUTH_HOME, else in the user's folder for application data."""
    if home := os.environ.get("FACEAUTH_HOME"):
        return Path(home) / "learned.json"
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "faceauth" / "learned.json"


def read(file: Path) -> tuple[Taught, ...]:
    """What the file holds, for all models; nothing where there is no file.

    Raises:
        UsageError: it is not such a file, is too large, or holds an impossible value.
    """
    try:
        if not file.exists():
            return ()
        if file.stat().st_size > LARGEST:
            raise ValueError(f"more than {LARGEST:,} bytes")
        data = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"not of format {FORMAT}")
        taught = tuple(_entry(e) for e in data["learned"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"{str(file)!r} is not a file of what faceauth has learned: {_reason(error)}",
            "move it away and learn again, or pass --no-learned",
        ) from error
    return taught


def write(file: Path, taught: Sequence[Taught]) -> None:
    """Replace the file; a full disk or a killed process leaves it as it was. Raises UsageError."""
    text = json.dumps({"format": FORMAT, "learned": [_record(t) for t in taught]}, indent=1) + "\n"
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, file)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise _unwritable(file, error) from error


@contextlib.contextmanager
def changing(file: Path) -> Iterator[None]:
    """Keep other processes from changing the file between a `read` and the `write` that rests on it.

    They wait for the lock of a file beside it, which the system lifts when the process that holds it ends in any way.

    Raises:
        UsageError: another process is still at it after `PATIENCE`, or nothing can be written there.
    """
    beside = file.with_name(f"{file.name}.lock")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquire(beside)
    except OSError as error:
        raise _unwritable(file, error) from error
    if lock is None:
        raise UsageError(
            f"another faceauth is changing {str(file)!r}", "try again when it is done; nothing was changed"
        )
    try:
        yield
    finally:
        if sys.platform == "win32":  # where a file that anybody has open cannot be removed
            os.close(lock)
        with contextlib.suppress(OSError):
            beside.unlink()
        if sys.platform != "win32":
            os.close(lock)


def _acquire(beside: Path) -> int | None:
    """An open and locked file; None where another process has held it all the time. Raises OSError."""
    until = time.monotonic() + PATIENCE
    while True:
        lock = os.open(beside, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with contextlib.suppress(FileNotFoundError):  # its last holder has removed it: others make one of their own
                if _lock(lock) and os.path.samestat(os.fstat(lock), os.stat(beside)):
                    return lock
        except OSError:
            os.close(lock)
            raise
        os.close(lock)
        if time.monotonic() > until:
            return None
        time.sleep(0.02)


def _lock(descriptor: int) -> bool:
    """Lock an open file without waiting; whether it was free. Raises OSError where files cannot be locked."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _unwritable(file: Path, error: OSError) -> UsageError:
    reason = error.strerror or error
    return UsageError(f"cannot write {str(file)!r}: {reason}", "it is as it was; is the disk full, or read-only?")


def check_name(name: str) -> None:
    """Raises UsageError for a name that no table or terminal could show."""
    if not _showable(name):
        raise UsageError(f"{name!r} is no name", f"1 to {LONGEST_NAME} printable characters")


def _showable(name: str) -> bool:
    return bool(name.strip()) and name == name.strip() and len(name) <= LONGEST_NAME and name.isprintable()


def _record(taught: Taught) -> dict[str, Any]:
    kind = taught.kind
    return {
        "name": kind.name, "label": kind.label, "family": kind.family, "model": taught.model_sha256,
        "date": taught.date, "images": taught.count, "log_weight": taught.log_weight, "recall": taught.recall,
        "taken": taught.taken, "mean": pack(np.asarray(taught.mean)),
    }  # fmt: skip


def _entry(record: dict[str, Any]) -> Taught:
    name, label, family = (str(record[key]) for key in ("name", "label", "family"))
    if not (_showable(name) and _showable(family)):
        raise ValueError("a name that cannot be shown")
    if label not in {"real", "fake"}:
        raise ValueError(f"label {label!r}")
    mean = unpack(record["mean"], (-1,))
    count = int(record["images"])
    log_weight, recall, taken = (float(record[key]) for key in ("log_weight", "recall", "taken"))
    if not (count > 0 and math.isfinite(log_weight) and 0 <= recall <= 1 and 0 <= taken <= 1):
        raise ValueError(f"impossible numbers for {name!r}")
    kind = Kind(name, "real" if label == "real" else "fake", family, name)
    model, date = str(record["model"]), str(record["date"])[:10]
    return Taught(kind, mean, count, model, date, log_weight, recall, taken)


def _reason(error: BaseException) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)[:120] or type(error).__name__
