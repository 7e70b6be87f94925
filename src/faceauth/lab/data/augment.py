"""From a kept crop to a training input, with codec, size and sharpness taken away as clues.

Most real photographs at hand are small and soft, most generated ones large and crisp, and each source has its
own codec: a network that sees that learns nothing of faces. So every crop, whatever its class, is brought to a
size drawn from one distribution, blurred or sharpened, made noisy and saved again before it is resized by the
core's preprocessing. Every draw comes from the generator handed in. It knows nothing of classes.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter
from pydantic import BaseModel, ConfigDict, Field

from faceauth.lab.data.edits import RESAMPLING, Rng, resave
from faceauth.preprocess import PreprocessSpec, square


class AugmentConfig(BaseModel):
    """How codec, size and sharpness are taken away as clues, for both classes alike. Shares are in [0, 1]."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    crop: tuple[float, float] = (0.9, 1.5)  # range of the crop in face boxes
    shift: float = 0.08  # of the crop's side
    smallest: int = Field(112, ge=16)  # the intermediate size is drawn log-uniformly from here to twice the input
    blur: float = 0.15
    sharpen: float = 0.08
    noise: float = 0.12
    jpeg: float = 0.75
    webp: float = 0.12
    twice: float = 0.1  # share that is saved a second time
    quality: tuple[int, int] = (30, 95)
    colour: float = 0.6
    grey: float = 0.06


def augment(
    crop: Image.Image, face: Sequence[float], spec: PreprocessSpec, config: AugmentConfig, rng: Rng
) -> npt.NDArray[np.uint8]:
    """One training input, (spec.size, spec.size, 3) uint8.

    Args:
        crop: RGB, square; face: its face box, left, top, right, bottom in its pixels.
    """
    image = _rescale(crop, face, spec.size, config, rng)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = _sharpness(image, config, rng)
    if rng.random() < config.noise:
        image = _noise(image, rng)
    for _ in range(2 if rng.random() < config.twice else 1):
        image = _resave(image, config, rng)
    pixels = spec.resize(image, (0, 0, *image.size))
    return _colour(pixels, config, rng) if rng.random() < config.colour else pixels


def _rescale(crop: Image.Image, face: Sequence[float], size: int, config: AugmentConfig, rng: Rng) -> Image.Image:
    side = rng.uniform(*config.crop) * max(face[2] - face[0], face[3] - face[1])
    dx, dy = rng.uniform(-config.shift, config.shift, 2) * side
    center = (face[0] + face[2]) / 2 + dx, (face[1] + face[3]) / 2 + dy
    region = square(center, side, *crop.size)
    native = int(region[2] - region[0])
    largest = max(min(native, 2 * size), config.smallest)
    target = int(np.exp(rng.uniform(np.log(config.smallest), np.log(largest))))
    target = max(16, min(target, native))
    return crop.resize((target, target), RESAMPLING[rng.integers(len(RESAMPLING))], box=region)


def _sharpness(image: Image.Image, config: AugmentConfig, rng: Rng) -> Image.Image:
    draw = rng.random()
    if draw < config.blur:
        return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 1.0) * image.width / 128))
    if draw < config.blur + config.sharpen:
        return image.filter(ImageFilter.UnsharpMask(rng.uniform(0.5, 2), int(rng.uniform(20, 120)), 0))
    return image


def _noise(image: Image.Image, rng: Rng) -> Image.Image:
    pixels = np.asarray(image, np.float32)
    shape = pixels.shape if rng.random() < 0.5 else (*pixels.shape[:2], 1)
    noisy = pixels + rng.standard_normal(shape, np.float32) * np.float32(rng.uniform(1, 4))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def _resave(image: Image.Image, config: AugmentConfig, rng: Rng) -> Image.Image:
    draw, quality = rng.random(), int(rng.integers(config.quality[0], config.quality[1] + 1))
    if draw < config.jpeg:
        return resave(image, quality, "JPEG", int(rng.choice([0, 2])))
    return resave(image, quality, "WEBP") if draw < config.jpeg + config.webp else image


def _colour(pixels: npt.NDArray[np.uint8], config: AugmentConfig, rng: Rng) -> npt.NDArray[np.uint8]:
    contrast, shift = rng.uniform(0.7, 1.3), rng.uniform(-25, 25) + rng.uniform(-12, 12, (1, 1, 3))
    return recoloured(pixels, contrast, shift, 0 if rng.random() < config.grey else rng.uniform(0.4, 1.5))


def recoloured(
    pixels: npt.NDArray[np.uint8], contrast: float, shift: npt.NDArray[np.float64], saturation: float
) -> npt.NDArray[np.uint8]:
    """(h, w, 3) pixels with other colours: contrast about 128, then a shift (1, 1, 3), then saturation about grey."""
    x = (pixels.astype(np.float32) - 128) * contrast + 128
    x += shift
    grey = x.mean(axis=2, keepdims=True)
    x = grey + (x - grey) * saturation
    return np.asarray(np.clip(x, 0, 255), np.uint8)
