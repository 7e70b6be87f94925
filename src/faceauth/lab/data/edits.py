"""Edits that photographs meet on their way: re-saving, noise, blur, old prints, night, watermarks, covers, screens.

Each edit takes an RGB image and a random generator and gives an RGB image of the same size. Training applies them to
both classes alike; the protocol's `edited` variant draws one of six.
"""

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from faceauth.preprocess import FILTERS

RESAMPLING = tuple(FILTERS.values())  # what a size may be changed by, drawn evenly
Rng = np.random.Generator
Edit = Callable[[Image.Image, Rng], Image.Image]


def resave(image: Image.Image, quality: int, codec: str = "JPEG", subsampling: int = 2) -> Image.Image:
    """Save and read again as JPEG or WEBP at `quality` 1 to 100; `subsampling` 0 (4:4:4) or 2 (4:2:0) is JPEG's."""
    file = io.BytesIO()
    options = {"subsampling": subsampling} if codec == "JPEG" else {"method": 0}
    image.save(file, codec, quality=quality, **options)
    return Image.open(file).convert("RGB")


def reduced(image: Image.Image, longest: int) -> Image.Image:
    """A copy whose longest side is at most `longest` pixels; never enlarged."""
    scale = longest / max(image.size)
    if scale >= 1:
        return image
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def noisy(image: Image.Image, sigma: float, rng: Rng, grey: bool = False) -> Image.Image:
    """Gaussian noise of standard deviation `sigma` in grey levels, the same in all channels where `grey`."""
    pixels = np.asarray(image, np.float32)
    shape = (*pixels.shape[:2], 1) if grey else pixels.shape
    return _image(pixels + rng.standard_normal(shape, np.float32) * np.float32(sigma))


def grey(image: Image.Image, _: Rng) -> Image.Image:
    """Black and white."""
    return image.convert("L").convert("RGB")


def old_print(image: Image.Image, rng: Rng) -> Image.Image:
    """Sepia, a slight blur and grain."""
    tone = np.asarray(image.convert("L").filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.2))), np.float32)[..., None]
    sepia = tone * np.array([1.05, 0.9, 0.7], np.float32) + rng.uniform(0, 15)
    return noisy(_image(sepia), rng.uniform(4, 14), rng, grey=True)


def plain_noise(image: Image.Image, rng: Rng) -> Image.Image:
    """Sensor noise of sigma 2 to 14."""
    return noisy(image, rng.uniform(2, 14), rng, grey=bool(rng.random() < 0.3))


def night(image: Image.Image, rng: Rng) -> Image.Image:
    """Dark and noisy, then denoised by a median of 3 pixels."""
    dark = _image(np.asarray(image, np.float32) * rng.uniform(0.25, 0.6))
    return noisy(dark, rng.uniform(3, 9), rng).filter(ImageFilter.MedianFilter(3))


def watermark(image: Image.Image, rng: Rng) -> Image.Image:
    """Half-transparent words repeated over the whole picture."""
    words = ("PREVIEW", "SAMPLE", "stock photo", "(c) agency", "DRAFT")
    size = max(8, int(min(image.size) * rng.uniform(0.06, 0.14)))
    text = words[int(rng.integers(len(words)))]
    mask = Image.new("L", (2 * max(image.size),) * 2)
    draw = ImageDraw.Draw(mask)
    wide = draw.textlength(text, font_size=size) + size
    for row, y in enumerate(range(0, mask.height, round(size * rng.uniform(2, 4)))):
        for x in np.arange(-(row % 2) * wide / 2, mask.width, wide):
            draw.text((x, y), text, fill=255, font_size=size)
    mask = mask.rotate(rng.uniform(-40, 40), Image.Resampling.BILINEAR)
    left, top = (mask.width - image.width) // 2, (mask.height - image.height) // 2
    mask = mask.crop((left, top, left + image.width, top + image.height))
    strength = rng.uniform(0.2, 0.6)
    colour = (255, 255, 255) if rng.random() < 0.7 else (0, 0, 0)
    return Image.composite(Image.new("RGB", image.size, colour), image, mask.point(lambda v: int(v * strength)))


def screen(image: Image.Image, rng: Rng) -> Image.Image:
    """A photographed screen: turned a little, a grid of lines finer than the pixels of the camera, blurred."""
    turned = image.rotate(rng.uniform(-2.5, 2.5), Image.Resampling.BICUBIC, fillcolor=(16, 16, 16))
    y, x = np.mgrid[0 : image.height, 0 : image.width].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(2.2, 6.0)
    grid = 1 + rng.uniform(0.05, 0.16) * np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
    glow = np.asarray(turned, np.float32) * grid[..., None] * rng.uniform(0.8, 1.1) + rng.uniform(0, 14)
    return _image(glow).filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))


def blur(image: Image.Image, rng: Rng) -> Image.Image:
    """Out of focus, or a beauty filter's median."""
    if rng.random() < 0.25:
        return image.filter(ImageFilter.MedianFilter(3 if rng.random() < 0.6 else 5))
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 2.2) * max(image.size) / 512))


def sharpen(image: Image.Image, rng: Rng) -> Image.Image:
    """Unsharp mask."""
    return image.filter(ImageFilter.UnsharpMask(rng.uniform(0.5, 2.5), int(rng.uniform(40, 200)), 0))


def there_and_back(image: Image.Image, rng: Rng) -> Image.Image:
    """Reduced to 0.35 to 0.8 of its size and enlarged again."""
    scale = rng.uniform(0.35, 0.8)
    small = image.resize((max(16, round(image.width * scale)), max(16, round(image.height * scale))))
    return small.resize(image.size, Image.Resampling.BICUBIC if rng.random() < 0.7 else Image.Resampling.LANCZOS)


def colours(image: Image.Image, rng: Rng) -> Image.Image:
    """Contrast, warmth and saturation of a photo filter, or an equalised histogram."""
    if rng.random() < 0.12:
        return ImageOps.equalize(image)
    x = (np.asarray(image, np.float32) - 128) * rng.uniform(0.7, 1.4) + 128 + rng.uniform(-25, 25)
    x += rng.uniform(-14, 14, (1, 1, 3)).astype(np.float32)
    mean = x.mean(axis=2, keepdims=True)
    return _image(mean + (x - mean) * rng.uniform(0.3, 1.6))


def cover(image: Image.Image, rng: Rng) -> Image.Image:
    """A slab, a mask, a bar or a caption over a part of the picture."""
    width, height = image.size
    copy = image.copy()
    draw = ImageDraw.Draw(copy)
    colour = tuple(int(v) for v in rng.integers(0, 256, 3)) if rng.random() < 0.5 else (8, 8, 8)
    kind = int(rng.integers(4))
    if kind == 0:  # one half
        share = rng.uniform(0.2, 0.5)
        left = rng.random() < 0.5
        draw.rectangle((0, 0, width * share, height) if left else (width * (1 - share), 0, width, height), fill=colour)
    elif kind == 1:  # mouth and nose
        mask = width * 0.25, height * rng.uniform(0.5, 0.62), width * 0.75, height * 0.92
        draw.rounded_rectangle(mask, width // 12, fill=colour)
    elif kind == 2:  # eyes
        top = rng.uniform(0.3, 0.42)
        draw.rectangle((width * 0.15, height * top, width * 0.85, height * (top + 0.12)), fill=colour)
    else:  # a caption
        top = rng.uniform(0.72, 0.88)
        draw.rectangle((0, height * top, width, height * (top + 0.14)), fill=colour)
        ink = (255, 255, 255) if sum(colour) < 384 else (0, 0, 0)
        draw.text((width * 0.05, height * (top + 0.03)), "what they do not tell you", fill=ink, font_size=height * 0.07)
    return copy


PROTOCOL: tuple[Edit, ...] = (grey, old_print, lambda image, rng: noisy(image, 8, rng), night, watermark, screen)
"""The six of the protocol's `edited` variant."""


def _image(pixels: npt.NDArray[np.floating]) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
