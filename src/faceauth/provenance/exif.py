"""The EXIF fields that say what made a picture, and its thumbnail, out of a TIFF structure in memory.

Read here and not with a library: of a hostile structure with 65,535 entries that all point at the same megabytes a
library's reader makes as many copies. Only the wanted entries are looked up, and each is bounded.

Source: CIPA DC-008-2023 (Exif 3.0), Adobe TIFF 6.0; BigTIFF as libtiff has it.
"""

from collections.abc import Iterator

from faceauth.provenance.containers import BLOCK, TEXT, decoded

MOST_ENTRIES = 1000
IPTC, XMP = 0x83BB, 0x02BC
_SUB_IFD, _THUMBNAIL, _THUMBNAIL_LENGTH = 0x8769, 0x0201, 0x0202
NAMES = {
    0x000B: "ProcessingSoftware", 0x010E: "ImageDescription", 0x010F: "Make", 0x0110: "Model", 0x0131: "Software",
    0x0132: "DateTime", 0x013B: "Artist", 0x013C: "HostComputer", 0x9C9B: "XPTitle", 0x9C9C: "XPComment",
    0x9C9E: "XPKeywords", 0x9C9F: "XPSubject", 0x9003: "DateTimeOriginal", 0x9286: "UserComment",
    0x8298: "Copyright", 0x927C: "MakerNote", 0xA436: "ImageTitle", 0xA43A: "RAWDevelopingSoftware",
    0xA43B: "ImageEditingSoftware", 0xA43C: "MetadataEditingSoftware",
}  # fmt: skip
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 9: 4, 10: 8, 13: 4, 16: 8, 18: 8, 129: 1}


class Exif:
    """A TIFF structure in memory. Broken parts read as absent; nothing raises."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._order = "little" if data[:2] == b"II" else "big"
        self._word = 8 if b"+" in data[2:4] else 4  # bytes of an offset: BigTIFF has 8
        self._first: dict[int, tuple[int, int, int]] = {}
        self._next = 0
        if data[:2] in {b"II", b"MM"}:
            self._first, self._next = self._entries(self._number(self._word, self._word))

    def texts(self) -> Iterator[tuple[str, str]]:
        """Name and text of every known field, those of the main directory first."""
        sub = self._entries(self._offset(self._first, _SUB_IFD))[0]
        for directory in (self._first, sub):
            for tag, name in NAMES.items():
                if tag in directory and (content := self._content(directory[tag], 4 * TEXT)):
                    yield name, text_of(name, content)

    def block(self, tag: int) -> bytes:
        """The bytes of a field of the main directory, whatever type they are declared with; empty without it."""
        return self._content(self._first[tag], BLOCK) if tag in self._first else b""

    def thumbnail(self) -> bytes:
        """The JPEG thumbnail of the second directory; empty without one."""
        second = self._entries(self._next)[0]
        start, length = self._offset(second, _THUMBNAIL), self._offset(second, _THUMBNAIL_LENGTH)
        return self._data[start : start + min(length, BLOCK)] if start else b""

    def _number(self, at: int, size: int) -> int:
        return int.from_bytes(self._data[at : at + size], "little" if self._order == "little" else "big")

    def _entries(self, at: int) -> tuple[dict[int, tuple[int, int, int]], int]:
        """Tag to type, count and place of the value, of the directory at an offset; and the offset of the next."""
        found: dict[int, tuple[int, int, int]] = {}
        word = self._word
        head, length = (2, 12) if word == 4 else (8, 20)
        count = self._number(at, head) if at else 0
        for n in range(min(count, MOST_ENTRIES)):
            entry = at + head + length * n
            if entry + length > len(self._data):
                return found, 0
            tag, kind, values = self._number(entry, 2), self._number(entry + 2, 2), self._number(entry + 4, word)
            size, place = _SIZES.get(kind, 1) * values, entry + 4 + word
            found.setdefault(tag, (kind, size, place if size <= word else self._number(place, word)))
        return found, self._number(at + head + length * count, word) if at else 0

    def _offset(self, directory: dict[int, tuple[int, int, int]], tag: int) -> int:
        if tag not in directory:
            return 0
        kind, size, at = directory[tag]
        return self._number(at, min(size, self._word)) if kind in {3, 4, 13, 16, 18} else 0

    def _content(self, entry: tuple[int, int, int], most: int) -> bytes:
        _, size, at = entry
        return self._data[at : at + min(size, most)]


def text_of(name: str, content: bytes) -> str:
    """A field as text: UserComment behind its character code, XP fields as UTF-16, others as they decode."""
    if name == "UserComment":
        return _comment(content)
    if name.startswith("XP"):
        return utf16(content, "utf-16-le")
    return decoded(content.rstrip(b"\0 "))


def _comment(content: bytes) -> str:
    """UserComment: eight bytes of a character code, then text. Writers differ in byte order and in their codes."""
    code = content[:8].upper().rstrip(b"\0 ")
    if len(content) >= 8 and code in {b"UNICODE", b"ASCII", b"JIS", b""}:
        content = content[8:]
    if code == b"UNICODE" or b"\0" in content.rstrip(b"\0 "):
        return utf16(content, "utf-16-be")
    return decoded(content.rstrip(b"\0 "))


def utf16(content: bytes, default: str) -> str:
    """UTF-16 text of either byte order, with or without a byte-order mark; UTF-8 where it is plainly that.

    What is left of UTF-32 when it is read so, a zero behind every character, is taken out.

    Without a mark the order is that in which more of the code units are ASCII: settings in any language have names and
    numbers in ASCII, and of a unit read in the wrong order none is.
    """
    content = content[: 2 * TEXT]
    if content[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return content.decode("utf-16", "replace").replace("\0", "").rstrip()
    high, low = content[0::2].count(0), content[1::2].count(0)
    if not high and not low:
        try:
            return content.decode("utf-8").rstrip("\0 ")
        except UnicodeDecodeError:
            return content.decode(default, "replace").rstrip("\0 ")
    order = default if high == low else ("utf-16-be" if high > low else "utf-16-le")
    return content.decode(order, "replace").replace("\0", "").rstrip()
