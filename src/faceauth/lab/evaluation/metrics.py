"""The figures of the protocol, from scores = P(fake) and labels.

AUROC and the other ranking figures need scores, never verdicts: computed from 0/1 verdicts AUROC is balanced accuracy.
Every metric takes `weights` of shape (n,) or (draws, n): how often each image counts. A bootstrap is one call with
many rows of weights. The result is a number, or (draws,).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]


def roc(scores: Floats, fake: Bools, weights: Floats | None = None) -> tuple[Floats, Floats]:
    """False-positive and true-positive rates at every distinct score, from none flagged to all flagged.

    Both are (thresholds + 1,) or (draws, thresholds + 1), rising; NaN where a class is absent.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    weights = np.ones(len(scores)) if weights is None else weights
    rates = []
    for of_class in (~fake, fake):
        counts = np.cumsum(np.where(of_class, weights, 0)[..., order], axis=-1)[..., ends]
        start = np.zeros((*counts.shape[:-1], 1))
        with np.errstate(invalid="ignore"):
            rates.append(np.concatenate([start, counts], axis=-1) / counts[..., -1:])
    return rates[0], rates[1]


def auroc(scores: Floats, fake: Bools, weights: Floats | None = None) -> Any:
    """Area under the ROC curve from scores, ties counting half. NaN where a class is absent."""
    fpr, tpr = roc(scores, fake, weights)
    return (np.diff(fpr) * (tpr[..., 1:] + tpr[..., :-1])).sum(-1) / 2


def tpr_at_fpr(scores: Floats, fake: Bools, weights: Floats | None = None, rate: float = 0.01) -> Any:
    """Largest share of fakes caught by a threshold that flags at most `rate` of the real ones."""
    fpr, tpr = roc(scores, fake, weights)
    return np.where(fpr <= rate, tpr, 0).max(-1)


def eer(scores: Floats, fake: Bools, weights: Floats | None = None) -> Any:
    """Equal error rate: where the false-positive rate equals the false-negative rate, interpolated."""
    fpr, tpr = roc(scores, fake, weights)
    gap = fpr + tpr - 1  # rises from -1 to 1
    i = np.argmax(gap >= 0, axis=-1)[..., None]
    at, before = (np.take_along_axis(gap, k, -1) for k in (i, i - 1))
    high, low = (np.take_along_axis(fpr, k, -1) for k in (i, i - 1))
    return (low - before / (at - before) * (high - low))[..., 0]


def balanced_accuracy(scores: Floats, fake: Bools, weights: Floats | None = None, threshold: float = 0.5) -> Any:
    """Mean of the shares of fakes at or above, and of reals below, the threshold."""
    return (_shares(fake, weights) * ((scores >= threshold) == fake)).sum(-1)


def calibration_error(
    scores: Floats, fake: Bools, weights: Floats | None = None, bins: int = 15, balanced: bool = True
) -> Any:
    """Expected calibration error over equally wide bins. Guo et al., ICML 2017.

    Where `balanced`, both classes weigh the same, so that the figure does not depend on their shares in the data set;
    else every image weighs the same, as in the paper.
    """
    which = np.minimum((scores * bins).astype(int), bins - 1)
    gaps = (scores - fake)[:, None] * (which[:, None] == np.arange(bins))
    return np.abs(_shares(fake, weights, balanced) @ gaps).sum(-1)


def calibration_error_by_chance(scores: Floats, draws: int = 100, seed: int = 0) -> float:
    """The calibration error that as few images would show if the scores (n,) were calibrated perfectly.

    Labels are drawn from the scores, `draws` times, and the mean counts: consistency resampling (Broecker and Smith,
    Weather and Forecasting 2007). Bins of few images have large gaps by chance alone.
    """
    labels = np.random.default_rng(seed).random((draws, len(scores))) < scores
    return float(np.mean([calibration_error(scores, fake, balanced=False) for fake in labels]))


def brier(scores: Floats, fake: Bools, weights: Floats | None = None) -> Any:
    """Mean squared distance of score and label, both classes weighing the same. Brier, 1950."""
    return (_shares(fake, weights) * (scores - fake) ** 2).sum(-1)


def _shares(fake: Bools, weights: Floats | None, balanced: bool = True) -> Floats:
    """What each image counts of 1: half for either class where they are balanced, else by the weights alone."""
    weights = np.ones(len(fake)) if weights is None else weights
    if not balanced:
        return np.asarray(weights / weights.sum(-1, keepdims=True))
    real, false = ((weights * mask).sum(-1, keepdims=True) for mask in (~fake, fake))
    return np.asarray(np.where(fake, weights / (2 * np.maximum(false, 1)), weights / (2 * np.maximum(real, 1))))


def kind_draws(kinds: npt.NDArray[Any], fake: Bools, draws: int, seed: int) -> dict[tuple[Any, bool], Floats]:
    """How often each kind is drawn, (draws,) for each (kind, class): kinds with replacement within a class.

    The bootstrap of clustered data (Davison and Hinkley, 1997, section 3.8): images of one kind are alike, so kinds
    and not images are what another sample of the world would change.
    """
    rng = np.random.default_rng(seed)
    counts: dict[tuple[Any, bool], Floats] = {}
    for label in (False, True):
        names = np.unique(kinds[fake == label])
        if len(names):
            drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
            counts |= {(name, label): drawn[:, i].astype(float) for i, name in enumerate(names.tolist())}
    return counts
