"""Open-set attribution: how well known generators, unknown ones and taught ones are named.

Known generators are evaluated with the model itself; unknown and taught ones with the models trained without them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from faceauth.attribution import UNKNOWN, Answer, Attributor, Kind, Prototypes, Taught, novelty
from faceauth.errors import DataError
from faceauth.lab.evaluation import metrics
from faceauth.lab.evaluation.prototypes import (
    REFERENCE,
    Bools,
    EmbeddedSet,
    Floats,
    LeftOut,
    evidence_of_unknown,
    fit,
    fit_unknown,
    prototypes,
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
    attributor: Attributor, embedded: EmbeddedSet, model: int, rows: Bools | npt.NDArray[np.int64], variant: int
) -> Named:
    """What is answered for some images; scores are calibrated as the first model's are."""
    outputs = rows_of(embedded.outputs[model], rows, variant)
    scores, answers = attributor(outputs.embedding, np.asarray(embedded.cards[0].calibration(outputs.logit)))
    records = [embedded.records[i] for i in np.arange(len(embedded.records))[rows]]
    return Named(
        tuple(answers), scores, np.array([r.generator for r in records]), np.array([r.family for r in records]),
        np.array([r.fake for r in records]),
    )  # fmt: skip


def confusion(found: Prototypes, embedded: EmbeddedSet, split: str, variant: int) -> list[dict[str, int | str]]:
    """A row a true source with images, a column a source that is likeliest by density, of all, real and fake."""
    names = [k.name for k in found.kinds]
    table: list[dict[str, int | str]] = []
    for source in names:
        rows = embedded.where(lambda r, s=source: r.source == s, split)  # type: ignore[misc]
        if not rows.any():
            continue
        points = found.place(embedded.outputs[0].embedding[rows, variant])
        counts = Counter(found.densities(points)[:, :-1].argmax(axis=1).tolist())
        table.append({"true source": source, **{n: counts.get(i, 0) for i, n in enumerate(names)}})
    return table


@dataclass(frozen=True, slots=True)
class Fold:
    """A model trained with sources held out: its place, prototypes without the evaluated images, sources held."""

    model: int
    prototypes: Prototypes
    held: tuple[str, ...]


def folds(found: Prototypes, embedded: EmbeddedSet) -> tuple[list[Fold], list[LeftOut]]:
    """The models with sources held out; what `unknown` means to each is fitted on the generators of the others."""
    left = evidence_of_unknown(found, embedded)
    made = []
    for model in range(1, len(embedded.cards)):
        unknown = fit_unknown([one for one in left if one.model != model])
        own = replace(fit(embedded, model, embedded.sources(model)), temperature=found.temperature, unknown=unknown)
        held = tuple(s for s in embedded.sources(0) if s not in embedded.sources(model))
        made.append(Fold(model, with_reference(own, embedded, model), held))
    return made, left


def with_reference(found: Prototypes, embedded: EmbeddedSet, model: int) -> Prototypes:
    """The same with reference images: every second of test, which no later figure uses."""
    reference, which = [], []
    for row, kind in enumerate(found.kinds):
        chosen = np.flatnonzero(_of_reference(embedded) & embedded.where(lambda r, s=kind.name: r.source == s))  # type: ignore[misc]
        reference.append(found.place(embedded.outputs[model].embedding[chosen[:REFERENCE], 0]))
        which += [row] * len(reference[-1])
    return replace(found, reference=np.concatenate(reference), reference_kind=np.array(which, np.int64))


def _of_reference(embedded: EmbeddedSet) -> Bools:
    test = embedded.splits == "test"
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


def novel(fold: Fold, left: LeftOut, embedded: EmbeddedSet, variant: int) -> UnknownResult:
    """Evaluate a model on a generator that it was trained without."""
    w = fold.prototypes.unknown
    rows = left.variant == variant
    odds = w.bias + w.slope * novelty(left.densities[rows], w.temperature)
    unknown = left.unknown[rows]
    found = float(metrics.auroc(odds, unknown))
    own = embedded.where(lambda r: r.fake and r.generator == left.generator, "test")
    named = name(Attributor(fold.prototypes), embedded, fold.model, own, variant)
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


def lessons_of(fold: Fold, embedded: EmbeddedSet, split: str) -> list[str]:
    """The held-out sources that can be taught and evaluated: those with images both in train and in a split.

    A source is in train alone because its images are too much alike; teaching some of them and evaluating on the
    others would measure nothing.
    """
    held = {s: np.array([r.source == s for r in embedded.records]) for s in fold.held}
    return [s for s, own in held.items() if all((own & (embedded.splits == p)).any() for p in ("train", split))]


def teach(
    fold: Fold, embedded: EmbeddedSet, source: str, split: str, variants: Sequence[int], seed: int = 0
) -> list[TaughtResult]:
    """Teach a held-out source with plain train images; evaluate on its other images and on the others of a split."""
    rng = np.random.default_rng(seed)
    own = np.flatnonzero(embedded.where(lambda r: r.source == source))
    train = own[embedded.splits[own] == "train"]
    size = min(LESSON, len(own) // 2, len(train))
    lessons = [_lesson(fold, embedded, source, rng.permutation(train)[:size]) for _ in range(DRAWS)]
    fake, refused = embedded.kinds()[source].label == "fake", sum(refused for _, _, refused in lessons)
    found = []
    for variant in variants:
        judged = _Judged.of(fold, embedded, source, split, variant, own)
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
    fold: Fold, embedded: EmbeddedSet, source: str, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], Taught, bool]:
    attributor = Attributor(fold.prototypes)
    known = embedded.kinds()[source]
    kind = Kind("taught", known.label, known.family, "taught")
    embedding = embedded.outputs[fold.model].embedding[rows, 0]
    try:
        return rows, estimate(attributor, kind, embedding, "")[0], False
    except DataError:
        return rows, estimate(attributor, kind, embedding, "", lowest=0.0)[0], True


@dataclass(frozen=True, slots=True)
class _Judged:
    """What one held-out source is evaluated on: its images, known ones, and held-out fakes of other generators."""

    fold: Fold
    embedded: EmbeddedSet
    variant: int
    own: npt.NDArray[np.int64]
    known: npt.NDArray[np.int64]
    unseen: npt.NDArray[np.int64]
    before: dict[str, Named]

    @classmethod
    def of(
        cls, fold: Fold, embedded: EmbeddedSet, source: str, split: str, variant: int, own: npt.NDArray[np.int64]
    ) -> "_Judged":
        sources, generator = embedded.cards[fold.model].sources, embedded.records[own[0]].generator
        known = np.flatnonzero(embedded.where(lambda r: r.source in sources, split) & ~_of_reference(embedded))
        unseen = np.flatnonzero(
            embedded.where(lambda r: r.fake and r.source in fold.held and r.generator != generator, split)
        )
        made = cls(fold, embedded, variant, own, known, unseen, {})
        made.before.update(made.names(()))
        return made

    def names(self, taught: Sequence[Taught]) -> dict[str, Named]:
        attributor = Attributor(self.fold.prototypes, taught)
        rows = {"own": self.own, "known": self.known, "unseen": self.unseen}
        return {k: name(attributor, self.embedded, self.fold.model, v, self.variant) for k, v in rows.items()}

    def column(self, taught: Taught | None, others: Bools) -> list[float]:
        """Recall, own flagged, others named right, known fakes caught, known real flagged, unseen fakes caught."""
        threshold = self.embedded.cards[0].thresholds.fake
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


def attribution_tables(embedded: EmbeddedSet, views: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Tables of test images: known generators named, each left out, each source left out and taught, and the means.

    Args:
        embedded: of a model and of its folds' models; views: the names of its variants.
    """
    found = prototypes(embedded)
    of_folds, left = folds(found, embedded)
    numbered = list(enumerate(views))
    unknown = [
        _unknown_row(novel(fold, one, embedded, k), view)
        for fold in of_folds for one in left if one.model == fold.model for k, view in numbered
    ]  # fmt: skip
    taught = [
        _taught_row(result, views[result.variant])
        for fold in of_folds for source in lessons_of(fold, embedded, "test")
        for result in teach(fold, embedded, source, "test", range(len(views)))
    ]  # fmt: skip
    return {
        "Known generators": [_known_row(found, embedded, k, view) for k, view in numbered],
        "Unknown generators, means": _means(unknown, "view"), "Taught sources, means": _means(taught, "as", "view"),
        "Unknown generators": unknown, "Taught sources": taught,
    }  # fmt: skip


def _means(rows: Sequence[dict[str, Any]], *by: str) -> list[dict[str, Any]]:
    """The means of every share, over the rows that agree in `by`, and how many these are."""
    found = []
    for key in dict.fromkeys(tuple(row[name] for name in by) for row in rows):
        own = [row for row in rows if tuple(row[name] for name in by) == key]
        shares = [name for name, value in own[0].items() if isinstance(value, float)]
        means = {name: float(np.mean([row[name] for row in own])) for name in shares}
        found.append({**dict(zip(by, key, strict=True)), "rows": len(own), **means})
    return found


def _known_row(found: Prototypes, embedded: EmbeddedSet, variant: int, view: str) -> dict[str, Any]:
    names = {kind.name for kind in found.kinds}
    rows = embedded.where(lambda r: r.fake and r.source in names, "test")
    named = name(Attributor(found), embedded, 0, rows, variant)
    return {
        "view": view, "n": int(rows.sum()), "of": len(set(named.generators.tolist())),
        "generator, known to be fake": named.accuracy("generators", closed=True),
        "family, known to be fake": named.accuracy("families", closed=True),
        "generator": named.accuracy("generators", closed=False), "family": named.accuracy("families", closed=False),
    }  # fmt: skip


def _unknown_row(result: UnknownResult, view: str) -> dict[str, Any]:
    return {
        "generator left out": result.generator, "view": view, "n": result.images, "AUROC": result.auroc,
        "called unknown": result.said, "known ones called unknown": result.of_known,
        "taken for": ", ".join(f"{who} ({count})" for who, count in result.taken_for),
    }  # fmt: skip


def _taught_row(result: TaughtResult, view: str) -> dict[str, Any]:
    pairs = {
        "own called fake": result.flagged, "others named right": result.others, "known fakes caught": result.caught,
        "known real called fake": result.alarms,
    }  # fmt: skip
    return {
        "taught": result.source, "as": "fake" if result.fake else "real", "view": view, "lesson": result.lesson,
        "n": result.images, "recall": result.recall, "refused": result.refused,
        **{f"{what}, {when}": value for what, pair in pairs.items()
           for when, value in zip(("before", "after"), pair, strict=True)},
    }  # fmt: skip
