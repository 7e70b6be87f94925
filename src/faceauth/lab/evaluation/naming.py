"""Open-set attribution: how well known generators, unknown ones and taught ones are named.

Known generators are evaluated with the model itself; unknown and taught ones with the models trained without them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from faceauth.attribution import UNKNOWN, Answer, Attributor, Kind, Prototypes, Taught, novelty
from faceauth.errors import DataError
from faceauth.lab.evaluation import metrics
from faceauth.lab.evaluation.prototypes import (
    REFERENCE,
    Bools,
    Floats,
    LeftOut,
    Looked,
    evidence_of_unknown,
    fit,
    fit_unknown,
)
from faceauth.learning import estimate
from faceauth.model_file import OUTPUTS, Outputs

LESSON = 20  # pictures that a class is taught with
DRAWS = 3  # lessons a source, over which figures are averaged


@dataclass(frozen=True, slots=True)
class Named:
    """Images of a split, in one variant: the answers, and the truth."""

    answers: tuple[Answer, ...]
    scores: Floats
    generators: npt.NDArray[np.str_]
    families: npt.NDArray[np.str_]
    fake: Bools

    def right(self, kind: str, closed: bool) -> Bools:
        """(n,) whether the generator or family is named right; `closed`: given that the face is a known fake."""
        given = {"camera", "real", UNKNOWN} if closed else set()
        truth = getattr(self, kind)
        return np.array([_top(getattr(a, kind), given) == t for a, t in zip(self.answers, truth, strict=True)])

    def accuracy(self, kind: str, closed: bool) -> float:
        """Share of the fakes named right; NaN where there are none."""
        right = self.right(kind, closed)[self.fake]
        return float(right.mean()) if len(right) else float("nan")


def _top(shares: Sequence[tuple[str, float]], leaving_out: set[str]) -> str:
    return next(name for name, _ in shares if name not in leaving_out)


def rows_of(outputs: Outputs, rows: Bools | npt.NDArray[np.int64], variant: int) -> Outputs:
    """Plain outputs (n, ...) of some images in one variant."""
    return Outputs(*(getattr(outputs, name)[rows, variant] for name in OUTPUTS))


def name(
    attributor: Attributor, looked: Looked, model: int, rows: Bools | npt.NDArray[np.int64], variant: int
) -> Named:
    """What is answered for some images; scores are calibrated as the first model's are."""
    outputs = rows_of(looked.outputs[model], rows, variant)
    scores, answers = attributor(outputs.embedding, np.asarray(looked.cards[0].calibration(outputs.logit)))
    records = [looked.records[i] for i in np.arange(len(looked.records))[rows]]
    return Named(
        tuple(answers), scores, np.array([r.generator for r in records]), np.array([r.family for r in records]),
        np.array([r.fake for r in records]),
    )  # fmt: skip


def confusion(found: Prototypes, looked: Looked, split: str, variant: int) -> list[dict[str, int | str]]:
    """A row a true source with images, a column a source that is likeliest by density, of all, real and fake."""
    names = [k.name for k in found.kinds]
    table: list[dict[str, int | str]] = []
    for source in names:
        rows = looked.where(lambda r, s=source: r.source == s, split)  # type: ignore[misc]
        if not rows.any():
            continue
        points = found.place(looked.outputs[0].embedding[rows, variant])
        counts = Counter(found.densities(points)[:, :-1].argmax(axis=1).tolist())
        table.append({"true source": source, **{n: counts.get(i, 0) for i, n in enumerate(names)}})
    return table


def joins(found: Prototypes) -> list[tuple[str, str, float]]:
    """Prototypes joined step by step, nearest first: the two groups, and their distance in standard deviations.

    Average linkage; a group is named by its members.
    """
    from scipy.cluster.hierarchy import linkage

    groups = [k.name for k in found.kinds]
    steps = []
    for left, right, distance, _ in linkage(found.means, "average"):
        a, b = groups[int(left)], groups[int(right)]
        steps.append((a, b, float(distance)))
        groups.append(f"{a}, {b}")
    return steps


@dataclass(frozen=True, slots=True)
class Fold:
    """A model trained with sources held out: its place, prototypes without the evaluated images, sources held."""

    model: int
    prototypes: Prototypes
    held: tuple[str, ...]


def folds(found: Prototypes, looked: Looked) -> tuple[list[Fold], list[LeftOut]]:
    """The models with sources held out; what `unknown` means to each is fitted on the generators of the others."""
    left = evidence_of_unknown(found, looked)
    made = []
    for model in range(1, len(looked.cards)):
        unknown = fit_unknown([one for one in left if one.model != model])
        own = replace(fit(looked, model, looked.sources(model)), temperature=found.temperature, unknown=unknown)
        held = tuple(s for s in looked.sources(0) if s not in looked.sources(model))
        made.append(Fold(model, with_reference(own, looked, model), held))
    return made, left


def with_reference(found: Prototypes, looked: Looked, model: int) -> Prototypes:
    """The same with reference images: every second of test, which no later figure uses."""
    reference, which = [], []
    for row, kind in enumerate(found.kinds):
        chosen = np.flatnonzero(_of_reference(looked) & looked.where(lambda r, s=kind.name: r.source == s))  # type: ignore[misc]
        reference.append(found.place(looked.outputs[model].embedding[chosen[:REFERENCE], 0]))
        which += [row] * len(reference[-1])
    return replace(found, reference=np.concatenate(reference), reference_kind=np.array(which, np.int64))


def _of_reference(looked: Looked) -> Bools:
    test = looked.splits == "test"
    return np.asarray(test & (np.cumsum(test) % 2 == 0))


@dataclass(frozen=True, slots=True)
class UnknownResult:
    """One generator left out: AUROC of P(unknown) against known fakes, shares called unknown, what it is taken for."""

    generator: str
    variant: int
    images: int
    auroc: float
    said: float
    of_known: float
    taken_for: tuple[tuple[str, int], ...]


def novel(fold: Fold, left: LeftOut, looked: Looked, variant: int) -> UnknownResult:
    """Evaluate a model on a generator that it was trained without."""
    w = fold.prototypes.unknown
    rows = left.variant == variant
    odds = w.bias + w.slope * novelty(left.densities[rows], w.temperature)
    unknown = left.unknown[rows]
    found = float(metrics.auroc(odds, unknown))
    own = looked.where(lambda r: r.fake and r.generator == left.generator, "test")
    named = name(Attributor(fold.prototypes), looked, fold.model, own, variant)
    taken = Counter(_top(a.generators, {UNKNOWN, "camera"}) for a in named.answers).most_common(3)
    said, of_known = float((odds[unknown] > 0).mean()), float((odds[~unknown] > 0).mean())
    return UnknownResult(left.generator, variant, int(unknown.sum()), found, said, of_known, tuple(taken))


@dataclass(frozen=True, slots=True)
class TaughtResult:
    """A source left out and taught with a few images, the mean over lessons; pairs are before and after.

    Attributes:
        recall: share of its other images that are then named by the taught name; flagged: called fake.
        others: share of known test images, real and fake, that are named right; caught: of known fakes called fake;
            alarms: of known reals called fake; unseen: of held-out fakes of other generators called fake.
        refused: lessons that `learn` would have refused.
    """

    source: str
    fake: bool
    variant: int
    lesson: int
    images: int
    recall: float
    flagged: tuple[float, float]
    others: tuple[float, float]
    caught: tuple[float, float]
    alarms: tuple[float, float]
    unseen: tuple[float, float]
    refused: int


def lessons_of(fold: Fold, looked: Looked, split: str) -> list[str]:
    """The held-out sources that can be taught and evaluated: those with images both in train and in a split.

    A source is in train alone because its images are too much alike; teaching some of them and evaluating on the
    others would measure nothing.
    """
    held = {s: np.array([r.source == s for r in looked.records]) for s in fold.held}
    return [s for s, own in held.items() if all((own & (looked.splits == p)).any() for p in ("train", split))]


def teach(
    fold: Fold, looked: Looked, source: str, split: str, variants: Sequence[int], seed: int = 0
) -> list[TaughtResult]:
    """Teach a held-out source with plain train images; evaluate on its other images and on the others of a split."""
    rng = np.random.default_rng(seed)
    own = np.flatnonzero(looked.where(lambda r: r.source == source))
    train = own[looked.splits[own] == "train"]
    size = min(LESSON, len(own) // 2, len(train))
    lessons = [_lesson(fold, looked, source, rng.permutation(train)[:size]) for _ in range(DRAWS)]
    fake, refused = looked.kinds()[source].label == "fake", sum(refused for _, _, refused in lessons)
    found = []
    for variant in variants:
        judged = _Judged.of(fold, looked, source, split, variant, own)
        before = np.mean([judged.column(None, np.isin(own, rows, invert=True)) for rows, _, _ in lessons], axis=0)
        after = np.mean([judged.column(taught, np.isin(own, rows, invert=True)) for rows, taught, _ in lessons], axis=0)
        flagged, others, caught, alarms, unseen = (
            (float(a), float(b)) for a, b in zip(before[1:], after[1:], strict=True)
        )
        found.append(TaughtResult(
            source, fake, variant, size, len(own) - size, float(after[0]), flagged, others, caught, alarms, unseen,
            refused,
        ))  # fmt: skip
    return found


def _lesson(
    fold: Fold, looked: Looked, source: str, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], Taught, bool]:
    attributor = Attributor(fold.prototypes)
    known = looked.kinds()[source]
    kind = Kind("taught", known.label, known.family, "taught")
    embedding = looked.outputs[fold.model].embedding[rows, 0]
    try:
        return rows, estimate(attributor, kind, embedding, "")[0], False
    except DataError:
        return rows, estimate(attributor, kind, embedding, "", lowest=0.0)[0], True


@dataclass(frozen=True, slots=True)
class _Judged:
    """What one held-out source is evaluated on: its images, known ones, and held-out fakes of other generators."""

    fold: Fold
    looked: Looked
    variant: int
    own: npt.NDArray[np.int64]
    known: npt.NDArray[np.int64]
    unseen: npt.NDArray[np.int64]
    before: dict[str, Named]

    @classmethod
    def of(
        cls, fold: Fold, looked: Looked, source: str, split: str, variant: int, own: npt.NDArray[np.int64]
    ) -> "_Judged":
        sources, generator = looked.cards[fold.model].sources, looked.records[own[0]].generator
        known = np.flatnonzero(looked.where(lambda r: r.source in sources, split) & ~_of_reference(looked))
        unseen = np.flatnonzero(
            looked.where(lambda r: r.fake and r.source in fold.held and r.generator != generator, split)
        )
        made = cls(fold, looked, variant, own, known, unseen, {})
        made.before.update(made.names(()))
        return made

    def names(self, taught: Sequence[Taught]) -> dict[str, Named]:
        attributor = Attributor(self.fold.prototypes, taught)
        rows = {"own": self.own, "known": self.known, "unseen": self.unseen}
        return {k: name(attributor, self.looked, self.fold.model, v, self.variant) for k, v in rows.items()}

    def column(self, taught: Taught | None, others: Bools) -> list[float]:
        """Recall, own flagged, others named right, known fakes caught, known real flagged, unseen fakes caught."""
        threshold = self.looked.cards[0].thresholds.fake
        named = self.names((taught,)) if taught else self.before
        own, known = named["own"], named["known"]
        flagged = known.scores >= threshold
        unseen = named["unseen"].scores >= threshold
        right = [a.generator == g for a, g in zip(known.answers, known.generators, strict=True)]
        recall = np.array([a.generator == "taught" for a in own.answers])[others].mean()
        own_flagged = (own.scores >= threshold)[others].mean()
        caught = float(unseen.mean()) if len(unseen) else float("nan")
        return [
            float(recall), float(own_flagged), float(np.mean(right)), float(flagged[known.fake].mean()),
            float(flagged[~known.fake].mean()), caught,
        ]  # fmt: skip
