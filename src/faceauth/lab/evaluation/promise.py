"""What a model promises its users, checked: false alarms on real sources left out, and verdicts that stay.

It knows nothing of images or files; scored columns come in.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from faceauth.lab.evaluation.protocol import Column, verdicts
from faceauth.lab.evaluation.scoring import VARIANTS
from faceauth.lab.training.export import false_alarm_curve, weigh
from faceauth.model_file import ModelCard

RATES = (0.01, 0.05)
REPEATS = 3  # clean, web and hard: the variants that thresholds are fitted on


@dataclass(frozen=True, slots=True)
class LeftOut:
    """How a promise fares on one real source whose faces had no part in it.

    Attributes:
        n: images of the source, each in three variants.
        promised: the rate; threshold: the score that promises it on the other sources, None where they are too few.
        first: share of the source's faces at or above it at the first look; measured: of those called fake;
            0 where there is none.
    """

    source: str
    n: int
    promised: float
    threshold: float | None
    first: float = 0
    measured: float = 0


def real_sources_left_out(card: ModelCard, column: Column, rates: tuple[float, ...] = RATES) -> Iterator[LeftOut]:
    """Each real source in turn: the threshold from the others' real faces, the false-alarm rate on its own.

    Sources of one fold are kin, such as two sets from one photo collection, and go out together. Variants are pooled.
    That the card's calibration has seen all of them changes nothing, since it keeps the order of the logits.
    """
    column = column.where(lambda record: not record.fake)
    first, mean = (card.calibration(v[:, :REPEATS].T.reshape(-1)) for v in (column.logits, column.all_looks))
    sources, groups, fold = (np.tile(v, REPEATS) for v in (column.sources, column.groups, column.fold))
    for source in sorted(set(sources.tolist())):
        out = sources == source
        others = ~out & ((fold == 0) | (fold != fold[out][0]))
        weights = weigh(sources[others].tolist(), groups[others].tolist())
        curve = false_alarm_curve(first[others], weights, groups[others]) if others.any() else ()
        for rate in rates:
            threshold = next((t for t, share in curve if share <= rate and t < 1), None)
            row = LeftOut(source, int(out.sum()) // REPEATS, rate, threshold)
            if row.threshold is not None:
                called = (first[out] >= row.threshold) & (mean[out] >= row.threshold)
                row = replace(row, first=float((first[out] >= row.threshold).mean()), measured=float(called.mean()))
            yield row


@dataclass(frozen=True, slots=True)
class Change:
    """How the verdicts on a column change when its pictures are saved again.

    Attributes:
        variant: how they were saved again.
        changed: share of verdicts that are another word than on the clean file; flipped: real to fake or back.
        changed_alone, flipped_alone: the same where no second look is taken.
    """

    variant: str
    changed: float
    flipped: float
    changed_alone: float
    flipped_alone: float


def changes(card: ModelCard, column: Column) -> Iterator[Change]:
    """Verdicts on clean files laid against those on web and on hard ones."""
    for variant in VARIANTS[1:REPEATS]:
        yield Change(variant, *_changed(card, column, variant), *_changed(card, replace(column, means=None), variant))


def _changed(card: ModelCard, column: Column, variant: str) -> tuple[float, float]:
    before, after = (verdicts(card, column, v) for v in ("clean", variant))
    changed = before != after
    flipped = changed & (before != "uncertain") & (after != "uncertain")
    return float(changed.mean()), float(flipped.mean())
