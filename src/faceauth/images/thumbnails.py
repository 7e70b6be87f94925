"""A small JPEG of a picture, to be shown beside its verdict."""

import io

from PIL import Image

from faceauth.errors import ImageError
from faceauth.images.loading import load

SIDE, QUALITY = 240, 75  # longest side in pixels, and JPEG quality


def thumbnail(image: Image.Image, side: int = SIDE) -> bytes:
    """A JPEG of an RGB image, at most `side` pixels a side; nothing of the image's metadata is in it."""
    k = min(1.0, side / max(image.size))
    size = max(1, round(image.width * k)), max(1, round(image.height * k))
    file = io.BytesIO()
    image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def thumbnail_of_file(path: str, sha256: str | None) -> bytes | None:
    """The same of a file; None where it cannot be read any more, or is not the one of that SHA-256."""
    try:
        loaded = load(path)
    except ImageError:
        return None
    return thumbnail(loaded.image) if loaded.sha256 == sha256 else None
