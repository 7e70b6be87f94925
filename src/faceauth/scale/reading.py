"""The pictures of a block, read from wherever they are: files, tar shards and Parquet files, here or in a store."""

import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

from faceauth.errors import ImageError
from faceauth.images import SUFFIXES, EncodedImage, Limits, Source
from faceauth.scale.blocks import Block, Input
from faceauth.scale.storage import Refused, Storage

FILE_BITS, PICTURE_BITS = 10, 30  # of the 64 of a place: a block has up to 1,000 files, or one with many pictures


def block_number(place: int) -> int:
    """The number of the block that a picture's place is in."""
    return place >> (FILE_BITS + PICTURE_BITS)


class Picture(NamedTuple):
    """A picture as rows name it, with its absolute path, and where it is read from.

    `place` is its own among all, and rises: the block's number, the file's in the block and its own in the file.
    """

    place: int
    name: str
    path: str
    source: Source


class Pictures:
    """Reads pictures; the stores that it has opened stay open."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._stores: dict[str, Storage] = {}

    def of(
        self, block: Block, unread: list[tuple[Picture, str]], wanted: Callable[[int], bool] = lambda place: True
    ) -> Iterator[Picture]:
        """The pictures of a block whose places are wanted; others are not read where they are files of their own.

        A file that cannot be read, or not to its end, is put into `unread` with the reason. Raises FaceAuthError where
        a store does not answer.
        """
        for index, one in enumerate(block.inputs):
            first = (block.number << FILE_BITS | index) << PICTURE_BITS
            if not (one.is_shard or wanted(first)):
                continue
            try:
                for place, found in enumerate(self._in(one), first):
                    if wanted(place):
                        yield Picture(place, *found)
            except (ImageError, Refused) as error:
                unread.append((Picture(first, one.shown, _absolute(one), one.path), error.message))

    def _in(self, one: Input) -> Iterator[tuple[str, str, Source]]:
        """The pictures in a file. Raises ImageError, Refused where it cannot be read, or not to its end."""
        if one.is_shard:
            yield from self._in_shard(one)
        elif one.store is None:
            yield one.shown, one.path, one.path
        else:
            data = self._store(one.store).read(one.path, self._limits.max_bytes)
            yield one.shown, _absolute(one), EncodedImage(data, one.shown)

    def _in_shard(self, one: Input) -> Iterator[tuple[str, str, Source]]:
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
