"""JPEG beyond what Pillow offers: what a file is made of, pictures that are cut off, pictures of many megapixels.

Markers and scans as in ITU-T T.81, annex B.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin

from faceauth.errors import ImageError

MISSING = 0.1  # share of a picture's rows that may be missing at its end
MOST_SCANS = 100  # a progressive picture has about 10; each costs the time of a whole picture in a few bytes
MOST_SEGMENTS = 20_000  # a file has some dozens; each costs a step of a slow loop in four bytes
_EOI = b"\xff\xd9"
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_SENTINEL = (1, 254, 3, 252)  # no row of a picture is all of this colour


@dataclass(frozen=True, slots=True)
class Scan:
    """One scan: where it starts, its components, its band of coefficients, and the lowest bit it gives (0: all)."""

    start: int
    components: tuple[int, ...]
    first: int
    last: int
    low_bit: int


@dataclass(frozen=True, slots=True)
class Structure:
    """A JPEG file's frame and scans; `in_one_pass` where a decoder need not hold all coefficients in memory."""

    width: int
    height: int
    components: tuple[int, ...]
    scans: tuple[Scan, ...]
    in_one_pass: bool


def structure(data: bytes) -> Structure | None:
    """Read the markers of the first picture; None where there is no frame. Stops at its end or where it is cut off.

    Of a picture in one pass only the header is read.

    Raises:
        ImageError: for more than `MOST_SCANS` scans or `MOST_SEGMENTS` segments.
    """
    frame: tuple[int, int, tuple[int, ...], bool] | None = None
    scans: list[Scan] = []
    for marker, at, body in _segments(data):
        if marker in {0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA, 0xCB} and len(body) >= 6 + 3 * body[5]:
            height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            frame = width, height, tuple(body[6 + 3 * i] for i in range(body[5])), marker in {0xC2, 0xCA}
        elif marker == 0xDA and frame and body and len(body) >= 4 + 2 * body[0]:
            band = body[1 + 2 * body[0] :]
            scans.append(Scan(at, tuple(body[1 + 2 * i] for i in range(body[0])), band[0], band[1], band[2] & 15))
            if not frame[3] and len(scans[0].components) == len(frame[2]):
                return Structure(*frame[:3], tuple(scans), True)
            if len(scans) > MOST_SCANS:
                raise ImageError(f"a JPEG of more than {MOST_SCANS} scans", "save it again: jpegtran in.jpg > out.jpg")
    return Structure(*frame[:3], tuple(scans), False) if frame else None


def _segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Markers with their offset and body, up to the end of the picture; entropy-coded data is passed over."""
    at = 2
    for _ in range(MOST_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None:
            return
        marker, at = found[0][1], found.start()
        if marker == 0xD9:
            return
        if marker in {0x01, 0xD8}:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, at, data[at + 4 : at + 2 + length]
        at += 2 + max(length, 2)
    raise ImageError(f"a JPEG of more than {MOST_SEGMENTS:,} segments", "save it again with another program")


class _ThenEnd(io.BytesIO):
    """A file that, where its bytes run out, once says that the picture ends; `rows` is asked for at that moment."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.image: JpegImagePlugin.JpegImageFile | None = None
        self.reached: int | None = None

    def read(self, size: int | None = -1) -> bytes:
        """Bytes as of any file, and then an end-of-image marker."""
        found = super().read(size)
        if found or self.image is None or self.reached is not None:
            return found
        self.reached = _rows_reached(self.image)
        return _EOI


def repaired(image: JpegImagePlugin.JpegImageFile, data: bytes) -> tuple[JpegImagePlugin.JpegImageFile, str | None]:
    """Decode a JPEG that is cut off, as every viewer shows it, with grey for what is missing; and say how much that is.

    Args:
        image: the file as it was opened, to be opened and reduced in the same way.
        data: its bytes.

    Raises:
        ImageError: where more than a tenth of the rows are missing.
    """
    data = data.rstrip(b"\0")  # a download that was broken off in a file that was made long enough beforehand
    found = structure(data)
    if found is None or not found.scans:
        raise ImageError("cut off before the picture begins", "fetch or copy the file again")
    opened, reached = _decoded(data, image.decoderconfig)
    height = opened.height
    if found.in_one_pass:
        missing = height - max(reached, _rows_before_flat_end(opened))
    else:
        missing = _rows_unrefined(opened, data, found)
    if missing > MISSING * height:
        what = f"the last {missing / height:.0%} of the picture are" if missing < height else "most of the picture is"
        raise ImageError(f"cut off: {what} missing", "fetch or copy it again")
    return opened, f"cut off: the last {missing / height:.1%} of the picture are missing" if missing else None


def is_cut_off(data: bytes) -> bool:
    """Whether zeros fill the place of a picture's end, which a decoder takes for pixels."""
    if data[-64:].strip(b"\0"):
        return False
    kept = data.rstrip(b"\0")
    found = structure(kept)
    return found is not None and bool(found.scans) and kept.find(_EOI, found.scans[0].start) < 0


def _decoded(data: bytes, config: object) -> tuple[JpegImagePlugin.JpegImageFile, int]:
    """The picture with what is there of it, and how many rows were reached before the data ran out."""
    file = _ThenEnd(data)
    image = JpegImagePlugin.JpegImageFile(file, "")
    if isinstance(config, tuple) and config and config[0] > 1:
        image.draft(None, (image.width // config[0], image.height // config[0]))
    image.im = Image.new(image.mode, image.size, _sentinel(image.mode)).im
    file.image = image
    image.load()
    return image, image.height if file.reached is None else file.reached


def _sentinel(mode: str) -> int | tuple[int, ...]:
    bands = Image.getmodebands(mode)
    return _SENTINEL[0] if bands == 1 else _SENTINEL[:bands]


def _rows_reached(image: JpegImagePlugin.JpegImageFile) -> int:
    """How many rows of an image that is being decoded have been written over the sentinel."""
    pixels = np.asarray(Image.Image()._new(image.im))
    written = (pixels != np.asarray(_sentinel(image.mode), np.uint8)).reshape(image.height, -1).any(axis=1)
    return int(written.nonzero()[0][-1]) + 1 if written.any() else 0


def _rows_before_flat_end(image: Image.Image) -> int:
    """Rows up to the end that is all of the last pixel's colour: what a decoder puts where data is missing."""
    pixels = np.asarray(image)
    differs = (pixels != pixels[-1, -1]).reshape(image.height, -1).any(axis=1)
    return int(differs.nonzero()[0][-1]) + 1 if differs.any() else 0


def _rows_unrefined(image: JpegImagePlugin.JpegImageFile, data: bytes, found: Structure) -> int:
    """Rows at the end that the last scan of a progressive picture does not reach, flat ones left out.

    All rows where a coefficient's lowest bit is in no scan.
    """
    given = {(c, k) for s in found.scans if s.low_bit == 0 for c in s.components for k in range(s.first, s.last + 1)}
    if any((c, k) not in given for c in found.components for k in range(64)):
        return image.height
    if len(found.scans) < 2:
        return 0
    start = found.scans[-1].start + 2
    header = int.from_bytes(data[start : start + 2], "big")  # kept: without it libjpeg smooths what is not refined
    before, _ = _decoded(data[: start + header], image.decoderconfig)
    old, new = (np.asarray(i.convert("RGB")).reshape(i.height, -1) for i in (before, image))
    changed = (old != new).any(axis=1).nonzero()[0]
    reached = int(changed[-1]) + 1 if len(changed) else 0
    return int(_textured(old[reached:]).sum())


def _textured(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which rows (n, 3 * width) hold steps from pixel to pixel, as a picture without detail does not."""
    step = np.abs(rows[:, 3:].astype(np.int16) - rows[:, :-3])
    return np.asarray((step > 2).mean(axis=1) > 0.05)
