"""Features of frozen encoders, computed once and kept: one row an encoder, image and view in an SQLite file.

An encoder is an ONNX file from `pixels` (n, 3, size, size) to `features` (n, d). A row is keyed by the encoder's
SHA-256, the image's SHA-256 and the name of the view (`faceauth.lab.data.variants`); the file's name carries a digest
of the preprocessing and the versions of the code that makes views and finds faces, so that nothing stale is read.
"""

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from faceauth import images as images_
from faceauth.errors import DataError, ImageError
from faceauth.faces import REVISION, FaceFinder, FoundFace, finder
from faceauth.lab.data import variants
from faceauth.lab.data.dataset import check_bytes
from faceauth.lab.parallel import parallel
from faceauth.lab.progress import tracked
from faceauth.preprocess import PreprocessSpec

Row = tuple[str, str, str, int, bytes | None]  # encoder, image, view, side of the face box (0 for none), features


@dataclass(frozen=True, slots=True)
class Task:
    """One image and the views wanted of it. `sha256` is that of the file."""

    path: str
    sha256: str
    views: tuple[str, ...]


class FeatureStore:
    """Features on disk, safe to be killed at any moment: the rows of an image are one transaction."""

    def __init__(self, folder: Path, spec: PreprocessSpec) -> None:
        """Open or make the file for `spec` in `folder`."""
        text = json.dumps([asdict(spec), REVISION, variants.VERSION], sort_keys=True)
        self.path = folder / f"features-{hashlib.sha256(text.encode()).hexdigest()[:16]}.sqlite"
        folder.mkdir(parents=True, exist_ok=True)
        self._file = sqlite3.connect(self.path, timeout=60)
        self._file.execute("pragma journal_mode = wal")
        self._file.execute(
            "create table if not exists features (encoder text, image text, view text, face integer, value blob,"
            " primary key (encoder, image, view)) without rowid"
        )
        self._file.execute("create table if not exists dhashes (image text primary key, dhash text)")

    def dhashes(self, images: Sequence[tuple[str, Path]]) -> list[int]:
        """64-bit difference hashes of (SHA-256, file) pairs, computed where they are not known.

        Raises DataError for an image that cannot be read, or has other bytes.
        """
        known = dict(self._file.execute("select image, dhash from dhashes"))
        new = [(sha256, file) for sha256, file in images if sha256 not in known]
        for sha256, file in tracked(new, len(new), "hashing"):
            try:
                loaded = images_.load(str(file))
            except ImageError as error:
                raise DataError(f"{file}: {error}", "is the data set complete?") from error
            check_bytes(str(file), sha256, loaded.sha256)
            known[sha256] = f"{images_.dhash(loaded.image):016x}"
        with self._file:
            self._file.executemany("insert or replace into dhashes values (?, ?)", [(s, known[s]) for s, _ in new])
        return [int(known[sha256], 16) for sha256, _ in images]

    def put(self, rows: Sequence[Row]) -> None:
        """Write rows, all or none of them."""
        with self._file:
            self._file.executemany("insert or replace into features values (?, ?, ?, ?, ?)", rows)

    def faces(self, encoder: str) -> dict[tuple[str, str], int]:
        """Side of the face box in pixels, 0 where no face was found, by (image, view) of every row of an encoder."""
        rows = self._file.execute("select image, view, face from features where encoder = ?", (encoder,))
        return {(image, view): face for image, view, face in rows}

    def read(self, encoder: str, keys: Sequence[tuple[str, str]]) -> npt.NDArray[np.float16]:
        """Features (n, d) of (image, view) pairs, in order. Raises KeyError for one without features."""
        rows = []
        for key in keys:
            found = self._file.execute(
                "select value from features where encoder = ? and image = ? and view = ?", (encoder, *key)
            ).fetchone()
            if found is None or found[0] is None:
                raise KeyError(key)
            rows.append(np.frombuffer(found[0], np.float16))
        return np.stack(rows)


def extract(
    tasks: Sequence[Task], encoders: dict[str, Path], spec: PreprocessSpec, store: FeatureStore, workers: int
) -> None:
    """Compute what the store lacks. `encoders` maps the SHA-256 of an ONNX file to its path.

    An image that cannot be read, or has no face, gets rows without features. Raises DataError for one that has other
    bytes than its SHA-256 says.
    """
    known = set.intersection(*(set(store.faces(name)) for name in encoders))
    left = [
        Task(t.path, t.sha256, views)
        for t in tasks
        if (views := tuple(v for v in t.views if (t.sha256, v) not in known))
    ]
    if left:
        for rows in parallel(_start, (encoders, spec), left, workers, "features"):
            store.put(rows)


@dataclass(frozen=True, slots=True)
class Picture:
    """One view as it is looked at: the picture and its face, None where none was found; `file` is the image's bytes."""

    view: str
    image: Image.Image | None
    face: FoundFace | None
    file: bytes


def pictures(task: Task, find: FaceFinder) -> Iterator[Picture]:
    """Every view of a task; without image and face where it cannot be read, has no face, or a variant leaves it out.

    Raises DataError where it has other bytes than the task says.
    """
    try:
        loaded = images_.load(task.path)
        check_bytes(task.path, task.sha256, loaded.sha256)
        faces = find(loaded.image)
    except ImageError:
        faces = []
    for name in task.views:
        made = variants.make(name, loaded.image, faces[0], task.sha256) if faces else None
        image, face = made or (None, None)
        if image is not None and face is None:
            face = next(iter(find(image)), None)
        yield Picture(name, image, face, loaded.data or b"") if face else Picture(name, None, None, b"")


def _start(given: tuple[dict[str, Path], PreprocessSpec]) -> Callable[[Task], list[Row]]:
    import onnxruntime as ort

    encoders, spec = given
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    sessions = {name: ort.InferenceSession(str(path), options) for name, path in encoders.items()}
    find = finder()
    return lambda task: [row for seen in pictures(task, find) for row in _rows(task, seen, spec, sessions)]


def _rows(task: Task, seen: Picture, spec: PreprocessSpec, sessions: Mapping[str, Any]) -> Iterator[Row]:
    """What every encoder gives of one view."""
    if seen.image is None or seen.face is None:
        yield from ((name, task.sha256, seen.view, 0, None) for name in sessions)
        return
    pixels = spec.normalize(spec.cut(seen.image, seen.face)[None])
    for name, session in sessions.items():
        [[features]] = session.run(["features"], {"pixels": pixels})
        yield name, task.sha256, seen.view, seen.face.side, features.astype(np.float16).tobytes()
