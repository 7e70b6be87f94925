"""Lists of paths, in a file or on standard input, as programs and people write them.

One path a line, or NUL between them as `find -print0` writes it; UTF-8 with or without byte-order mark, UTF-16 (as
PowerShell writes it), or names in any bytes. A line of which no file has the name is read more kindly: blanks around it
and quotes are taken off, `~` is a home, `file://` a path, `#` begins a comment, and a relative path may start from the
list's own folder.
"""

import codecs
import os
import re
import urllib.parse
from collections.abc import Iterator

from faceauth.errors import UsageError
from faceauth.images.formats import HEAD, foreign, sniff
from faceauth.images.loading import is_address

_LONGEST = 4096  # bytes of a path; a longer line is no path
_CONTROL = re.compile(rb"[\x01-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f]")


def read(path: str) -> Iterator[str]:
    """The paths in a list file.

    Raises:
        UsageError: for a file that cannot be read, is empty, or is an image.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot read the list {path!r}: {reason}", "@FILE takes one path a line") from error
    if sniff(data[:HEAD]) or foreign(data[:HEAD]) or (data and not is_list(data)):
        raise UsageError(f"{path!r} is no list of paths", "give an image without the @; @FILE takes one path a line")
    return paths(data, path, os.path.dirname(path))


def paths(data: bytes, origin: str, beside: str = "") -> Iterator[str]:
    """The paths in a list.

    Args:
        data: the list.
        origin: what to call it in an error.
        beside: the folder where a relative path may start, where the current one holds no such file.

    Raises:
        UsageError: where there are none.
    """
    exact, lines = _lines(data, origin)
    found = [line for line in lines if line] if exact else [p for line in lines if (p := _path(line, beside))]
    if not found:
        raise UsageError(f"{origin} names no images", "give one path a line, or an image's bytes")
    return iter(found)


def is_list(data: bytes) -> bool:
    """Whether bytes can be a list of paths, rather than a picture of an unknown format."""
    head = data[:_LONGEST]
    if _encoding(data) or not data:
        return True
    if b"\0\0" in head or len(_CONTROL.findall(head)) > len(head) / 50:
        return False
    return max(map(len, re.split(rb"[\0\r\n]", data[: 4 * _LONGEST]))) <= _LONGEST


def local(address: str) -> str:
    """The path that a `file://` URL means; any other URL, shortened if it is long, for an error to show."""
    if address[:7].lower() == "file://":
        return urllib.parse.unquote(address[7:].removeprefix("localhost"), errors="surrogateescape")
    return address if len(address) <= 200 else address[:60] + "..."


def _encoding(data: bytes) -> str | None:
    """UTF-8 or UTF-16 by a byte-order mark, or by a zero in every other byte; None for plain bytes."""
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return name
    head = data[: _LONGEST & ~1]
    if len(data) % 2 == 0 and len(head) >= 4:
        first, second = head[::2].count(0), head[1::2].count(0)
        if second > len(head) / 5 and not first:
            return "utf-16-le"
        if first > len(head) / 5 and not second:
            return "utf-16-be"
    return None


def _lines(data: bytes, origin: str) -> tuple[bool, list[str]]:
    """Whether the lines are exact names, and the lines."""
    name = _encoding(data)
    if name:
        try:
            text = data.decode(name, "surrogateescape" if name.startswith("utf-8") else "strict")
        except UnicodeDecodeError as error:
            raise UsageError(f"{origin} is no valid {name.upper()}", "save the list as UTF-8") from error
        return ("\0" in text, text.split("\0") if "\0" in text else re.split(r"\r\n|\r|\n", text))
    exact = b"\0" in data
    pieces = data.split(b"\0") if exact else data.splitlines()
    try:
        return exact, [os.fsdecode(p) for p in pieces]
    except UnicodeDecodeError as error:  # Windows, where names are text
        raise UsageError(f"{origin} is no valid UTF-8", "save the list as UTF-8") from error


def _path(line: str, beside: str) -> str | None:
    """The path that a line means; None for a blank line or a comment."""
    text = line.strip()
    if not text:
        return None
    meant = _meant(text)
    shorter = _meant(re.split(r"\s#", text)[0].strip())
    candidates = dict.fromkeys((line, text, meant, os.path.expanduser(meant), shorter, os.path.expanduser(shorter)))
    for candidate in candidates:
        if os.path.lexists(candidate):
            return candidate
        if beside and os.path.lexists(os.path.join(beside, candidate)):
            return os.path.join(beside, candidate)
    return None if text.startswith("#") else os.path.expanduser(meant)


def _meant(text: str) -> str:
    """A line without the quotes about it; a `file://` URL as its path."""
    unquoted = text[1:-1].strip() if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'" else text
    return local(unquoted) if is_address(unquoted) else unquoted
