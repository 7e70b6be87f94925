"""One picture in several files, judged once (--dedupe): which pictures of all blocks show an earlier one.

As in `faceauth.duplicates`: actors hash all pictures, the driver finds those whose hashes are near, actors read
these again, and the driver compares small copies of them.
"""

import hashlib
import json
import tempfile
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from faceauth import duplicates
from faceauth.console import progress
from faceauth.duplicates import Copy, Summary
from faceauth.scale.blocks import Block
from faceauth.scale.cluster import answers
from faceauth.scale.earlier import Known
from faceauth.scale.judge import Job, Task
from faceauth.scale.process import Process
from faceauth.scale.reading import Picture, Pictures, block_number
from faceauth.scale.storage import Storage
from faceauth.verdict import Evidence

KEPT = ".copies.jsonl"  # in the output: what the blocks are, then a line a copy

Wanted = dict[int, int]  # the places of pictures that are read again, with that of the first of those near them
Seen = tuple[Summary, str]  # of a picture, with its absolute path


def tasks(job: Job, work: Sequence[Block], workers: int, go_on: str) -> list[Task]:
    """The tasks for `Judge`, in which every picture is judged, or is a copy of one that is.

    What was found is kept beside the parts, for a second reading could differ where pictures took too long, and
    then parts that are finished would lack rows.

    Raises FaceAuthError as `faceauth.scale.cluster.answers` does, and where the output cannot be read or written.
    """
    storage = Storage(job.folder)
    file = f"{storage.root}/{KEPT}"
    digest = hashlib.sha256("".join(block.name for block in work).encode()).hexdigest()
    lines = storage.read(file).decode().splitlines() if not job.again and storage.exists(file) else []
    if lines[:1] != [digest]:
        found = _found(job, work, workers, go_on)
        lines = [digest, *(json.dumps([later, path, asdict(copy)]) for later, path, copy in found)]
        with tempfile.TemporaryDirectory(prefix="faceauth-") as name:
            part = Path(name) / KEPT
            part.write_text("\n".join(lines))
            storage.put(part, file)
    made = [Task(block) for block in work]
    for later, path, told in map(json.loads, lines[1:]):
        evidence = tuple(Evidence(**one) for one in told["evidence"])
        copy = Copy(**told | {"size": tuple(told["size"]), "evidence": evidence})
        made[block_number(copy.of)].copies.setdefault(copy.of, []).append((copy, path))
        made[block_number(later)].left_out.add(later)
    return made


def _found(job: Job, work: Sequence[Block], workers: int, go_on: str) -> Iterator[tuple[int, str, Copy]]:
    """Every picture that shows an earlier one: its place, its absolute path, and it as a copy."""
    places, hashes = array("Q"), array("Q")  # 16 bytes an image
    for found in progress(answers(Hashes, job, work, workers, go_on), len(work), "blocks"):
        places += found[0]
        hashes += found[1]
    first = duplicates.near(places, hashes)
    wanted: dict[int, Wanted] = defaultdict(dict)
    for later, earlier in first.items():
        for place in (later, earlier):
            wanted[block_number(place)][place] = earlier
    seen: dict[int, Seen] = {}
    jobs = [(work[number], of) for number, of in sorted(wanted.items())]
    for summaries in progress(answers(Summaries, job, jobs, workers, go_on), len(jobs), "blocks"):
        seen |= summaries
    for later, earlier in first.items():
        if later in seen and earlier in seen and duplicates.same(seen[later][0], seen[earlier][0]):
            (_, copy), path = seen[later]
            yield later, path, copy


class _Reading:
    """Reads the pictures of blocks, in an actor of Ray Data."""

    def __init__(self, job: Job) -> None:
        limits = job.arguments["limits"]
        self._pictures, self._known = Pictures(limits), Known(job.earlier, limits)
        self._process: Process[Any, Any] = Process(duplicates.start, limits, duplicates.nothing, job.timeout)

    def _answers(self, given: Iterable[tuple[Picture, Any]]) -> Iterator[tuple[Picture, Any]]:
        """Pictures with what the process answers, but for those that cannot be read."""
        with closing(self._process.answers(given)) as found:
            yield from ((picture, answer) for picture, answer in found if answer is not None)


class Hashes(_Reading):
    """Difference hashes of all pictures of a block that an earlier output does not hold."""

    def __call__(self, block: Block) -> tuple["array[int]", "array[int]"]:
        """The places of the pictures, and their hashes."""
        places, hashes = array("Q"), array("Q")
        new = (p for p in self._pictures.of(block, []) if self._known(p.source) is None)
        for picture, value in self._answers((p, (duplicates.dhash, p.source)) for p in new):
            places.append(picture.place)
            hashes.append(value)
        return places, hashes


class Summaries(_Reading):
    """What is compared of some pictures of a block."""

    def __call__(self, given: tuple[Block, Wanted]) -> dict[int, Seen]:
        """What was seen of each picture that is wanted and could be read, by its place."""
        block, of = given
        asked = self._pictures.of(block, [], of.__contains__)
        found = self._answers((p, (duplicates.summary, p.source, of[p.place])) for p in asked)
        return {p.place: ((small, replace(copy, path=p.name)), p.path) for p, (small, copy) in found}
