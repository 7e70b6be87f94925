"""Where the metadata lie in an image file: blocks of EXIF, XMP and IPTC, text chunks, comments; nothing is decoded.

JPEG, PNG, WebP and TIFF are walked here, for two reasons: a library's reader stops at the first block that is broken
or too large, and it reads what lies behind the pixels only after decoding them. What any one block may hold is
bounded, and so is their number; what a compressed chunk unfolds to is bounded before it is unfolded.

Sources: ITU-T T.81 annex B and CIPA DC-008 (JPEG), the PNG specification (third edition), RFC 9649 (WebP).
"""

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from faceauth.images.formats import HEAD, sniff

BLOCK = 1 << 22  # bytes of one block that are kept
PACKET = 1 << 20  # bytes of an XMP packet that are read
BUDGET = 1 << 23  # bytes of text chunks, all together, that are unfolded and kept
TEXT = 1 << 18  # characters of one text that are looked at
MOST_TEXTS = 256  # text chunks of a file that are kept
MOST_BLOCKS = 100_000  # chunks or segments of a file that are walked over
TRAILER = 1 << 18  # bytes at the end of a file that are searched
_XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"
_PROFILE = "Raw profile type "  # how ImageMagick keeps other formats' blocks in a PNG, in hexadecimal


@dataclass(slots=True)
class Blocks:
    """The metadata blocks of one file, in their order.

    Attributes:
        format: JPEG, PNG, WEBP, TIFF, HEIF, AVIF, GIF, BMP, or empty where it is none of them.
        exif: TIFF structures; for a TIFF file, the file itself.
        xmp: XMP packets as bytes; iptc: IPTC-IIM records as bytes.
        texts: keyword and text of each PNG text chunk; comments: of a JPEG or GIF.
        trailer: the last bytes of the file.
        budget: bytes of text chunks that may still be kept.
    """

    format: str = ""
    exif: list[bytes] = field(default_factory=list)
    xmp: list[bytes] = field(default_factory=list)
    iptc: list[bytes] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)
    comments: list[bytes] = field(default_factory=list)
    trailer: bytes = b""
    budget: int = BUDGET


def read(data: bytes) -> Blocks:
    """The metadata blocks of a file's bytes; what is broken is left out. Never raises for what a file holds."""
    blocks = Blocks(trailer=data[-TRAILER:])
    found = sniff(data[:HEAD])
    data = data[found[1] :] if found and found[1] else data
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        blocks.format = "PNG"
        _png(data, blocks)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        blocks.format = "WEBP"
        _webp(data, blocks)
    elif data[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}:
        blocks.format = "TIFF"
        blocks.exif.append(data)
    elif found and found[0] in {"AVIF", "HEIF"}:
        blocks.format = found[0]
        _library(data, blocks)
    elif data[:4] == b"GIF8":
        blocks.format = "GIF"
        _library(data, blocks)
        if (at := data.find(b"XMP DataXMP", 0, BLOCK)) >= 0:  # Pillow leaves this application extension out
            blocks.xmp.append(data[at + 11 : at + 11 + BLOCK].partition(b"\x00")[0].partition(b"<?xpacket end")[0])
    elif found and found[0] == "JPEG":
        blocks.format = "JPEG"
        _jpeg(data, blocks)
    elif found:
        blocks.format = found[0]  # BMP, which has no place for metadata
    return blocks


def segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of each segment of a JPEG up to its first scan."""
    at = 2
    for _ in range(MOST_BLOCKS):
        if data[at : at + 1] != b"\xff":
            return
        marker = data[at + 1] if at + 1 < len(data) else 0xD9
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in {0xDA, 0xD9}:  # start of scan, end of image
            return
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2:
            return
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length


def _jpeg(data: bytes, blocks: Blocks) -> None:
    extended: list[tuple[bytes, bytes]] = []
    for marker, content in segments(data):
        if marker == 0xE1 and content.startswith(b"Exif\0"):
            blocks.exif.append(content[6:])
        elif marker == 0xE1 and content.startswith(_XMP_HEAD):
            blocks.xmp.append(content.removeprefix(_XMP_HEAD))
        elif marker == 0xE1 and content.startswith(b"http://ns.adobe.com/xmp/extension/\0"):
            extended.append((content[35:67] + content[71:75], content[75:]))  # GUID and offset, in any order
        elif marker == 0xED and content.startswith(b"Photoshop 3.0\0"):
            _resources(content[14:], blocks)
        elif marker == 0xFE:
            blocks.comments.append(content)
        if len(blocks.exif) + len(blocks.xmp) + len(blocks.comments) + len(blocks.iptc) >= MOST_TEXTS:
            break
    if extended:
        blocks.xmp.append(b"".join(piece for _, piece in sorted(extended))[:BLOCK])


def _resources(content: bytes, blocks: Blocks) -> None:
    """IPTC records and XMP among Photoshop's image resources: signature, number, padded name, length, padded data."""
    at = 0
    for _ in range(MOST_TEXTS):
        if content[at : at + 4] != b"8BIM" or at + 7 > len(content):
            return
        number = int.from_bytes(content[at + 4 : at + 6], "big")
        name = content[at + 6] + 1
        at += 6 + name + name % 2
        length = int.from_bytes(content[at : at + 4], "big")
        if number in {0x0404, 0x0424}:
            (blocks.iptc if number == 0x0404 else blocks.xmp).append(content[at + 4 : at + 4 + length])
        at += 4 + length + length % 2


def _png(data: bytes, blocks: Blocks) -> None:
    at = 8
    for _ in range(MOST_BLOCKS):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if len(kind) < 4 or kind == b"IEND":
            return
        if kind in {b"tEXt", b"zTXt", b"iTXt"} and len(blocks.texts) < MOST_TEXTS and blocks.budget > 0:
            _png_text(kind, data[at + 8 : at + 8 + min(length, BLOCK)], blocks)
        elif kind == b"eXIf" and len(blocks.exif) < 4:
            blocks.exif.append(data[at + 8 : at + 8 + min(length, BLOCK)].removeprefix(b"Exif\0\0"))
        at += 12 + length


def _png_text(kind: bytes, content: bytes, blocks: Blocks) -> None:
    keyword, found, rest = content.partition(b"\0")
    if not found or not 0 < len(keyword) < 80:
        return
    key = keyword.decode("latin-1")
    most = min(blocks.budget, BLOCK if key.startswith(_PROFILE) else PACKET)
    if kind == b"zTXt":
        text = _unfold(rest[1:], most)
    elif kind == b"iTXt":
        compressed = rest[:1] == b"\1"
        text = rest[2:].partition(b"\0")[2].partition(b"\0")[2]  # behind the language and the translated keyword
        text = _unfold(text, most) if compressed else text[:most]
    else:
        text = rest[:most]
    blocks.budget -= len(text)
    if key.startswith(_PROFILE):
        _png_profile(key.removeprefix(_PROFILE), text, blocks)
    elif key == "XML:com.adobe.xmp":
        blocks.xmp.append(text)
    else:
        blocks.texts.append((key, decoded(text)))


def _png_profile(name: str, text: bytes, blocks: Blocks) -> None:
    try:
        raw = bytes.fromhex("".join(text.decode("latin-1").split()[2:]))  # behind the profile's name and length
    except ValueError:
        return
    if raw.startswith(_XMP_HEAD):
        blocks.xmp.append(raw.removeprefix(_XMP_HEAD))
    elif name.lower() in {"exif", "app1"}:
        blocks.exif.append(raw.removeprefix(b"Exif\0\0"))
    elif name == "xmp":
        blocks.xmp.append(raw)
    elif raw.startswith(b"8BIM"):
        _resources(raw, blocks)
    elif name == "iptc":
        blocks.iptc.append(raw)


def _unfold(content: bytes, most: int) -> bytes:
    """At most so many bytes of what a zlib stream holds; empty where it is none."""
    try:
        return zlib.decompressobj().decompress(content, most)
    except zlib.error:
        return b""


def _webp(data: bytes, blocks: Blocks) -> None:
    at = 12
    for _ in range(MOST_BLOCKS):
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if len(kind) < 4 or len(blocks.exif) + len(blocks.xmp) >= MOST_TEXTS:
            return
        if kind == b"EXIF":
            blocks.exif.append(data[at + 8 : at + 8 + min(length, BLOCK)].removeprefix(b"Exif\0\0"))
        elif kind == b"XMP ":
            blocks.xmp.append(data[at + 8 : at + 8 + min(length, BLOCK)])
        at += 8 + length + length % 2


def _library(data: bytes, blocks: Blocks) -> None:
    """EXIF, XMP and comment of a HEIC, AVIF or GIF file, as Pillow and pillow-heif find them without decoding."""
    try:
        info = _info(data, blocks.format)
    except Exception:  # a hostile file can raise anything at all; that it cannot be read is said where it is decoded
        return
    exif, xmp, comment = (info.get(name) for name in ("exif", "xmp", "comment"))
    if isinstance(exif, bytes):
        at = max(exif.find(b"Exif\0\0", 0, 16) + 6 if b"Exif\0\0" in exif[:16] else 0, 0)
        blocks.exif.append(exif[at : at + BLOCK])
    if isinstance(xmp, bytes | str):
        blocks.xmp.append((xmp if isinstance(xmp, bytes) else xmp.encode("utf-8", "replace"))[:BLOCK])
    if isinstance(comment, bytes):
        blocks.comments.append(comment[:BLOCK])


def _info(data: bytes, format: str) -> dict[str, Any]:
    if format == "HEIF":
        import pillow_heif

        return dict(pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False).info)
    with Image.open(io.BytesIO(data), formats=[format]) as image:
        return {str(key): value for key, value in image.info.items()}


def decoded(content: bytes) -> str:
    """A text whose encoding nothing says: UTF-8 where it is valid, UTF-16 where it has a mark, else Latin-1."""
    content = content[: 4 * TEXT]
    if content[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return content.decode("utf-16", "replace")[:TEXT]
    try:
        return content.decode("utf-8")[:TEXT]
    except UnicodeDecodeError as error:
        if error.start >= len(content) - 4 and len(content) == 4 * TEXT:  # cut in the middle of a character
            return content[: error.start].decode("utf-8")[:TEXT]
        return content.decode("latin-1")[:TEXT]
