"""The ledger of the dev set: a line for each opening, on the disk before a dev image is scored or a dev row is read.

`open_dev` is the only way to an `Opening`, and `score_table` reads or writes dev rows for an `Opening` alone, so a dev
figure without a line in the ledger cannot be computed through this package. The ledger is JSON Lines, append-only.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from faceauth.errors import DataError
from faceauth.lab.run_info import command, commit, now

DEFAULT = Path("dev_ledger.jsonl")


@dataclass(frozen=True, slots=True)
class Opening:
    """One opening of the dev set, as its ledger line has it.

    Attributes:
        ledger: the file; id: unique, stands in the line.
        dataset_sha256: of the data set whose dev images are opened.
    """

    ledger: Path
    id: str
    dataset_sha256: str

    def check(self, dataset_sha256: str) -> None:
        """Raises DataError where the ledger has no such line, or the line is of another data set."""
        if all(line.get("id") != self.id for line in read_ledger(self.ledger)):
            raise DataError(f"{self.ledger} has no line for this opening of the dev set", "open it with --open-dev")
        if dataset_sha256 != self.dataset_sha256:
            raise DataError(
                f"the dev set of data set {self.dataset_sha256[:12]} was opened, and this table is of "
                f"{dataset_sha256[:12]}", "open the dev set of the data set that was scored",
            )  # fmt: skip


def open_dev(ledger: Path, dataset_sha256: str, models: Mapping[str, str], purpose: str) -> Opening:
    """Write the line and wait until it is on the disk. Call it before anything is scored or read.

    Args:
        models: name to SHA-256 of what will be scored; purpose: such as `score` or `evaluate`.

    Raises:
        DataError: the ledger cannot be written, or is damaged.
    """
    count = len(read_ledger(ledger))
    start = "\n" if count and not ledger.read_bytes().endswith(b"\n") else ""  # an editor may have left it out
    opening = Opening(ledger, uuid4().hex, dataset_sha256)
    line = {
        "id": opening.id, "opened": now(), "number": count + 1, "purpose": purpose, "dataset_sha256": dataset_sha256,
        "models": dict(models), "commit": commit(), "command": command(),
    }  # fmt: skip
    try:
        ledger.parent.mkdir(parents=True, exist_ok=True)
        with open(ledger, "ab", buffering=0) as file:
            file.write((start + json.dumps(line) + "\n").encode())  # one write: lines of two processes do not mix
            os.fsync(file)
    except OSError as error:
        raise DataError(f"the ledger {ledger} cannot be written: {error.strerror}", "give another --ledger") from error
    return opening


def read_ledger(ledger: Path) -> list[dict[str, Any]]:
    """Each opening, oldest first; none where there is no such file.

    Raises DataError where a line is no JSON object in UTF-8; the ledger is never repaired silently.
    """
    if not ledger.exists():
        return []
    lines = []
    for number, text in enumerate(ledger.read_bytes().splitlines(), start=1):
        damaged = DataError(f"line {number} of the ledger {ledger} is damaged", "restore the file from version control")
        try:
            line = json.loads(text)
        except ValueError as error:
            raise damaged from error
        if not isinstance(line, dict):
            raise damaged
        lines.append(line)
    return lines
