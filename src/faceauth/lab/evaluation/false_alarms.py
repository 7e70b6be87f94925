"""What false-alarm rate a threshold stands for, and what it is on each real kind left out; see `calibration`.

For a single model the rows are of kinds that this very model was not trained on, and the bound is split conformal.
For fold models it is **cross-conformal**, and belongs to the fold models of a seed asked together. Vovk,
"Cross-conformal predictors", Annals of Mathematics and Artificial Intelligence 74, 2015; Barber, Candes, Ramdas and
Tibshirani, "Predictive inference with the jackknife+", Annals of Statistics 49, 2021: twice the rate asked for, and
a little. A single model trained again on everything has no such bound.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from faceauth.errors import DataError
from faceauth.lab.evaluation.calibration import GRID, false_alarm_curve, kind_weights, threshold_at_fpr, verdicts
from faceauth.lab.evaluation.cross_fit import calibrated, fit_rows
from faceauth.lab.evaluation.metrics import Floats
from faceauth.lab.evaluation.protocol import Row
from faceauth.lab.evaluation.score_sets import RESAVED

RATES = (0.01, 0.05)
Names = npt.NDArray[np.str_]


def false_alarm_tables(rows: pd.DataFrame) -> tuple[list[Row], list[Row]]:
    """One model's thresholds with their bounds, and the rates on real kinds left out, for each of `RATES`.

    Of its rows, which have logits, those held out in `score_sets.RESAVED` are used. Both tables are empty where the
    model has no held-out real images, for then nothing can be said.
    """
    rows = rows[rows["held_out"] & rows["variant"].isin(RESAVED)]
    bounds: list[Row] = []
    left_out: list[Row] = []
    for seed, of_seed in rows.groupby("seed"):
        try:
            fitted, _ = fit_rows(of_seed, "held-out rows")
        except DataError:
            continue
        real = of_seed[of_seed["group"] == "real"]
        first, mean = calibrated(real, fitted)
        kinds, images = real["kind"].to_numpy(str), real["image"].to_numpy(str)
        folds = real["fold"].nunique() if seed >= 0 else 0
        bounds += [{"seed": int(seed), **row} for row in _bounds(first, kinds, images, folds)]
        left_out += [{"seed": int(seed), **row} for row in leave_one_kind_out(first, mean, kinds, images)]
    return bounds, left_out


def _bounds(scores: Floats, kinds: Names, images: Names, folds: int) -> Iterator[Row]:
    """`folds`: how many fold models the scores are of, 0 where they are of one model."""
    for rate in RATES:
        for unit, names in (("image", images), ("kind", kinds)):
            _, member, size = np.unique(names, return_inverse=True, return_counts=True)
            each = 1 / size[member]
            if folds:
                threshold = cross_conformal_threshold(scores, each, rate)
                procedure, bound = "cross-conformal", cross_conformal_bound(rate, len(size), folds)
            else:
                weights = kind_weights(kinds, images) if unit == "image" else each
                threshold = threshold_at_fpr(false_alarm_curve(scores, weights, names), rate)
                procedure, bound = "split conformal", rate
            yield {
                "rate": rate, "procedure": procedure, "for a further": unit, "units": len(size),
                "threshold": threshold, "bound": None if threshold is None else bound,
                "called fake, these images": None if threshold is None else float((scores >= threshold).mean()),
            }  # fmt: skip


def cross_conformal_bound(rate: float, count: int, folds: int) -> float:
    """Upper bound on the false-alarm rate of fold models asked together, their threshold set at `rate`.

    Rule: an image is called fake where every fold model of a seed scores it at or above t, the lowest threshold with
    (1 + C(t)) / (count + 1) <= rate, C(t) being how many of `count` real images score at or above t by the fold model
    that was not trained on them. Each fold alone gives a valid p-value, and twice a mean of p-values is one again
    (Vovk and Wang, Biometrika 107, 2020), so that the bound is 2 (rate (count + 1) + folds - 1) / (count + folds):
    2 rate, and a term that vanishes with folds / count. It holds for exchangeable units - images of a fixed mixture
    of kinds, or kinds with C(t) the sum of their shares - whatever the model is.
    """
    return min(1.0, 2 * (rate * (count + 1) + folds - 1) / (count + folds))


def cross_conformal_threshold(scores: Floats, weights: Floats, rate: float) -> float | None:
    """The lowest threshold of `GRID` below 1 at which (1 + C(t)) / (count + 1) <= rate; None where there is none.

    Args:
        scores: (n,) of real rows, each by the fold model that was not trained on its kind.
        weights: (n,) such that every unit's rows sum to 1: 1 / variants for images, 1 / rows of its kind for kinds.
    """
    count = weights.sum()
    above = np.array([weights[scores >= t].sum() for t in GRID])
    fits = (1 + above) / (count + 1) <= rate + 1e-12
    return float(GRID[fits][0]) if fits.any() and GRID[fits][0] < 1 else None


def leave_one_kind_out(first: Floats, mean: Floats, kinds: Names, images: Names) -> Iterator[Row]:
    """Each real kind in turn: the threshold from the other kinds, the share of its own rows that is called fake.

    The threshold is None where the other kinds have too few images, and there is no share then.

    Args:
        first, mean: (n,) of real rows, see `verdicts`; every row by a model that was not trained on its kind.
    """
    for kind in np.unique(kinds).tolist():
        out = kinds == kind
        others = ~out
        curve: tuple[tuple[float, float], ...] = ()
        if others.any():
            curve = false_alarm_curve(first[others], kind_weights(kinds[others], images[others]), images[others])
        for rate in RATES:
            threshold = threshold_at_fpr(curve, rate)
            called = None if threshold is None else verdicts(first[out], mean[out], threshold, 0.0) == "fake"
            yield {
                "rate": rate, "kind left out": kind, "n": len(np.unique(images[out])), "threshold": threshold,
                "called fake": None if called is None else float(called.mean()),
            }  # fmt: skip


def left_out_summary(left_out: Sequence[Row]) -> list[Row]:
    """For each model and rate the mean over kinds and seeds, the worst kind, and how many kinds stay under the rate."""
    found = []
    for model, rate in dict.fromkeys((r["model"], r["rate"]) for r in left_out):
        own = [r for r in left_out if (r["model"], r["rate"]) == (model, rate) and r["called fake"] is not None]
        if not own:
            found.append({"model": model, "rate": rate, "kinds": 0})
            continue
        worst = max(own, key=lambda r: r["called fake"])
        found.append({
            "model": model, "rate": rate, "kinds": len({r["kind left out"] for r in own}),
            "called fake, mean over kinds": float(np.mean([r["called fake"] for r in own])),
            "worst": worst["called fake"], "worst kind": worst["kind left out"],
            "share of kinds within the rate": float(np.mean([r["called fake"] <= rate for r in own])),
        })  # fmt: skip
    return found
