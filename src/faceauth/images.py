"""From whatever a user points at to upright 8-bit sRGB pixels, safely.

| given                              | becomes                                              |
|------------------------------------|------------------------------------------------------|
| `photo.jpg`                        | that file, whatever its suffix                       |
| `folder/`                          | every image below it, by suffix, in sorted order     |
| `"photos/**/*.png"`                | what the glob finds                                  |
| `@list.txt`                        | the paths in it, one a line                          |
| `-`                                | standard input: an image's bytes, or a list of paths |
| bytes, PIL image, (H, W[, 3]) uint8 | that picture (Python only)                           |

A file's content decides its format, not its name. It knows nothing of faces, models or verdicts.
"""

import glob
import hashlib
import io
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from faceauth.errors import ImageError, UsageError

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
HEIF_SUFFIXES = frozenset({".heic", ".heif"})
SUFFIXES = HEIF_SUFFIXES | {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"}

Source = str | os.PathLike[str] | bytes | Image.Image | np.ndarray[Any, Any]


@dataclass(frozen=True)
class Limits:
    """What is refused before it is decoded: more pixels, or more bytes in the file, than these."""

    max_pixels: int = 100_000_000
    max_bytes: int = 200_000_000


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An upright RGB picture, and the SHA-256 of the bytes it came from (None for pixels in memory)."""

    path: str | None
    image: Image.Image
    sha256: str | None


def expand(
    sources: Iterable[str], stdin: BinaryIO | None = None, max_bytes: int = Limits.max_bytes
) -> list[str | bytes]:
    """Paths of all images that the arguments mean; an image on standard input comes as its bytes.

    Of standard input at most `max_bytes` are read, and one more, so that `load` can refuse it.

    Raises:
        UsageError: where an argument means nothing: no such file, an empty folder, a glob without a match.
    """
    found: list[str | bytes] = []
    for source in sources:
        if source == "-":
            found += _from_stdin(stdin if stdin is not None else sys.stdin.buffer, max_bytes)
        elif source.startswith("@") and not os.path.exists(source):
            found += _from_list(source[1:])
        elif os.path.isdir(source):
            found += _from_folder(source)
        elif not os.path.exists(source) and glob.has_magic(source):
            matches = [m for m in sorted(glob.glob(source, recursive=True)) if not os.path.isdir(m)]
            if not matches:
                raise UsageError(f"nothing matches {source!r}", "quote the glob, and check the folder it starts from")
            found += matches
        else:
            found.append(source)
    return [harmless(f) if isinstance(f, str) else f for f in found]


def harmless(path: str) -> str:
    """The same path, but never one that a spreadsheet takes for a formula."""
    return f".{os.sep}{path}" if path[:1] in {"=", "+", "-", "@", "\t", "\r"} and path != "-" else path


def _from_folder(folder: str) -> list[str]:
    found: list[str] = []
    locked: list[str] = []  # a folder that may not be entered becomes a row with an error of its own
    for root, folders, files in os.walk(folder, onerror=lambda error: locked.append(str(error.filename))):
        folders.sort()
        found += [os.path.join(root, f) for f in sorted(files) if os.path.splitext(f)[1].lower() in SUFFIXES]
    found += locked
    if not found:
        raise UsageError(f"no images in {folder!r}", f"looked for {', '.join(sorted(SUFFIXES))}")
    return found


def _from_list(path: str) -> list[str]:
    try:
        lines = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the list {path!r}: {error.strerror}", "@FILE takes one path a line") from error
    return _paths(lines, path)


def _from_stdin(stdin: BinaryIO, max_bytes: int) -> list[str | bytes]:
    data = stdin.read(max_bytes + 1)
    if _looks_like_image(data):
        return [data]
    return list(_paths(data, "standard input"))


def _paths(data: bytes, origin: str) -> list[str]:
    """One path a line, or NUL between them as `find -print0` writes it."""
    split = data.split(b"\0") if b"\0" in data else data.splitlines()
    paths = [os.fsdecode(p) for p in split if p.strip()]
    if not paths:
        raise UsageError(f"{origin} names no images", "give one path a line, or an image's bytes")
    return paths


def _looks_like_image(data: bytes) -> bool:
    magic = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"II*\0", b"MM\0*", b"BM", b"GIF8")
    return data.startswith(magic) or data[4:8] == b"ftyp"


def load(source: Source, limits: Limits | None = None) -> LoadedImage:
    """Read and decode one image to upright 8-bit sRGB.

    The EXIF orientation is obeyed, an embedded ICC profile converted to sRGB, transparency laid over
    white, 16-bit and greyscale brought to 8-bit RGB; of an animation or a multi-page file, the first frame.

    Raises:
        ImageError: for a file that is missing, empty, truncated, too large, or no image of a known format.
    """
    limits = limits or Limits()
    if isinstance(source, Image.Image):
        return LoadedImage(None, _to_rgb(_checked(source, limits)), None)
    if isinstance(source, np.ndarray):
        return LoadedImage(None, _from_array(source), None)
    if isinstance(source, bytes | bytearray):
        path, data = "-", bytes(source)
        if len(data) > limits.max_bytes:
            raise ImageError(f"more than the limit of {limits.max_bytes:,} bytes", "raise --max-bytes")
    else:
        path = os.fspath(source)
        data = _read(path, limits)
    return LoadedImage(path, decode(data, limits), hashlib.sha256(data).hexdigest())


def _read(path: str, limits: Limits) -> bytes:
    try:
        if os.path.isdir(path):
            raise ImageError("a folder, not an image")
        if not os.path.isfile(path):
            raise ImageError("no such file" if not os.path.exists(path) else "not a regular file")
        if os.path.getsize(path) > limits.max_bytes:
            raise ImageError(f"more than the limit of {limits.max_bytes:,} bytes", "raise --max-bytes")
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the path
        raise ImageError(f"not a path: {error}") from error


def decode(data: bytes, limits: Limits | None = None) -> Image.Image:
    """Decode an image file's bytes to upright 8-bit sRGB. Raises ImageError."""
    limits = limits or Limits()
    if not data:
        raise ImageError("the file is empty")
    formats = list(FORMATS)
    if data[4:8] == b"ftyp" and data[8:12] != b"avif":
        formats += _heif_formats()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of oddities in metadata; the pixels are what counts
        try:
            image = Image.open(io.BytesIO(data), formats=formats)
            return _to_rgb(_checked(image, limits))
        except ImageError:
            raise
        except UnidentifiedImageError as error:
            raise ImageError("not an image of a known format", "JPEG, PNG, WebP, TIFF, BMP, GIF or HEIC") from error
        except (Image.DecompressionBombError, MemoryError) as error:
            raise ImageError(f"more than the limit of {limits.max_pixels:,} pixels", "raise --max-pixels") from error
        except Exception as error:  # a hostile file can raise anything at all from inside a decoder
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            raise ImageError(f"broken or truncated: {reason}") from error


def _heif_formats() -> list[str]:
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError("a HEIC image", "pip install 'faceauth[heic]'") from error
    pillow_heif.register_heif_opener()
    return ["HEIF"]


def _checked(image: Image.Image, limits: Limits) -> Image.Image:
    width, height = image.size
    if width * height > limits.max_pixels:
        raise ImageError(
            f"{width} x {height}: more than the limit of {limits.max_pixels:,} pixels", "raise --max-pixels"
        )
    if width < 1 or height < 1:
        raise ImageError("an image without pixels")
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    image = _upright(image)
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bit(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGBA", rgba.size, "white")
        image.alpha_composite(rgba)
    if profile and image.mode in {"RGB", "RGBA", "CMYK", "L"}:
        image = _to_srgb(image, profile)
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image  # which would copy it either way
    except Exception:  # damaged EXIF, of any kind: the picture is judged as it is stored
        return image


def _to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit integer or float greyscale to 8 bits; floats are taken as [0, 1] where none lies above 1."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    if image.mode == "F":
        values = values * 255 if values.max(initial=0) <= 1 else values
    elif values.max(initial=0) > 255 or image.mode.startswith("I;16"):
        values = values / 257
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


_SRGB = ImageCms.createProfile("sRGB")


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    if image.mode == "RGBA":
        image = image.convert("RGB")  # already laid over white
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return image
        converted = ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB")
    except (
        ImageCms.PyCMSError,
        OSError,
        ValueError,
    ):  # an unusable profile: browsers show such files as sRGB
        return image
    return image if converted is None else converted


def _from_array(array: np.ndarray[Any, Any]) -> Image.Image:
    if (
        array.dtype != np.uint8
        or array.ndim not in {2, 3}
        or (array.ndim == 3 and array.shape[2] != 3)
        or not array.size
    ):
        raise ImageError(
            f"an array of shape {array.shape} and type {array.dtype}",
            "give (H, W) or (H, W, 3) uint8, RGB order",
        )
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")


def references(images: Source | Iterable[Source]) -> Iterator[Source]:
    """What `Detector.detect` takes, one reference an image: strings are expanded, iterables walked."""
    if isinstance(images, str | os.PathLike):
        yield from expand([os.fspath(images)])
    elif isinstance(images, bytes | bytearray | Image.Image | np.ndarray):
        yield images
    else:
        for image in images:
            yield from references(image)


def shown(source: Source) -> str | None:
    """The path to show for a source: itself, `-` for bytes, None for pixels in memory."""
    if isinstance(source, str | os.PathLike):
        return os.fspath(source)
    return "-" if isinstance(source, bytes | bytearray) else None


def dhash(image: Image.Image) -> int:
    """64-bit difference hash of an RGB image: the sign of each horizontal step in a 9 x 8 grey thumbnail."""
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BILINEAR), np.int16)
    return int.from_bytes(np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes(), "big")
