"""Images where they lie: in a folder, a zip or a tar, found and read without unpacking by hand.

Nothing is ever extracted under a name that an archive gives, and no symbolic link is followed. A tar is read by
offset, so an image costs one seek however many stand before it; a compressed tar is decompressed once into a
scratch folder, because it has no offsets.
"""

import bz2
import functools
import gzip
import hashlib
import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faceauth.errors import DataError, ImageError
from faceauth.files import replacing
from faceauth.images import SUFFIXES, Limits

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}


@dataclass(frozen=True, slots=True)
class Place:
    """Where images lie: `path` as the user gave it, `file` where the bytes are read, `kind` folder, zip or tar."""

    path: str
    file: str
    kind: str


@dataclass(frozen=True, slots=True)
class Item:
    """One image that was found, not yet opened.

    Attributes:
        name: its path in the folder or archive, with forward slashes.
        start, size: where its bytes are in a tar.
        group: ties what must stay on one side of a split; empty for none.
    """

    place: Place
    name: str
    start: int = 0
    size: int = 0
    group: str = ""

    @property
    def origin(self) -> str:
        """What the manifest calls it: a file, or `archive.zip!/member`."""
        return self.place.path + ("/" if self.place.kind == "folder" else "!/") + self.name

    def read(self, limit: int = Limits.max_bytes) -> bytes:
        """Its bytes. Raises ImageError where there are none to be had, or more than `limit`."""
        try:
            data = _READERS[self.place.kind](self, limit + 1)
        except (OSError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError, KeyError) as error:
            raise ImageError(f"cannot be read: {error}") from error
        except (lzma.LZMAError, zlib.error) as error:
            raise ImageError(f"cannot be unpacked: {error}") from error
        if len(data) > limit:
            raise ImageError(f"more than the limit of {limit:,} bytes")
        return data


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies in a place: images, `others` (MATLAB files) by file name, and what was left out and why."""

    items: list[Item]
    others: dict[str, Item] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)


def listing(path: Path, scratch: Path | None = None) -> Listing:
    """Every image in a folder or archive; a compressed tar is decompressed into `scratch` first.

    Raises:
        DataError: no such folder or archive, or a broken one; a compressed tar without a `scratch`.
    """
    try:
        if path.is_dir():
            place = Place(str(path), str(path), "folder")
            found = _in_folder(path)
        elif zipfile.is_zipfile(path):
            place = Place(str(path), str(path), "zip")
            found = _in_zip(path)
        else:
            place = Place(str(path), _plain_tar(path, scratch), "tar")
            found = _in_tar(place.file)
        return _sorted_out(place, found)
    except (OSError, tarfile.TarError, zipfile.BadZipFile, EOFError, lzma.LZMAError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"cannot read {str(path)!r}: {reason}", "give a folder, a .zip or a .tar(.gz)") from error


def find_original(image_path: str) -> Item | None:
    """What `Item.origin` named: a file, or a member of a zip or plain tar. None where it is gone."""
    path = Path(image_path)
    if path.is_file():
        folder, name = os.path.split(path.resolve())
        return Item(Place(folder, folder, "folder"), name)
    archive, _, member = image_path.rpartition("!/")
    return _members(archive, os.stat(archive).st_mtime_ns).get(member) if os.path.isfile(archive) else None


@functools.lru_cache(maxsize=8)
def _members(archive: str, stamp: int) -> dict[str, Item]:
    try:
        return {item.name: item for item in listing(Path(archive)).items}
    except DataError:
        return {}


def _sorted_out(place: Place, found: Iterator[tuple[str, int, int, str]]) -> Listing:
    result = Listing([])
    for name, start, size, problem in found:
        suffix = os.path.splitext(name)[1].lower()
        if suffix not in SUFFIXES and suffix != ".mat" and problem != "linked folders":
            continue
        if os.path.basename(name).startswith(".") or name.startswith("__MACOSX/"):
            continue
        problem = problem or _problem(name)
        if problem:
            result.dropped[problem] += 1
        elif suffix == ".mat":
            result.others[os.path.basename(name)] = Item(place, name, start, size)
        else:
            result.items.append(Item(place, name, start, size))
    return result


def _problem(name: str) -> str:
    if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or name[1:2] == ":":
        return "unsafe member names"
    return "" if name.isprintable() else "unprintable names"  # surrogates too: bytes that are no UTF-8


def _in_folder(root: Path) -> Iterator[tuple[str, int, int, str]]:
    def refuse(error: OSError) -> None:
        raise error

    for folder, folders, files in os.walk(root, onerror=refuse):
        inside = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = "" if inside == "." else f"{inside}/"
        for name in folders:
            if os.path.islink(os.path.join(folder, name)):
                yield f"{prefix}{name}/", 0, 0, "linked folders"
        for name in files:
            linked = os.path.islink(os.path.join(folder, name))
            yield prefix + name, 0, 0, "symbolic links" if linked else ""


def _in_zip(path: Path) -> Iterator[tuple[str, int, int, str]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                linked = stat.S_ISLNK(info.external_attr >> 16)
                problem = "symbolic links" if linked else "encrypted members" if info.flag_bits & 1 else ""
                yield info.filename, 0, info.file_size, problem


def _in_tar(file: str) -> Iterator[tuple[str, int, int, str]]:
    with tarfile.open(file, "r:") as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # tarfile keeps every member it has seen
            if info.issym() or info.islnk():
                yield info.name, 0, 0, "symbolic links" if info.issym() else "hard links"
            elif info.isreg() and not info.issparse():
                yield info.name.removeprefix("./"), info.offset_data, info.size, ""


def _plain_tar(path: Path, scratch: Path | None) -> str:
    with open(path, "rb") as file:
        opener = _OPENERS.get(file.read(2))
    if opener is None or scratch is None:
        return str(path)
    facts = path.stat()
    key = hashlib.sha256(f"{path.resolve()} {facts.st_size} {facts.st_mtime_ns}".encode()).hexdigest()[:16]
    plain = scratch / f"{key}.tar"
    if not plain.exists():
        scratch.mkdir(parents=True, exist_ok=True)
        with opener(path, "rb") as packed, replacing(plain) as part, open(part, "wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
    return str(plain)


def _read_file(item: Item, most: int) -> bytes:
    path = os.path.join(item.place.file, item.name)
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise ImageError("not a regular file")
    with open(path, "rb") as file:
        return file.read(most)


@functools.lru_cache(maxsize=8)
def _opened(path: str, stamp: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)  # kept open: its directory may name a hundred thousand members


def _read_zip(item: Item, most: int) -> bytes:
    with _opened(item.place.file, os.stat(item.place.file).st_mtime_ns).open(item.name) as file:
        return file.read(most)


def _read_tar(item: Item, most: int) -> bytes:
    with open(item.place.file, "rb") as file:
        file.seek(item.start)
        return file.read(min(item.size, most))


_READERS = {"folder": _read_file, "zip": _read_zip, "tar": _read_tar}
