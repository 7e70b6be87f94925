"""Test-time augmentation: the same face saved again or reduced, to see whether a verdict survives it.

A verdict that flips when a picture is saved again is worth little, so a face is called fake only where it still is on
average over these views. They are fixed and draw nothing by chance: the same pixels give the same views.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from faceauth.preprocess import Region

LARGEST = 4  # network inputs: a larger crop is reduced to so many sides first, or saving it would take too long


@dataclass(frozen=True, slots=True)
class View:
    """A small change of the crop around a face.

    Attributes:
        scale: the crop's side afterwards, in sides before.
        quality: of the JPEG that it is then saved as; None for none.
    """

    scale: float = 1.0
    quality: int | None = None

    def __call__(self, crop: Image.Image) -> Image.Image:
        """The changed crop, RGB; preprocessing brings it back to the network's size."""
        if self.scale != 1:
            crop = _square(crop, max(8, round(crop.width * self.scale)))
        if self.quality is None:
            return crop
        file = io.BytesIO()
        crop.save(file, "JPEG", quality=self.quality)
        return Image.open(file).convert("RGB")


VIEWS = (View(quality=60), View(scale=0.5, quality=85))


def views(image: Image.Image, region: Region, size: int) -> Iterator[Image.Image]:
    """The crop about `region` in each of `VIEWS`, for a network with inputs of `size` pixels a side."""
    crop = cut_out(image, region, size)
    for view in VIEWS:
        yield view(crop)


def cut_out(image: Image.Image, region: Region, size: int) -> Image.Image:
    """The square `region` in whole pixels, reduced to `LARGEST` network inputs of `size` pixels a side."""
    left, top, right, bottom = map(round, region)
    crop = image.crop((left, top, right, bottom))
    return _square(crop, LARGEST * size) if crop.width > LARGEST * size else crop


def _square(crop: Image.Image, side: int) -> Image.Image:
    return crop.resize((side, side), Image.Resampling.BICUBIC)
