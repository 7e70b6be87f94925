"""What the model that ships does with kinds it has never seen: all that makes it is repeated without each fold.

The folds' models are single linear heads, and what ships is their mean, with a threshold set on single ones. So for
each fold the heads are fitted that lack it and one fold more, rule, calibration and thresholds are set on them as
`ship.calibrate` does, and their mean judges the fold that none of them has seen.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from faceauth.lab.evaluation import metrics
from faceauth.lab.evaluation.ship import CALIBRATED_ON, calibrate
from faceauth.lab.progress import tracked
from faceauth.lab.training.frozen import (
    Examples,
    FoldKey,
    Heads,
    Prepared,
    kept_heads,
    mean_heads,
    scored_views,
    state_digest,
)

DEAL = "kind"
Row = dict[str, Any]


def nested(prepared: Prepared, found: Examples, run: Path) -> list[Row]:
    """A row a variant, the mean over the folds of all seeds, and the worst of them; see the module.

    The folder `run` keeps the heads as they are fitted; a run that was cut off goes on.
    """
    run.mkdir(parents=True, exist_ok=True)
    config = prepared.config
    outer = [(seed, fold) for seed in config.seeds for fold in range(config.folds)]
    rows = [
        row
        for seed, fold in tracked(outer, len(outer), "folds left out")
        for row in _judged(prepared, found, FoldKey(DEAL, seed, fold), _lines(prepared, found, seed, fold, run))
    ]
    return [_summary([row for row in rows if row["variant"] == variant]) for variant in CALIBRATED_ON]


def _lines(prepared: Prepared, found: Examples, seed: int, fold: int, run: Path) -> dict[FoldKey, Heads]:
    """The heads that lack a fold, and each of the others in turn, by the latter."""
    train = (prepared.column("split") == "train") & prepared.may_fit(FoldKey(DEAL, seed, fold))
    made = {}
    for other in (FoldKey(DEAL, seed, k) for k in range(prepared.config.folds) if k != fold):
        first, second = sorted((fold, other.fold))  # the heads that lack both serve either
        file = run / f"nested-{state_digest(prepared)}-{seed}-{first}-{second}.npz"
        made[other] = kept_heads(file, prepared, found, train & prepared.may_fit(other))
    return made


def _judged(prepared: Prepared, found: Examples, key: FoldKey, heads: dict[FoldKey, Heads]) -> Iterator[Row]:
    """What the mean of the heads says of the fold that they lack; none where the fold lacks a class."""
    shipped, mean = calibrate(prepared, found, heads), mean_heads(list(heads.values()))
    label, kinds = prepared.column("label"), prepared.column("kind")
    asked = (prepared.held(key) & prepared.real_or_generated())[found.row] & scored_views(prepared, found)
    for variant in CALIBRATED_ON:
        of = asked & (found.view == variant)
        row, features = found.row[of], found.features[of]
        fake = label[row] == "fake"
        if not fake.any() or fake.all():
            continue
        logit = shipped.rule(mean.generated(features), mean.swapped(features))
        single = [float(metrics.auroc(h.generated(features), fake)) for h in heads.values()]
        score = shipped.calibration(logit)
        called = score >= shipped.thresholds.fake
        unsure = ~called & (score > shipped.thresholds.real)
        by_kind = {str(k): float(called[kinds[row] == k].mean()) for k in np.unique(kinds[row][~fake])}
        yield {
            "variant": variant, "AUROC": float(metrics.auroc(logit, fake)), "AUROC of a single head": np.mean(single),
            "TPR at 5 % FPR": float(metrics.tpr_at_fpr(logit, fake, rate=0.05)),
            "real called fake": float(np.mean(list(by_kind.values()))), "worst kind": max(by_kind.values()),
            "real uncertain": float(unsure[~fake].mean()), "generated caught": float(called[fake].mean()),
            "generated uncertain": float(unsure[fake].mean()),
        }  # fmt: skip


def _summary(rows: list[Row]) -> Row:
    """The mean of each figure over folds; of AUROC and of false alarms the worst fold too."""
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0] if name != "variant"}
    means["worst kind"] = max(row["worst kind"] for row in rows)
    return {
        "variant": rows[0]["variant"], "folds": len(rows), **means,
        "AUROC, worst fold": min(row["AUROC"] for row in rows),
        "real called fake, worst fold": max(row["real called fake"] for row in rows),
    }  # fmt: skip
