"""From an image file's bytes to an upright 8-bit sRGB picture, within bounded time and memory.

The first bytes choose the decoder (`formats.sniff`). A picture of up to `FULL` pixels is decoded as it is; a larger one
is brought down to that many by a half, a quarter or an eighth: a JPEG while it is decoded, of the others the finished
rows strip by strip. Both classes of a corpus, and pictures at training and in use, come through here alike.
"""

import io
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from faceauth.errors import ImageError
from faceauth.images import colour, jpeg, png, tiff
from faceauth.images.formats import HEAD, READABLE, foreign, sniff

FULL = 50_000_000  # pixels that are decoded as they are: up to here no picture is ever reduced
# Pixels of the formats whose decoders reduce nothing and take 16 (WebP) or 10 bytes a pixel.
WHOLE_ONLY = {"WEBP": 50_000_000, "AVIF": 65_000_000, "HEIF": 65_000_000}
JPEG_FACTOR = 4  # a JPEG in one pass may have as many times the pixels of any other file: 200-megapixel cameras
GIF_SEARCHED = 1 << 24  # bytes in which a second frame is looked for; a million empty blocks take a second
STRIP = 4_000_000  # pixels that are converted at once
_OPENERS: dict[str, Callable[..., ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.jpeg_factory, "PNG": PngImagePlugin.PngImageFile, "WEBP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile, "BMP": BmpImagePlugin.BmpImageFile, "GIF": GifImagePlugin.GifImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
}  # fmt: skip
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What is refused before it is decoded.

    Attributes:
        max_pixels: pixels of a picture; four times as many of a JPEG in one pass, which is decoded reduced, and by
            default at most 50 million of a WebP and 65 million of an AVIF or HEIC.
        max_bytes: bytes of a file.
        adjustable: whether who reads the error can raise the limits, so that it says how.
    """

    max_pixels: int = 100_000_000
    max_bytes: int = 200_000_000
    adjustable: bool = True

    def remedy(self, option: str) -> str:
        """What to do about a picture that is too large."""
        return f"raise {option}, or save a smaller copy" if self.adjustable else "use a smaller copy"

    def pixels(self, format: str | None, in_one_pass: bool = False) -> int:
        """The pixels that a picture of a format may have."""
        if format in WHOLE_ONLY:
            share = WHOLE_ONLY[format] / Limits.max_pixels
            return min(self.max_pixels, max(WHOLE_ONLY[format], int(self.max_pixels * share)))
        return self.max_pixels * (JPEG_FACTOR if in_one_pass else 1)


@dataclass(frozen=True, slots=True)
class Decoded:
    """An upright RGB picture, the (width, height) of the upright picture in the file, and what of the file it is.

    `note` says so where the file holds more: an animation, several pages, the end of a file that was cut off.
    """

    image: Image.Image
    full_size: tuple[int, int]
    note: str | None = None


def decode(data: bytes, limits: Limits | None = None) -> Image.Image:
    """Decode an image file's bytes to upright 8-bit sRGB; of more than 50 million pixels a smaller copy.

    Raises:
        ImageError: for bytes that are no image of a known format, are broken or cut off, or hold too many pixels.
    """
    return decode_sized(data, limits).image


def decode_sized(data: bytes, limits: Limits | None = None) -> Decoded:
    """Like `decode`, with the size that the picture has in the file. Raises ImageError."""
    limits = limits or Limits()
    format, start = format_of(data)
    picture = data[start:] if start else data
    return guarded(lambda: _decoded_png(picture, limits) if format == "PNG" else _decoded(picture, format, limits))


def format_of(data: bytes) -> tuple[str, int]:
    """The format of a file's bytes, and where the picture starts in them.

    Raises:
        ImageError: for bytes that are not read, which says what they are and what to do instead.
    """
    if not data:
        raise ImageError("the file is empty")
    if found := sniff(data[:HEAD]):
        return found
    kind = foreign(data[:HEAD])
    if kind is None:
        raise ImageError("not an image of a known format", READABLE)
    raise ImageError(f"not an image of a known format: {kind.name}", kind.hint)


def guarded(work: Callable[[], Decoded]) -> Decoded:
    """Whatever a decoder raises, as one ImageError of one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of oddities in metadata; the pixels are what counts
        try:
            return work()
        except ImageError:
            raise
        except (Image.DecompressionBombError, MemoryError) as error:
            raise ImageError("more pixels than fit into memory", "save a smaller copy of it") from error
        except Exception as error:  # a hostile file can raise anything at all from inside a decoder
            reason = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())[:120]
            what = f"broken or truncated: {reason or type(error).__name__}"
            raise ImageError(what, "fetch or copy the file again, or save it with another program") from error


def _decoded_png(data: bytes, limits: Limits) -> Decoded:
    try:
        return _decoded(data, "PNG", limits)
    except ValueError as error:
        if "too large" not in str(error):
            raise
        return _decoded(png.without_text(data), "PNG", limits)


def _decoded(data: bytes, format: str, limits: Limits) -> Decoded:
    cicp, orientation, in_one_pass, note = None, None, False, None
    if format == "PNG":
        cicp = png.check(data)
    elif format == "TIFF":
        tiff.silence()
        data, orientation, pages = tiff.picture(data)
        note = "several pages: the first was judged" if pages > 1 else None
    elif format == "JPEG":
        shape = jpeg.structure(data)
        in_one_pass = shape is not None and shape.in_one_pass
    elif format in {"AVIF", "HEIF"}:
        cicp = colour.nclx(data)
    elif format == "WEBP":
        _check_size(_webp_size(data), limits, format)  # its decoder takes the memory when it is opened
    image = _opener(format)(io.BytesIO(data), "")
    checked(image, limits, format, in_one_pass)
    full_size = image.size
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        image, note = _loaded_jpeg(image, data)
    elif format in _MOVING and _is_animated(image, data):
        note = "an animation: its first frame was judged"
    elif format == "HEIF" and getattr(image, "n_frames", 1) > 1:
        note = "several pictures: the primary one was judged"
    return replace(to_srgb(image, full_size, cicp, orientation), note=note)


_MOVING = ("GIF", "PNG", "WEBP", "AVIF")


def _is_animated(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Whether a file of a format that can move holds further frames."""
    try:
        if isinstance(image, GifImagePlugin.GifImageFile):  # looks for the second frame, and leaves the first one
            image = GifImagePlugin.GifImageFile(io.BytesIO(data[:GIF_SEARCHED]), "")
        return bool(getattr(image, "is_animated", False))
    except Exception:  # the first frame is whole, and what is wrong behind it is no frame
        return False


def _opener(format: str) -> Callable[..., ImageFile.ImageFile]:
    """Pillow's class for a format, without `Image.open`, whose own limit of pixels is the whole process's."""
    if format != "HEIF":
        return _OPENERS[format]
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError("a HEIC image", "save it as JPEG, or pip install 'faceauth[heic]'") from error
    opener: Callable[..., ImageFile.ImageFile] = pillow_heif.HeifImageFile
    return opener


def checked(image: Image.Image, limits: Limits, format: str | None = None, in_one_pass: bool = False) -> Image.Image:
    """The image, if it has at least one pixel and no more than a file of its format may have. Raises ImageError."""
    _check_size(image.size, limits, format, in_one_pass)
    return image


def _check_size(size: tuple[int, int], limits: Limits, format: str | None, in_one_pass: bool = False) -> None:
    width, height = size
    most = limits.pixels(format, in_one_pass)
    if width * height > most:
        what = f"{width} x {height}: more than the limit of {most:,} pixels"
        raise ImageError(what, limits.remedy("--max-pixels"))
    if width < 1 or height < 1:
        raise ImageError("an image without pixels")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP by its first chunk (RFC 9649); (1, 1) where that says nothing."""
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        return 1, 1
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(body[6:8], "little") & 0x3FFF or 1, int.from_bytes(body[8:10], "little") & 0x3FFF or 1


def _loaded_jpeg(image: JpegImagePlugin.JpegImageFile, data: bytes) -> tuple[JpegImagePlugin.JpegImageFile, str | None]:
    """Decode, reduced where there are many pixels, and as far as there is data where little is missing, and say so."""
    step = reduction(image.size)
    if step > 1:
        image.draft(None, (image.width // step, image.height // step))
    if jpeg.is_cut_off(data):
        return jpeg.repaired(image, data)
    try:
        image.load()
    except OSError as error:
        if "truncated" not in str(error):
            raise
        return jpeg.repaired(image, data)
    return image, None


def reduction(size: tuple[int, int]) -> int:
    """1, 2, 4 or 8: what a picture of this size is divided by to have at most `FULL` pixels."""
    step = 1
    while size[0] * size[1] > FULL * step * step and step < 8 and min(size) >= 2 * step:
        step *= 2
    return step


def to_srgb(
    image: Image.Image,
    full_size: tuple[int, int] | None = None,
    cicp: tuple[int, int] | None = None,
    orientation: int | None = None,
) -> Decoded:
    """An opened image to upright 8-bit sRGB.

    Args:
        image: of any mode of Pillow's.
        full_size: (width, height) in the file, where the image has been reduced already.
        cicp: colour primaries and transfer characteristics of the file (ITU-T H.273).
        orientation: instead of the one in the file's EXIF.
    """
    full_size = full_size or image.size
    image.load()
    turn = _TURNS.get(_orientation(image) if orientation is None else orientation)
    step = reduction(image.size)
    convert = _converter(image, cicp)
    if step == 1 and (convert is None or image.width * image.height <= STRIP):
        image = image if convert is None else convert(image)
    else:
        image = _in_strips(image, convert, step)
    if turn is not None:
        image = image.transpose(turn)
        full_size = full_size[::-1] if turn in _SIDEWAYS else full_size
    return Decoded(image if image.mode == "RGB" else image.convert("RGB"), full_size)


_SIDEWAYS = {_TURNS[n] for n in (5, 6, 7, 8)}


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
        return value if isinstance(value, int) else 1
    except Exception:  # damaged EXIF, of any kind: the picture is judged as it is stored
        return 1


def _converter(image: Image.Image, cicp: tuple[int, int] | None) -> Callable[[Image.Image], Image.Image] | None:
    """What brings this image, or a strip of it, to opaque sRGB; None where a plain `convert("RGB")` does.

    Every step is a matter of single pixels, so that strips give what the whole gives.
    """
    steps: list[Callable[[Image.Image], Image.Image]] = []
    if image.mode.startswith("I") or image.mode == "F":
        peak = _peak(image)
        steps.append(lambda strip: _to_8_bit(strip, peak))
    elif image.mode in {"La", "RGBa"}:  # colours that are multiplied by their opacity
        straight = image.mode.upper()
        steps.append(lambda strip: strip.convert(straight))
    elif image.mode == "LAB":
        steps.append(_from_lab)
    if image.has_transparency_data:
        steps.append(_over_white)
    if profile := colour.conversion(image, cicp):
        steps.append(profile)
    if not steps:
        return None

    def convert(strip: Image.Image) -> Image.Image:
        for step in steps:
            strip = step(strip)
        return strip if strip.mode == "RGB" else strip.convert("RGB")

    return convert


def _in_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image] | None, step: int) -> Image.Image:
    """Convert to RGB and reduce by `step`, averaging whole pixels, a few rows at a time."""
    width, height = image.size
    rows = max(STRIP // max(width, 1) // step, 1) * step
    made = Image.new("RGB", (math.ceil(width / step), math.ceil(height / step)))
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        strip = convert(strip) if convert else strip.convert("RGB")
        made.paste(strip if step == 1 else strip.reduce(step), (0, top // step))
    return made


def _over_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    white.alpha_composite(rgba)
    return white


def _from_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB") or image


def _peak(image: Image.Image) -> float:
    """The largest value of an image of one band of numbers; not-a-number counts as zero."""
    width, height = image.size
    rows = max(STRIP // max(width, 1), 1)
    tops = range(0, height, rows)
    return max(float(_numbers(image.crop((0, t, width, min(t + rows, height)))).max(initial=0)) for t in tops)


def _numbers(image: Image.Image) -> npt.NDArray[np.float64]:
    return np.nan_to_num(np.asarray(image, dtype=np.float64))


def _to_8_bit(image: Image.Image, peak: float) -> Image.Image:
    """16-bit integer or float greyscale to 8 bits; floats are taken as [0, 1] where none lies above 1."""
    values: npt.NDArray[Any] = _numbers(image)
    if image.mode == "F":
        values = values * 255 if peak <= 1 else values
    elif peak > 255 or image.mode.startswith("I;16"):
        values = values / 257
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
