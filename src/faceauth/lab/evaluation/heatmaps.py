"""How faithful heat maps are: deletion and insertion (Petsiuk et al., BMVC 2018) against chance and a centre prior.

The patches that a map calls strongest are blurred first (deletion), or are the first that are not blurred (insertion).
Read is the logit of the head that gave the verdict, turned so that the verdict on the whole face is above 0. A faithful
map makes it fall early and rise early: a small area under the first curve, a large one under the second.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from faceauth import images
from faceauth.errors import DataError, ImageError
from faceauth.explain import heatmap
from faceauth.faces import finder
from faceauth.lab.data.dataset import DataSet, ImageRow
from faceauth.lab.progress import tracked
from faceauth.model_file import ModelFile

Floats = npt.NDArray[np.floating[Any]]
Pixels = npt.NDArray[np.uint8]
GRID = 14  # patches a side that are blurred
STEPS = 5  # of a curve: a fifth of the patches each
DRAWS = 2000
MAPS = ("heat map", "occlusion", "random", "centre")


@dataclass(frozen=True, slots=True)
class Areas:
    """Areas under the curves of one map on each image, in logits: (n,) each."""

    deletion: Floats
    insertion: Floats


def choose(rows: Sequence[ImageRow], count: int) -> list[ImageRow]:
    """Images of the test split, photographs and fakes in turn, one of each source before a second of any, by hash."""
    chosen: dict[str, list[ImageRow]] = {}
    for label in ("real", "fake"):
        seen: Counter[str] = Counter()
        ranked = []
        for row in sorted((r for r in rows if r.split == "test" and r.label == label), key=lambda r: _order(r.sha256)):
            ranked.append((seen[row.source], _order(row.sha256), row))
            seen[row.source] += 1
        chosen[label] = [row for _, _, row in sorted(ranked, key=lambda r: r[:2])]
    real, fake = chosen["real"], chosen["fake"]
    return [row for pair in zip(real, fake, strict=False) for row in pair][:count]


def _order(sha256: str) -> str:
    return hashlib.sha256(sha256.encode()).hexdigest()


def faithfulness(
    model: ModelFile, data: DataSet, rows: Sequence[ImageRow], seed: int = 0
) -> tuple[dict[str, Areas], list[ImageRow]]:
    """The areas of each of `MAPS` on images of faces, and the images that have one.

    Raises:
        DataError: an image cannot be read, or none has a face.
    """
    find, rng = finder(), np.random.default_rng(seed)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in MAPS}
    used = []
    for row in tracked(rows, len(rows), "heat maps"):
        try:
            image = images.load(str(data.file(row))).image
        except ImageError as error:
            raise DataError(f"{data.file(row)}: {error}", "is the data set complete?") from error
        if not (faces := find(image)):
            continue
        used.append(row)
        pixels = model.card.preprocess.cut(image, faces[0])
        for name, areas in areas_of(model, pixels, rng).items():
            found[name].append(areas)
    if not used:
        raise DataError("no face was found in any image")
    return {name: Areas(*np.array(areas).T) for name, areas in found.items()}, used


def areas_of(model: ModelFile, pixels: Pixels, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Deletion and insertion area of each of `MAPS` on one network input, in logits for the verdict."""
    seen = heatmap.run_inside(model, pixels)
    evidence, head = heatmap.evidence(model, pixels, seen), heatmap.head_of(seen[0])
    sign = 1.0 if evidence.side == "fake" else -1.0
    rows, columns = np.mgrid[:GRID, :GRID] - (GRID - 1) / 2
    maps = {
        "heat map": sign * _on_grid(evidence.values),
        "occlusion": sign * _on_grid(heatmap.occlusion(model, pixels, evidence.logit, head)),
        "random": rng.random((GRID, GRID)), "centre": -np.hypot(rows, columns),
    }  # fmt: skip
    without = heatmap.blurred(pixels)
    ends = sign * evidence.logit, sign * heatmap.logits(model, [without], head)[0]

    def run(inputs: list[Pixels]) -> list[float]:
        return [sign * logit for logit in heatmap.logits(model, inputs, head)]

    return {name: _areas(run, pixels, without, values, ends) for name, values in maps.items()}


def _areas(
    run: Callable[[list[Pixels]], list[float]], pixels: Pixels, without: Pixels, values: Floats,
    ends: tuple[float, float],
) -> tuple[float, float]:  # fmt: skip
    """Areas by the trapezoid rule, from the whole input to the blurred one and back; `ends` are the logits of both."""
    inputs = []
    for step in range(1, STEPS):
        mask = heatmap.strongest_of(values, len(pixels), step / STEPS)
        inputs += [np.where(mask, without, pixels), np.where(mask, pixels, without)]
    between = run(inputs)
    deletion = np.trapezoid([ends[0], *between[::2], ends[1]]) / STEPS
    insertion = np.trapezoid([ends[1], *between[1::2], ends[0]]) / STEPS
    return float(deletion), float(insertion)


def _on_grid(values: Floats) -> Floats:
    sized = Image.fromarray(np.asarray(values, np.float32)).resize((GRID, GRID), Image.Resampling.BICUBIC)
    return np.asarray(sized)


def table(areas: Mapping[str, Areas], seed: int = 0) -> list[dict[str, Any]]:
    """A row a map: mean areas, and by how much the heat map is better, with 95 % intervals over images."""
    ours = areas[MAPS[0]]
    n = len(ours.deletion)
    draws = np.random.default_rng(seed).integers(0, n, (DRAWS, n))
    rows = []
    for name, own in areas.items():
        row: dict[str, Any] = {"map": name, "images": n, "deletion": _mean(own.deletion, draws),
                               "insertion": _mean(own.insertion, draws)}  # fmt: skip
        if name != MAPS[0]:
            row["heat map's deletion less"] = _mean(ours.deletion - own.deletion, draws)
            row["heat map's insertion more"] = _mean(ours.insertion - own.insertion, draws)
        rows.append(row)
    return rows


def _mean(values: Floats, draws: npt.NDArray[np.int64]) -> str:
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return f"{values.mean():.2f} ({low:.2f} to {high:.2f})"
