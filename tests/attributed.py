"""A model that knows four colours: two real sources, two generators; and pictures of any colour, with fine noise."""

import numpy as np
from PIL import Image

from conftest import make_card, write_model
from faceauth.attribution import PROTOTYPES_KEY, Kind, Prototypes, Unknown
from faceauth.preprocess import PreprocessSpec

KINDS = (
    Kind("night", "real", "real", "camera"), Kind("dusk", "real", "real", "camera"),
    Kind("bulb-a", "fake", "gan", "bulb"), Kind("lamp", "fake", "diffusion", "lamp"),
)  # fmt: skip
COLOURS = {"night": (20, 20, 20), "dusk": (60, 60, 60), "bulb-a": (230, 230, 230), "lamp": (190, 190, 120)}
RED, BLUE, GREEN = (200, 60, 60), (60, 60, 210), (60, 190, 70)
SPREAD = 3.0  # of a picture's colour about that of its kind
SPEC = PreprocessSpec(size=32)


def coloured(colour, seed):
    """A 64 px picture about a colour; no two alike."""
    rng = np.random.default_rng([seed, *colour])
    pixels = np.asarray(colour) + rng.normal(0, SPREAD, 3) + rng.normal(0, 12, (64, 64, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def embeddings(colour, count, first=0):
    """What the colour model says of pictures, computed without it: (count, 3)."""
    pictures = [coloured(colour, first + i) for i in range(count)]
    pixels = SPEC.normalize(np.stack([SPEC.resize(p, SPEC.region(None, *p.size)) for p in pictures]))
    return pixels.mean(axis=(2, 3)).astype(np.float64)


def make_prototypes(**changes):
    groups = [embeddings(COLOURS[k.name], 30) for k in KINDS]
    means = np.array([g.mean(axis=0) for g in groups])
    sd = np.sqrt(np.mean([g.var(axis=0, ddof=1) for g in groups], axis=0))
    center, axes = means.mean(axis=0), np.diag(1 / sd)
    coordinates = (means - center) @ axes.T
    reference = [(embeddings(COLOURS[k.name], 10, 100) - center) @ axes.T for k in KINDS]
    values = dict(
        kinds=KINDS, counts=np.full(4, 30.0), center=center, axes=axes, between=coordinates.var(axis=0) + 1,
        means=coordinates, reference=np.concatenate(reference), reference_kind=np.repeat(np.arange(4), 10),
        temperature=1.0, unknown=Unknown(0.0, 1.0, 1.0, "nothing"), fitted_on="colours",
    )  # fmt: skip
    return Prototypes(**(values | changes))


def write_colour_model(path, **changes):
    card = make_card(name="colour", preprocess=SPEC)
    return write_model(path, card, colour=True, more={PROTOTYPES_KEY: make_prototypes(**changes).to_json()})


def write_pictures(folder, colour, count, first=0):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        coloured(colour, first + i).save(folder / f"{first + i:03}.png")
    return folder
