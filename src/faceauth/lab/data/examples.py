"""Examples: the images that a network is trained and evaluated on, with their splits and their pixels.

The faces of a corpus are cut out once and kept, with more context than any network sees (`CONTEXT` face boxes) and
never enlarged, so that augmentation can still move and scale them. A prepared data set is read as it lies.
"""

import hashlib
import sys
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from faceauth import images
from faceauth.cpus import usable_cpus
from faceauth.errors import DataError, ImageError
from faceauth.faces import REVISION, finder
from faceauth.files import locked, replacing
from faceauth.lab.data.dataset import DataSet, ImageRow, check_bytes, need_hashes
from faceauth.lab.data.splits import FRACTIONS, check_given, given_or_assigned, tie
from faceauth.lab.parallel import as_it_is, parallel
from faceauth.preprocess import PreprocessSpec

VERSION = 2  # of the code below: what cuts otherwise gets another
CONTEXT = 2.0  # side of a kept crop, in face boxes
LARGEST = 480  # pixels a side; what is larger is reduced: a face of 256 px and what is about it
Pixels = npt.NDArray[np.uint8]


class Faces(Protocol):
    """Pictures of faces by index: an RGB image, and the face box in its pixels (left, top, right, bottom)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> tuple[Image.Image, tuple[float, ...]]: ...


@dataclass(frozen=True, slots=True)
class Examples:
    """What a network is trained and evaluated on.

    Attributes:
        records: the images; splits: train, test or dev for each; faces: its pixels.
        sha256: of the data set; dhashes: 64-bit difference hash of each image, none for a prepared data set.
        folder: of a prepared data set, where its files lie; None where faces were cut out of them.
        extra: the sources among them that were added (`with_extra`), each with the sha256 of its own data set.
    """

    records: tuple[ImageRow, ...]
    splits: tuple[str, ...]
    faces: Faces
    sha256: str
    dhashes: Sequence[int] = ()
    folder: Path | None = None
    extra: Mapping[str, str] = field(default_factory=dict)

    def sources(self, label: str) -> tuple[str, ...]:
        """Names of the sources with a label, sorted."""
        return tuple(sorted({r.source for r in self.records if r.label == label}))


def from_corpus(
    data: DataSet, cache: Path, seed: int = 0, fractions: Sequence[float] = FRACTIONS, train_only: Collection[str] = ()
) -> Examples:
    """A data set of whole images, its faces cut out into `cache`, split by `splits.given_or_assigned`.

    Raises:
        DataError: an image cannot be read, or splits that some rows lack or that part a group.
    """
    check_given(data.rows)  # before faces are cut
    crops = open_crops(data, cache)
    splits = given_or_assigned(data.rows, tie(data.rows, crops.dhashes), seed, fractions, train_only)
    rows = tuple(replace(row, split=split) for row, split in zip(data.rows, splits, strict=True))
    return Examples(rows, tuple(splits), crops, data.sha256, crops.dhashes)


def from_manifest(data: DataSet) -> Examples:
    """A prepared data set, split as its manifest says, its files read as they lie. Raises as `check_given`."""
    check_given(data.rows)
    return Examples(data.rows, tuple(r.split for r in data.rows), _Prepared(data), data.sha256, folder=data.root)


def with_extra(examples: Examples, data: DataSet, cache: Path, held_out: Collection[str] = ()) -> Examples:
    """The same with the images of another data set, all of them to train on and none to be evaluated on.

    Left out, with a line on standard error, are images that are tied (`splits.tie`: group, SHA-256, dHash) to one of
    the splits test and dev, or of a source that some fold holds out (`held_out`). A prepared data set has no dHashes:
    near-duplicates stay there.

    Raises:
        DataError: a source of that name is there already, or an image cannot be read.
    """
    for name in {r.source for r in data.rows} & {r.source for r in examples.records}:
        raise DataError(f"{data.root} names a source {name!r} that is there already", "rename it in its images.csv")
    crops = open_crops(data, cache)
    dhashes = (*examples.dhashes, *crops.dhashes) if examples.dhashes else ()
    components = tie((*examples.records, *data.rows), dhashes)
    first = len(examples.records)
    sealed = {
        component
        for component, record, split in zip(components[:first], examples.records, examples.splits, strict=True)
        if split != "train" or record.source in held_out
    }
    chosen = [i for i, component in enumerate(components[first:]) if component not in sealed]
    if left_out := len(data.rows) - len(chosen):
        left = f"{left_out:,} of {len(data.rows):,} images are left out, tied to images to evaluate on"
        print(f"{data.root}: {left}", file=sys.stderr)
    rows = [replace(data.rows[i], split="train") for i in chosen]
    return Examples(
        (*examples.records, *rows), examples.splits + ("train",) * len(rows), _Joined(examples.faces, crops, chosen),
        examples.sha256, dhashes and (*examples.dhashes, *(crops.dhashes[i] for i in chosen)),
        examples.folder, {**examples.extra, **{row.source: data.sha256 for row in rows}},
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Joined:
    """The pictures of one after those chosen of the other."""

    first: Faces
    second: Faces
    chosen: Sequence[int]

    def __len__(self) -> int:
        return len(self.first) + len(self.chosen)

    def __getitem__(self, index: int) -> tuple[Image.Image, tuple[float, ...]]:
        count = len(self.first)
        return self.first[index] if index < count else self.second[self.chosen[index - count]]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """The files of a prepared data set, decoded when they are asked for."""

    data: DataSet

    def __len__(self) -> int:
        return len(self.data.rows)

    def __getitem__(self, index: int) -> tuple[Image.Image, tuple[float, ...]]:
        row = self.data.rows[index]
        try:
            image = images.load(str(self.data.file(row))).image
        except ImageError as error:
            raise DataError(f"{row.path}: {error}", "prepare the data set again") from error
        return image, row.face or middle(*image.size)


def middle(width: int, height: int) -> tuple[float, float, float, float]:
    """The box used where no face was found: the middle 80 % of the image."""
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


def open_crops(data: DataSet, cache: Path, workers: int | None = None) -> Crops:
    """The crops of a data set from `cache`, cut now where they are not there yet, or not whole.

    The folder is named by path and SHA-256 of each image, in order, and by all that shapes a crop, so a change of
    either cuts anew. Of two processes one cuts and the other waits.

    Raises:
        DataError: for an image that cannot be read, has other bytes than its SHA-256 says, or has none.
    """
    need_hashes(data.rows)
    shape = hashlib.sha256(f"{VERSION}:{CONTEXT}:{LARGEST}:{REVISION}".encode()).hexdigest()[:8]
    order = hashlib.sha256(repr([(row.path, row.sha256) for row in data.rows]).encode()).hexdigest()[:16]
    folder = cache / f"crops-{order}-{shape}"
    cache.mkdir(parents=True, exist_ok=True)
    with locked(folder, wait=-1):
        crops = _read(folder, len(data.rows))
        if crops is None:
            _cut_all(data, folder, workers or usable_cpus())
            crops = _read(folder, len(data.rows))
    if crops is None:
        raise DataError(f"crops were written to {str(folder)!r} and cannot be read there", "is the disk full?")
    return crops


def _read(folder: Path, count: int) -> Crops | None:
    """What is kept, or None where it is not there, cut off or of other images."""
    try:
        with open(folder / "index.npz", "rb") as file, np.load(file) as index:
            pixels = np.memmap(folder / "pixels.bin", np.uint8, "r")
            dhashes = index["dhashes"].tolist()
            crops = Crops(pixels, index["offsets"], index["sides"], index["faces"], index["found"], dhashes)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    whole = len(pixels) == int((crops.sides.astype(np.int64) ** 2 * 3).sum())
    return crops if whole and len(crops) == count == len(dhashes) else None


def _cut_all(data: DataSet, folder: Path, workers: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.npz").unlink(missing_ok=True)  # it vouches for the pixels, so it goes first and comes last
    cut = []
    files = [(str(data.file(r)), r.sha256) for r in data.rows]
    with replacing(folder / "pixels.bin") as part, open(part, "wb") as pixels:
        for crop, face, found, dhash in parallel(as_it_is, _cut, files, workers, "cutting faces"):
            pixels.write(crop.tobytes())
            cut.append((len(crop), face, found, dhash))
    sides, faces, were_found, dhashes = zip(*cut, strict=True)
    sizes = np.asarray(sides, np.int64) ** 2 * 3
    with replacing(folder / "index.npz") as part, open(part, "wb") as index:
        np.savez(
            index, sides=np.asarray(sides), offsets=np.cumsum(sizes) - sizes, found=np.asarray(were_found),
            faces=np.asarray(faces, np.float32), dhashes=np.asarray(dhashes, np.uint64),
        )  # fmt: skip


def _cut(file: tuple[str, str]) -> tuple[Pixels, Sequence[float], bool, int]:
    path, sha256 = file
    try:
        loaded = images.load(path)
    except ImageError as error:
        raise DataError(f"{path}: {error}") from error
    check_bytes(path, sha256, loaded.sha256)
    image = loaded.image
    faces = finder()(image)
    face = faces[0].box if faces else middle(*image.size)
    region = PreprocessSpec(crop=CONTEXT).region(face, *image.size)
    side = min(LARGEST, round(region[2] - region[0]))
    k = side / (region[2] - region[0])
    crop = image.resize((side, side), Image.Resampling.BICUBIC, box=region)
    inside = [(v - region[i % 2]) * k for i, v in enumerate(face)]
    return np.asarray(crop), inside, bool(faces), images.dhash(image)
