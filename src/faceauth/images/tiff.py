"""Which of a TIFF file's images is the picture, and that a camera raw file is none.

A TIFF is a chain of directories, each of which may hold further ones (SubIFDs). A scanner or a raw converter may put a
small preview first. Tags as in TIFF 6.0, TIFF/EP and the DNG specification 1.7.
"""

import ctypes
import functools
import struct
from dataclasses import dataclass

from faceauth.errors import ImageError
from faceauth.images.formats import RAW

WIDTH, HEIGHT, PHOTOMETRIC, ORIENTATION, SUB_IFDS = 256, 257, 262, 274, 330
NEW_SUBFILE_TYPE, SUBFILE_TYPE, DNG_VERSION = 254, 255, 50706
_CFA, _LINEAR_RAW = 32803, 34892
_SIZES = {1: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}  # bytes of the integer types that are read here
_MOST = 64  # directories that are looked at


@dataclass(frozen=True, slots=True)
class Directory:
    """One image of a TIFF file: where its directory is, and its integer tags (the first 64 values of each)."""

    offset: int
    tags: dict[int, tuple[int, ...]]
    sub: bool = False

    def get(self, tag: int, default: int = 0) -> int:
        """The first value of a tag."""
        return self.tags.get(tag, (default,))[0]

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.get(WIDTH) * self.get(HEIGHT)

    @property
    def reduced(self) -> bool:
        """Whether it calls itself a smaller copy of another image."""
        return bool(self.get(NEW_SUBFILE_TYPE) & 1) or self.get(SUBFILE_TYPE) == 2

    @property
    def is_page(self) -> bool:
        """Whether it is a picture of its own, neither a smaller copy of another nor a mask."""
        return self.pixels > 0 and not self.reduced and not self.get(NEW_SUBFILE_TYPE) & 4


def picture(data: bytes) -> tuple[bytes, int | None, int]:
    """The file such that its first image is the picture, the orientation that the file gives for it, and its pages.

    The picture is the first image, but for a first one that says it is a smaller copy, or that is much smaller than
    another of the same shape. The orientation is None where the picture itself has one, or no image has.

    Raises:
        ImageError: for a camera raw file, and where only a preview is there.
    """
    every = directories(data)
    if not every:
        return data, None, 1
    first = every[0]
    if any(d.get(PHOTOMETRIC) in {_CFA, _LINEAR_RAW} for d in every):
        raise ImageError(f"not an image of a known format: {RAW.name}", RAW.hint)
    full = [d for d in every[1:] if not d.reduced and _same_picture(first, d)]
    if not full:
        if first.reduced and DNG_VERSION in first.tags:
            raise ImageError(f"not an image of a known format: {RAW.name} of which only the preview is read", RAW.hint)
        return data, None, sum(not d.sub and d.is_page for d in every)
    chosen = max(full, key=lambda d: d.pixels)
    orientation = None if ORIENTATION in chosen.tags else first.get(ORIENTATION, 1)
    order, big = ("<" if data[:2] == b"II" else ">"), data[2:3] == b"+" or data[3:4] == b"+"
    pointer = struct.pack(order + ("Q" if big else "I"), chosen.offset)
    at = 8 if big else 4
    return data[:at] + pointer + data[at + len(pointer) :], orientation, 1


def _same_picture(first: Directory, other: Directory) -> bool:
    """Whether `first` is a small copy of `other`: it says so, or it is a preview's size and of the same shape."""
    if first.reduced:
        return other.pixels > first.pixels
    if not (first.pixels and other.pixels):
        return False
    shapes = [d.get(WIDTH) / d.get(HEIGHT) for d in (first, other)]
    small = 4 * first.pixels <= other.pixels and max(first.get(WIDTH), first.get(HEIGHT)) <= 1024
    return small and (other.sub or abs(shapes[0] / shapes[1] - 1) < 0.05)


def directories(data: bytes) -> list[Directory]:
    """All images of a TIFF or BigTIFF file, the first one first, without what is broken or goes round in a circle."""
    if data[:4] not in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}:
        return []
    order, big = ("<" if data[:2] == b"II" else ">"), b"+" in data[2:4]
    found: list[Directory] = []
    seen: set[int] = set()
    waiting = [(_number(data, 8 if big else 4, 8 if big else 4, order), False)]
    while waiting and len(found) < _MOST:
        offset, sub = waiting.pop(0)
        if offset in seen or not 0 < offset < len(data):
            continue
        seen.add(offset)
        tags, following = _read(data, offset, order, big)
        found.append(Directory(offset, tags, sub))
        waiting += [(o, True) for o in tags.get(SUB_IFDS, ())]
        waiting.append((following, False))
    return found


def _read(data: bytes, offset: int, order: str, big: bool) -> tuple[dict[int, tuple[int, ...]], int]:
    """A directory's integer tags, and the offset of the next directory (0: none)."""
    size, width, head = (20, 8, 8) if big else (12, 4, 2)
    count = min(_number(data, offset, head, order), 4096)
    tags: dict[int, tuple[int, ...]] = {}
    for at in range(offset + head, min(offset + head + count * size, len(data)), size):
        tag, kind, values = (
            _number(data, at, 2, order),
            _number(data, at + 2, 2, order),
            _number(data, at + 4, width, order),
        )
        step = _SIZES.get(kind)
        if step is None or not values:
            continue
        values = min(values, 64)
        start = at + 4 + width if values * step <= width else _number(data, at + 4 + width, width, order)
        tags[tag] = tuple(_number(data, start + i * step, step, order) for i in range(values))
    return tags, _number(data, offset + head + count * size, width, order)


def _number(data: bytes, at: int, size: int, order: str) -> int:
    """An unsigned integer; 0 beyond the end."""
    piece = data[at : at + size]
    return int.from_bytes(piece, "little" if order == "<" else "big") if len(piece) == size else 0


@functools.cache
def silence() -> None:
    """Keep libtiff, which Pillow decodes with, from writing its errors to stderr; Pillow raises them all the same.

    libtiff offers a process-wide handler alone. Where it is linked into Pillow invisibly (Windows) nothing is changed.
    """
    from PIL import _imaging

    try:
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)
    except (OSError, AttributeError):
        return
