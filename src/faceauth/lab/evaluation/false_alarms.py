"""What false-alarm rate a threshold stands for, and what it is on each real kind left out; see `calibration`.

For a single model the rows are of kinds that this very model was not trained on, and the bound is split conformal.
For fold models it is cross-conformal, and belongs to the fold models of a seed asked together.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from faceauth.errors import DataError
from faceauth.lab.evaluation.calibration import (
    RATES,
    Floats,
    cross_conformal_bound,
    cross_conformal_threshold,
    false_alarm_curve,
    kind_weights,
    leave_one_kind_out,
    threshold_at_fpr,
)
from faceauth.lab.evaluation.cross_fit import fit_rows
from faceauth.lab.evaluation.protocol import Row
from faceauth.lab.evaluation.score_sets import RESAVED


def false_alarm_tables(rows: pd.DataFrame, rates: Sequence[float] = RATES) -> tuple[list[Row], list[Row]]:
    """One model's thresholds with their bounds, and the rates on real kinds left out.

    Args:
        rows: of one model, with logits; only held-out rows in `score_sets.RESAVED` are used.

    Returns:
        Rows of the two tables; both empty where the model has no held-out real images, for then nothing can be said.
    """
    rows = rows[rows["held_out"] & rows["variant"].isin(RESAVED)]
    bounds: list[Row] = []
    left_out: list[Row] = []
    for seed, of_seed in rows.groupby("seed"):
        try:
            calibration, _ = fit_rows(of_seed, "held-out rows")
        except DataError:
            continue
        real = of_seed[of_seed["group"] == "real"]
        logits = real["logit"].to_numpy(float)
        means = [
            v if views is None or not len(views) else float(np.mean([v, *views]))
            for v, views in zip(logits, real["view_logits"], strict=True)
        ]
        scores, mean = calibration(logits), calibration(np.array(means))
        said = {"model": str(real["model"].iloc[0]), "seed": int(seed)}
        bounds += [said | row for row in _bounds(real, scores, int(seed), rates)]
        kinds, images = real["kind"].to_numpy(str), real["image"].to_numpy(str)
        left_out += [
            said | {
                "rate": found.rate, "kind left out": found.kind, "n": found.images, "threshold": found.threshold,
                "called fake": None if np.isnan(found.measured) else found.measured,
            }
            for found in leave_one_kind_out(scores, mean, kinds, images, rates)
        ]  # fmt: skip
    return bounds, left_out


def _bounds(real: pd.DataFrame, scores: Floats, seed: int, rates: Sequence[float]) -> Iterator[Row]:
    kinds, images = real["kind"].to_numpy(str), real["image"].to_numpy(str)
    folds = real["fold"].nunique()
    for rate in rates:
        for unit, names in (("image", images), ("kind", kinds)):
            _, member, size = np.unique(names, return_inverse=True, return_counts=True)
            each = 1 / size[member]
            if seed < 0:
                weights = kind_weights(kinds, images) if unit == "image" else each
                threshold = threshold_at_fpr(false_alarm_curve(scores, weights, names), rate)
                procedure, bound = "split conformal", rate
            else:
                threshold = cross_conformal_threshold(scores, each, rate)
                procedure, bound = "cross-conformal", cross_conformal_bound(rate, len(size), folds)
            yield {
                "rate": rate, "procedure": procedure, "for a further": unit, "units": len(size),
                "threshold": threshold, "bound": bound if threshold is not None else None,
                "called fake, these images": None if threshold is None else float((scores >= threshold).mean()),
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
