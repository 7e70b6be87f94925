"""Examples: the images that a network is trained and judged on, of a corpus or of a prepared data set.

A corpus has its faces cut once and kept, looser than any network sees them (`CONTEXT` face boxes) and never
enlarged, so that augmentation can still move and scale them. A prepared data set is read as it lies.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from faceauth import images
from faceauth.errors import DataError, ImageError
from faceauth.faces import REVISION, finder
from faceauth.lab.data.manifest import Manifest
from faceauth.lab.data.sources import Corpus, Record
from faceauth.lab.data.split import FRACTIONS, split
from faceauth.lab.progress import tracked
from faceauth.preprocess import square

CONTEXT = 2.0  # side of a kept crop, in face boxes
LARGEST = 480  # pixels a side; what is larger is reduced: a face of 256 px and what is about it
Pixels = npt.NDArray[np.uint8]


class Faces(Protocol):
    """Pictures of faces by index: an RGB image, and the face box in its pixels (left, top, right, bottom)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Image.Image, tuple[float, ...]]: ...


@dataclass(frozen=True, slots=True)
class Examples:
    """What a network is trained and judged on.

    Attributes:
        records: what is known of each image; splits: train, test or dev for each; faces: its pixels.
        sha256: of the corpus or manifest.
        own: the sources among them that stand beside it (`beside`), each with the sha256 of its own corpus.
    """

    records: tuple[Record, ...]
    splits: tuple[str, ...]
    faces: Faces
    sha256: str
    own: Mapping[str, str] = field(default_factory=dict)

    def sources(self, label: str) -> tuple[str, ...]:
        """Names of the sources with a label, sorted."""
        return tuple(sorted({r.source for r in self.records if r.label == label}))


def from_corpus(
    corpus: Corpus, cache: Path, seed: int = 0, fractions: Sequence[float] = FRACTIONS, whole: Collection[str] = ()
) -> Examples:
    """A corpus, split by `split.split`, its crops from `cache`. Raises DataError for an unreadable image."""
    crops = open_crops(corpus, cache)
    splits = split(corpus.records, crops.dhashes, seed, fractions, whole)
    return Examples(corpus.records, tuple(splits), crops, corpus.sha256)


def from_manifest(manifest: Manifest) -> Examples:
    """A prepared data set, split as its manifest says."""
    records = tuple(
        Record(r.destination_path, r.folder, "real" if r.target else "fake", r.family, r.folder, r.group, r.sha256)
        for r in manifest.rows
    )
    return Examples(records, tuple(r.split for r in manifest.rows), _Prepared(manifest), manifest.sha256)


def beside(examples: Examples, corpus: Corpus, cache: Path) -> Examples:
    """The same with the images of another corpus, all of them to train on and none to be judged on.

    Raises:
        DataError: a source of that name is there already, or an image cannot be read.
    """
    names = sorted({r.source for r in corpus.records})
    for name in set(names) & {r.source for r in examples.records}:
        raise DataError(f"{corpus.root} names a source {name!r} that is there already", "rename it in its images.csv")
    return Examples(
        examples.records + corpus.records, examples.splits + ("train",) * len(corpus.records),
        _Joined(examples.faces, open_crops(corpus, cache)), examples.sha256,
        {**examples.own, **dict.fromkeys(names, corpus.sha256)},
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Joined:
    """The pictures of one after those of the other."""

    first: Faces
    second: Faces

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, index: int) -> tuple[Image.Image, tuple[float, ...]]:
        count = len(self.first)
        return self.first[index] if index < count else self.second[index - count]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """The files of a prepared data set, decoded when they are asked for."""

    manifest: Manifest

    def __len__(self) -> int:
        return len(self.manifest.rows)

    def __getitem__(self, index: int) -> tuple[Image.Image, tuple[float, ...]]:
        row = self.manifest.rows[index]
        try:
            image = images.load(str(self.manifest.file(row))).image
        except ImageError as error:
            raise DataError(f"{row.destination_path}: {error}", "prepare the data set again") from error
        return image, row.face or middle(*image.size)


def middle(width: int, height: int) -> tuple[float, float, float, float]:
    """The box that stands in where no face was found: the middle 80 % of the image."""
    return 0.1 * width, 0.1 * height, 0.9 * width, 0.9 * height


@dataclass(frozen=True, slots=True)
class Crops:
    """Crops of a corpus, in its order.

    Attributes:
        pixels: all crops end to end, uint8, mapped from disk.
        offsets: where each starts; sides: (n,) its side in pixels.
        faces: (n, 4) the face box in crop pixels: left, top, right, bottom.
        found: (n,) whether a face was found; where not, the box is the middle 80 % of the image.
        dhashes: 64-bit difference hash of each whole image.
    """

    pixels: Pixels
    offsets: npt.NDArray[np.int64]
    sides: npt.NDArray[np.int64]
    faces: npt.NDArray[np.float32]
    found: npt.NDArray[np.bool_]
    dhashes: list[int]

    def __len__(self) -> int:
        return len(self.sides)

    def __getitem__(self, index: int) -> tuple[Image.Image, tuple[float, ...]]:
        """The crop, and the face box in it."""
        side, start = int(self.sides[index]), int(self.offsets[index])
        block = self.pixels[start : start + side * side * 3].reshape(side, side, 3)
        return Image.fromarray(np.asarray(block)), tuple(map(float, self.faces[index]))


def open_crops(corpus: Corpus, cache: Path, workers: int | None = None) -> Crops:
    """The crops of a corpus from `cache`, cut now where they are not there yet.

    Raises:
        DataError: for an image that cannot be read.
    """
    folder = cache / f"crops-{corpus.sha256[:16]}-{LARGEST}-{REVISION}"
    if not (folder / "index.npz").is_file():
        _cut_all(corpus, folder, workers or os.cpu_count() or 1)
    with np.load(folder / "index.npz") as index:
        pixels = np.memmap(folder / "pixels.bin", np.uint8, "r")
        hashes = [int(h) for h in index["dhashes"]]
        return Crops(pixels, index["offsets"], index["sides"], index["faces"], index["found"], hashes)


def _cut_all(corpus: Corpus, folder: Path, workers: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    sides, faces, found, hashes = [], [], [], []
    with (
        open(folder / "pixels.bin.part", "wb") as pixels,
        ProcessPoolExecutor(workers, get_context("spawn")) as pool,
    ):
        paths = [str(corpus.file(r)) for r in corpus.records]
        for crop, face, was_found, hash_ in tracked(pool.map(_cut, paths, chunksize=32), len(paths), "cutting faces"):
            pixels.write(crop.tobytes())
            sides.append(len(crop))
            faces.append(face)
            found.append(was_found)
            hashes.append(hash_)
    os.replace(folder / "pixels.bin.part", folder / "pixels.bin")
    sizes = np.asarray(sides, np.int64) ** 2 * 3
    np.savez(
        folder / "index.npz", sides=np.asarray(sides), offsets=np.cumsum(sizes) - sizes, found=np.asarray(found),
        faces=np.asarray(faces, np.float32), dhashes=np.asarray(hashes, np.uint64),
    )  # fmt: skip


def _cut(path: str) -> tuple[Pixels, Sequence[float], bool, int]:
    try:
        image = images.load(path).image
    except ImageError as error:
        raise DataError(f"{path}: {error}") from error
    faces = finder()(image)
    width, height = image.size
    face = faces[0].box if faces else middle(width, height)
    span = max(face[2] - face[0], face[3] - face[1])
    region = square(((face[0] + face[2]) / 2, (face[1] + face[3]) / 2), CONTEXT * span, width, height)
    side = min(LARGEST, round(region[2] - region[0]))
    k = side / (region[2] - region[0])
    crop = image.resize((side, side), Image.Resampling.BICUBIC, box=region)
    inside = [(v - region[i % 2]) * k for i, v in enumerate(face)]
    return np.asarray(crop), inside, bool(faces), images.dhash(image)
