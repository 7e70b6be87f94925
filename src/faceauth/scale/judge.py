"""What an actor does: judge a block, and write its rows as one part."""

import io
import os
import pickle
import sys
import tarfile
import tempfile
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from faceauth.detector import start_worker
from faceauth.errors import FaceAuthError, ImageError
from faceauth.images import SUFFIXES, EncodedImage, Limits, Source, shown
from faceauth.output import count, path_id, rows
from faceauth.output.writers import ParquetWriter
from faceauth.scale.blocks import Block, Input
from faceauth.scale.storage import Refused, Storage
from faceauth.verdict import Verdict
from faceauth.workers import Pool

Picture = tuple[str, str, Source]  # its name in rows, its absolute path, and where it is read from


@dataclass(frozen=True, slots=True)
class Job:
    """What every actor needs.

    Attributes:
        arguments: of `Detector`. model: its name and SHA-256. details: what else judges (`detector.row_details`).
        timeout: seconds an image may take. folder: path or address of the output.
        again: judge also what the output holds.
    """

    arguments: dict[str, Any]
    model: tuple[str, str]
    details: dict[str, Any]
    timeout: float
    folder: str
    again: bool

    def failed(self, source: Source, reason: str) -> Verdict:
        """The verdict on a picture that could not be judged."""
        return Verdict(shown(source), (), *self.model, error=reason)


class Judge:
    """A detector that takes blocks; an actor of Ray Data.

    A worker process judges, so that a picture that ends it costs its own row only. It lives as long as the actor.
    """

    def __init__(self, job: Job) -> None:
        vars(sys.modules["__main__"]).pop("__file__", None)  # Ray's program, which the process would import, with Ray
        self._job = job
        self._limits: Limits = job.arguments["limits"]
        self._output = Storage(job.folder)
        self._stores: dict[str, Storage] = {}
        self._pool = self._worker()

    def _worker(self) -> Pool[Source, Verdict]:
        return Pool(1, start_worker, self._job.arguments, self._job.failed, self._job.timeout)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The tally of `row["block"]`, or the FaceAuthError that stands against it: Ray would lose what it says."""
        try:
            answer: object = self._answer(pickle.loads(row["block"]))
        except Exception as error:
            self._pool.close()  # it may still have pictures of this block, whose verdicts must not go to the next one
            self._pool = self._worker()
            if not isinstance(error, FaceAuthError | OSError):
                raise
            full = FaceAuthError(f"cannot write the output: {error}", "is the disk full, or read-only?")
            answer = error if isinstance(error, FaceAuthError) else full
        return {"answer": pickle.dumps(answer)}

    def _answer(self, block: Block) -> "Counter[str]":
        """The tally of a block; it is judged unless its part is there, so that it can be tried again."""
        target = f"{self._output.root}/{block.name}"
        if not self._job.again and self._output.exists(target):
            return _tally(self._output.read(target))
        return self._judged(block, target)

    def _judged(self, block: Block, target: str) -> "Counter[str]":
        tally: Counter[str] = Counter()
        with tempfile.TemporaryDirectory(prefix="faceauth-") as name:
            part = Path(name) / block.name
            with closing(ParquetWriter(part, Path(name))) as writer:
                for verdict, path in self._verdicts(block):
                    found = rows(verdict)
                    count(tally, found)
                    for one in found:
                        writer.write(one | {"path_id": path_id(path)})
            self._output.put(part, target)
        return tally

    def _verdicts(self, block: Block) -> Iterator[tuple[Verdict, str]]:
        """The verdict on every picture of a block, and the picture's absolute path; what cannot be read comes last."""
        names: deque[tuple[str, str]] = deque()  # of what the worker process has
        unread: list[tuple[Verdict, str]] = []

        def sources() -> Iterator[Source]:
            for one in block.inputs:
                try:
                    for name, path, source in self._pictures(one):
                        names.append((name, path))
                        yield source
                except (ImageError, Refused) as error:
                    unread.append((self._job.failed(one.shown, error.message), _absolute(one)))

        for verdict in self._pool.answers(sources()):
            name, path = names.popleft()
            yield replace(verdict, path=name, **self._job.details), path
        yield from ((replace(verdict, **self._job.details), path) for verdict, path in unread)

    def _pictures(self, one: Input) -> Iterator[Picture]:
        """The pictures in a file. Raises ImageError, Refused where it cannot be read, or not to its end."""
        if one.is_shard:
            yield from self._in_shard(one)
        elif one.store is None:
            yield one.shown, one.path, one.path
        else:
            data = self._store(one.store).read(one.path, self._limits.max_bytes)
            yield one.shown, _absolute(one), EncodedImage(data, one.shown)

    def _in_shard(self, one: Input) -> Iterator[Picture]:
        from pyarrow.lib import ArrowException

        reader = _in_tar if one.path.lower().endswith(".tar") else _in_parquet
        try:
            with ExitStack() as stack:
                if one.store is None:
                    if not os.path.isfile(one.path):
                        raise ImageError("no such file, or not a regular one")
                    file: Any = stack.enter_context(open(one.path, "rb"))
                else:
                    file = stack.enter_context(tempfile.TemporaryFile())
                    self._store(one.store).fetch(one.path, file)
                for name, data in reader(file, self._limits.max_bytes):
                    path = f"{one.shown}/{name}"
                    yield path, f"{_absolute(one)}/{name}", EncodedImage(data, path)
        except (tarfile.TarError, ArrowException, OSError, EOFError, ValueError) as error:
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            raise ImageError(f"cannot be read on: {reason}") from error

    def _store(self, address: str) -> Storage:
        if address not in self._stores:
            self._stores[address] = Storage(address)
        return self._stores[address]


def _absolute(one: Input) -> str:
    return one.path if one.store is None else os.sep + one.shown


def _in_tar(file: Any, largest: int) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=file, mode="r|") as archive:
        for member in archive:
            if member.isreg() and os.path.splitext(member.name)[1].lower() in SUFFIXES:
                stream = archive.extractfile(member)
                yield member.name, stream.read(largest + 1) if stream else b""


def _in_parquet(file: Any, largest: int) -> Iterator[tuple[str, bytes]]:
    """The first column of bytes, or of structs with `bytes` (the datasets library's images)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file)
    columns = [
        field.name
        for field in parquet.schema_arrow
        if field.type in (pa.binary(), pa.large_binary())
        or (pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)
    ]
    if not columns:
        raise ValueError("no column of image bytes")
    number = 0
    for batch in parquet.iter_batches(batch_size=16, columns=columns[:1]):
        for value in batch.column(0).to_pylist():
            data = value.get("bytes") if isinstance(value, dict) else value
            yield str(number), (data or b"")[: largest + 1]
            number += 1


def _tally(part: bytes) -> "Counter[str]":
    """The tally of a part that is finished: every image has one row that is of no face, or of the first."""
    import pyarrow.parquet as pq

    told = pq.read_table(io.BytesIO(part), columns=["label", "face"]).to_pylist()
    tally: Counter[str] = Counter()
    count(tally, told)
    tally["images"] = sum(row["face"] in {None, 0} for row in told)
    return tally
