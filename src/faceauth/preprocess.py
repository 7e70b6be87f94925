"""From an upright RGB image and a face box to the network's input: the only implementation of it.

Training, evaluation and inference all come through here, so that both classes, and both halves of the
project, see the same pixels. It knows nothing about files, face finders or networks.
"""

import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from faceauth.errors import ModelError
from faceauth.faces import FoundFace

Region = tuple[float, float, float, float]  # left, top, right, bottom in pixels, fractions allowed

# Halves the time of a large cut. Training cuts from pictures that were reduced once already: with 1.5 the logits lie
# nearer to what they are there than without (0.07 for 0.10 on average); with 1.0, further off (0.14).
GAP = 1.5

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}


@dataclass(frozen=True, slots=True)
class PreprocessSpec:
    """How a face becomes a network input. Written into every model file and read back from it.

    Attributes:
        size: side of the square input in pixels.
        crop: side of the square cut around a face, in face-box sides, before it is clamped to the image.
        interpolation: a key of `FILTERS`; the resize is anti-aliased.
        mean, std: per channel, subtracted and divided after scaling pixels to [0, 1].
    """

    size: int = 128
    crop: float = 1.3
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 8 <= self.size <= 1024 or not 0.1 <= self.crop <= 10:
            raise ModelError(
                f"impossible preprocessing: size {reprlib.repr(self.size)}, crop {reprlib.repr(self.crop)}"
            )
        if self.interpolation not in FILTERS:
            raise ModelError(
                f"unknown interpolation {reprlib.repr(self.interpolation)}", f"one of {', '.join(FILTERS)}"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ModelError("mean and std need three values each, std above zero")
        if not all(math.isfinite(v) for v in (*self.mean, *self.std)):
            raise ModelError("mean or std is no number")

    def region(self, face: Sequence[float] | None, width: int, height: int) -> Region:
        """The square to cut: around the face, shifted and shrunk to lie inside the image.

        Nothing is ever padded, because padding tells tight crops from loose ones. Without a face it is the
        central square of the whole image.
        """
        if face is None:
            return square((width / 2, height / 2), min(width, height), width, height)
        left, top, right, bottom = face
        side = self.crop * max(right - left, bottom - top)
        return square(((left + right) / 2, (top + bottom) / 2), side, width, height)

    def resize(self, image: Image.Image, region: Region) -> npt.NDArray[np.uint8]:
        """Cut and resize: an RGB image to (size, size, 3) uint8.

        A region of more than `2 * GAP` times the size is brought near it by averaging whole pixels first.
        """
        size = self.size, self.size
        return np.asarray(image.resize(size, FILTERS[self.interpolation], region, reducing_gap=GAP))

    def cut(self, image: Image.Image, face: FoundFace | None) -> npt.NDArray[np.uint8]:
        """The network's view of one face, upright, or of the whole image: (size, size, 3) uint8."""
        pixels = self.resize(image, self.region(face.box if face else None, *image.size))
        return np.ascontiguousarray(np.rot90(pixels, face.turns)) if face and face.turns else pixels

    def normalize(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(n, size, size, 3) uint8 to the network's (n, 3, size, size) float32, contiguous."""
        mean, std = (np.asarray(v, np.float32) * 255 for v in (self.mean, self.std))
        return np.ascontiguousarray(((pixels - mean) / std).transpose(0, 3, 1, 2), dtype=np.float32)


def square(center: tuple[float, float], side: float, width: int, height: int) -> Region:
    """A square of at most `side` about `center`, shrunk to fit the image, then shifted to lie inside it."""
    side = min(side, width, height)
    left = min(max(center[0] - side / 2, 0), width - side)
    top = min(max(center[1] - side / 2, 0), height - side)
    return left, top, left + side, top + side
