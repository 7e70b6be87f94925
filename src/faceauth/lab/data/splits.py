"""Splits (train, test, dev) and folds (which kinds, or which sources, are held out together).

Both are functions of the rows and of a seed, not of the order of the rows. Images that belong together - one group, one
file, near-duplicates - form a component and stay on one side of a split; kinds, or sources, that share many components
stay in one fold.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from faceauth.errors import DataError
from faceauth.images import near_pairs
from faceauth.lab.data.dataset import SPLITS, ImageRow

FRACTIONS = (0.70, 0.12, 0.18)
FOLDS = 6
DEALS = ("kind", "source")  # what is held out whole: by kind with all relatives, by source without them
ALTERED = ("swap", "restored")  # families of fakes that are photographs of somebody: no part of the generated class
_DEALS = 256  # deals that are drawn; the most even one counts
_JOINED = 0.1  # share of a kind's images tied to another kind from which on the two count as one


def shares(fractions: tuple[float, float, float]) -> tuple[float, float, float]:
    """Shares of train, test and dev, as given. Raises ValueError unless none is negative and they sum to 1."""
    if not (min(fractions) >= 0 and abs(sum(fractions) - 1) <= 1e-6):
        raise ValueError(f"shares of train, test and dev are not negative and sum to 1, not {list(fractions)}")
    return fractions


def tie(rows: Sequence[ImageRow], dhashes: Sequence[int]) -> list[int]:
    """The component of every row, in order, as the index of its member with the smallest SHA-256.

    Rows are tied by one group, one SHA-256 (if not empty), and dHashes within `images.NEAR` bits, directly or through
    others.

    Args:
        dhashes: 64-bit difference hash of each image; none for no near-duplicates.
    """
    sets = _DisjointSets(len(rows))
    first: dict[tuple[str, str], int] = {}
    for i, row in enumerate(rows):
        for name, value in (("sha256", row.sha256), ("group", row.group)):
            if value:
                sets.join(i, first.setdefault((name, value), i))
    for i, j in near_pairs(dhashes):
        sets.join(i, j)
    leader: dict[int, int] = {}
    for i in sorted(range(len(rows)), key=lambda i: (rows[i].sha256, i)):
        leader.setdefault(sets.root(i), i)
    return [leader[sets.root(i)] for i in range(len(rows))]


def check_given(rows: Sequence[ImageRow]) -> bool:
    """Whether the rows have splits already.

    Raises:
        DataError: some have one and some have not, or rows of one group or one SHA-256 lie in two splits.
    """
    without = sum(not row.split for row in rows)
    if without == len(rows):
        return False
    if without:
        raise DataError(
            f"{without:,} of {len(rows):,} rows have no split, the others have one",
            "give every row a split, or delete the column",
        )
    first: dict[tuple[str, str], str] = {}
    for row in rows:
        for name, value in (("group", row.group), ("sha256", row.sha256)):
            if value and (other := first.setdefault((name, value), row.split)) != row.split:
                raise DataError(
                    f"{name} {value!r} lies in two splits, {other} and {row.split}", "put all its rows into one"
                )
    return True


def given_or_assigned(
    rows: Sequence[ImageRow],
    components: Sequence[int],
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    train_only: Collection[str] = (),
) -> list[str]:
    """The split of every row, in order: the one that it has, or where none has one it is assigned.

    Counts in every source are then as near to `fractions` as components allow. A component goes to one side, the
    largest first, each to the side that its sources lack most; single images then fill what is left. Without ties every
    count is exact to the image. Raises as `check_given`.

    Args:
        components: of every row, as `tie` gives them.
        fractions: shares of train, test and dev; they sum to 1.
        train_only: sources that are too much alike to be parted: they, and what is tied to them, are train.
    """
    if check_given(rows):
        return [row.split for row in rows]
    members: dict[int, Counter[str]] = defaultdict(Counter)
    names: dict[int, str] = {}
    for row, component in zip(rows, components, strict=True):
        members[component][row.source] += 1
        names[component] = min(row.sha256, names.get(component, row.sha256))
    wanted = {s: _whole_numbers(n, fractions) for s, n in Counter(r.source for r in rows).items()}
    lacking = {source: list(shares) for source, shares in wanted.items()}
    side: dict[int, int] = {}
    for component in sorted(members, key=lambda k: (-members[k].total(), _hash(f"{seed}:{names[k]}"))):
        of = members[component]
        side[component] = best = 0 if any(s in train_only for s in of) else _neediest(of, lacking, wanted)
        for source, count in of.items():
            lacking[source][best] -= count
    return [SPLITS[side[component]] for component in components]


def deal(
    rows: Sequence[ImageRow], components: Sequence[int], seed: int = 0, folds: int = FOLDS, by: str = "kind"
) -> list[int]:
    """The fold (0 to folds - 1) of every row, in order: the fold whose models are fitted to nothing of that row's kind.

    Kinds are dealt whole. Those with real images are dealt by their real images, those without by their fake ones;
    swapped, restored and edited images go where their kind goes. A deal takes the kinds in an order drawn by the seed,
    each into the fold with the fewest images of its class so far; of `_DEALS` deals the most even one counts. Nothing
    else takes part. What may be fitted in a fold is `may_fit`. With `by` "source" all of this holds for sources, and
    others of a source's kind may stay in training; but a kind with swapped or restored images is dealt whole all the
    same, for they are made of its own photographs, and such images without any are dealt apart from generated ones.

    Two kinds count as one where components tie `_JOINED` of the smaller one's images to the other. Fewer may be
    chance: about one portrait in 500 has a dHash within 3 bits of a stranger's, and a single pair would chain most
    collections of aligned faces into one kind. `may_fit` keeps such a pair apart.

    Args:
        components: of every row, as `tie` gives them; by: one of `DEALS`.

    Raises:
        DataError: fewer kinds of real or of fake images than folds.
    """
    names = _dealt_names(rows, by)
    joined = _joined(names, components)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row, name in zip(rows, names, strict=True):
        altered = by == "source" and row.label == "fake" and row.family in ALTERED
        counts[joined[name]]["altered" if altered else row.label] += 1
    classes: dict[str, dict[str, int]] = {"real": {}, "fake": {}, "altered": {}, "edited": {}}
    for name, labels in counts.items():  # a kind belongs to the first class that it has images of
        label = next(label for label in classes if labels[label])
        classes[label][name] = labels[label]
    fold: dict[str, int] = {}
    for label, of_class in classes.items():
        if label in ("real", "fake") and len(of_class) < folds:
            raise DataError(
                f"{len(of_class)} {by}s of {label} images cannot be dealt into {folds} folds",
                "use fewer folds, or add sources",
            )
        fold |= _most_even(of_class, f"{seed}:{label}", folds)
    return [fold[joined[name]] for name in names]


def _dealt_names(rows: Sequence[ImageRow], by: str) -> list[str]:
    """What each row is dealt with: its kind, or its source where the deal is by source and no kind is to be whole."""
    if by == "kind":
        return [row.kind for row in rows]
    whole = {row.kind for row in rows if row.family in ALTERED}
    return [f"{row.kind}/" if row.kind in whole else row.source for row in rows]


def may_fit(components: Sequence[int], folds: Sequence[int], fold: int) -> list[bool]:
    """Whether the models of a fold may be fitted to each row: neither it nor what it is tied to is held out there."""
    held = {component for component, k in zip(components, folds, strict=True) if k == fold}
    return [component not in held for component in components]


def _joined(names: Sequence[str], components: Sequence[int]) -> dict[str, str]:
    """For every kind (or source), of each row in order, the first name of those that it counts as one with."""
    kinds = sorted(set(names))
    members: dict[int, Counter[str]] = defaultdict(Counter)
    for name, component in zip(names, components, strict=True):
        members[component][name] += 1
    tied: Counter[tuple[str, str]] = Counter()  # images of the first kind in a component with the second
    for of in members.values():
        tied.update({(a, b): of[a] for a in of for b in of if a != b})
    size = Counter(names)
    sets = _DisjointSets(len(kinds))
    for (a, b), count in tied.items():
        if size[a] <= size[b] and count >= _JOINED * size[a]:
            sets.join(kinds.index(a), kinds.index(b))
    return {kind: kinds[sets.root(n)] for n, kind in enumerate(kinds)}


def _most_even(sizes: Mapping[str, int], key: str, folds: int) -> dict[str, int]:
    """The fold of every block: the deal of the smallest sum of squares among `_DEALS`, the first of equal ones."""
    deals: list[tuple[int, dict[str, int]]] = []
    for number in range(_DEALS):
        held = [0] * folds
        blocks = [0] * folds
        fold: dict[str, int] = {}
        turn = sorted(range(folds), key=lambda k: _hash(f"{key}:{number}:fold {k}"))
        for block in sorted(sizes, key=lambda b: _hash(f"{key}:{number}:{b}")):
            # an empty fold first, so that each holds out at least one kind of the class
            fold[block] = k = min(turn, key=lambda k: (held[k], blocks[k] > 0))
            held[k] += sizes[block]
            blocks[k] += 1
        deals.append((sum(n * n for n in held), fold))
    return min(deals, key=lambda deal: deal[0])[1]


def check_folds(folds: Sequence[Collection[str]], sources: Collection[str]) -> None:
    """Folds written down by hand hold out every source exactly once. Raises DataError if they do not."""
    held = [source for fold in folds for source in fold]
    unknown, missing = sorted(set(held) - set(sources)), sorted(set(sources) - set(held))
    twice = sorted({s for s in held if held.count(s) > 1})
    if unknown or missing or twice:
        raise DataError(
            f"the folds do not hold out every source once: unknown {unknown}, missing {missing}, twice {twice}",
            "correct data.folds in the config",
        )


def _whole_numbers(count: int, fractions: Sequence[float]) -> list[int]:
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


class _DisjointSets:
    """Union-find over the numbers 0 to count - 1."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def join(self, i: int, j: int) -> None:
        a, b = self.root(i), self.root(j)
        self._parent[max(a, b)] = min(a, b)
