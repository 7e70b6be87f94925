"""What is to be judged, in blocks: the unit that is judged, written and resumed as a whole.

A block is some picture files, or one WebDataset tar shard, or one Parquet file with a column of image bytes.
Its name is made of its number, its inputs (name, size, time of change) and what judges, so a part of the output that
has this name holds exactly the rows of this block.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from faceauth.errors import UsageError
from faceauth.images import SUFFIXES
from faceauth.inputs import NO_PICTURE, expand, walk
from faceauth.scale.storage import Storage, is_remote

IMAGES, FEWEST, BLOCKS = 1000, 25, 200  # files of a block at most and at least, and blocks that there should be
SHARDS = (".tar", ".parquet")


@dataclass(frozen=True, slots=True)
class Input:
    """A file.

    Attributes:
        shown: as rows name it.
        path: absolute, or in its store.
        size, changed: bytes, and time of change in ns.
        store: address that its store is opened with; None for a file of this machine.
    """

    shown: str
    path: str
    size: int = 0
    changed: int = 0
    store: str | None = None

    @property
    def is_shard(self) -> bool:
        """Whether it holds many pictures."""
        return self.path.lower().endswith(SHARDS)


def found(sources: Sequence[str], max_bytes: int) -> tuple[list[Input], list[str]]:
    """All files that the arguments mean, and what was passed over, in words.

    In a store, pictures are known by suffix alone. Raises UsageError where there is none, FaceAuthError.
    """
    if "-" in sources:
        raise UsageError("--engine ray reads no standard input", "give folders, files or addresses")
    inputs: list[Input] = []
    notes: list[str] = []
    for address in filter(is_remote, sources):
        inputs += _stored(address, notes)
    inputs += map(local, _local_files([s for s in sources if not is_remote(s)], max_bytes, notes))
    if not inputs:
        raise UsageError(f"no images in {', '.join(map(repr, sources))}", "check the address")
    return list(dict.fromkeys(inputs)), notes


def _stored(address: str, notes: list[str]) -> list[Input]:
    files = Storage(address).files()
    scheme = address.split("://")[0]
    taken = [f for f in files if os.path.splitext(f[0])[1].lower() in {*SUFFIXES, *SHARDS}]
    if len(files) > len(taken):
        notes.append(f"{len(files) - len(taken)} files of {address} that are not named like pictures passed over")
    return [Input(f"{scheme}://{path}", path, size, changed, address) for path, size, changed in taken]


def _local_files(sources: list[str], max_bytes: int, notes: list[str]) -> list[str]:
    """What `faceauth detect` takes the arguments for, and the shards in the folders."""
    shards = [
        entry.path
        for folder in filter(os.path.isdir, sources)
        for entry in walk(folder, hidden=False)
        if not isinstance(entry, str) and entry.name.lower().endswith(SHARDS)
    ]
    try:
        expansion = expand(sources, max_bytes=max_bytes)
    except UsageError:
        if not shards:
            raise
        return shards
    expansion.passed_over -= Counter({NO_PICTURE: len(shards)})
    notes += expansion.notes()
    return shards + [reference for reference in expansion.references if isinstance(reference, str)]


def local(path: str) -> Input:
    """A file of this machine; one that is not there has no size."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # its row will say why
        return Input(path, os.path.abspath(path))
    return Input(path, os.path.abspath(path), status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class Block:
    """Files that are judged together, their number among the blocks, and the name of the part that their rows make."""

    number: int
    name: str
    inputs: tuple[Input, ...]


def blocks(inputs: Iterable[Input], settings: dict[str, Any]) -> list[Block]:
    """All inputs in blocks, as large as leaves enough of them to share; a shard is a block of its own."""
    shards: list[Input] = []
    files: list[Input] = []
    for one in inputs:
        (shards if one.is_shard else files).append(one)
    size = min(IMAGES, max(FEWEST, len(files) // BLOCKS))
    groups = [[one] for one in shards] + [files[i : i + size] for i in range(0, len(files), size)]
    made = []
    for number, group in enumerate(groups):
        told = json.dumps([settings, *map(astuple, group)], sort_keys=True).encode()
        name = f"part-{number:05}-{hashlib.sha256(told).hexdigest()[:16]}.parquet"
        made.append(Block(number, name, tuple(group)))
    return made


def digest(inputs: Iterable[Input]) -> str:
    """SHA-256 of all inputs, by name, size and time of change."""
    found = hashlib.sha256()
    for one in inputs:
        found.update(json.dumps(astuple(one)).encode())
    return found.hexdigest()
