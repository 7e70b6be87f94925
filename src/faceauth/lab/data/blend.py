"""Self-blended images: a photograph's face, changed a little and blended into itself, as a stand-in for face swaps.

Shiohara and Yamasaki, Detecting Deepfakes with Self-Blended Images, CVPR 2022, arXiv 2204.08376. Their mask is the hull
of landmarks; here, where only the face box is known, it is a bent ellipse in it. It knows nothing of files or classes.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from faceauth.lab.data.augment import recoloured
from faceauth.lab.data.edits import RESAMPLING, Rng

BLENDED = "blended"  # the source that photographs become so, where `data.fake` of a training config names it
STRENGTHS = (0.5, 0.75, 1.0, 1.0, 1.0, 1.0)  # of the pasted face, drawn evenly


def self_blended(image: Image.Image, face: Sequence[float], rng: Rng) -> Image.Image:
    """An RGB picture of the same size; `face` is its face box, left, top, right, bottom in pixels."""
    pasted, below = image, image
    if rng.random() < 0.7:
        pasted = _changed(image, rng)
    else:
        below = _changed(image, rng)
    pasted = _moved(pasted, face, rng)
    mask = _mask(image.size, face, rng)[:, :, None]
    mixed = np.asarray(pasted, np.float32) * mask + np.asarray(below, np.float32) * (1 - mask)
    return Image.fromarray(np.clip(mixed + 0.5, 0, 255).astype(np.uint8))


def _changed(image: Image.Image, rng: Rng) -> Image.Image:
    """Other colours, and another sharpness: reduced and enlarged again, or sharpened."""
    if rng.random() < 0.8:
        contrast, shift = rng.uniform(0.9, 1.1), rng.uniform(-12, 12) + rng.uniform(-8, 8, (1, 1, 3))
        image = Image.fromarray(recoloured(np.asarray(image), contrast, shift, rng.uniform(0.8, 1.2)))
    draw = rng.random()
    if draw < 0.5:
        k = rng.uniform(0.25, 0.8)
        small = max(8, round(image.width * k)), max(8, round(image.height * k))
        first, second = (RESAMPLING[i] for i in rng.integers(len(RESAMPLING), size=2))
        return image.resize(small, first).resize(image.size, second)
    if draw < 0.7:
        return image.filter(ImageFilter.UnsharpMask(rng.uniform(0.5, 2), int(rng.uniform(20, 150)), 0))
    return image


def _moved(image: Image.Image, face: Sequence[float], rng: Rng) -> Image.Image:
    """Turned by up to 3 degrees, scaled by 5 %, shifted by 3 % of the face's width."""
    x, y = (face[0] + face[2]) / 2, (face[1] + face[3]) / 2
    right, down = rng.uniform(-0.03, 0.03, 2) * (face[2] - face[0])
    scale, turn = rng.uniform(0.95, 1.05), np.radians(rng.uniform(-3, 3))
    c, s = np.cos(turn) / scale, np.sin(turn) / scale
    back = c, s, x - c * (x + right) - s * (y + down), -s, c, y + s * (x + right) - c * (y + down)
    return image.transform(image.size, Image.Transform.AFFINE, back, Image.Resampling.BICUBIC)


def _mask(size: tuple[int, int], face: Sequence[float], rng: Rng) -> npt.NDArray[np.floating]:
    """How much of each pixel is pasted, (height, width) in [0, 1]: a bent ellipse with a soft edge."""
    wide, high = face[2] - face[0], face[3] - face[1]
    x = (face[0] + face[2]) / 2 + rng.uniform(-0.04, 0.04) * wide
    y = (face[1] + face[3]) / 2 + rng.uniform(-0.02, 0.08) * high
    rows, columns = np.mgrid[: size[1], : size[0]].astype(np.float32)
    right, down = (columns - x) / (rng.uniform(0.32, 0.5) * wide), (rows - y) / (rng.uniform(0.36, 0.56) * high)
    angle, power = np.arctan2(down, right), rng.uniform(2, 3.5)
    bent = 1 + sum(rng.normal(0, 0.06 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(1, 6))
    inside = (np.abs(right) ** power + np.abs(down) ** power) ** (1 / power) < bent
    softened = ImageFilter.GaussianBlur(rng.uniform(0.01, 0.09) * wide)
    mask = np.asarray(Image.fromarray((inside * 255).astype(np.uint8)).filter(softened), np.float32) / 255
    if rng.random() < 0.5:  # the soft edge all inside or all outside of the ellipse
        mask = np.clip(2 * mask - np.float32(rng.integers(2)), 0, 1)
    return mask * np.float32(rng.choice(STRENGTHS))
