"""Where in a face the evidence lies, from the model file alone.

`occlusion`: one row and one column after another is blurred, and the change of the logit is read (after Zeiler and
Fergus, ECCV 2014, with six runs of the network instead of nine); a cell has the mean of its row and its column.
`patches and occlusion`: where the network is an encoder of blocks of patches whose heads are linear in the patches'
means, each patch's part of the logit is added to that with the weight `PATCHES`. How faithful the map is, and
occlusion alone, `faceauth lab heatmap` measures (docs/explain.md).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from faceauth.explain.parallel import each
from faceauth.explain.records import HeatMap, Method, Region
from faceauth.model_file import Inside, ModelFile, Outputs

CELLS = 3  # rows, and columns, of occlusion
BLUR = 1 / 16  # of the input's side: radius of the blur that stands for a part without evidence
TOLERANCE = 1e-2  # of a change of the logit that the patch features have to make up, relative to 1 + its size
PATCHES = 0.3  # weight of the patches' parts beside the occlusion, both over their standard deviation
DIGITS = 3  # of a cell's value
Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where the evidence lies in a network input; see `HeatMap` for the rest.

    Attributes:
        values: (rows, columns) in any unit; occluded: (CELLS, CELLS) in logits, see `occlusion`.
        embedding: (1, d) the model's.
    """

    method: Method
    values: Floats
    occluded: Floats
    logit: float
    placed: float | None
    embedding: npt.NDArray[np.float32]


def heat_map(found: Evidence, region: Region, turns: int) -> HeatMap:
    """The evidence in a network input as it lies in the image.

    Args:
        region: what the input shows, in pixels of the image; turns: quarter turns that set it upright.
    """
    values = np.rot90(found.values / max(float(np.abs(found.values).max()), 1e-9), -turns)
    strongest = round(float(np.abs(found.occluded).max()), 4)
    rows = tuple(tuple(round(float(v), DIGITS) for v in row) for row in values)
    return HeatMap(found.method, region, rows, round(found.logit, 4), found.placed, strongest)


def run_inside(model: ModelFile, pixels: Pixels) -> tuple[Outputs, Inside | None]:
    """What the network says of a network input, and what it makes of it on the way where that can be followed."""
    normal = model.card.preprocess.normalize(pixels[None])
    inside = model.inside(normal)
    return inside.outputs if inside else model.run(normal), inside


def evidence(model: ModelFile, pixels: Pixels, seen: tuple[Outputs, Inside | None] | None = None) -> Evidence:
    """Where the evidence lies in a network input: above 0 what speaks for fake. `seen`: what `run_inside` gives."""
    outputs, inside = seen or run_inside(model, pixels)
    without = run_inside(model, blurred(pixels))[1] if inside else None
    followed = _followed(inside, without) if inside and without else None
    logit, embedding = float(outputs.logit[0]), outputs.embedding
    occluded = occlusion(model, pixels, logit)
    if followed is None:
        return Evidence("occlusion", occluded, occluded, logit, None, embedding)
    parts, placed = followed
    coarse = Image.fromarray(occluded.astype(np.float32)).resize(parts.shape, Image.Resampling.BICUBIC)
    both = _one_scale(np.asarray(coarse)) + PATCHES * _one_scale(parts - parts.mean())
    return Evidence("patches and occlusion", both, occluded, logit, round(placed, 3), embedding)


def blurred(pixels: Pixels) -> Pixels:
    """A network input (size, size, 3) with little left to see on it."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(BLUR * len(pixels))))


def occlusion(model: ModelFile, pixels: Pixels, logit: float, cells: int = CELLS) -> Floats:
    """(cells, cells) by how much the logit falls where a cell's row is blurred, or its column: their mean."""
    without = blurred(pixels)
    edges = np.linspace(0, len(pixels), cells + 1).round().astype(int)
    strips = [slice(start, end) for start, end in pairwise(edges)]
    inputs = []
    for part in (*((rows, slice(None)) for rows in strips), *((slice(None), columns) for columns in strips)):
        one = pixels.copy()
        one[part] = without[part]
        inputs.append(one)
    falls = logit - np.array(logits(model, inputs))
    return np.asarray((falls[:cells, None] + falls[None, cells:]) / 2)


def logits(model: ModelFile, inputs: list[Pixels]) -> list[float]:
    """The model's logit of each network input."""
    spec = model.card.preprocess
    return each(lambda pixels: float(model.run(spec.normalize(pixels[None])).logit[0]), inputs)


def _followed(inside: Inside, without: Inside) -> tuple[Floats, float] | None:
    """(side, side) each patch's part of the logit by the patch means, and the share of the evidence with a place.

    The heads take of each block the class token c, and mean m and standard deviation s of the N patches x:
    logit = sum over blocks (w_c c + w_m m + w_s s) + bias. By the means a patch has the part w_m x / N, exactly. The
    evidence is the change against the blurred input; that by the class tokens has no place.

    Returns:
        None where the tokens do not make up that change, or the patches are no square.
    """
    side = round((inside.tokens.shape[1] - 1) ** 0.5)
    if side < 2 or side**2 != inside.tokens.shape[1] - 1:
        return None
    parts, without_parts = inside.outputs.parts, without.outputs.parts
    if parts is None or without_parts is None:
        return None
    which = int(np.abs(parts[0] - inside.outputs.logit[0]).argmin())
    weight = np.asarray(inside.weight[..., which], np.float64)
    change = _by_statistic(inside, weight) - _by_statistic(without, weight)
    expected = float(parts[0, which] - without_parts[0, which])
    if abs(change.sum() - expected) > TOLERANCE * (1 + abs(expected)):
        return None
    of_patch = np.einsum("bpw,bw->p", inside.tokens[:, 1:], weight[:, 1]) / side**2
    of_class, of_patches = abs(change[0]), abs(change[1:].sum())
    return of_patch.reshape(side, side), float(of_patches / max(of_class + of_patches, 1e-9))


def _by_statistic(inside: Inside, weight: Floats) -> Floats:
    """(3,) the parts of the logit, over all blocks, by class token, patch mean and patch standard deviation."""
    tokens = np.asarray(inside.tokens, np.float64)
    patches = tokens[:, 1:]
    features = np.stack([tokens[:, 0], patches.mean(axis=1), patches.std(axis=1, ddof=1)], axis=1)
    return np.asarray(np.einsum("bsw,bsw->s", features, weight))


def _one_scale(values: Floats) -> Floats:
    """The values over their standard deviation, so that 0 stays 0; as they are where they are all the same."""
    return np.asarray(values / (float(values.std()) or 1.0))
