"""How faithful heat maps are: deletion and insertion (Petsiuk et al., BMVC 2018) against chance and a centre prior.

The patches that a map calls strongest are blurred first (deletion), or are the first that are not blurred (insertion).
Read is the logit of the head that gave the verdict, turned so that the verdict on the whole face is above 0. A faithful
map makes it fall early and rise early: a small area under the first curve, a large one under the second.
"""

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from faceauth.errors import DataError
from faceauth.explain import heatmap
from faceauth.faces import finder
from faceauth.lab.data.dataset import DataSet, ImageRow
from faceauth.lab.evaluation.reference import cut_face
from faceauth.lab.progress import tracked
from faceauth.model_file import ModelFile

Floats = npt.NDArray[np.floating[Any]]
Pixels = npt.NDArray[np.uint8]
GRID = 14  # patches a side that are blurred
STEPS = 5  # of a curve: a fifth of the patches each
DRAWS = 2000
MAPS = ("heat map", "occlusion", "random", "centre")


def choose(rows: Sequence[ImageRow], count: int) -> list[ImageRow]:
    """Images of the test split, photographs and fakes in turn, one of each source before a second of any, by hash."""
    ordered = sorted((r for r in rows if r.split == "test"), key=lambda r: hashlib.sha256(r.sha256.encode()).digest())
    seen: defaultdict[tuple[str, str], Iterator[int]] = defaultdict(itertools.count)
    place = [next(seen[row.source, row.label]) for row in ordered]  # of each image in its source
    ranked = [ordered[i] for i in np.argsort(place, kind="stable")]
    real, fake = ([row for row in ranked if row.label == label] for label in ("real", "fake"))
    return [row for pair in zip(real, fake, strict=False) for row in pair][:count]


def faithfulness(
    model: ModelFile, data: DataSet, rows: Sequence[ImageRow], seed: int = 0
) -> tuple[dict[str, Floats], list[ImageRow]]:
    """The areas (n, 2), as `areas_of` gives them, of each of `MAPS` on images of faces, and the images that have one.

    Raises DataError where an image cannot be read, or none has a face.
    """
    find, rng = finder(), np.random.default_rng(seed)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in MAPS}
    used = []
    for row in tracked(rows, len(rows), "heat maps"):
        pixels = cut_face(data.file(row), find, model.card.preprocess)
        if pixels is None:
            continue
        used.append(row)
        for name, areas in areas_of(model, pixels, rng).items():
            found[name].append(areas)
    if not used:
        raise DataError("no face was found in any image")
    return {name: np.array(areas) for name, areas in found.items()}, used


def areas_of(model: ModelFile, pixels: Pixels, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Deletion and insertion area of each of `MAPS` on one network input, in logits for the verdict.

    By the trapezoid rule, from the whole input to the blurred one and back.
    """
    seen = heatmap.run_inside(model, pixels)
    evidence, head = heatmap.evidence(model, pixels, seen), heatmap.head_of(seen[0])
    sign = 1.0 if evidence.side == "fake" else -1.0
    rows, columns = np.mgrid[:GRID, :GRID] - (GRID - 1) / 2
    maps = {
        "heat map": sign * _on_grid(evidence.values),
        "occlusion": sign * _on_grid(heatmap.occlusion(model, pixels, evidence.logit, head)),
        "random": rng.random((GRID, GRID)), "centre": -np.hypot(rows, columns),
    }  # fmt: skip
    blurred = heatmap.blurred(pixels)
    whole, none = evidence.logit, heatmap.logits(model, [blurred], head)[0]
    found = {}
    for name, values in maps.items():
        inputs = []
        for step in range(1, STEPS):
            mask = heatmap.strongest_of(values, len(pixels), step / STEPS)
            inputs += [np.where(mask, blurred, pixels), np.where(mask, pixels, blurred)]
        between = heatmap.logits(model, inputs, head)
        deletion = np.trapezoid([whole, *between[::2], none]) / STEPS
        insertion = np.trapezoid([none, *between[1::2], whole]) / STEPS
        found[name] = sign * float(deletion), sign * float(insertion)
    return found


def _on_grid(values: Floats) -> Floats:
    sized = Image.fromarray(np.asarray(values, np.float32)).resize((GRID, GRID), Image.Resampling.BICUBIC)
    return np.asarray(sized)


def table(areas: Mapping[str, Floats], seed: int = 0) -> list[dict[str, Any]]:
    """A row a map: mean areas, and by how much the heat map is better, with 95 % intervals over images."""
    ours = areas[MAPS[0]]
    n = len(ours)
    draws = np.random.default_rng(seed).integers(0, n, (DRAWS, n))
    rows = []
    for name, own in areas.items():
        deletion, insertion = (_mean(values, draws) for values in own.T)
        row: dict[str, Any] = {"map": name, "images": n, "deletion": deletion, "insertion": insertion}
        if name != MAPS[0]:
            less, more = (_mean(values, draws) for values in (ours - own).T)
            row |= {"heat map's deletion less": less, "heat map's insertion more": more}
        rows.append(row)
    return rows


def _mean(values: Floats, draws: npt.NDArray[np.int64]) -> str:
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return f"{values.mean():.2f} ({low:.2f} to {high:.2f})"
