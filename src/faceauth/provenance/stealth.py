"""Texts that programs hide in the lowest bits of pixels, where uploads that strip metadata leave them.

Down the columns lie a signature of 15 characters, the length in bits, then the text, in the alpha channel or in red,
green and blue in turn: https://github.com/neggles/sd-webui-stealth-pnginfo, which NovelAI, Forge and SwarmUI follow.
"""

import io
import warnings
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from faceauth.provenance import settings
from faceauth.provenance.containers import TEXT
from faceauth.provenance.settings import Claim

MOST_PIXELS = 1 << 24  # larger pictures are not decoded once more
ROWS = 120  # of a PNG whose first column is looked at before it is decoded: one bit a row of the signature
_SIGNATURES = {  # whether the text is compressed
    "alpha channel": {b"stealth_pnginfo": False, b"stealth_pngcomp": True},
    "colour channels": {b"stealth_rgbinfo": False, b"stealth_rgbcomp": True},
}
_ALPHA, _COLOURS = _SIGNATURES
# Channels and places of PNG's colour types.
_KINDS = {2: (3, (_COLOURS,)), 4: (2, (_ALPHA,)), 6: (4, (_ALPHA, _COLOURS))}
Bits = NDArray[np.uint8]  # of 0 and 1


def read(data: bytes, format: str) -> Iterator[tuple[str, Claim]]:
    """Place and claim of what the pixels of a PNG or lossless WebP file hide.

    A PNG of `ROWS` rows or more is decoded where its first column begins with a signature, a WebP where its header
    declares an alpha channel.
    """
    try:
        places = _places(data, format)
        if not places:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=[format]) as image:
                if image.width * image.height > MOST_PIXELS or image.mode not in {"RGB", "RGBA", "LA"}:
                    return
                pixels = np.asarray(image)
    except Exception:  # a broken picture has nothing hidden; that it is broken is said where it is judged
        return
    for place in places:
        if (text := _text(place, _bits(place, pixels))) is not None:
            yield place, settings.stealth(text)


def _places(data: bytes, format: str) -> list[str]:
    """Where something may be hidden."""
    if format == "WEBP":
        keeps = data[12:16] == b"VP8L" or (data[12:16] == b"VP8X" and bool(data[20] & 0x10))
        return [_ALPHA] if keeps else []
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if format != "PNG" or len(data) < 29 or data[24] != 8 or width * height > MOST_PIXELS:
        return []
    channels, places = _KINDS.get(data[25], (0, ()))
    if not places or height < ROWS or data[28]:  # too few rows for a signature in one column, or interlaced
        return list(places)
    column = _first_column(data, width, channels)
    return [place for place in places if np.packbits(_bits(place, column)[:120]).tobytes() in _SIGNATURES[place]]


def _bits(place: str, pixels: NDArray[np.uint8]) -> Bits:
    """The lowest bits of pixels (H, W, channels), column after column."""
    channels = pixels[..., -1:] if place == _ALPHA else pixels[..., :3]
    return np.bitwise_and(channels.transpose(1, 0, 2).ravel(), np.uint8(1))


def _first_column(data: bytes, width: int, channels: int) -> NDArray[np.uint8]:
    """(`ROWS`, 1, channels) the pixels at the left of a PNG of 8 bits; zeros where it is cut off.

    Of the filters of the PNG specification (third edition, 9.2) nothing but the pixel above takes part at the left.
    """
    line = 1 + width * channels
    raw = _unfolded(data, ROWS * line).ljust(ROWS * line, b"\0")
    rows = np.frombuffer(raw, np.uint8).reshape(ROWS, line)[:, : 1 + channels].astype(int)
    column, above = np.zeros((ROWS, 1, channels), np.uint8), np.zeros(channels, int)
    for n, (filter_, *value) in enumerate(rows):
        above = (value + (above // 2 if filter_ == 3 else above if filter_ in {2, 4} else 0 * above)) & 255
        column[n, 0] = above
    return column


def _unfolded(data: bytes, most: int) -> bytes:
    """The first `most` bytes that the pixel data of a PNG unfold to."""
    stream, found, at = zlib.decompressobj(), bytearray(), 8
    while len(found) < most and len(head := data[at : at + 8]) == 8:
        size = int.from_bytes(head[:4], "big")
        if head[4:] == b"IDAT":
            try:
                found += stream.decompress(stream.unconsumed_tail + data[at + 8 : at + 8 + size], most - len(found))
            except zlib.error:
                break
        at += size + 12
    return bytes(found)


def _text(place: str, bits: Bits) -> str | None:
    """The text behind the signature; None without a signature."""
    head = np.packbits(bits[:152]).tobytes()
    compressed = _SIGNATURES[place].get(head[:15])
    if compressed is None or len(head) < 19:
        return None
    length = min(int.from_bytes(head[15:19], "big"), len(bits) - 152, 8 * TEXT)
    content = np.packbits(bits[152 : 152 + length]).tobytes()
    if compressed:
        try:
            content = zlib.decompressobj(31).decompress(content, TEXT)
        except zlib.error:
            return ""
    return content.decode("utf-8", "replace")
