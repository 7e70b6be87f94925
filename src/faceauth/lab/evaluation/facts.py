"""What can be known of an image file without seeing a face: how it was saved, and a 16 x 16 thumbnail.

It knows nothing of labels or classifiers.
"""

import hashlib
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from faceauth import images
from faceauth.lab.evaluation.scoring import RESAVES, absolute, keep, open_file, shared

FORMATS = ("JPEG", "PNG", "WEBP")


def file_facts(data: bytes) -> list[float]:
    """Format, width, height, aspect, bytes a pixel, means of the JPEG quantisation tables, EXIF presence."""
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        tables = getattr(image, "quantization", None) or {}
        means = [float(np.mean(tables[k])) if k in tables else -1.0 for k in (0, 1)]
        formats = [float(image.format == f) for f in FORMATS]
        return [
            *formats,
            width,
            height,
            width / height,
            len(data) / (width * height),
            *means,
            float(bool(image.getexif())),
        ]


def thumbnail(image: Image.Image) -> list[float]:
    """The whole picture at 16 x 16, RGB, in [0, 1]."""
    small = image.resize((16, 16), Image.Resampling.BOX)
    return [float(v) / 255 for v in np.asarray(small).reshape(-1)]


def features_of(
    paths: Sequence[str], data: str, cache: Path, workers: int, resaved: bool = True
) -> list[npt.NDArray[np.float32]]:
    """What each baseline sees of every file, (n, variants, d), kept in the cache.

    Args:
        data: hash of the corpus or manifest, a part of the cache's key.
        resaved: all variants of the protocol; else the files as they are alone.
    """
    key = hashlib.sha256(repr((data, absolute(paths), resaved)).encode()).hexdigest()[:32]
    kept = cache / "audit" / f"{key}.npz"
    if not kept.is_file():
        found = shared(partial(_features_one, resaved=resaved), paths, workers, "shortcut audit")
        facts, thumbnails = zip(*found, strict=True)
        keep(kept, facts=np.asarray(facts, np.float32), thumbnails=np.asarray(thumbnails, np.float32))
    with np.load(kept) as file:
        return [file["facts"], file["thumbnails"]]


def _features_one(path: str, resaved: bool) -> tuple[list[list[float]], list[list[float]]]:
    data, image = open_file(path)
    files = [data, *(resave(image) for resave in (RESAVES if resaved else ()))]
    return [file_facts(f) for f in files], [thumbnail(images.decode(f)) for f in files]
