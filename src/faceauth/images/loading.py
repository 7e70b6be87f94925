"""One image of any form - a path, bytes, a PIL image, an array - to upright 8-bit sRGB. The bytes are read once."""

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from faceauth.errors import ImageError, SourceTypeError
from faceauth.images.decoding import Limits, checked, decode_sized, guarded, to_srgb
from faceauth.images.formats import DATA_URL

PIPE = "give what comes out of a pipe on standard input: ... | faceauth detect -"
SMALLEST = 8  # pixels a side; nothing can be seen on less, and a strip of one pixel is no picture
_URL = ("http://", "https://", "ftp://", "ftps://", "s3://", "gs://", "file://")


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image file's bytes with the name to show for it; what an open file or a `{"bytes", "path"}` dict becomes."""

    data: bytes = field(repr=False)
    path: str | None = None


Source = str | os.PathLike[str] | bytes | Image.Image | np.ndarray[Any, Any] | EncodedImage


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An upright RGB picture and where it came from.

    Attributes:
        path: the path to show; `-` for bytes, None for pixels in memory.
        image: upright 8-bit sRGB.
        sha256: of the file's bytes; None for pixels in memory.
        data: the file's bytes, so that nothing needs to read them again; None for pixels in memory.
        full_size: (width, height) of the upright picture in the file: more than `image.size` where the picture was so
            large that it was reduced.
        note: which part of the file it is, where that holds more, in words.
    """

    path: str | None
    image: Image.Image
    sha256: str | None
    data: bytes | None = field(default=None, repr=False)
    full_size: tuple[int, int] = (0, 0)
    note: str | None = None

    def __post_init__(self) -> None:
        if self.full_size == (0, 0):
            object.__setattr__(self, "full_size", self.image.size)

    @property
    def scale(self) -> tuple[float, float]:
        """What coordinates in `image` are multiplied by to lie in the full picture, across and down."""
        return self.full_size[0] / self.image.width, self.full_size[1] / self.image.height


def load(source: Source, limits: Limits | None = None) -> LoadedImage:
    """Read and decode one image to upright 8-bit sRGB.

    The EXIF orientation is obeyed, colours are converted to sRGB (`colour`), transparency is laid over white, 16-bit
    and greyscale brought to 8-bit RGB; of an animation or a multi-page file, the first frame.

    Raises:
        ImageError: for a file that is missing, empty, broken, too large, too small, or no image of a known format, and
            for an array of another shape or type.
        SourceTypeError: for something that is no image at all.
    """
    limits = limits or Limits()
    if isinstance(source, Image.Image):
        picture = source
        made = guarded(lambda: to_srgb(checked(picture, limits)))
        return _large_enough(LoadedImage(None, made.image, None, None, made.full_size))
    if isinstance(source, np.ndarray):
        made = guarded(lambda: to_srgb(checked(_from_array(source), limits)))
        return _large_enough(LoadedImage(None, made.image, None, None, made.full_size))
    if isinstance(source, EncodedImage | bytes | bytearray | memoryview):
        path, data = (source.path, source.data) if isinstance(source, EncodedImage) else (None, bytes(source))
        path = path or "-"
        if len(data) > limits.max_bytes:
            raise _too_many_bytes(limits)
    elif isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        data = read(path, limits)
    else:
        raise not_a_source(source)
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        made = decode_sized(data, limits)
        return _large_enough(LoadedImage(path, made.image, sha256, data, made.full_size, made.note))
    except ImageError as error:
        error.sha256 = sha256
        raise


def _large_enough(loaded: LoadedImage) -> LoadedImage:
    width, height = loaded.full_size
    if min(width, height) < SMALLEST:
        raise ImageError(f"{width} x {height}: too small to be judged", f"at least {SMALLEST} pixels a side")
    return loaded


def not_a_source(given: object) -> SourceTypeError:
    """The error for what is no image, nor a way to one."""
    return SourceTypeError(
        f"{type(given).__name__} is no image",
        "give a path, folder, glob, bytes, an open binary file, a PIL image, a uint8 array, or a list of such",
    )


def _too_many_bytes(limits: Limits) -> ImageError:
    what = f"more than the limit of {limits.max_bytes:,} bytes"
    return ImageError(what, limits.remedy("--max-bytes"))


def read(path: str, limits: Limits) -> bytes:
    """The bytes of a regular file, at most `limits.max_bytes`, also where it grows while it is read.

    Raises:
        ImageError: it is missing, no regular file, too large or cannot be read, or the path is a URL.
    """
    try:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            entered = os.access(path, os.R_OK | os.X_OK)
            raise ImageError("a folder, not an image" if entered else "a folder that may not be opened")
        if not stat.S_ISREG(found.st_mode):
            raise ImageError("not a regular file", PIPE if stat.S_ISFIFO(found.st_mode) else None)
        if found.st_size > limits.max_bytes:
            raise _too_many_bytes(limits)
        with Path(path).open("rb") as file:
            data = file.read(limits.max_bytes + 1)
    except FileNotFoundError as error:
        raise _missing(path) from error
    except OSError as error:
        raise (
            _missing(path) if is_address(path) else ImageError(f"cannot be read: {error.strerror or error}")
        ) from error
    except ValueError as error:  # a NUL in the path
        raise ImageError(f"not a path: {error}") from error
    if len(data) > limits.max_bytes:
        raise _too_many_bytes(limits)
    return data


def _missing(path: str) -> ImageError:
    if path[:5].lower() == "data:":
        return ImageError(f"{DATA_URL.name}, not a path", DATA_URL.hint)
    if is_address(path):
        return ImageError("a URL, and nothing is fetched", "curl -s URL | faceauth detect -")
    if os.path.islink(path):
        return ImageError("a link that leads nowhere")
    return ImageError("no such file")


def is_address(path: str) -> bool:
    """Whether a string is a URL, or a data URL, rather than a path."""
    return path[:8].lower().startswith(_URL) or path[:5].lower() == "data:"


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    """(H, W) or (H, W, 3) uint8 in RGB order to an RGB image; for others an ImageError that says what to give."""
    shape = array.shape
    plain = array.ndim == 2 or (array.ndim == 3 and shape[2] == 3)
    if array.dtype == np.uint8 and plain and array.size:
        return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")
    hint = "give (H, W) or (H, W, 3) uint8 in RGB order"
    if advice := _advice(array):
        hint += f": {advice}"
    raise ImageError(f"an array of shape {shape} and type {array.dtype}", hint)


def _advice(array: np.ndarray[Any, Any]) -> str:
    """What makes the array one that is read; the checks stand in the order in which the steps are taken."""
    shape, kind = array.shape, array.dtype
    if not array.size:
        return ""
    rules: tuple[tuple[Callable[[], bool], str], ...] = (
        (lambda: array.ndim == 4, "one image at a time, list(array)"),
        (
            lambda: array.ndim == 3 and shape[0] in {1, 3, 4} and shape[2] not in {3, 4},
            "channels last, array.transpose(1, 2, 0)",
        ),
        (lambda: array.ndim == 3 and shape[2] == 4, "PIL.Image.fromarray(array) for RGBA, or array[..., :3]"),
        (lambda: array.ndim == 3 and shape[2] == 1, "array[..., 0]"),
        (lambda: kind.kind == "f", "(array * 255).round().astype('uint8') for values of 0 to 1"),
        (lambda: kind == np.uint16, "(array / 257).round().astype('uint8')"),
        (lambda: kind == np.bool_, "array.astype('uint8') * 255"),
        (lambda: kind.kind in "iu" and kind != np.uint8, "array.astype('uint8') for values of 0 to 255"),
    )
    return "; then ".join(text for holds, text in rules if holds())


def shown(source: Source) -> str | None:
    """The path to show for a source: itself, `-` for bytes without a name, None for pixels in memory."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    if isinstance(source, EncodedImage):
        return source.path or "-"
    return "-" if isinstance(source, bytes | bytearray | memoryview) else None


def dhash(image: Image.Image) -> int:
    """64-bit difference hash of an RGB image: the sign of each horizontal step in a 9 x 8 grey thumbnail."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BILINEAR), np.int16)
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")
