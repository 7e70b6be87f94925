"""The numbers of the protocol, from scores = P(fake) and labels; intervals by resampling groups, not images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import brier_score_loss, roc_auc_score, roc_curve

from faceauth.errors import DataError

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]


def auroc(scores: Floats, fake: Bools) -> float:
    """Area under the ROC curve from scores, ties counting half. NaN where a class is absent."""
    return float(roc_auc_score(fake, scores)) if fake.any() and not fake.all() else float("nan")


def roc(scores: Floats, fake: Bools) -> tuple[Floats, Floats]:
    """False-positive and true-positive rates at every threshold, from none flagged to all flagged."""
    fpr, tpr, _ = roc_curve(fake, scores, drop_intermediate=False)
    return fpr, tpr


def tpr_at_fpr(scores: Floats, fake: Bools, rate: float = 0.01) -> float:
    """Largest share of fakes caught by a threshold that flags at most `rate` of the real ones."""
    fpr, tpr = roc(scores, fake)
    return float(tpr[fpr <= rate].max())


def eer(scores: Floats, fake: Bools) -> float:
    """Equal error rate: where the false-positive rate equals the false-negative rate, interpolated."""
    fpr, tpr = roc(scores, fake)
    gap = fpr - (1 - tpr)
    i = int(np.argmax(gap >= 0))
    if i == 0 or gap[i] == gap[i - 1]:
        return float(fpr[i])
    share = -gap[i - 1] / (gap[i] - gap[i - 1])
    return float(fpr[i - 1] + share * (fpr[i] - fpr[i - 1]))


def balanced_accuracy(scores: Floats, fake: Bools, threshold: float) -> float:
    """Mean of the shares of fakes at or above, and of reals below, the threshold."""
    flagged = scores >= threshold
    return float((flagged[fake].mean() + (~flagged[~fake]).mean()) / 2)


def calibration_error(scores: Floats, fake: Bools, bins: int = 15) -> float:
    """Expected calibration error over equally wide bins (Guo et al., ICML 2017), both classes weighing the same."""
    weight = _balanced(fake)
    which = np.minimum((scores * bins).astype(int), bins - 1)
    gaps = [abs(float((weight[m] * (scores[m] - fake[m])).sum())) for b in range(bins) if (m := which == b).any()]
    return float(sum(gaps))


def brier(scores: Floats, fake: Bools) -> float:
    """Mean squared distance of score and label, both classes weighing the same. Brier, 1950."""
    return float(brier_score_loss(fake, scores, sample_weight=_balanced(fake)))


def _balanced(fake: Bools) -> Floats:
    return np.where(fake, 0.5 / max(1, int(fake.sum())), 0.5 / max(1, int((~fake).sum())))


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}-{self.high:.3f})"


def interval(
    metric: Callable[[Floats, Bools], float], scores: Floats, fake: Bools, groups: npt.NDArray[Any], draws: int = 500,
    seed: int = 0,
) -> Interval:  # fmt: skip
    """A metric and its percentile bootstrap interval, groups drawn with replacement within each class.

    Args:
        groups: (n,) what ties images; an image alone is a group of its own.

    Raises:
        DataError: where a class is absent.
    """
    if fake.all() or not fake.any():
        raise DataError("a metric needs real and fake images")
    rng = np.random.default_rng(seed)
    blocks: list[list[npt.NDArray[Any]]] = []
    for label in (False, True):
        of_class = np.flatnonzero(fake == label)
        _, inverse = np.unique(groups[of_class], return_inverse=True)
        order = np.argsort(inverse, kind="stable")
        blocks.append(np.split(of_class[order], np.cumsum(np.bincount(inverse))[:-1]))
    values = []
    for _ in range(draws):
        chosen = np.concatenate([b[i] for b in blocks for i in rng.integers(len(b), size=len(b))])
        values.append(metric(scores[chosen], fake[chosen]))
    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(metric(scores, fake), float(low), float(high))
