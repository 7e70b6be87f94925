"""Who is trained on, who decides, who judges: train, test and dev, and the sources held out together.

A split is a function of the seed and of what ties images, not of their order: groups and near-duplicates
(same 64-bit dHash) stay on one side. It knows nothing of pixels or networks.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from faceauth.errors import DataError
from faceauth.lab.data.sources import Record

SPLITS = ("train", "test", "dev")
FRACTIONS = (0.65, 0.15, 0.2)


def split(
    records: Sequence[Record],
    dhashes: Sequence[int],
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    whole: Collection[str] = (),
) -> list[str]:
    """The split of every record, in order.

    Args:
        dhashes: 64-bit difference hash of each image.
        fractions: shares of train, test and dev; they sum to 1. Counts follow them as a draw does.
        whole: sources whose images are too much alike to be parted: they, and what is tied to them, are train.
    """
    leaders = _components(records, dhashes)
    kept = {leader for leader, record in zip(leaders, records, strict=True) if record.source in whole}
    return ["train" if leader in kept else _draw(f"{seed}:{records[leader].sha256}", fractions) for leader in leaders]


def apportion(
    records: Sequence[Record],
    dhashes: Sequence[int],
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
) -> list[str]:
    """The split of every record, in order, with counts in every source as near to `fractions` as ties allow.

    What is tied goes to one side, the largest ties first, each to the side that its sources lack most; single
    images then fill what is left. Without ties every count is exact to the image.

    Args:
        dhashes: 64-bit difference hash of each image.
        fractions: shares of train, test and dev; they sum to 1.
    """
    leaders = _components(records, dhashes)
    members: dict[int, Counter[str]] = {}
    for record, leader in zip(records, leaders, strict=True):
        members.setdefault(leader, Counter())[record.source] += 1
    wanted = {s: _shares(n, fractions) for s, n in Counter(r.source for r in records).items()}
    lacking = {source: list(shares) for source, shares in wanted.items()}
    side: dict[int, int] = {}
    for leader in sorted(members, key=lambda k: (-members[k].total(), _hash(f"{seed}:{records[k].sha256}"))):
        side[leader] = best = _neediest(members[leader], lacking, wanted)
        for source, count in members[leader].items():
            lacking[source][best] -= count
    return [SPLITS[side[leader]] for leader in leaders]


def _shares(count: int, fractions: Sequence[float]) -> list[int]:
    """Whole numbers that sum to `count`, by largest remainder."""
    exact = [count * f for f in fractions]
    whole = [int(e + 1e-9) for e in exact]
    for k in sorted(range(len(exact)), key=lambda k: whole[k] - exact[k])[: count - sum(whole)]:
        whole[k] += 1
    return whole


def _neediest(tied: Mapping[str, int], lacking: Mapping[str, list[int]], wanted: Mapping[str, list[int]]) -> int:
    def need(k: int) -> float:
        return sum(n * lacking[s][k] / wanted[s][k] if wanted[s][k] else -n for s, n in sorted(tied.items()))

    return max(range(len(SPLITS)), key=need)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _draw(key: str, fractions: Sequence[float]) -> str:
    position = int(_hash(key)[:12], 16) / 16**12
    for name, share in zip(SPLITS, fractions, strict=True):
        position -= share
        if position < 0:
            return name
    return SPLITS[-1]


def _components(records: Sequence[Record], dhashes: Sequence[int]) -> list[int]:
    """For each record the index that leads its component, the one with the smallest SHA-256."""
    parent = list(range(len(records)))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    seen: dict[tuple[str, str | int], int] = {}
    for i, record in enumerate(records):
        ties: list[tuple[str, str | int]] = [("dhash", dhashes[i]), ("sha256", record.sha256)]
        if record.group:
            ties.append(("group", record.group))
        for tie in ties:
            a, b = find(seen.setdefault(tie, i)), find(i)
            if a != b:
                low, high = sorted((a, b), key=lambda k: (records[k].sha256, k))
                parent[high] = low
    return [find(i) for i in range(len(records))]


def check_folds(folds: Sequence[Collection[str]], sources: Collection[str]) -> None:
    """Every source is held out exactly once, each fold holds out both classes' names we know. Raises DataError."""
    held = [source for fold in folds for source in fold]
    unknown, missing = sorted(set(held) - set(sources)), sorted(set(sources) - set(held))
    if unknown or missing or len(held) != len(set(held)):
        twice = sorted({s for s in held if held.count(s) > 1})
        raise DataError(
            f"the folds do not hold out every source once: unknown {unknown}, missing {missing}, twice {twice}",
            "mend data.folds in the config",
        )
