"""The second look: one face under small changes that a photograph meets on its way, and what the looks say together.

A verdict that flips when a picture is saved again is worth little, so a face is called fake only where it still is
after being looked at again. The changes are fixed and draw nothing by chance: the same pixels give the same looks.
It knows nothing of networks or calibration; scores come in, scores and labels go out.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from faceauth.preprocess import Region

Floats = npt.NDArray[np.floating[Any]]
LARGEST = 4  # network inputs: a larger crop is reduced to so many sides first, or saving it would take too long


@dataclass(frozen=True, slots=True)
class Look:
    """A small change of the crop around a face.

    Attributes:
        scale: the crop's side afterwards, in sides before.
        quality: of the JPEG that it is then saved as; None for none.
    """

    scale: float = 1.0
    quality: int | None = None

    def __call__(self, crop: Image.Image) -> Image.Image:
        """The changed crop, RGB; the hall's preprocessing brings it back to the network's size."""
        if self.scale != 1:
            crop = _square(crop, max(8, round(crop.width * self.scale)))
        if self.quality is None:
            return crop
        file = io.BytesIO()
        crop.save(file, "JPEG", quality=self.quality)
        return Image.open(file).convert("RGB")


LOOKS = (Look(quality=75), Look(quality=50), Look(scale=0.75), Look(scale=0.5))


def further(image: Image.Image, region: Region, size: int) -> Iterator[Image.Image]:
    """The crop about `region` under each of `LOOKS`, for a network with inputs of `size` pixels a side."""
    left, top, right, bottom = map(round, region)
    crop = image.crop((left, top, right, bottom))
    if crop.width > LARGEST * size:
        crop = _square(crop, LARGEST * size)
    for look in LOOKS:
        yield look(crop)


def _square(crop: Image.Image, side: int) -> Image.Image:
    return crop.resize((side, side), Image.Resampling.BICUBIC)


def combined(first: Floats, mean: Floats, fake_from: float) -> Floats:
    """The score that counts: of the mean logit over all looks where the first look is called fake, else the first's.

    Args:
        first, mean: (n,) calibrated P(fake) of the first look's logit and of the mean logit; the second is not read
            where the first lies below `fake_from`.

    The threshold belongs to the user and the calibration, so both scores are handed in and nothing is decided before:
    the detector takes further looks only where they will count, the laboratory takes them all once and decides again
    for every calibration and threshold that it tries. What is at or above `fake_from` after this is at or above it
    at the first look too, so that a false-alarm rate promised for first looks holds for both.
    """
    return np.where(first >= fake_from, mean, first)


def labels(first: Floats, mean: Floats, fake_from: float, real_to: float) -> npt.NDArray[np.str_]:
    """(n,) `fake`, `real` or `uncertain`: a face whose looks disagree about `fake` is uncertain, never real."""
    kept = np.where((first <= real_to) & (first < fake_from), "real", "uncertain")
    return np.where(combined(first, mean, fake_from) >= fake_from, "fake", kept)
