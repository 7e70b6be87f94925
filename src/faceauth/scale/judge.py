"""What an actor does: judge a block, and write its rows as one part."""

import io
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from faceauth.detector import start_worker
from faceauth.duplicates import Copy
from faceauth.errors import FaceAuthError
from faceauth.images import Source, shown
from faceauth.output import count, path_id, rows
from faceauth.output.writers import ParquetWriter
from faceauth.scale.blocks import Block
from faceauth.scale.earlier import Known
from faceauth.scale.process import Process
from faceauth.scale.reading import Picture, Pictures
from faceauth.scale.storage import Storage
from faceauth.verdict import Verdict

CHANGED = "not judged: the picture that it shows again could be read before, and cannot be now"


@dataclass(frozen=True, slots=True)
class Job:
    """What every actor needs.

    Attributes:
        arguments: of `Detector`. model: its name and SHA-256. details: what else judges (`detector.row_details`).
        timeout: seconds an image may take. folder: path or address of the output.
        again: judge also what the output holds. earlier: an actor with an earlier output (`earlier.held`), or None.
    """

    arguments: dict[str, Any]
    model: tuple[str, str]
    details: dict[str, Any]
    timeout: float
    folder: str
    again: bool
    earlier: Any

    def failed(self, source: Source, reason: str) -> Verdict:
        """The verdict on a picture that could not be judged."""
        return Verdict(shown(source), (), *self.model, error=reason)


@dataclass(frozen=True, slots=True)
class Task:
    """A block, and what is known of it before.

    Attributes:
        copies: of a picture's place those, of any block, that show it again, with their absolute paths.
        left_out: places of the block's pictures that are such copies; their rows are beside those of the pictures.
    """

    block: Block
    copies: dict[int, list[tuple[Copy, str]]] = field(default_factory=dict)
    left_out: set[int] = field(default_factory=set)


class Judge:
    """A detector that takes tasks, in an actor of Ray Data."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._output = Storage(job.folder)
        self._pictures = Pictures(job.arguments["limits"])
        self._known = Known(job.earlier, job.arguments["limits"])
        self._process: Process[Source, Verdict] = Process(start_worker, job.arguments, job.failed, job.timeout)

    def __call__(self, task: Task) -> "Counter[str]":
        """The tally of a block; it is judged unless its part is there, so that it can be tried again.

        `known` counts pictures whose verdict was taken from the earlier output.
        Raises FaceAuthError where it cannot be read or written.
        """
        target = f"{self._output.root}/{task.block.name}"
        if not self._job.again and self._output.exists(target):
            return _tally(self._output.read(target))
        try:
            return self._judged(task, target)
        except OSError as error:
            raise FaceAuthError(f"cannot write the output: {error}", "is the disk full, or read-only?") from error

    def _judged(self, task: Task, target: str) -> "Counter[str]":
        tally: Counter[str] = Counter()
        with tempfile.TemporaryDirectory(prefix="faceauth-") as name:
            part = Path(name) / task.block.name
            with closing(ParquetWriter(part, Path(name))) as writer, closing(self._verdicts(task, tally)) as verdicts:
                for verdict, path in verdicts:
                    found = rows(verdict)
                    count(tally, found)
                    for one in found:
                        writer.write(one | {"path_id": path_id(path)})
            self._output.put(part, target)
        return tally

    def _verdicts(self, task: Task, tally: "Counter[str]") -> Generator[tuple[Verdict, str], None, None]:
        """The verdict on every picture of a task, and the picture's absolute path; those not judged here come last."""
        known: list[tuple[Picture, Verdict]] = []
        unread: list[tuple[Picture, str]] = []
        copies = dict(task.copies)

        def left() -> Iterator[tuple[Picture, Source]]:
            for picture in self._pictures.of(task.block, unread, lambda place: place not in task.left_out):
                if verdict := self._known(picture.source):
                    known.append((picture, verdict))
                else:
                    yield picture, picture.source

        with closing(self._process.answers(left())) as judged:
            for picture, verdict in judged:
                first = replace(verdict, path=picture.name, **self._job.details)
                yield first, picture.path
                for copy, path in copies.pop(picture.place, ()):
                    yield copy.verdict(first), path
        tally["known"] = len(known)
        for picture, verdict in known:
            yield replace(verdict, path=picture.name), picture.path
        failed = [(picture.name, picture.path, reason) for picture, reason in unread]
        failed += [(str(c.path), path, CHANGED) for those in copies.values() for c, path in those]
        for name, path, reason in failed:
            yield replace(self._job.failed(name, reason), **self._job.details), path


def _tally(part: bytes) -> "Counter[str]":
    """The tally of a part that is finished: every image has one row that is of no face, or of the first."""
    import pyarrow.parquet as pq

    told = pq.read_table(io.BytesIO(part), columns=["label", "face"]).to_pylist()
    tally: Counter[str] = Counter()
    count(tally, told)
    tally["images"] = sum(row["face"] in {None, 0} for row in told)
    return tally
