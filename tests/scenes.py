"""Pictures with faces whose places are known, and pictures without any, all made from the portraits in samples/."""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from conftest import SAMPLES

BOXES = {  # of the portraits' faces, as the finder gives them
    "grace-hopper": (173, 123, 353, 337), "astronaut": (184, 63, 268, 174), "vae-04": (53, 21, 209, 216),
    "vae-05": (30, 5, 219, 219), "vae-12": (44, 17, 206, 220),
}  # fmt: skip
ORDER = ("grace-hopper", "astronaut", "vae-04", "grace-hopper", "vae-05", "astronaut", "vae-12")


@cache
def portrait(name):
    return Image.open(SAMPLES / f"{name}.jpg").convert("RGB")


def head(name, side):
    """A portrait about its face, whose longer side then has `side` pixels, and the face's box in it."""
    image, box = portrait(name), BOXES[name]
    k = side / max(box[2] - box[0], box[3] - box[1])
    reach = (box[3] - box[1]) // 2
    cut = (
        max(0, box[0] - reach),
        max(0, box[1] - reach),
        min(image.width, box[2] + reach),
        min(image.height, box[3] + reach),
    )
    size = round((cut[2] - cut[0]) * k), round((cut[3] - cut[1]) * k)
    inside = [round((v - cut[i % 2]) * k) for i, v in enumerate(box)]
    return image.crop(cut).resize(size, Image.Resampling.LANCZOS), inside


def backdrop(size, seed=0):
    """Smooth colours with a little noise: a wall, out of focus."""
    rng = np.random.default_rng(seed)
    wall = Image.fromarray(rng.integers(60, 200, (6, 9, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = Image.fromarray(rng.integers(0, 256, (64, 64), np.uint8))
    tiled = Image.new("L", size)
    for y in range(0, size[1], 64):
        for x in range(0, size[0], 64):
            tiled.paste(grain, (x, y))
    return Image.blend(wall, tiled.convert("RGB"), 0.04)


def group(size, count, side, rows):
    """A group picture: `count` faces of `side` pixels in `rows` rows; and their boxes."""
    image = backdrop(size)
    columns = -(-count // rows)
    boxes = []
    for i in range(count):
        face, inside = head(ORDER[i % len(ORDER)], side)
        x = (i % columns + 0.5) * size[0] / columns - face.width / 2
        y = (i // columns + 0.5) * size[1] / rows - face.height / 2
        left, top = round(min(max(x, 0), size[0] - face.width)), round(min(max(y, 0), size[1] - face.height))
        image.paste(face, (left, top))
        boxes.append([v + (left, top)[n % 2] for n, v in enumerate(inside)])
    return image, boxes


def overlap(one, other):
    """Intersection over union of two boxes."""
    both = max(0, min(one[2], other[2]) - max(one[0], other[0])) * max(0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, other)]
    return both / (sum(areas) - both)


def matched(found, boxes, least=0.4):
    """How many of the boxes were found, and how many finds are none of them."""
    hit = sum(any(overlap(f.box, b) >= least for f in found) for b in boxes)
    return hit, sum(all(overlap(f.box, b) < least for b in boxes) for f in found)


def chart():
    """A bar chart."""
    image = Image.new("RGB", (640, 480), "white")
    draw = ImageDraw.Draw(image)
    for i, value in enumerate((120, 300, 210, 380, 90, 260)):
        draw.rectangle((60 + i * 95, 440 - value, 120 + i * 95, 440), fill=(40 + i * 30, 90, 200 - i * 25))
        draw.text((70 + i * 95, 446), f"Q{i + 1}", fill="black")
    draw.line((40, 440, 620, 440), fill="black", width=3)
    draw.line((40, 20, 40, 440), fill="black", width=3)
    return image


def page():
    """A page of text."""
    image = Image.new("RGB", (850, 1100), "white")
    draw = ImageDraw.Draw(image)
    for line in range(60):
        draw.text((80, 70 + 16 * line), "the quick brown fox jumps over the lazy dog and runs on " * 2, fill="black")
    return image


def texture(kind, size=(512, 512), seed=0):
    """checks, stripes, rings, bricks, clouds or noise."""
    y, x = np.mgrid[: size[1], : size[0]]
    rng = np.random.default_rng(seed)
    if kind == "noise":
        return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))
    if kind == "clouds":
        values = sum(
            np.asarray(
                Image.fromarray(rng.random((2**k, 2**k)).astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
            )
            / 2**k
            for k in range(2, 8)
        )
        values = (values - values.min()) / np.ptp(values)
    elif kind == "bricks":
        row = y // 32
        values = np.where((y % 32 < 4) | ((x + row % 2 * 40) % 80 < 4), 0.9, 0.35)
    else:
        wave = {
            "checks": (x // 32 + y // 32) % 2,
            "stripes": np.sin(x / 6),
            "rings": np.sin(np.hypot(x - 256, y - 256) / 9),
        }
        values = 0.5 + 0.5 * wave[kind]
    return Image.fromarray(np.uint8(values * 255)).convert("RGB")
