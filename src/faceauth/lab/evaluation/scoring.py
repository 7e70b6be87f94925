"""Logits of images, computed once: several models in one pass, cached under each network's fingerprint.

From the file on, as a user's, in every variant (`score_files`); or of a prepared face, as the study did
(`prepared_outputs`).
"""

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from faceauth import images
from faceauth.detector import Detector
from faceauth.errors import DataError, ImageError
from faceauth.faces import REVISION
from faceauth.files import replacing
from faceauth.lab.data import variants
from faceauth.lab.data.archives import find_original
from faceauth.lab.data.dataset import check_bytes
from faceauth.lab.data.examples import Examples
from faceauth.lab.evaluation.metrics import Floats
from faceauth.lab.parallel import parallel
from faceauth.lab.progress import tracked
from faceauth.model_file import ModelFile, Outputs

KEPT = ("logit", "source_logits", "embedding")  # of a model's outputs
BATCH = 16
VARIANTS = ("clean", "web", "hard", "avatar")  # of `faceauth.lab.data.variants`: those that need no face


def score_files(
    models: Sequence[Path], files: Sequence[tuple[str, str]], data: str, cache: Path, workers: int
) -> list[Floats]:
    """Logits (n, `VARIANTS`) of the largest face in each file, the whole image where there is none, for each model.

    A file is decoded, saved again and searched for faces once, whatever the number of models.

    Args:
        files: each with its SHA-256, empty where that is not known.
        data: hash of the manifest, a part of the cache's key.

    Raises:
        DataError: for a file that cannot be read, or has other bytes than its SHA-256 says.
    """
    keys = [_key(ModelFile(m), data, [variants.VERSION, VARIANTS, *states(path for path, _ in files)]) for m in models]
    kept = [cache / "scores" / f"{key}.npy" for key in keys]
    missing = [i for i, file in enumerate(kept) if not file.is_file()]
    if missing:
        found = list(parallel(_start, [str(models[i]) for i in missing], files, workers, "scoring"))
        for row, i in enumerate(missing):
            keep(kept[i], np.array([f[row] for f in found]))
    return [np.asarray(np.load(file)) for file in kept]


def prepared_outputs(
    models: Sequence[Path], examples: Examples, indices: Sequence[int], cache: Path, workers: int
) -> list[Outputs]:
    """Every network output for prepared faces, for each model; each face is decoded once.

    Raises DataError for an image that cannot be read.
    """
    chosen: list[Any] = [(examples.records[i].path, examples.records[i].sha256) for i in indices]
    if examples.folder is not None:  # the hashes are those of the originals
        chosen += [state[1:] for state in states(str(examples.folder / path) for path, _ in chosen)]
    opened = [ModelFile(m) for m in models]
    kept = [cache / "outputs" / f"{_key(m, examples.sha256, chosen)}.npz" for m in opened]
    missing = [i for i, file in enumerate(kept) if not file.is_file()]
    if missing and len(indices):
        batches = [indices[i : i + BATCH] for i in range(0, len(indices), BATCH)]
        todo = [opened[i] for i in missing]
        with ThreadPoolExecutor(workers) as pool:  # decoding, resizing and ONNX Runtime all run beside each other
            done = pool.map(lambda batch: _outputs_of_batch(todo, examples, batch), batches)
            found = list(tracked(done, len(batches), "scoring prepared faces"))
        for row, i in enumerate(missing):
            keep(kept[i], **{n: np.concatenate([getattr(f[row], n) for f in found]) for n in KEPT})
    return [_load(file, m) for file, m in zip(kept, opened, strict=True)]


def states(paths: Iterable[str]) -> list[tuple[str, int, int]]:
    """What a cache knows each file, or member of an archive, by: absolute name, size and time of the last change."""
    stat = functools.cache(os.stat)

    def state(path: str) -> tuple[str, int, int]:
        archive = path.rpartition("!/")[0]
        try:
            found = stat(archive if archive and not os.path.isfile(path) else path)
        except OSError:
            return os.path.abspath(path), 0, 0  # whoever reads it says that it is not there
        return os.path.abspath(path), found.st_size, found.st_mtime_ns

    return [state(path) for path in paths]


def open_file(path: str, sha256: str) -> tuple[bytes, Image.Image]:
    """An image file, or a member `archive.zip!/name`: its bytes, and decoded.

    Raises DataError where it is no image, or has other bytes than `sha256` says, where that is not empty.
    """
    try:
        item = find_original(path)
        if item is None:
            raise ImageError("is not there")
        data = item.read()
        check_bytes(path, sha256, hashlib.sha256(data).hexdigest())
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


def _outputs_of_batch(models: Sequence[ModelFile], examples: Examples, batch: Iterable[int]) -> list[Outputs]:
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
        return Outputs(*(arrays[name] for name in KEPT))


def keep(path: Path, array: Floats | None = None, /, **arrays: npt.NDArray[Any]) -> None:
    """Write one array as .npy, or named ones as .npz, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, open(part, "wb") as file:
        if array is None:
            np.savez(file, allow_pickle=False, **arrays)
        else:
            np.save(file, array)


def _start(models: Sequence[str]) -> Callable[[tuple[str, str]], list[list[float]]]:
    detectors = [Detector(model, learned=False) for model in models]

    def score_one(file: tuple[str, str]) -> list[list[float]]:
        """For each model its logit in every variant."""
        path, sha256 = file
        _, image = open_file(path, sha256)
        seen = [variants.whole(name, image, path) for name in VARIANTS]
        faces = [next(iter(detectors[0].find_faces(variant)), None) for variant in seen]
        pairs = list(zip(seen, faces, strict=True))
        return [[float(d.run_faces(variant, [face]).logit[0]) for variant, face in pairs] for d in detectors]

    return score_one
