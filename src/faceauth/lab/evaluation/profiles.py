"""The azimuthally averaged log power spectrum of the face in a file, in every variant of the protocol.

What the classifier of Durall et al. (arXiv 1911.00686) sees. It knows nothing of labels or classifiers.
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from faceauth import images, spectra
from faceauth.faces import finder
from faceauth.lab.evaluation.scoring import RESAVES, absolute, keep, open_file, shared
from faceauth.preprocess import PreprocessSpec

SPEC = PreprocessSpec(size=128, crop=1.1)  # the crop of the networks beside it


def profile(face: Image.Image) -> npt.NDArray[np.float32]:
    """(side // 2 + 1,) of a square face: the log power of its grey levels, averaged on rings, over that of ring 0.

    The logarithm is taken before the average, and the division by the value at zero frequency after it, as in the
    authors' code. A black picture gives ones.
    """
    power = spectra.power(np.asarray(face.convert("L"), np.float64))
    rings = spectra.radial_profile(spectra.decibels(power))
    return np.asarray(rings / (rings[0] or 1.0), np.float32)


def profiles_of(
    paths: Sequence[str], data: str, cache: Path, workers: int, resaved: bool = True
) -> npt.NDArray[np.float32]:
    """The profiles (n, variants, rings) of the largest face in each file, the middle of it where none is found.

    Args:
        data: hash of the corpus or manifest, a part of the cache's key.
        resaved: all variants of the protocol; else the files as they are alone.

    Raises:
        DataError: for a file that cannot be read.
    """
    key = hashlib.sha256(repr((SPEC, data, absolute(paths), resaved)).encode()).hexdigest()[:32]
    kept = cache / "profiles" / f"{key}.npy"
    if not kept.is_file():
        found = shared(partial(_profiles_one, resaved=resaved), paths, workers, "spectra of faces")
        keep(kept, np.asarray(found, np.float32))
    return np.asarray(np.load(kept))


def _profiles_one(path: str, resaved: bool) -> list[npt.NDArray[np.float32]]:
    _, image = open_file(path)
    variants = [image, *(images.decode(resave(image)) for resave in (RESAVES if resaved else ()))]
    return [profile(_face(variant)) for variant in variants]


def _face(image: Image.Image) -> Image.Image:
    return Image.fromarray(SPEC.cut(image, next(iter(finder()(image)), None)))
