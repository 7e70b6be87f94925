"""What a user points at, as one reference an image: a path, or the bytes of a picture.

| given                                  | becomes                                                       |
|----------------------------------------|---------------------------------------------------------------|
| `photo.jpg`                            | that file, whatever its suffix                                |
| `folder/`                              | every picture below it, by content, in sorted order           |
| `"photos/**/*.png"`                    | what the glob finds, as if it were given                      |
| `@list.txt`                            | the paths in it, one a line (`lists`)                         |
| `-`                                    | standard input: an image's bytes, or a list of paths          |
| bytes, PIL image, (H, W[, 3]) uint8    | that picture (Python only)                                    |
| an open binary file                    | the picture in it (Python only)                               |
| `{"bytes": ..., "path": ...}`          | that picture; the form of the datasets library (Python only)  |
| a list, array or series of such        | each of them (Python only)                                    |

A file that is given twice, by whatever path, is one reference. What is passed over is counted.
"""

import fnmatch
import glob
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from faceauth import lists
from faceauth.errors import SourceTypeError, UsageError
from faceauth.images import SUFFIXES, EncodedImage, Limits, Source
from faceauth.images.formats import HEAD, READABLE, foreign, sniff
from faceauth.images.loading import is_address, not_a_source

NO_PICTURE, COMPANION, AGAIN, EMPTY, LOOP = "no picture", "companion", "given twice", "empty folder", "link in a circle"


@dataclass
class Expansion:
    """What arguments mean.

    Attributes:
        references: one a picture: a path, or the bytes that came on standard input.
        passed_over: how many files or folders were left out, by reason: `NO_PICTURE`, `COMPANION` (files), `AGAIN`
            (files that are in `references` once), `EMPTY` (folders), `LOOP` (linked folders that lead back).
    """

    references: list[str | bytes] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)

    def notes(self) -> list[str]:
        """What was passed over, in words: "3 files that are no pictures passed over"."""
        count = self.passed_over
        said = {
            NO_PICTURE: _plural(count[NO_PICTURE], "file that is no picture", "files that are no pictures")
            + " passed over",
            COMPANION: _plural(count[COMPANION], "macOS companion file", "macOS companion files") + " passed over",
            AGAIN: _plural(count[AGAIN], "file", "files") + " given more than once, judged once",
            EMPTY: _plural(count[EMPTY], "folder", "folders") + " without pictures",
            LOOP: _plural(count[LOOP], "linked folder that leads", "linked folders that lead") + " back passed over",
        }
        return [text for reason, text in said.items() if count[reason]]


def _plural(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def expand(sources: Iterable[str], stdin: BinaryIO | None = None, max_bytes: int = Limits.max_bytes) -> Expansion:
    """All pictures that the arguments mean; an image on standard input comes as its bytes.

    Of standard input at most `max_bytes` are read, and one more, so that `load` can refuse it.

    Raises:
        UsageError: where a list cannot be read or is empty, a glob matches nothing, or no image was found in all.
    """
    made, given = _Expander(), ["-" if source == "@-" else source for source in sources]
    for source in _stdin_once(given, made.found.passed_over):
        if source == "-":
            made.add_stdin(_stdin() if stdin is None else stdin, max_bytes)
        elif source.startswith("@") and not os.path.exists(source):
            for path in lists.read(os.path.expanduser(source[1:])):
                made.add_path(path)
        elif is_address(source) and not os.path.exists(source):
            made.add(lists.local(source))
        else:
            path = source if os.path.exists(source) else os.path.expanduser(source)
            made.add_path(path, magic=True)
    if not made.found.references and given:
        looked = "; ".join(made.found.notes()) or "it is empty"
        raise UsageError(f"no images in {', '.join(map(repr, given))}", f"{looked}; {READABLE} are read")
    return made.found


def _stdin_once(sources: list[str], passed_over: Counter[str]) -> list[str]:
    """The sources, standard input among them once: it cannot be read again."""
    again = sources.count("-") - 1
    if again < 1:
        return sources
    passed_over[AGAIN] += again
    at = sources.index("-") + 1
    return sources[:at] + [source for source in sources[at:] if source != "-"]


def _stdin() -> BinaryIO:
    if sys.stdin is None:  # closed by whoever started the program
        raise UsageError("standard input is closed", "give paths, or pipe an image: curl -s URL | faceauth detect -")
    return sys.stdin.buffer


def harmless(path: str) -> str:
    """The same path, but never one that a spreadsheet takes for a formula."""
    return f".{os.sep}{path}" if path[:1] in {"=", "+", "-", "@", "\t", "\r"} and path != "-" else path


class _Expander:
    """Collects references, each file once."""

    def __init__(self) -> None:
        self.found = Expansion()
        self._seen: set[int | str] = set()  # one number a file: there may be millions

    def add(self, path: str, status: os.stat_result | None = None) -> None:
        """One file, if it was not given before under this or another name."""
        try:
            status = status or os.stat(path)
            key: int | str = status.st_dev << 128 | status.st_ino if status.st_ino else os.path.realpath(path)
        except (OSError, ValueError):
            key = path
        if key in self._seen:
            self.found.passed_over[AGAIN] += 1
            return
        self._seen.add(key)
        self.found.references.append(harmless(path))

    def add_path(self, path: str, magic: bool = False) -> None:
        """A file, a folder, or with `magic` a glob."""
        if os.path.isdir(path):
            self.add_folder(path)
        elif magic and not os.path.lexists(path) and glob.has_magic(path):
            matches = _globbed(path, self.found.passed_over)
            if not matches:
                raise UsageError(f"nothing matches {path!r}", "quote the glob, and check the folder it starts from")
            for match in matches:
                self.add_path(match)
        else:
            self.add(path)

    def add_stdin(self, stdin: BinaryIO, max_bytes: int) -> None:
        """An image's bytes, or what a list names."""
        data = stdin.read(max_bytes + 1)
        if data and (sniff(data[:HEAD]) or foreign(data[:HEAD]) or not lists.is_list(data)):
            self.found.references.append(data)
            return
        for path in lists.paths(data, "standard input"):
            self.add_path(path)

    def add_folder(self, folder: str) -> None:
        """Every picture below a folder: files of a picture's name, and others that are pictures by content."""
        before = len(self.found.references)
        for entry in walk(folder, self.found.passed_over):
            if isinstance(entry, str):  # a folder that may not be entered becomes a row with an error of its own
                self.add(entry)
            elif reason := _left_out(entry):
                self.found.passed_over[reason] += 1
            else:
                self.add(entry.path)
        if len(self.found.references) == before:
            self.found.passed_over[EMPTY] += 1


def _left_out(entry: os.DirEntry[str]) -> str | None:
    """Why a file in a folder is no picture; None where it is one, is named like one, or cannot be looked at."""
    companion = entry.name.startswith("._") or f"{os.sep}__MACOSX{os.sep}" in entry.path
    if os.path.splitext(entry.name)[1].lower() in SUFFIXES and not companion:
        return None
    try:
        if not stat.S_ISREG(entry.stat().st_mode):
            return NO_PICTURE
        with open(entry.path, "rb") as file:
            head = file.read(HEAD)
    except FileNotFoundError:  # a link that leads nowhere, or a file that is gone
        return NO_PICTURE
    except OSError:
        return None
    kind, other = sniff(head), foreign(head)
    if (kind and kind[1] == 0) or (other and other.picture and not companion):
        return None
    return COMPANION if companion else NO_PICTURE


def walk(folder: str, passed_over: Counter[str] | None = None, hidden: bool = True) -> Iterator[os.DirEntry[str] | str]:
    """Every file below a folder, in sorted order; a folder that cannot be listed as its path.

    Linked folders are entered after all others, but not where they lead to a folder that was walked already, or to one
    that holds `folder` (a link to `/` would mean the whole disk); those are counted.
    """
    counts: Counter[str] = Counter() if passed_over is None else passed_over
    root = os.path.realpath(folder)
    visited: set[tuple[int, int]] = set()
    waiting, linked = [folder], list[str]()
    while waiting or linked:
        link = not waiting
        path = linked.pop(0) if link else waiting.pop()
        real = os.path.realpath(path) if link else ""
        try:
            status = os.stat(path)
            key = (status.st_dev, status.st_ino) if status.st_ino else (0, hash(os.path.realpath(path)))
            if key in visited or (link and os.path.commonpath([root, real]) == real):
                counts[LOOP] += link
                continue
            visited.add(key)
            with os.scandir(path) as listing:
                entries = sorted(listing, key=lambda e: e.name)
        except (OSError, ValueError):
            yield path
            continue
        inner = []
        for entry in entries:
            if not hidden and entry.name.startswith("."):
                continue
            if not _is_dir(entry):
                yield entry
            elif entry.is_symlink():
                linked.append(entry.path)
            else:
                inner.append(entry.path)
        waiting += reversed(inner)


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _globbed(pattern: str, passed_over: Counter[str]) -> list[str]:
    """What a glob matches, sorted; `**` stands for any number of folders, and does not go round in circles."""
    parts = pattern.replace(os.altsep, os.sep).split(os.sep) if os.altsep else pattern.split(os.sep)
    if "**" not in parts:
        return sorted(glob.glob(pattern))
    at = parts.index("**")
    head, tail = os.sep.join(parts[:at]) or (os.sep if pattern.startswith(os.sep) else ""), parts[at:]
    roots = sorted(glob.glob(head)) if glob.has_magic(head) else [head]
    found = []
    for root in roots:
        for entry in walk(root or os.curdir, passed_over, hidden=any(p.startswith(".") for p in tail)):
            path = entry if isinstance(entry, str) else entry.path
            path = path if root else os.path.relpath(path)
            below = os.path.relpath(path, root or os.curdir).split(os.sep)
            if _matches(below, tail) or isinstance(entry, str):
                found.append(path)
    return sorted(found)


def _matches(names: list[str], pattern: list[str]) -> bool:
    """Whether the parts of a path match the parts of a glob."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        rest = [p for p in pattern[1:] if p] or ["*"]
        return any(_matches(names[i:], rest) for i in range(len(names)))
    return bool(names) and fnmatch.fnmatch(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def is_one(images: object) -> bool:
    """Whether what `references` takes is one image: no folder, glob, `@list`, standard input or iterable."""
    if isinstance(images, str | os.PathLike):
        return os.path.isfile(images)
    one = isinstance(images, bytes | bytearray | memoryview | Image.Image | EncodedImage | Mapping)
    return one or hasattr(images, "read") or _as_array(images) is not None


def references(images: object, max_bytes: int = Limits.max_bytes) -> Iterator[Source]:
    """What `Detector.detect` takes, one reference an image: strings are expanded, iterables walked, files read.

    Of an open file at most `max_bytes` are read, and one more, so that `load` can refuse it.

    Raises:
        UsageError: where a folder, glob or list names no image.
        SourceTypeError: for what is no image, nor a way to one.
    """
    if isinstance(images, str | os.PathLike):
        yield from expand([os.fsdecode(images)], max_bytes=max_bytes).references
    elif isinstance(images, bytearray | memoryview):
        yield bytes(images)
    elif isinstance(images, bytes | Image.Image | EncodedImage):
        yield images
    elif isinstance(images, Mapping):
        yield from _from_mapping(images, max_bytes)
    elif callable(read := getattr(images, "read", None)):
        try:
            data = read(max_bytes + 1)
        except ValueError as error:  # it was closed
            raise SourceTypeError(f"a file that cannot be read: {error}", "give it open, or its path") from error
        if not isinstance(data, bytes | bytearray | memoryview):
            raise SourceTypeError("a file opened as text is no image", "open it for bytes: open(path, 'rb')")
        name = getattr(images, "name", None)
        yield EncodedImage(bytes(data), name if isinstance(name, str) else None)
    elif hasattr(images, "columns") and hasattr(images, "iloc"):  # of a table, its columns' names would be walked
        raise SourceTypeError("a table is no list of images", "give one of its columns: table['path']")
    elif (array := _as_array(images)) is not None:
        yield array
    elif isinstance(images, Iterable) and getattr(images, "ndim", 1) > 0:
        for image in images:
            yield from references(image, max_bytes)
    else:
        raise not_a_source(images)


def _from_mapping(given: Mapping[Any, Any], max_bytes: int) -> Iterator[Source]:
    """The datasets library's form of an image that is not decoded: its bytes, or where there are none its path."""
    data, path = given.get("bytes"), given.get("path")
    if isinstance(data, bytes | bytearray | memoryview):
        yield EncodedImage(bytes(data), os.fsdecode(path) if isinstance(path, str | os.PathLike) else None)
    elif data is None and isinstance(path, str | os.PathLike):
        yield from expand([os.fsdecode(path)], max_bytes=max_bytes).references
    else:
        raise SourceTypeError(
            "a dict without an image's bytes or path", "give {'bytes': ..., 'path': ...}, or row['image']"
        )


def _as_array(given: object) -> np.ndarray[Any, Any] | None:
    """Pixels in an array, or in what numpy takes for one (a tensor); None for a list, or a series of other things."""
    if not isinstance(given, np.ndarray):
        if not hasattr(given, "__array__"):
            return None
        try:
            given = np.asarray(given)
        except Exception as error:  # a tensor that lies on a GPU, or needs its gradient
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            raise SourceTypeError(f"numpy cannot read it: {reason}", "give a uint8 numpy array (H, W, 3)") from error
    return given if given.dtype.kind in "biufc" and given.ndim > 1 else None
