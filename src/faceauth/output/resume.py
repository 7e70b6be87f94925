"""What an output holds already, and what of it a run has to judge again.

An image keeps its rows only while it is the same picture (by SHA-256) under the same name, judged by the same
program, model, threshold, learned classes and face finder, with the same options. Of an image only digests are kept
in memory, 40 bytes.
"""

import hashlib
import json
import os
import stat
from abc import ABC, abstractmethod
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from pathlib import Path

import numpy as np

from faceauth.errors import UsageError
from faceauth.files import replacing
from faceauth.output.rows import Row, path_id

LONGEST_LINE = 10_000_000  # bytes; a row of ours is about 1,000
BLOCK = 1 << 20
PART = 1024  # images whose hashes are looked up together
_NEEDED = frozenset({"path", "label", "face", "model_sha256", "image_sha256"})
_BEGINNING = b'{"path": '


@dataclass(frozen=True, slots=True)
class Settings:
    """What every row of one output has in common, as the fields of the same names.

    `whole_image` and `recheck` are options of the detector; they are no fields, and show in some rows only.
    """

    version: str
    model: str
    model_sha256: str
    threshold: float
    learned_sha256: str | None
    face_finder: str | None
    whole_image: bool = False
    recheck: bool = True


_FIELDS = {f.name for f in fields(Settings)} - {"whole_image", "recheck"}


def _refuse_other(mine: Row, row: Row, path: Path) -> None:
    """Raises UsageError where a row was judged under other settings than `mine`."""
    told = mine | dict.fromkeys(_FIELDS) | row | _options(row)
    for name, value in mine.items():
        if told[name] != value and not (name == "threshold" and row["label"] == "no-face"):
            raise UsageError(
                f"{str(path)!r} holds rows of {_shown(name, told)}, and this run has {_shown(name, mine)}",
                "give the same settings again, or another name (--overwrite replaces an output)",
            )


def _options(row: Row) -> Row:
    """The options that a row was judged with, as far as it shows them."""
    if row["label"] == "no-face":
        return {"whole_image": False}
    score, threshold = row.get("score"), row.get("threshold")
    if score is None or threshold is None:
        return {}
    found: Row = {"whole_image": True} if row["face"] is None else {}
    if score >= threshold:  # the only scores that are checked again
        found["recheck"] = row.get("stability") is not None
    return found


def _shown(name: str, row: Row) -> str:
    """One setting in words."""
    value = row.get(name)
    match name:
        case "version":
            return f"faceauth {value or 'before 0.2, which did not say so'}"
        case "model" | "model_sha256":
            return f"model {row.get('model')} ({str(row.get('model_sha256'))[:12]})"
        case "threshold":
            return f"threshold {value}"
        case "learned_sha256":
            return "learned classes " + (f"of the file {str(value)[:12]}" if value else "none")
        case "whole_image":
            return f"images without a face {'judged whole' if value else 'not judged'}"
        case "recheck":
            return f"{'a' if value else 'no'} re-check of what is called fake"
        case _:
            return f"face finder {value}"


def count(tally: "Counter[str]", found: Sequence[Row], times: int = 1) -> None:
    """Add an image's rows to a tally of `images`, `unreadable`, `faces`, `whole`, and of each label."""
    tally["images"] += times
    for row in found:
        if row["label"] is None:
            tally["unreadable"] += times
            continue
        tally[row["label"]] += times
        if row["label"] != "no-face":
            tally["whole" if row["face"] is None else "faces"] += times


class KeptImages(ABC):
    """What an output holds: one entry an image, in its order.

    Attributes:
        path: of the output; tally: of its images (`count`).
    """

    def __init__(self, path: Path, settings: Settings | None) -> None:
        """Read it through once.

        Raises:
            UsageError: it is no output of `faceauth detect`, or of other settings; with `settings` None any will do.
            OSError: it cannot be read.
        """
        self.path = path
        self.tally: Counter[str] = Counter()
        self._ids, self._names, self._hashes = array("Q"), array("Q"), array("Q")
        self._starts, self._errors = array("Q"), bytearray()
        for start, group in self._images(settings):
            first = group[0]
            digest = first["path_id"] or _stdin_id(first["image_sha256"])
            self._ids.append(int(digest, 16))
            self._names.append(_number(os.fsencode(first["path"] or "")))
            self._hashes.append(int((first["image_sha256"] or "0")[:16], 16))
            self._starts.append(start)
            self._errors.append(first["label"] is None)
            count(self.tally, group)

    def __len__(self) -> int:
        return len(self._ids)

    def _images(self, settings: Settings | None) -> Iterator[tuple[int, list[Row]]]:
        """The rows of each image, with the offset of the first."""
        group: list[Row] = []
        start = 0
        mine = asdict(settings) if settings else {}
        for offset, row in self._positions():
            if row["label"] is not None:
                _refuse_other(mine, row, self.path)
            if group and (row["path"], row["image_sha256"]) != (group[0]["path"], group[0]["image_sha256"]):
                yield start, group
                group = []
            if not group:
                start = offset
            group.append(row)
        if group:
            yield start, group

    @abstractmethod
    def _positions(self) -> Iterator[tuple[int, Row]]:
        """Every row, with where it begins."""

    @abstractmethod
    def forget(self, entries: "set[int]") -> None:
        """Take images' rows out of the output. Raises OSError."""

    def _whole(self, entry: int) -> bool:
        """Whether all rows of an image are there."""
        return True

    def split(self, references: Sequence[str | bytes], largest: int) -> "tuple[list[str | bytes], Again]":
        """The references that have to be judged, and which of the images kept are judged again for them.

        Reads every picture that is kept, to compare its hash; files of more than `largest` bytes are not read.
        """
        left: list[str | bytes] = []
        again = Again()
        for reference, entry, same in self._compared(references, largest):
            if entry is not None and same and not self._errors[entry] and self._whole(entry):
                continue
            left.append(reference)
            if entry is not None:
                again.entries.add(entry)
                again.unreadable += bool(self._errors[entry])
                again.changed += not self._errors[entry] and not same
        return left, again

    def _compared(
        self, references: Iterable[str | bytes], largest: int
    ) -> Iterator[tuple[str | bytes, int | None, bool]]:
        """Each reference with its entry (None where there is none), and whether the picture is the one judged."""
        find_id, find_name = _finder(self._ids), _finder(self._names)
        iterator = iter(references)
        pool = ThreadPoolExecutor(4)
        try:
            while part := list(islice(iterator, PART)):
                entries = find_id([_id_of(reference) for reference in part])
                # A folder that was moved, or entered another way: the same spelling and the same picture will do.
                named = find_name([_number(os.fsencode(r)) if isinstance(r, str) else 0 for r in part])
                candidates = [n if e is None else e for e, n in zip(entries, named, strict=True)]
                known = [r for r, e in zip(part, candidates, strict=True) if e is not None]
                hashes = dict(zip(known, pool.map(lambda r: picture_hash(r, largest), known), strict=True))
                for reference, entry, candidate in zip(part, entries, candidates, strict=True):
                    same = candidate is not None and hashes[reference] == self._hashes[candidate]
                    yield reference, candidate if same else entry, same
        finally:
            pool.shutdown(cancel_futures=True)

    def find_pictures(self, references: Sequence[str | bytes], largest: int) -> Iterator[int | None]:
        """The entry of each reference's picture, under whatever name; None where there is none without an error.

        Reads every picture, but no file of more than `largest` bytes.
        """
        find = self.finder()
        with ThreadPoolExecutor(4) as pool:
            for start in range(0, len(references), PART):
                yield from find(list(pool.map(lambda r: picture_hash(r, largest), references[start : start + PART])))

    def finder(self) -> Callable[[list[int | None]], list[int | None]]:
        """A function from hashes of pictures (`picture_hash`) to entries; None where there is none without an error."""
        find = _finder(self._hashes)

        def entries(hashes: list[int | None]) -> list[int | None]:
            found = zip(hashes, find([h or 0 for h in hashes]), strict=True)
            return [None if h is None or entry is None or self._errors[entry] else entry for h, entry in found]

        return entries


class Kept(KeptImages):
    """The images of a JSON Lines output.

    Attributes:
        end: of the last whole line, in bytes.
    """

    end = 0

    def _whole(self, entry: int) -> bool:
        return entry != len(self) - 1  # of the last image further rows may be missing

    def _positions(self) -> Iterator[tuple[int, Row]]:
        with open(self.path, "rb") as stream:
            while line := stream.readline(LONGEST_LINE):
                if line.endswith(b"\n"):
                    yield self.end, self._row(line)
                    self.end += len(line)
                elif len(line) < LONGEST_LINE and (
                    _BEGINNING.startswith(line[: len(_BEGINNING)]) or not line.strip(b"\0")
                ):
                    return  # torn by the end of the run that wrote it
                else:
                    raise _foreign(self.path)

    def _row(self, line: bytes) -> Row:
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not row.keys() >= _NEEDED:
                raise ValueError
            if "path_id" not in row:
                row["path_id"] = path_id(row["path"])
            int(row["path_id"] or "0", 16), int((row["image_sha256"] or "0")[:16], 16)
        except (ValueError, TypeError, RecursionError) as error:
            raise _foreign(self.path) from error
        return row

    def rows(self, entry: int) -> list[Row]:
        """The rows of one image. Raises OSError."""
        return self._rows_of(self._starts[entry], self._starts[entry + 1] if entry + 1 < len(self) else self.end)

    def forget(self, entries: "set[int]") -> None:
        """Take images' rows out of the file, and a torn last line. Raises OSError; the file is then as it was."""
        bounds = array("Q", self._starts)
        bounds.append(self.end)
        for entry in entries:
            group = self._rows_of(bounds[entry], bounds[entry + 1])
            count(self.tally, group, times=-1)
        tail = len(self)
        while tail - 1 in entries:
            tail -= 1
        if all(entry >= tail for entry in entries):
            os.truncate(self.path, bounds[tail])
            return
        with replacing(self.path) as part, open(part, "wb") as target, open(self.path, "rb") as source:
            for start, end in _stretches(bounds, entries):
                source.seek(start)
                while start < end:
                    block = source.read(min(BLOCK, end - start))
                    target.write(block)
                    start += len(block)

    def _rows_of(self, start: int, end: int) -> list[Row]:
        with open(self.path, "rb") as stream:
            stream.seek(start)
            return [json.loads(line) for line in stream.read(end - start).splitlines()]


@dataclass(slots=True)
class Again:
    """Images that an output holds and that are judged again: which entries, and how many for which reason."""

    entries: set[int] = field(default_factory=set)
    changed: int = 0
    unreadable: int = 0


def _stretches(bounds: "array[int]", left_out: set[int]) -> Iterator[tuple[int, int]]:
    """Byte ranges that are kept, neighbours joined."""
    start = bounds[0]
    for entry in sorted(left_out):
        if bounds[entry] > start:
            yield start, bounds[entry]
        start = bounds[entry + 1]
    if bounds[-1] > start:
        yield start, bounds[-1]


def _finder(keys: "array[int]") -> Callable[[list[int]], list[int | None]]:
    """A function from keys to the indices of their last occurrences, by binary search in sorted digests."""
    values = np.array(keys, np.uint64)
    order = np.argsort(values, kind="stable")
    ordered = values[order]

    def find(wanted: list[int]) -> list[int | None]:
        asked = np.array(wanted, np.uint64)
        places = np.searchsorted(ordered, asked, side="right").astype(np.int64) - 1
        hits = places >= 0
        hits[hits] = ordered[places[hits]] == asked[hits]
        return [int(order[place]) if hit else None for place, hit in zip(places, hits, strict=True)]

    return find


def _id_of(reference: str | bytes) -> int:
    if isinstance(reference, bytes):
        return int(_stdin_id(hashlib.sha256(reference).hexdigest()), 16)
    return int(path_id(reference) or "0", 16)


def _stdin_id(sha256: str | None) -> str:
    """Pictures on standard input have no name: they are told apart by what they are."""
    return f"{_number((sha256 or '').encode()):016x}"


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def picture_hash(reference: str | bytes, largest: int) -> int | None:
    """The first 64 bits of a picture's SHA-256; None where it cannot be read, or is no file of that size."""
    digest = hashlib.sha256()
    if isinstance(reference, bytes):
        digest.update(reference)
        return int(digest.hexdigest()[:16], 16)
    with suppress(OSError, ValueError):
        status = os.stat(reference)
        if not stat.S_ISREG(status.st_mode) or status.st_size > largest:
            return None
        left = largest  # of a file that grows while it is read, no more
        with open(reference, "rb") as stream:
            while left > 0 and (block := stream.read(min(BLOCK, left))):
                digest.update(block)
                left -= len(block)
        return int(digest.hexdigest()[:16], 16)
    return None


def _foreign(path: Path) -> UsageError:
    return UsageError(f"{str(path)!r} is not an output of faceauth detect", "choose another name")
