"""Where images come from: a corpus is a folder with an `images.csv`. It knows nothing of splits or pixels."""

import csv
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from faceauth.errors import DataError

REQUIRED = ("path", "source", "label", "family", "generator", "group", "sha256")


@dataclass(frozen=True, slots=True)
class Record:
    """One image of a corpus.

    Attributes:
        path: relative to the corpus.
        source: what made it or took it: a generator, a camera collection.
        label: `edited` images are a probe outside both classes and are never trained on.
        group: ties what must stay on one side of a split; empty for none.
    """

    path: str
    source: str
    label: Literal["real", "fake", "edited"]
    family: str
    generator: str
    group: str
    sha256: str

    @property
    def fake(self) -> bool:
        """Whether score = P(fake) should be high."""
        return self.label == "fake"


@dataclass(frozen=True, slots=True)
class Corpus:
    """A folder of images with what is known of each; `sha256` is that of its images.csv."""

    root: Path
    records: tuple[Record, ...]
    sha256: str

    def sources(self, label: str) -> tuple[str, ...]:
        """Names of the sources with a label, sorted."""
        return tuple(sorted({r.source for r in self.records if r.label == label}))

    def file(self, record: Record) -> Path:
        """Where an image lies."""
        return self.root / record.path


def read_corpus(root: Path) -> Corpus:
    """Read and check `root/images.csv`.

    Raises:
        DataError: no such table, a column missing, a label that is none, a path outside the folder or twice, a
            source under both labels, a file that is not there.
    """
    table = root / "images.csv"
    try:
        data = table.read_bytes()
    except OSError as error:
        raise DataError(
            f"no corpus at {str(root)!r}: {error.strerror}", "set data.root to a folder with an images.csv"
        ) from error
    rows = csv.DictReader(data.decode("utf-8").splitlines())
    missing = [name for name in REQUIRED if name not in (rows.fieldnames or [])]
    if missing:
        raise DataError(f"{table} lacks the columns {', '.join(missing)}")
    records = tuple(Record(**{name: row[name] for name in REQUIRED}) for row in rows)  # type: ignore[arg-type]
    _check(root, records)
    return Corpus(root, records, hashlib.sha256(data).hexdigest())


def _check(root: Path, records: tuple[Record, ...]) -> None:
    if not records:
        raise DataError(f"{root / 'images.csv'} names no images")
    for path, count in Counter(r.path for r in records).items():
        if count > 1:
            raise DataError(f"{path} stands {count} times in images.csv")
    labels: dict[str, str] = {}
    for line, record in enumerate(records, start=2):
        if record.label not in {"real", "fake", "edited"}:
            raise DataError(f"images.csv line {line}: label {record.label!r}", "real, fake or edited")
        if labels.setdefault(record.source, record.label) != record.label:
            raise DataError(
                f"images.csv line {line}: {record.source} is both {labels[record.source]} and {record.label}"
            )
        if Path(record.path).is_absolute() or ".." in Path(record.path).parts:
            raise DataError(f"images.csv line {line}: {record.path} lies outside the corpus")
        if not (root / record.path).is_file():
            raise DataError(f"images.csv line {line}: no file {record.path}", "is the corpus complete?")
