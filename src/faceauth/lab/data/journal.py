"""What a preparation writes down, so that a run that was broken off goes on: its state, its journal, its plan of moves.

`prepare.json` says what a data set was made of and stays beside it; `journal.sqlite` has a row for every image that was
read, `moves.jsonl` a line for every file that is to be moved, and both go when the set is finished.
"""

import errno
import json
import shutil
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from faceauth.errors import UsageError
from faceauth.files import replacing, write_text
from faceauth.lab.data.dataset import ImageRow
from faceauth.lab.data.sampling import Outcome

STATE, JOURNAL, PLAN, SCRATCH = "prepare.json", "journal.sqlite", "moves.jsonl", ".scratch"


def read_state(output: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """What `prepare.json` says; empty for a new or empty folder.

    Raises:
        UsageError: the folder holds something else, or was started with another configuration.
    """
    if not output.exists():
        return {}
    if not output.is_dir():
        raise UsageError(f"{str(output)!r} is a file", "give a new or empty folder")
    try:
        state: dict[str, Any] = json.loads((output / STATE).read_text(encoding="utf-8"))
        before = state["config"]
    except FileNotFoundError:
        if any(entry.name != SCRATCH for entry in output.iterdir()):
            raise UsageError(f"{str(output)!r} holds something else", "give a new or empty folder") from None
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{output / STATE} cannot be read: {error}", "give a new or empty folder") from error
    if other := sorted(k for k, v in config.items() if before.get(k) != v):
        raise UsageError(
            f"{str(output)!r} was started with another {', '.join(other)}", "give the same command, or another folder"
        )
    return state


def write_state(output: Path, state: Mapping[str, Any]) -> None:
    """Write `prepare.json` in one go. Raises OSError."""
    write_text(output / STATE, json.dumps(state, indent=1) + "\n")


def finish(output: Path) -> None:
    """Note that the data set is whole, and remove what only an unfinished one needs."""
    state = json.loads((output / STATE).read_text(encoding="utf-8"))
    write_state(output, state | {"finished": True})
    sweep(output)


def sweep(output: Path) -> None:
    """Remove what only an unfinished data set needs."""
    _remove(output / JOURNAL)
    (output / PLAN).unlink(missing_ok=True)
    for part in output.glob(".*.part"):  # of a run that was killed while it wrote
        part.unlink()
    shutil.rmtree(output / SCRATCH, ignore_errors=True)


def write_plan(output: Path, rows: list[tuple[ImageRow, Path]]) -> None:
    """Write which file becomes which row, in one go and onto the disk. Raises OSError."""
    with replacing(output / PLAN) as part, open(part, "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"origin": str(origin.absolute()), **asdict(row)}) + "\n" for row, origin in rows)


def read_plan(output: Path) -> list[tuple[ImageRow, Path]] | None:
    """Rows of the manifest, and where each one's file lay before the move; None without a plan. Raises OSError."""
    if not (output / PLAN).exists():
        return None
    rows = []
    with open(output / PLAN, encoding="utf-8") as file:
        for line in file:
            values = json.loads(line)
            origin = Path(values.pop("origin"))
            face = values.pop("face")
            rows.append((ImageRow(face=tuple(face) if face else None, **values), origin))
    return rows


class Journal:
    """What became of each image, in SQLite, so that a run that was broken off goes on.

    A file that is cut off or damaged is started anew: its images are read again.
    """

    def __init__(self, output: Path) -> None:
        """Read what is there, and open for more. Raises OSError."""
        path = output / JOURNAL
        try:
            self._open(path)
        except (sqlite3.DatabaseError, ValueError, TypeError, KeyError, AttributeError):
            _remove(path)
            try:
                self._open(path)
            except sqlite3.Error as error:
                raise OSError(errno.EIO, str(error), str(path)) from error

    def _open(self, path: Path) -> None:
        self.outcomes: dict[tuple[str, str], Outcome] = {}
        self._database = database = sqlite3.connect(path, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = OFF")  # a kill of the process loses nothing, a power cut may
            if database.execute("PRAGMA quick_check").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("damaged")
            database.execute("CREATE TABLE IF NOT EXISTS outcomes (source, name, outcome, PRIMARY KEY (source, name))")
            for source, name, text in database.execute("SELECT source, name, outcome FROM outcomes ORDER BY rowid"):
                values = json.loads(text)
                face = values.pop("face")
                self.outcomes[source, name] = Outcome(face=tuple(face) if face else None, **values)
        except BaseException:
            database.close()
            raise

    def add(self, source: str, name: str, outcome: Outcome) -> None:
        """Write down one image; it is safe from a kill of this process when this returns. Raises OSError."""
        self.outcomes[source, name] = outcome
        try:
            values = source, name, json.dumps(asdict(outcome))
            self._database.execute("INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?)", values)
        except sqlite3.Error as error:
            raise OSError(errno.EIO, f"cannot write the journal: {error}") from error

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
