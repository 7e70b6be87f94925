"""What models say of images, computed once: several models in one pass, kept under each network's fingerprint.

Two ways to look at an image: from its file on, as a user's (`score_files`), in every variant of the protocol; or as a
prepared face, as the study did (`look`). It knows nothing of labels, splits or metrics.
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from faceauth import images
from faceauth.detector import Detector
from faceauth.errors import DataError, ImageError
from faceauth.faces import REVISION, FoundFace
from faceauth.lab.data.archives import find_original
from faceauth.lab.data.examples import Examples
from faceauth.lab.progress import tracked
from faceauth.model_file import ModelFile, Outputs
from faceauth.tta import VIEWS

Floats = npt.NDArray[np.floating[Any]]
BATCH = 16


@dataclass(frozen=True, slots=True)
class Resave:
    """Reduce to at most `longest` pixels a side (never enlarge), then save as JPEG of `quality`."""

    name: str
    longest: int
    quality: int

    def __call__(self, image: Image.Image) -> bytes:
        """The bytes of the file saved again."""
        k = min(1.0, self.longest / max(image.size))
        size = max(1, round(image.width * k)), max(1, round(image.height * k))
        file = io.BytesIO()
        image.resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=self.quality)
        return file.getvalue()


RESAVES = (Resave("web", 768, 60), Resave("hard", 512, 40), Resave("avatar", 128, 75))
VARIANTS = ("clean", *(r.name for r in RESAVES))


def score_files(
    models: Sequence[Path], paths: Sequence[str], data: str, cache: Path, workers: int, again: bool = True
) -> list[Floats]:
    """Logits (n, variants, 2) of the largest face in each file (the whole image where there is none), for each model.

    The first look's, and the mean over all looks. Which of them a user gets depends on the calibration, which is
    fitted on these very logits (`faceauth.looks.combined`), so all looks are always taken here. A file is decoded,
    saved again and searched for faces once, whatever the number of models.

    Args:
        data: hash of the corpus or manifest, a part of the cache's key.
        again: without it there is one look, and both numbers are its logit.

    Raises:
        DataError: for a file that cannot be read.
    """
    keys = [_key(ModelFile(m), data, [VIEWS if again else (), *absolute(paths)]) for m in models]
    kept = [cache / "scores" / f"{key}.npy" for key in keys]
    missing = [i for i, file in enumerate(kept) if not file.is_file()]
    if missing and paths:
        start = partial(_start, tuple(str(models[i]) for i in missing), VARIANTS)
        found = shared(partial(_score_one, again=again), paths, workers, "scoring", start)
        for row, i in enumerate(missing):
            keep(kept[i], np.array([f[row] for f in found]))
    return [np.asarray(np.load(file)) if paths else np.zeros((0, len(VARIANTS), 2)) for file in kept]


def look(
    models: Sequence[Path], examples: Examples, indices: Sequence[int], cache: Path, workers: int
) -> list[Outputs]:
    """Every network output for prepared faces, for each model; each face is decoded once.

    Raises:
        DataError: for an image that cannot be read.
    """
    chosen = [(examples.records[i].path, examples.records[i].sha256) for i in indices]
    opened = [ModelFile(m) for m in models]
    kept = [cache / "outputs" / f"{_key(m, examples.sha256, chosen)}.npz" for m in opened]
    missing = [i for i, file in enumerate(kept) if not file.is_file()]
    if missing and len(indices):
        batches = [indices[i : i + BATCH] for i in range(0, len(indices), BATCH)]
        todo = [opened[i] for i in missing]
        with ThreadPoolExecutor(workers) as pool:  # decoding, resizing and ONNX Runtime all run beside each other
            done = pool.map(lambda batch: _look_at(todo, examples, batch), batches)
            found = list(tracked(done, len(batches), "looking at prepared faces"))
        for row, i in enumerate(missing):
            keep(kept[i], **{n: np.concatenate([getattr(f[row], n) for f in found]) for n in Outputs.__slots__})
    return [_load(file, m) for file, m in zip(kept, opened, strict=True)]


def absolute(paths: Sequence[str]) -> list[str]:
    """One name for each file, from wherever it is named: a cache is to know it again."""
    return [os.path.abspath(path) for path in paths]


def open_file(path: str) -> tuple[bytes, Image.Image]:
    """An image file, or a member `archive.zip!/name`: its bytes, and decoded. Raises DataError where it is no image."""
    try:
        item = find_original(path)
        if item is None:
            raise ImageError("is not there")
        data = item.read()
        return data, images.decode(data)
    except ImageError as error:
        raise DataError(f"{path}: {error}") from error


def fingerprint(model: ModelFile) -> str:
    """A hash of network and preprocessing that calibrating leaves alone: what becomes of one fixed picture."""
    spec = model.card.preprocess
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8))
    probe = spec.resize(picture, spec.region(None, *picture.size))[None]
    said = model.run(spec.normalize(probe))
    given = (said.embedding, said.logit, said.source_logits, probe)
    parts = (*(array.tobytes() for array in given), repr(spec).encode())
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _key(model: ModelFile, data: str, chosen: list[Any]) -> str:
    return hashlib.sha256(repr((fingerprint(model), REVISION, data, chosen)).encode()).hexdigest()[:32]


def _look_at(models: Sequence[ModelFile], examples: Examples, batch: Iterable[int]) -> list[Outputs]:
    faces = [examples.faces[i] for i in batch]
    outputs = []
    for model in models:
        spec = model.card.preprocess
        pixels = np.stack([spec.resize(image, spec.region(face, *image.size)) for image, face in faces])
        outputs.append(model.run(spec.normalize(pixels)))
    return outputs


def _load(file: Path, model: ModelFile) -> Outputs:
    if not file.is_file():
        size = model.card.preprocess.size
        one = model.run(np.zeros((1, 3, size, size), np.float32))
        return Outputs(one.logit[:0], one.source_logits[:0], one.embedding[:0])
    with np.load(file) as arrays:
        return Outputs(*(arrays[name] for name in Outputs.__slots__))


def keep(path: Path, array: Floats | None = None, /, **arrays: npt.NDArray[Any]) -> None:
    """Write one array as .npy, or named ones as .npz, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{path}.part", "wb") as file:
        if array is None:
            np.savez(file, allow_pickle=False, **arrays)
        else:
            np.save(file, array)
    os.replace(f"{path}.part", path)


def shared(
    one: Callable[[str], Any], paths: Sequence[str], workers: int, name: str, start: Callable[[], None] | None = None
) -> list[Any]:
    """What `one` gives for each path, in order; in as many processes, or here where that is 1. `start` comes first."""
    if workers <= 1:
        if start:
            start()
        return list(tracked(map(one, paths), len(paths), name))
    with ProcessPoolExecutor(workers, get_context("spawn"), start) as pool:
        return list(tracked(pool.map(one, paths, chunksize=BATCH), len(paths), name))


_detectors: list[Detector] = []
_variants: list[str] = []


def _start(models: tuple[str, ...], variants: tuple[str, ...]) -> None:
    _detectors[:] = [Detector(model, learned=False) for model in models]
    _variants[:] = variants


def _faces(path: str) -> Iterator[tuple[Image.Image, FoundFace | None]]:
    """A file in every variant wanted, and the largest face in each; None where there is none."""
    _, image = open_file(path)
    for name in _variants:
        resave = next((r for r in RESAVES if r.name == name), None)
        variant = images.decode(resave(image)) if resave else image
        yield variant, next(iter(_detectors[0].find_faces(variant)), None)


def _score_one(path: str, again: bool) -> list[list[tuple[float, float]]]:
    """For each model its logits in every variant: of the picture as it is, and the mean over re-saved views."""
    logits: list[list[tuple[float, float]]] = [[] for _ in _detectors]
    for variant, face in _faces(path):
        for detector, row in zip(_detectors, logits, strict=True):
            looks = detector.run_faces(variant, [face]).logit[:1]
            first = float(looks[0])
            if again:
                looks = np.append(detector.run_views(variant, [face]), looks)
            row.append((first, float(looks.mean(dtype=np.float64))))
    return logits
