"""Whether a JPEG was saved as a JPEG before, more coarsely and on the same grid: the gaps in its coefficients.

A coefficient that was rounded to multiples of a coarse step q1, and then of a finer q2, takes only some multiples of
q2: its histogram has gaps and peaks of the period q1 / q2 (Popescu and Farid, Statistical tools for digital forensics,
2004).
For every quality of the standard tables that may have come first, the histograms are compared with two models, one of a
single saving and one of both. Both have the same envelope, fitted to the histogram (a mixture of Laplacians, after Lam
and Goodman, IEEE TIP 9, 2000), so that only the gaps tell them apart.

What it cannot see: a first saving that was finer than the last, with other than the standard tables, on another grid
(after cropping), at another size, or of a picture that was changed much. No gaps therefore prove nothing.
"""

import io
import math
import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from faceauth.provenance.jpeg import standard

Floats = NDArray[np.float64]

MOST_PIXELS = 1 << 26  # of a larger picture nothing is measured
MOST_BLOCKS = 1 << 15  # blocks of 8 x 8 pixels that are looked at, evenly spread
FEWEST = 500  # coefficients without which nothing is said
HIGHEST = 30  # multiples of a step that are counted
# Nats a coefficient by which two savings must fit better than one; how rarely it is passed by one: docs/provenance.md.
ENOUGH = 0.1
_FREQUENCIES = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1), (0, 3), (3, 0), (2, 2), (1, 3), (3, 1))
_ROUNDING = 0.4  # scale (of a logistic distribution) of what rounding pixels to whole numbers does to a coefficient
_OTHERWISE = 0.03  # share of coefficients that a picture's changes moved out of the gaps


def first_quality(data: bytes) -> tuple[int, float] | None:
    """The quality of an earlier, coarser saving, and how much better it fits than none, in nats a coefficient.

    None where no earlier saving is found, or nothing can be measured.
    """
    measured = _coefficients(data)
    if measured is None:
        return None
    coefficients, table = measured
    counted = {f: h for f in _FREQUENCIES if (h := _histogram(coefficients[:, *f], int(table[f])))}
    found = [(_gain(counted, q), q) for q in range(30, 100)]
    gain, quality = max(found)
    return (quality, gain) if gain >= ENOUGH else None


def _coefficients(data: bytes) -> tuple[Floats, NDArray[np.int64]] | None:
    """Cosine coefficients (N, 8, 8) of blocks of the luminance, and its quantisation table (8, 8)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=["JPEG", "MPO"]) as image:
                steps = getattr(image, "quantization", {}).get(0, ())
                small = image.width * image.height <= MOST_PIXELS
                if len(steps) != 64 or not small or image.mode not in {"L", "RGB"} or not min(image.size) >= 64:
                    return None
                image.draft("L", image.size)
                grey = np.asarray(image if image.mode == "L" else image.convert("L"), np.uint8)
    except Exception:  # what does not decode cannot be measured; that it does not is said where it is judged
        return None
    height, width = (side // 8 for side in grey.shape)
    blocks = grey[: height * 8, : width * 8].reshape(height, 8, width, 8).swapaxes(1, 2).reshape(-1, 8, 8)
    blocks = blocks[:: -(-len(blocks) // MOST_BLOCKS)]
    cosine = _cosine()
    return cosine @ (blocks - 128.0) @ cosine.T, np.array(steps, np.int64).reshape(8, 8)


def _cosine() -> Floats:
    """The orthonormal cosine transform of 8 values, (8, 8)."""
    k = np.arange(8)
    matrix = np.cos((2 * k[None, :] + 1) * k[:, None] * np.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


class _Counted(NamedTuple):
    """One frequency's histogram: its step, counts (HIGHEST,) of the absolute multiples 1, 2, ..., and its envelope.

    The envelope is a mixture of Laplacians: `scales` (C,) and `heights` (C,), of densities heights * exp(-x / scales).
    """

    step: int
    counts: Floats
    scales: Floats
    heights: Floats


def _histogram(values: Floats, step: int) -> _Counted | None:
    """The histogram of one frequency's coefficients (N,); None where there are too few, or the step is too fine."""
    if step < 2:  # rounding to pixels has closed the gaps of so fine a step
        return None
    multiples = np.abs(np.rint(values / step)).astype(np.int64)
    counts = np.bincount(multiples[(multiples > 0) & (multiples <= HIGHEST)], minlength=HIGHEST + 1)[1:]
    if counts.sum() < FEWEST / 5:
        return None
    mean = float(counts @ np.arange(1, HIGHEST + 1)) / float(counts.sum()) * step
    scales = mean * np.array([0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
    edges = (np.arange(1, HIGHEST + 2) - 0.5) * step
    shares = -np.diff(np.exp(-edges / scales[:, None]), axis=1) + 1e-300
    whole = shares.sum(1)
    weights = np.full(len(scales), 1 / len(scales))
    for _ in range(60):  # expectation and maximisation
        parts = weights[:, None] * shares / whole[:, None]
        weights = (parts / (parts.sum(0) + 1e-300)) @ counts / counts.sum()
    return _Counted(step, counts.astype(np.float64), scales, weights / whole)


def _gain(counted: dict[tuple[int, int], _Counted], quality: int) -> float:
    """By how much an earlier saving at a quality fits better than none, in nats a coefficient; at worst -inf."""
    table = standard(quality)
    total, number, used = 0.0, 0.0, 0
    for (u, v), histogram in counted.items():
        before = table[8 * u + v]
        if histogram.step < before <= 6 * histogram.step:
            once, twice = _models(histogram, before)
            total += float(histogram.counts @ (np.log(twice) - np.log(once)))
            number += float(histogram.counts.sum())
            used += 1
    return total / number if used >= 3 and number >= FEWEST else -math.inf


def _models(histogram: _Counted, before: int) -> tuple[Floats, Floats]:
    """Shares (HIGHEST,) of the multiples of a step, saved once, and saved with the step `before` and then this one."""
    step, _, scales, heights = histogram
    edges = (np.arange(1, HIGHEST + 2) - 0.5) * step
    once = heights @ -np.diff(np.exp(-edges / scales[:, None]), axis=1) + 1e-12
    ends = (np.arange(1, HIGHEST * step // before + 3) - 0.5) * before
    weights = heights @ -np.diff(np.exp(-ends / scales[:, None]), axis=1)
    middles = (ends[1:] + ends[:-1]) / 2
    apart = np.clip((edges[:, None] - middles) / _ROUNDING, -30, 30)
    twice = np.diff(1 / (1 + np.exp(-apart)), axis=0) @ weights + 1e-12
    once /= once.sum()
    return once, (1 - _OTHERWISE) * twice / twice.sum() + _OTHERWISE * once
