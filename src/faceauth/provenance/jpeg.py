"""What a JPEG file's own numbers tell: the family of its quantisation tables, and whether its thumbnail fits it.

Measured, and weak: programs share tables, a setting is not a program, and every upload writes tables of its own.
"""

import io
import warnings
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegPresets

from faceauth.provenance.containers import Blocks
from faceauth.provenance.exif import Exif

MOST_PIXELS = 1 << 28  # of a larger picture nothing is measured
MOST_THUMBNAIL = 1 << 20  # pixels of a thumbnail
DIFFERENT = 0.6  # of a lower correlation, thumbnail and picture are said to differ

# ITU-T T.81, annex K, tables K.1 and K.2, row by row.
_LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMINANCE = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99,
    99, 99, 99, *(99,) * 32,
)  # fmt: skip
Table = tuple[int, ...]  # 64 steps, row by row


@dataclass(frozen=True, slots=True)
class Quantisation:
    """The quantisation tables of a JPEG.

    Attributes:
        family: `standard` for the tables that the IJG's library makes, `Photoshop` for a known setting of it, else
            `custom`.
        quality: the IJG's quality from 1 to 100 of the luminance table, for a custom one the nearest; None where no
            quality is near.
        chrominance: the same of the chrominance table; None without one.
        setting: the name of Photoshop's setting.
    """

    family: str
    quality: int | None
    chrominance: int | None
    setting: str = ""

    def __str__(self) -> str:
        if self.family == "Photoshop":
            return f"tables of Photoshop's setting {self.setting!r}"
        if self.family == "custom":
            near = f", nearest to quality {self.quality} of the standard ones" if self.quality else ""
            return f"custom tables{near}; cameras, phones and some editors have their own"
        other = self.chrominance is not None and self.chrominance != self.quality
        chroma = f" (chrominance {self.chrominance})" if other else ""
        return f"standard tables (IJG) of quality {self.quality}{chroma}; most programs write them"


def standard(quality: int, table: Table = _LUMINANCE) -> Table:
    """A standard table at a quality from 1 to 100, as `jpeg_set_quality` of the IJG's library scales it."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return tuple(min(max((step * scale + 50) // 100, 1), 255) for step in table)


def quantisation(data: bytes) -> Quantisation | None:
    """The tables of a JPEG file; None where it is none, or its header is broken."""
    tables = _tables(data)
    if not tables:
        return None
    for name, preset in JpegPresets.presets.items():
        if tables == [tuple(t) for t in cast("list[list[int]]", preset["quantization"])][: len(tables)]:
            return Quantisation("Photoshop", None, None, name.replace("_", " "))
    luminance = [q for q in range(1, 101) if standard(q) == tables[0]]
    chrominance = [q for q in range(1, 101) if len(tables) > 1 and standard(q, _CHROMINANCE) == tables[1]]
    if not luminance or (len(tables) > 1 and not chrominance and tables[1] != tables[0]):
        return Quantisation("custom", _nearest(tables[0]), None)
    both = [q for q in luminance if q in chrominance]  # the coarsest tables are the same for several qualities
    quality = (both or luminance)[0]
    return Quantisation("standard", quality, quality if both else next(iter(chrominance), None))


def _tables(data: bytes) -> list[Table]:
    """The tables that a JPEG's header defines, row by row, in the order of their numbers."""
    try:
        with _opened(data) as image:
            found = getattr(image, "quantization", None) or {}
            return [tuple(found[n]) for n in sorted(found) if len(found[n]) == 64]
    except Exception:  # a broken header has no tables
        return []


def _nearest(table: Table) -> int | None:
    """The quality whose standard table is nearest in the mean of the logarithms; None where none is within a third."""
    logs = np.log(np.clip(table, 1, None))
    apart = [float(np.abs(logs - np.log(standard(q))).mean()) for q in range(1, 101)]
    best = int(np.argmin(apart))
    return best + 1 if apart[best] < 1 / 3 else None


def thumbnail(data: bytes, blocks: Blocks) -> tuple[float, bool] | None:
    """How far the EXIF thumbnail is the picture in small: the correlation of grey values, and whether that is enough.

    A thumbnail may have bars where the picture has another shape; both ways of fitting are tried. Of flat pictures,
    whose correlation means nothing, and of pictures without a readable thumbnail: None.
    """
    small = next(filter(None, (Exif(block).thumbnail() for block in blocks.exif)), b"")
    if not small or blocks.format not in {"JPEG", "TIFF"}:
        return None
    try:
        with _opened(small) as image:
            if not 256 <= image.width * image.height <= MOST_THUMBNAIL:
                return None
            given = np.asarray(image.convert("L"), np.float64)
        with _opened(data) as image:
            if image.width * image.height > MOST_PIXELS:
                return None
            height, width = given.shape
            shape = (image.width, image.height)
            image.draft("L", (width * 2, height * 2))
            reduced = image.convert("L")
    except Exception:  # a thumbnail or a picture that does not decode cannot be compared
        return None
    found = [c for c in (_correlation(given, reduced), _correlation(_inner(given, shape), reduced)) if c is not None]
    return (max(found), max(found) >= DIFFERENT) if found else None


def _inner(given: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """The middle of a thumbnail (H, W) that has the shape of a picture (width, height): itself without its bars."""
    height, width = given.shape
    scale = min(width / shape[0], height / shape[1])
    across, down = max(round(shape[0] * scale), 8), max(round(shape[1] * scale), 8)
    left, top = max((width - across) // 2, 0), max((height - down) // 2, 0)
    return given[top : top + down, left : left + across]


def _correlation(given: NDArray[np.float64], image: Image.Image) -> float | None:
    """Of a thumbnail (H, W) with the picture resized to it; None where either is flat."""
    height, width = given.shape
    other = np.asarray(image.resize((width, height), Image.Resampling.BOX), np.float64)
    if min(given.std(), other.std()) < 4:
        return None
    return float(np.corrcoef(given.ravel(), other.ravel())[0, 1])


def _opened(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Image.open(io.BytesIO(data), formats=["JPEG", "MPO", "TIFF"])
