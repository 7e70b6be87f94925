"""Where in a face the evidence lies, from the model file alone.

`patches`: where the network is an encoder of blocks of patches whose heads are linear in the patches' means, each patch
has an exact part of the logit, and no further run of the network is needed to know it.
`occlusion`: for other networks, one row and one column after another is blurred, and the change of the logit is read
(after Zeiler and Fergus, ECCV 2014, with six runs of the network instead of nine); a cell has the mean of its row and
its column. How faithful the maps are, `faceauth lab heatmap` measures (docs/explain.md).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from faceauth.explain.parallel import each
from faceauth.explain.records import HeatMap, Method, Region, Side
from faceauth.model_file import Calibration, Inside, ModelFile, Outputs

CELLS = 3  # rows, and columns, of occlusion
SMALLEST = 1e-3  # change of the logit of which shares are told
STRONGEST = 0.2  # of a map's cells that are blurred together, to see what they are worth
BLUR = 1 / 16  # of the input's side: radius of the blur that stands for a part without evidence
TOLERANCE = 1e-2  # of a change of the logit that the patch features have to make up, relative to 1 + its size
DIGITS = 3  # of a cell's value
Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where the evidence lies in a network input; see `HeatMap` for the rest.

    Attributes:
        values: (rows, columns) in logits, above 0 what speaks for fake; by patches they add up to the logit.
        embedding: (1, d) the model's.
    """

    method: Method
    values: Floats
    logit: float
    side: Side
    strongest: float
    placed: float | None
    embedding: npt.NDArray[np.float32]


def heat_map(found: Evidence, region: Region, turns: int, calibration: Calibration) -> HeatMap:
    """The evidence in a network input as it lies in the image.

    Args:
        region: what the input shows, in pixels of the image; turns: quarter turns that set it upright.
        calibration: the model's, from logits to P(fake).
    """
    values = np.rot90(found.values / max(float(np.abs(found.values).max()), 1e-9), -turns)
    rows = tuple(tuple(round(float(v), DIGITS) for v in row) for row in values)
    score, without = (round(float(p), 4) for p in calibration(np.array([found.logit, found.logit - found.strongest])))
    return HeatMap(
        found.method, region, rows, round(found.logit, 4), found.side, found.placed, round(found.strongest, 4),
        score, without,
    )  # fmt: skip


def run_inside(model: ModelFile, pixels: Pixels) -> tuple[Outputs, Inside | None]:
    """What the network says of a network input, and what it makes of it on the way where that can be followed."""
    normal = model.card.preprocess.normalize(pixels[None])
    inside = model.inside(normal)
    return inside.outputs if inside else model.run(normal), inside


def evidence(model: ModelFile, pixels: Pixels, seen: tuple[Outputs, Inside | None] | None = None) -> Evidence:
    """Where the evidence lies in a network input. `seen`: what `run_inside` gives of it."""
    outputs, inside = seen or run_inside(model, pixels)
    logit, head, without = float(outputs.logit[0]), head_of(outputs), blurred(pixels)
    side: Side = "fake" if for_fake(model, logit) else "real"

    def weakened(values: Floats) -> tuple[Outputs, Inside | None]:
        """What the network says without what speaks most for `side`."""
        strongest = strongest_of(values if side == "fake" else -values, len(pixels))
        return run_inside(model, np.where(strongest, without, pixels))

    if inside and head is not None and (by_patch := _by_patch(inside, head)) is not None:
        changed = weakened(by_patch)[1]
        if changed and (change := _change(inside, changed, head)) is not None:
            fall = float(change.sum())
            return Evidence("patches", by_patch, logit, side, fall, _placed(change), outputs.embedding)
    by_cell = occlusion(model, pixels, logit, head)
    fall = logit - _read(weakened(by_cell)[0], head)
    return Evidence("occlusion", by_cell, logit, side, fall, None, outputs.embedding)


def head_of(outputs: Outputs) -> int | None:
    """Which of the two heads of a model the logit of one face is; None where it has but one.

    A changed picture may pass by the other head: what is read of it is this head's logit all the same.
    """
    return None if outputs.parts is None else int(np.abs(outputs.parts[0] - outputs.logit[0]).argmin())


def _read(outputs: Outputs, head: int | None) -> float:
    return float(outputs.logit[0] if head is None or outputs.parts is None else outputs.parts[0, head])


def for_fake(model: ModelFile, logit: float) -> bool:
    """Whether a face of this logit is more likely fake than real, by the model's calibration."""
    return float(model.card.calibration(np.array([logit]))[0]) >= 0.5


def strongest_of(values: Floats, size: int, share: float = STRONGEST) -> npt.NDArray[np.bool_]:
    """(size, size, 1) where the `share` of the cells of `values` (rows, columns) with the largest values lies."""
    chosen = np.zeros(values.size, bool)
    chosen[np.argsort(-values.ravel(), kind="stable")[: max(1, round(values.size * share))]] = True
    sized = Image.fromarray(chosen.reshape(values.shape)).resize((size, size), Image.Resampling.NEAREST)
    return np.asarray(sized)[..., None]


def blurred(pixels: Pixels) -> Pixels:
    """A network input (size, size, 3) with little left to see on it."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(BLUR * len(pixels))))


def occlusion(model: ModelFile, pixels: Pixels, logit: float, head: int | None) -> Floats:
    """(CELLS, CELLS) by how much the logit of a head falls where a cell's row is blurred, or its column: their mean."""
    without = blurred(pixels)
    edges = np.linspace(0, len(pixels), CELLS + 1).round().astype(int)
    strips = [slice(start, end) for start, end in pairwise(edges)]
    inputs = []
    for part in (*((rows, slice(None)) for rows in strips), *((slice(None), columns) for columns in strips)):
        one = pixels.copy()
        one[part] = without[part]
        inputs.append(one)
    falls = logit - np.array(logits(model, inputs, head))
    return np.asarray((falls[:CELLS, None] + falls[None, CELLS:]) / 2)


def logits(model: ModelFile, inputs: list[Pixels], head: int | None) -> list[float]:
    """The logit of each network input, by a head (see `head_of`)."""
    spec = model.card.preprocess
    return each(lambda pixels: _read(model.run(spec.normalize(pixels[None])), head), inputs)


def _by_patch(inside: Inside, head: int) -> Floats | None:
    """(side, side) each patch's part of the logit; None where the patches are no square.

    The heads take of each block the class token c, and mean m and standard deviation s of the N patches x:
    logit = sum over blocks (w_c c + w_m m + w_s s) + bias. By the means a patch has the part w_m x / N, exactly. What
    the rest makes has no place, and is spread over all patches alike.
    """
    patches = inside.tokens.shape[1] - 1
    side = round(patches**0.5)
    if side < 2 or side**2 != patches:
        return None
    parts = np.einsum("bpw,bw->p", inside.tokens[:, 1:], _weight(inside, head)[:, 1]) / patches
    parts += (float(inside.outputs.logit[0]) - parts.sum()) / patches
    return np.asarray(parts.reshape(side, side))


def _change(inside: Inside, changed: Inside, head: int) -> Floats | None:
    """(3,) the change of a head's logit between two inputs by each statistic; None where these do not make it up."""
    change = _by_statistic(inside, head) - _by_statistic(changed, head)
    expected = float(inside.parts[head] - changed.parts[head])
    return change if abs(change.sum() - expected) <= TOLERANCE * (1 + abs(expected)) else None


def _placed(change: Floats) -> float | None:
    """The share of the patches' means, which have a place, in a change (3,); None where next to nothing changed."""
    whole = float(np.abs(change).sum())
    return round(float(abs(change[1])) / whole, 3) if whole > SMALLEST else None


def _weight(inside: Inside, head: int) -> Floats:
    """(blocks, 3, width)."""
    return np.asarray(inside.weight[..., head], np.float64)


def _by_statistic(inside: Inside, head: int) -> Floats:
    """(3,) the parts of the logit, over all blocks, by class token, patch mean and patch standard deviation."""
    tokens = np.asarray(inside.tokens, np.float64)
    patches = tokens[:, 1:]
    features = np.stack([tokens[:, 0], patches.mean(axis=1), patches.std(axis=1, ddof=1)], axis=1)
    return np.asarray(np.einsum("bsw,bsw->s", features, _weight(inside, head)))
