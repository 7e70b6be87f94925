"""The file of what a user has taught: read, checked, written whole or not at all. It knows nothing of images.

One JSON file for all models; each entry says which model file it belongs to, and is of no use to another. It lies in
$FACEAUTH_HOME, or where the system keeps the data of applications, and holds mean embeddings, never a picture.
"""

import contextlib
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from faceauth.attribution import UNKNOWN, Kind, Taught, pack, unpack
from faceauth.errors import UsageError
from faceauth.files import data_folder, locked, write_text

FORMAT = 1
LARGEST = 20_000_000  # bytes; a thousand classes of 4096 values each take 22 million
LONGEST_NAME = 60
MOST_IMAGES = 1000  # behind one mean
LOWEST_WEIGHT = -60.0  # log weight of a class
FAMILIES = ("gan", "diffusion", "swap", "laundered", "other")
RESERVED = frozenset({UNKNOWN, "camera", "real", "fake", *FAMILIES})  # names that answers have already
_TEXTS = ("name", "label", "family", "model", "date", "mean")
PATIENCE = 5.0  # seconds to wait for another process that changes the file


def default_file() -> Path:
    """`learned.json` in $FACEAUTH_HOME, else in the user's folder for application data."""
    return data_folder() / "learned.json"


def read(file: Path, *, must_exist: bool = False) -> tuple[Taught, ...]:
    """What the file holds, for all models; nothing where there is no file, unless it `must_exist`.

    Raises:
        UsageError: it is not such a file, is too large, or holds a value that `learn` never writes.
    """
    try:
        if not file.exists():
            if must_exist:
                raise UsageError(f"no file of learned classes {str(file)!r}", "faceauth learn NAME FOLDER writes one")
            return ()
        if not file.is_file():
            raise ValueError("it is no regular file")
        if file.stat().st_size > LARGEST:
            raise ValueError(f"more than {LARGEST:,} bytes")
        data = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"not of format {FORMAT}")
        if not isinstance(data["learned"], list) or not all(isinstance(e, dict) for e in data["learned"]):
            raise ValueError("'learned' is no list of objects")
        taught = tuple(_entry(e) for e in data["learned"])
        twice = [key for key, n in Counter((t.kind.name, t.model_sha256) for t in taught).items() if n > 1]
        if twice:
            raise ValueError(f"{twice[0][0]!r} stands there twice for one model")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise UsageError(
            f"{str(file)!r} is not a file of what faceauth has learned: {_reason(error)}",
            "move it away and learn again; detect --no-learned does without it",
        ) from error
    return taught


def digest(taught: Sequence[Taught]) -> str | None:
    """SHA-256 of learned classes as they are written to a file, in any order; None for none."""
    if not taught:
        return None
    records = sorted(json.dumps(_record(t), sort_keys=True) for t in taught)
    return hashlib.sha256("\n".join(records).encode()).hexdigest()


def write(file: Path, taught: Sequence[Taught]) -> None:
    """Replace the file; a full disk or a killed process leaves it as it was. Raises UsageError."""
    text = json.dumps({"format": FORMAT, "learned": [_record(t) for t in taught]}, indent=1) + "\n"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
    except OSError as error:
        raise _unwritable(file, error) from error


@contextlib.contextmanager
def changing(file: Path) -> Iterator[None]:
    """Keep other processes from changing the file between a `read` and the `write` that rests on it.

    Raises:
        UsageError: another process is still at it after `PATIENCE`, or nothing can be written there.
    """
    with contextlib.ExitStack() as held:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(file, PATIENCE))
        except OSError as error:
            raise _unwritable(file, error) from error
        yield


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
    """One class, checked: nothing that `learn` never writes. Raises ValueError, KeyError, TypeError."""
    texts = name, label, family, model, day, packed = [record[key] for key in _TEXTS]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a name, label, family, model, date or mean that is no text")
    if not (_showable(name) and _showable(family)):
        raise ValueError("a name that cannot be shown")
    if name in RESERVED:
        raise ValueError(f"an entry called {name!r}, which has a meaning of its own")
    if label not in {"real", "fake"} or (label == "real") != (family == "real"):
        raise ValueError(f"label {label!r} with family {family!r} for {name!r}")
    if not re.fullmatch("[0-9a-f]{64}", model):
        raise ValueError(f"no SHA-256 of a model for {name!r}")
    date.fromisoformat(day)
    count, log_weight, recall, taken = numbers = [record[key] for key in ("images", "log_weight", "recall", "taken")]
    if type(count) is not int or not all(type(n) in {int, float} and math.isfinite(n) for n in numbers):
        raise ValueError(f"impossible numbers for {name!r}")
    if not (0 < count <= MOST_IMAGES and LOWEST_WEIGHT <= log_weight <= 0 and 0 <= recall <= 1 and 0 <= taken <= 1):
        raise ValueError(f"numbers for {name!r} that learning never gives")
    kind = Kind(name, "real" if label == "real" else "fake", family, name)
    return Taught(kind, unpack(packed, (-1,)), count, model, day, float(log_weight), float(recall), float(taken))


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)[:120] or type(error).__name__
