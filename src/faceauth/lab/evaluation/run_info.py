"""What every file of results says of how it was made: commit, command, version of the code, time. Needs no torch."""

import hashlib
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def commit() -> str:
    """The commit of this project, `-dirty` where files differ from it, `unknown` outside a checkout."""
    words = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def command() -> str:
    """The command line of this process, as it would be typed."""
    return " ".join(["faceauth", *sys.argv[1:]])


def code_version() -> str:
    """The installed version of faceauth; `unknown` where the package runs from a folder."""
    try:
        return version("faceauth")
    except PackageNotFoundError:
        return "unknown"


def now() -> str:
    """The time, UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def run_info(dataset_sha256: str) -> dict[str, str]:
    """The metadata of a table of scores (`score_table`): dataset hash, commit, command, code version, time."""
    return {
        "dataset_sha256": dataset_sha256, "commit": commit(), "command": command(), "code_version": code_version(),
        "created": now(),
    }  # fmt: skip


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
