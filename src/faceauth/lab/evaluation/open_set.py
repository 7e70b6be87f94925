"""Open-set attribution: how well known generators, unknown ones and taught ones are named.

Known generators are evaluated with the model itself; unknown and taught ones with the models trained without them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from faceauth.attribution import UNKNOWN, Answer, Attributor, Prototypes, Taught, novelty
from faceauth.lab.evaluation import metrics
from faceauth.lab.evaluation.prototypes import (
    Bools,
    EmbeddedSet,
    Floats,
    LeftOut,
    evidence_of_unknown,
    fit,
    fit_unknown,
    prototypes,
    with_reference,
)
from faceauth.learning import LOWEST_RECALL, estimate

LESSON = 20  # pictures that a class is taught with
DRAWS = 3  # lessons a source, over which figures are averaged
SHARES = ("own called fake", "others named right", "known fakes caught", "known real called fake")
Row = dict[str, Any]  # of a table
Rows = Bools | npt.NDArray[np.int64]  # which images: (n,) of all, or their indices


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


def _top(shares: Sequence[tuple[str, float]], leaving_out: set[str]) -> str:
    return next(name for name, _ in shares if name not in leaving_out)


def name(attributor: Attributor, embedded: EmbeddedSet, model: int, rows: Rows, variant: int) -> Named:
    """What is answered for some images; scores are calibrated as the first model's are."""
    outputs = embedded.outputs[model]
    scores = np.asarray(embedded.cards[0].calibration(outputs.logit[rows, variant]))
    scores, answers = attributor(outputs.embedding[rows, variant], scores)
    records = [embedded.records[i] for i in np.arange(len(embedded.records))[rows]]
    return Named(
        tuple(answers), scores, np.array([r.generator for r in records]), np.array([r.family for r in records]),
        np.array([r.fake for r in records]),
    )  # fmt: skip


def folds(found: Prototypes, embedded: EmbeddedSet) -> tuple[dict[int, Prototypes], list[LeftOut]]:
    """Prototypes, without the evaluated images, of each model trained with sources held out, by the model's place.

    What `unknown` means to each is fitted on the generators that the others hold out, which are returned too.
    """
    left = evidence_of_unknown(found, embedded)
    made = {}
    for model in range(1, len(embedded.cards)):
        unknown = fit_unknown([one for one in left if one.model != model])
        own = replace(fit(embedded, model, embedded.sources(model)), temperature=found.temperature, unknown=unknown)
        made[model] = with_reference(own, embedded, model, _of_reference(embedded))
    return made, left


def _of_reference(embedded: EmbeddedSet) -> Bools:
    """(n,) the images that folds have as reference: every second of test, which no figure uses."""
    test = embedded.splits == "test"
    return np.asarray(test & (np.cumsum(test) % 2 == 0))


def novel(found: Prototypes, left: LeftOut, embedded: EmbeddedSet, variant: int) -> Row:
    """How a model does on a generator that it was trained without.

    That is AUROC of P(unknown) against known fakes, shares called unknown, and what the generator is taken for.
    """
    w = found.unknown
    rows = left.variant == variant
    odds = w.bias + w.slope * novelty(left.densities[rows], w.temperature)
    unknown = left.unknown[rows]
    own = embedded.where(lambda r: r.fake and r.generator == left.generator, "test")
    named = name(Attributor(found), embedded, left.model, own, variant)
    taken = Counter(_top(a.generators, {UNKNOWN, "camera"}) for a in named.answers).most_common(3)
    return {
        "n": int(unknown.sum()), "AUROC": float(metrics.auroc(odds, unknown)),
        "called unknown": float((odds[unknown] > 0).mean()),
        "known ones called unknown": float((odds[~unknown] > 0).mean()),
        "taken for": ", ".join(f"{who} ({count})" for who, count in taken),
    }  # fmt: skip


def lessons_of(model: int, embedded: EmbeddedSet) -> list[str]:
    """The sources that a model lacks and can be taught and evaluated on: those with images both in train and in test.

    A source is in train alone because its images are too much alike; teaching some of them and evaluating on the
    others would measure nothing.
    """
    source = np.array([r.source for r in embedded.records])
    there = set(source[embedded.splits == "train"]) & set(source[embedded.splits == "test"])
    return [s for s in embedded.sources(0) if s in there and s not in embedded.sources(model)]


def teach(found: Prototypes, model: int, embedded: EmbeddedSet, source: str, views: Sequence[str]) -> list[Row]:
    """A source that a model lacks, taught with a few plain train images: a row a variant, which `views` name.

    Figures are means over lessons, before and after: of its other images the share called fake; of known test images
    that of all named right, of fakes and of reals called fake. `recall` is the share of its other images that are then
    named by the taught name, `refused` how many lessons `learn` would have refused.
    """
    rng = np.random.default_rng(0)
    own = np.flatnonzero(embedded.where(lambda r: r.source == source))
    train = own[embedded.splits[own] == "train"]
    size = min(LESSON, len(own) // 2, len(train))
    drawn = [rng.permutation(train)[:size] for _ in range(DRAWS)]
    kind = replace(embedded.kinds()[source], name="taught", generator="taught")
    plain = embedded.outputs[model].embedding[:, 0]
    lessons = [estimate(Attributor(found), kind, plain[rows], "", lowest=0.0)[0] for rows in drawn]
    trained = embedded.cards[model].sources
    known = np.flatnonzero(embedded.where(lambda r: r.source in trained, "test") & ~_of_reference(embedded))

    def named(rows: Rows, variant: int, taught: Sequence[Taught] = ()) -> Named:
        return name(Attributor(found, taught), embedded, model, rows, variant)

    table = []
    for variant, view in enumerate(views):
        untaught = named(own, variant), named(known, variant)
        pairs = []
        for rows, lesson in zip(drawn, lessons, strict=True):
            others = np.isin(own, rows, invert=True)
            taught = named(own, variant, [lesson]), named(known, variant, [lesson])
            pairs.append([_figures(*both, others, embedded.cards[0].thresholds.fake) for both in (untaught, taught)])
        before, after = np.mean(pairs, axis=0).tolist()
        table.append({
            "taught": source, "as": kind.label, "view": view, "lesson": size, "n": len(own) - size, "recall": after[0],
            "refused": sum(lesson.recall < LOWEST_RECALL[kind.label] for lesson in lessons),
            **{f"{what}, {when}": figures[k] for k, what in enumerate(SHARES, 1)
               for when, figures in (("before", before), ("after", after))},
        })  # fmt: skip
    return table


def _figures(own: Named, known: Named, others: Bools, threshold: float) -> list[float]:
    """The share of the `others` among its own images that is named by the taught name, and `SHARES`."""
    recall = np.array([a.generator == "taught" for a in own.answers])[others].mean()
    right = [a.generator == g for a, g in zip(known.answers, known.generators, strict=True)]
    flagged = known.scores >= threshold
    own_flagged = (own.scores >= threshold)[others].mean()
    return [recall, own_flagged, np.mean(right), flagged[known.fake].mean(), flagged[~known.fake].mean()]


def attribution_tables(embedded: EmbeddedSet, views: Sequence[str]) -> dict[str, list[Row]]:
    """Tables of test images: known generators named, each left out, each source left out and taught, and the means.

    `embedded` is of a model and of its folds' models, `views` are the names of its variants.
    """
    found = prototypes(embedded)
    by_model, left = folds(found, embedded)
    numbered = list(enumerate(views))
    unknown = [
        {"generator left out": one.generator, "view": view, **novel(by_model[one.model], one, embedded, k)}
        for one in left if one.model in by_model for k, view in numbered
    ]  # fmt: skip
    taught = [
        row for model, own in by_model.items() for source in lessons_of(model, embedded)
        for row in teach(own, model, embedded, source, views)
    ]  # fmt: skip
    return {
        "Known generators": [_known_row(found, embedded, k, view) for k, view in numbered],
        "Unknown generators, means": _means(unknown, "view"), "Taught sources, means": _means(taught, "as", "view"),
        "Unknown generators": unknown, "Taught sources": taught,
    }  # fmt: skip


def _means(rows: Sequence[Row], *by: str) -> list[Row]:
    """The means of every share, over the rows that agree in `by`, and how many these are."""
    found = []
    for key in dict.fromkeys(tuple(row[name] for name in by) for row in rows):
        own = [row for row in rows if tuple(row[name] for name in by) == key]
        shares = [name for name, value in own[0].items() if isinstance(value, float)]
        means = {name: float(np.mean([row[name] for row in own])) for name in shares}
        found.append({**dict(zip(by, key, strict=True)), "rows": len(own), **means})
    return found


def _known_row(found: Prototypes, embedded: EmbeddedSet, variant: int, view: str) -> Row:
    names = {kind.name for kind in found.kinds}
    rows = embedded.where(lambda r: r.fake and r.source in names, "test")
    named = name(Attributor(found), embedded, 0, rows, variant)
    shares = {
        f"{what}{', known to be fake' if closed else ''}": float(named.right(kind, closed).mean())
        for closed in (True, False) for what, kind in (("generator", "generators"), ("family", "families"))
    }  # fmt: skip
    return {"view": view, "n": int(rows.sum()), "of": len(set(named.generators.tolist())), **shares}
