"""Near-duplicates: proposed by difference hash without comparing every two, decided by small copies."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

NEAR = 3  # bits of 64 by which the difference hashes (`loading.dhash`) of near-duplicates differ at most
_BANDS = 4  # of 16 bits: two hashes that differ in 3 bits agree in at least one of four bands (Norouzi et al., 2012)
_BLOCK = 2048  # hashes compared at once
_SIDE = 16  # cells across and down of a small copy
_MOST = 8  # grey levels by which a cell of one channel may differ; saving again seldom moves it farther


def near_pairs(dhashes: Sequence[int], bits: int = NEAR) -> Iterator[tuple[int, int]]:
    """Pairs of indices that join all hashes within `bits` of each other, found by multi-index hashing.

    Hashes within 3 bits agree exactly in one of four bands of 16 bits, so only those that share a band are compared.
    Of hashes that are equal each is paired with the first alone: as ties, the pairs say the same as all pairs do.

    Raises:
        ValueError: more bits than the bands can find.
    """
    if bits >= _BANDS:
        raise ValueError(f"{_BANDS} bands find hashes within {_BANDS - 1} bits, not {bits}")
    values, first, inverse = np.unique(np.asarray(dhashes, np.uint64), return_index=True, return_inverse=True)
    for i, which in enumerate(inverse):
        if first[which] != i:
            yield int(first[which]), i
    for band in range(_BANDS):
        key = (values >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        order = np.argsort(key, kind="stable")
        for bucket in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
            yield from ((int(first[a]), int(first[b])) for a, b in _within(values, bucket, bits))


def small_copy(image: Image.Image) -> npt.NDArray[np.uint8]:
    """(16, 16, 3) of an RGB image, for `alike`."""
    return np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR), np.uint8)


def alike(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> bool:
    """Whether two small copies are of the same picture, at whatever size: whether every cell agrees."""
    return bool(np.abs(one.astype(np.int16) - other).max() <= _MOST)


def _within(values: npt.NDArray[np.uint64], bucket: npt.NDArray[np.intp], bits: int) -> Iterator[tuple[int, int]]:
    """Pairs of a bucket whose values differ by at most `bits`, compared block by block."""
    for start in range(0, len(bucket) - 1, _BLOCK):
        block = bucket[start : start + _BLOCK]
        for later in range(start, len(bucket), _BLOCK):
            other = bucket[later : later + _BLOCK]
            near = np.bitwise_count(values[block, None] ^ values[None, other]) <= bits
            for a, b in zip(*np.nonzero(near), strict=True):
                if block[a] != other[b]:
                    yield int(block[a]), int(other[b])
