"""Network inputs of views of images, cut once and kept in one file: what a small network is trained on many times."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from faceauth.faces import REVISION, finder
from faceauth.files import replacing
from faceauth.lab.data import variants
from faceauth.lab.parallel import parallel
from faceauth.lab.training.features import Task, pictures
from faceauth.preprocess import PreprocessSpec

Cut = list[tuple[str, int, npt.NDArray[np.uint8]]]  # of one image: view, side of the face box, pixels


@dataclass(frozen=True, slots=True)
class PixelViews:
    """Views as they go into a network, as parallel arrays of length n; those without a face are left out.

    Attributes:
        pixels: (n, size, size, 3) uint8, read from disk as it is used; image: SHA-256 of the file; view: its name;
            face: side of the face box in pixels.
    """

    pixels: npt.NDArray[np.uint8]
    image: npt.NDArray[np.str_]
    view: npt.NDArray[np.str_]
    face: npt.NDArray[np.int64]


def cut_views(tasks: Sequence[Task], spec: PreprocessSpec, folder: Path, workers: int) -> PixelViews:
    """The views of all tasks, from `folder` where they were cut before by the same code.

    The file's name carries a digest of the tasks, the preprocessing, and the versions of what makes views and finds
    faces.
    """
    wanted = [[t.sha256, *t.views] for t in tasks]
    key = json.dumps([asdict(spec), REVISION, variants.VERSION, wanted], sort_keys=True)
    name = folder / f"pixels-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    index, pixels = name.with_suffix(".npz"), name.with_suffix(".bin")
    if not index.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _cut_all(tasks, spec, pixels, index, workers)
    with np.load(index) as found:
        image, view, face = (found[k] for k in ("image", "view", "face"))
    shape = (len(image), spec.size, spec.size, 3)
    return PixelViews(np.memmap(pixels, np.uint8, "r", shape=shape), image, view, face)


def _cut_all(tasks: Sequence[Task], spec: PreprocessSpec, pixels: Path, index: Path, workers: int) -> None:
    rows: list[tuple[str, str, int]] = []
    with replacing(pixels) as part, open(part, "wb") as file:
        for task, cut in zip(tasks, parallel(_start, spec, tasks, workers, "cutting views"), strict=True):
            for view, face, shown in cut:
                file.write(shown.tobytes())
                rows.append((task.sha256, view, face))
    with replacing(index) as part, open(part, "wb") as file:
        np.savez(
            file, image=np.array([image for image, _, _ in rows], str), view=np.array([v for _, v, _ in rows], str),
            face=np.array([face for _, _, face in rows], np.int64),
        )  # fmt: skip


def _start(spec: PreprocessSpec) -> Callable[[Task], Cut]:
    find = finder()

    def cut(task: Task) -> Cut:
        return [
            (seen.view, seen.face.side, spec.cut(seen.image, seen.face))
            for seen in pictures(task, find)
            if seen.image is not None and seen.face is not None
        ]

    return cut
