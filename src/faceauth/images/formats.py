"""What a file is, by its first bytes: a picture that is read, one that is not, or something else.

| function  | answers                                                                       |
|-----------|-------------------------------------------------------------------------------|
| `sniff`   | the format of bytes that are read, and where the picture starts in them       |
| `foreign` | what other bytes are (a PDF, a video, a camera raw file), and what to do then |

A name decides nothing here, but for `SUFFIXES`: a file that is named like a picture is never passed over in a folder,
so that a damaged one gets a row with its error.
"""

import re
from dataclasses import dataclass
from importlib.util import find_spec

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")
READABLE = "JPEG, PNG, WebP, AVIF, TIFF, BMP, GIF or HEIC"
HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif", ".heics", ".heifs"})
SUFFIXES = HEIF_SUFFIXES | {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif",
    ".avif", ".avifs",
}  # fmt: skip
HEAD = 512  # bytes that tell what a file is
_JUNK = 256  # bytes before the start that are forgiven: a blank line of a web server, a byte-order mark

_STARTS = (
    ("JPEG", b"\xff\xd8\xff"), ("PNG", b"\x89PNG\r\n\x1a\n"), ("GIF", b"GIF87a"), ("GIF", b"GIF89a"),
    ("TIFF", b"II*\0"), ("TIFF", b"MM\0*"), ("TIFF", b"II+\0"), ("TIFF", b"MM\0+"),
)  # fmt: skip
_LATE_START = re.compile(rb"\xff\xd8\xff[\xc0-\xfe]|\x89PNG\r\n\x1a\n|RIFF....WEBP", re.DOTALL)
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"})


@dataclass(frozen=True, slots=True)
class Foreign:
    """Something that is not read.

    Attributes:
        name: what it is, in words: "a PDF document".
        hint: what to do instead.
        picture: it shows a picture all the same, so that in a folder it gets a row and is not passed over.
    """

    name: str
    hint: str
    picture: bool = False


_SAVE = "save it as JPEG or PNG first, for example: magick FILE picture.png"
_FRAMES = (
    "" if find_spec("av") else "with pip install 'faceauth[video]', "
) + "faceauth video VIDEO judges its frames; or take pictures from it: ffmpeg -i VIDEO -vf fps=1 frames/%05d.png"
DATA_URL = Foreign("a data URL", "decode what follows the comma: ... | base64 -d | faceauth detect -")
_BASE64 = Foreign("base64 text", "decode it first: ... | base64 -d | faceauth detect -")
_UNPACK = "unpack it first, and give the folder"
RAW = Foreign("a camera raw file", "develop it to JPEG or TIFF first, or give the JPEG the camera made", True)
_ARCHIVE = Foreign("an archive", _UNPACK)
_OTHER_PICTURE = Foreign("a picture of a format that is not read", _SAVE, True)
_JPEG_2000 = Foreign("JPEG 2000", _SAVE, True)
_JPEG_XL = Foreign("JPEG XL", _SAVE, True)
VIDEO = Foreign("a video", _FRAMES)
COMPANION = Foreign("a macOS companion file (AppleDouble)", "give the file of the same name without ._")
_PAGE = Foreign("a web page", "the address gave a page and not the picture: download the picture itself")
_FOREIGN: tuple[tuple[re.Pattern[bytes], Foreign], ...] = tuple(
    (re.compile(pattern, re.DOTALL), kind)
    for pattern, kind in (
        (rb"\x00\x05\x16\x07", COMPANION),
        (rb"\s*%PDF-", Foreign("a PDF document", "take the pictures out first: pdfimages -all FILE.pdf picture")),
        (rb"PK(\x03\x04|\x05\x06|\x07\x08)", Foreign("a ZIP archive", _UNPACK)),
        (rb"Rar!\x1a|7z\xbc\xaf\x27\x1c|\x1f\x8b|\xfd7zXZ\0|BZh[1-9]1AY|\x28\xb5\x2f\xfd", _ARCHIVE),
        (rb".{257}ustar", Foreign("a tar archive", _UNPACK)),
        (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", _JPEG_2000),
        (rb"\0\0\0\x0cJXL |\xff\x0a", _JPEG_XL),
        (rb"FUJIFILMCCD-RAW|IIU\0|IIR[OS]|MMOR|FOVb|\0MRM|II\*\0.{4}CR|.{4}ftypcrx |II.{4}HEAPCCDR", RAW),
        (rb".{4}ftyp|\0.{3}(moov|mdat|wide)|\x1a\x45\xdf\xa3|RIFF.{4}AVI ", VIDEO),
        (rb"\0\0\x01[\xba\xb3]|FLV\x01|\x30\x26\xb2\x75", VIDEO),
        (rb"G(?!IF8).{187}G.{187}G|.{4}G.{191}G.{191}G", VIDEO),  # MPEG transport streams, their packets' first bytes
        (rb"ID3|fLaC|OggS|RIFF.{4}WAVE", Foreign("a sound file", "only pictures are judged")),
        (rb"8BPS", Foreign("a Photoshop document", _SAVE, True)),
        (rb"\x76\x2f\x31\x01|#\?RADIANCE|qoif|P[1-7]\s+[#\d]|II\xbc\x01|BPG\xfb", _OTHER_PICTURE),
        (rb"gimp xcf|.{128}DICM", _OTHER_PICTURE),
        (rb"\x0a[\0-\x05]\x01[\x01\x02\x04\x08]|SIMPLE  =|\xabKTX ", _OTHER_PICTURE),
        (rb"\0\0[\x01\x02]\0[\x01-\x20]\0|icns", Foreign("an icon", _SAVE)),
        (rb"%!PS", Foreign("a PostScript document", _SAVE)),
        (rb"(?i:(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<svg)", Foreign("a drawing (SVG)", _SAVE)),
        (rb"(?i:(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body))", _PAGE),
        (rb"(?i:data:[\w/+.-]*[;,])", DATA_URL),
        (rb"(/9j/[24]|iVBORw0KGgo|UklGR|R0lGOD)[\w+/]{16}", _BASE64),
        (rb"version https://git-lfs", Foreign("a Git LFS pointer", "fetch the file it stands for: git lfs pull")),
    )
)  # fmt: skip


def sniff(head: bytes) -> tuple[str, int] | None:
    """The Pillow format (or "HEIF") of a file by its first `HEAD` bytes, and the offset where its picture starts.

    Up to 256 foreign bytes before a JPEG, PNG or WebP are passed over. None for anything that is not read.
    """
    for name, start in _STARTS:
        if head.startswith(start):
            return None if name == "TIFF" and _is_raw(head) else (name, 0)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP", 0
    if head[4:8] == b"ftyp":
        brand = _brand(head)
        return (brand, 0) if brand else None
    if head[:2] == b"BM" and head[14:18] in {bytes((n, 0, 0, 0)) for n in (12, 16, 40, 52, 56, 64, 108, 124)}:
        return "BMP", 0
    late = None if foreign(head) else _LATE_START.search(head[: _JUNK + 12])
    if late is None:
        return None
    return {b"\xff\xd8": "JPEG", b"\x89P": "PNG"}.get(late[0][:2], "WEBP"), late.start()


def foreign(head: bytes) -> Foreign | None:
    """What a file that is not read is, by its first `HEAD` bytes; None where they say nothing."""
    if head[4:8] == b"ftyp" and _brand(head):
        return None
    return next((kind for pattern, kind in _FOREIGN if pattern.match(head)), None)


def _is_raw(head: bytes) -> bool:
    return head[:4] == b"II*\0" and head[8:10] == b"CR"


def _brand(head: bytes) -> str | None:
    """AVIF or HEIF by the brands of an ISO base media file (ISO/IEC 14496-12, 23008-12); None for a video."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    major, others = head[8:12], {head[i : i + 4] for i in range(16, size - 3, 4)}
    if major in {b"avif", b"avis"} or (major in {b"mif1", b"msf1"} and others & {b"avif", b"avis"}):
        return "AVIF"
    return "HEIF" if major in _HEIF_BRANDS else None
