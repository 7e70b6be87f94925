"""A corpus made in code: faces that are gradients with two dark eyes; the fake ones carry a fine grid."""

import csv
import hashlib

import numpy as np
from PIL import Image, ImageDraw

COLUMNS = ("path", "source", "label", "family", "generator", "group", "sha256")
SOURCES = {
    "cam-a": ("real", "real", "camera"), "cam-b": ("real", "real", "camera"), "gan-a": ("fake", "gan", "gan-a"),
    "gan-b": ("fake", "gan", "gan-b"), "hand": ("edited", "edited", "hand"),
}  # fmt: skip


def face(rng, fake):
    top, bottom = rng.integers(40, 230, (2, 3))
    ramp = np.linspace(0, 1, 96)[:, None, None]
    pixels = (top * (1 - ramp) + bottom * ramp) * np.ones((96, 96, 1)) + rng.normal(0, 6, (96, 96, 3))
    if fake:
        pixels += 25 * ((np.arange(96)[:, None, None] // 4 + np.arange(96)[None, :, None] // 4) % 2)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for x in (28, 58):
        draw.ellipse((x, 36, x + 12, 44), fill=(20, 20, 20))
    return image


def write_corpus(root, count=30, seed=0):
    """Write images and images.csv; returns the root."""
    rng = np.random.default_rng(seed)
    rows = []
    for source, (label, family, generator) in SOURCES.items():
        (root / source).mkdir(parents=True)
        for i in range(count if label != "edited" else 4):
            path = f"{source}/{i:03}.png"
            face(rng, label != "real").save(root / path)
            digest = hashlib.sha256((root / path).read_bytes()).hexdigest()
            group = f"person-{i // 3}" if source == "cam-a" else ""
            rows.append((path, source, label, family, generator, group, digest))
    with open(root / "images.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    return root


CONFIG = """
name = "tiny"
width = 4
size = 32
images = {images}
batch = 16
lr = 0.01
warmup = 5
bf16 = false
log_every = 4
checkpoint_every = 4
[data]
root = "{root}"
cache = "{cache}"
folds = [["cam-a", "gan-a"], ["cam-b", "gan-b"]]
[augment]
smallest = 32
"""
