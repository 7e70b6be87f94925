"""What a preparation writes down, so that a run that was broken off goes on: its state, its journal, its plan of moves.

`prepare.json` says what a data set was made of and stays beside it; `journal.jsonl` has a line for every image that was
looked at, `moves.jsonl` one for every file that is to be moved, and both go when the set is finished. It knows nothing
of what an image is.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from faceauth.errors import UsageError
from faceauth.lab.data.choice import Outcome
from faceauth.lab.data.manifest import Row

STATE, JOURNAL, PLAN, SCRATCH = "prepare.json", "journal.jsonl", "moves.jsonl", ".scratch"


def read_state(output: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """What `prepare.json` says; empty for a new or empty folder.

    Raises:
        UsageError: the folder holds something else, or was begun with another configuration.
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
    other = sorted(k for k, v in config.items() if before.get(k) != v)
    if other:
        raise UsageError(
            f"{str(output)!r} was begun with another {', '.join(other)}", "give the same command, or another folder"
        )
    return state


def write_state(output: Path, state: Mapping[str, Any]) -> None:
    """Write `prepare.json` in one go. Raises OSError."""
    part = output / f"{STATE}.part"
    part.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    os.replace(part, output / STATE)


def finish_state(output: Path) -> None:
    """Note that the data set is whole, and remove what only an unfinished one needs."""
    state = json.loads((output / STATE).read_text(encoding="utf-8"))
    write_state(output, state | {"finished": True})
    sweep(output)


def sweep(output: Path) -> None:
    """Remove what only an unfinished data set needs."""
    for leftover in (JOURNAL, PLAN):
        (output / leftover).unlink(missing_ok=True)
    shutil.rmtree(output / SCRATCH, ignore_errors=True)


def write_plan(path: Path, rows: list[tuple[Row, Path]]) -> None:
    """Write which file becomes which row, in one go and onto the disk. Raises OSError."""
    part = path.with_name(f"{path.name}.part")
    with open(part, "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"origin": str(origin.absolute()), **asdict(row)}) + "\n" for row, origin in rows)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def read_plan(path: Path) -> list[tuple[Row, Path]]:
    """Rows of the manifest, and where each one's file lay before the move. Raises OSError."""
    rows = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            values = json.loads(line)
            origin = Path(values.pop("origin"))
            face = values.pop("face")
            rows.append((Row(face=tuple(face) if face else None, **values), origin))
    return rows


class Journal:
    """What became of each image, one JSON line each, so that a run that was broken off goes on.

    A line that was not written to its end is forgotten, and its image looked at again.
    """

    def __init__(self, path: Path) -> None:
        """Read what is there, and open for more. Raises OSError."""
        self.outcomes: dict[tuple[str, str], Outcome] = {}
        good = 0
        if path.exists():
            with open(path, "rb") as lines:
                for line in lines:
                    if not self._take(line):
                        break
                    good += len(line)
            os.truncate(path, good)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()

    def _take(self, line: bytes) -> bool:
        try:
            if not line.endswith(b"\n"):
                return False
            folder, name, values = json.loads(line)
            face = values.pop("face")
            outcome = Outcome(face=tuple(face) if face else None, **values)
        except (ValueError, TypeError, KeyError, AttributeError):
            return False
        self.outcomes[folder, name] = outcome
        return True

    def add(self, folder: str, name: str, outcome: Outcome) -> None:
        """Write down one image; it is safe from a kill of this process when this returns."""
        self.outcomes[folder, name] = outcome
        self._file.write(json.dumps([folder, name, asdict(outcome)]) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
