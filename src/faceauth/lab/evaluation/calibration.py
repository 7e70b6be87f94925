"""Platt scaling, thresholds and what a false-alarm rate is worth; from logits and labels alone, without torch.

What a rate is worth comes from **split conformal** prediction, for one model and images of kinds that it was not
trained on (`false_alarm_curve`). Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005; with
weights Tibshirani et al., 2019 (arXiv 1904.06019); with kinds as units Lee, Barber and Willett, 2023 (arXiv
2306.06342). For fold models asked together see `false_alarms`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from faceauth.errors import DataError
from faceauth.lab.evaluation.metrics import Bools, Floats
from faceauth.model_file import Calibration, Thresholds

GRID = np.unique(np.round(np.concatenate([np.linspace(0, 1, 201), 1 - np.geomspace(1e-5, 1e-2, 31)]), 7))  # thresholds
FEW = 50  # images: a kind of fewer weighs less than the others, so that no image weighs more than 1/50 of a kind


def kind_weights(kinds: Sequence[str] | npt.NDArray[Any], images: Sequence[str] | npt.NDArray[Any]) -> Floats:
    """(n,) weights by which kinds count the same (small ones less, see `FEW`), and within a kind its images.

    `kinds` and `images` are (n,) of rows; the rows of one image, its variants, share its weight.
    """
    table = pd.DataFrame({"kind": kinds, "image": images})
    rows = table.groupby(["kind", "image"])["image"].transform("size")
    size = table.groupby("kind")["image"].transform("nunique")
    return np.asarray(1 / (size.clip(lower=FEW) * rows))


def fit_platt(logits: Floats, fake: Bools, weights: Floats, fitted_on: str) -> Calibration:
    """score = sigmoid(scale x logit + shift), by weighted logistic regression. Platt, 1999.

    Args:
        weights: (n,) such as `kind_weights`; they are scaled so that both classes weigh the same, which makes 0.5
            the score of an image that is as likely real as fake where both are equally common.

    Raises:
        DataError: a class is absent, or the logits do not rise with P(fake).
    """
    from sklearn.linear_model import LogisticRegression

    if fake.all() or not fake.any():
        raise DataError("calibration needs real and fake images", "score images of both classes")
    scaled = np.where(fake, weights / weights[fake].sum(), weights / weights[~fake].sum()) * len(fake) / 2
    model = LogisticRegression(C=1e6).fit(np.reshape(logits, (-1, 1)), fake, sample_weight=scaled)
    scale, shift = float(model.coef_[0, 0]), float(model.intercept_[0])
    if scale <= 0:
        raise DataError("the logits do not rise with P(fake): this model cannot be calibrated", "train it for longer")
    return Calibration(scale, shift, fitted_on)


def fit(
    logits: Floats, fake: Bools, kinds: npt.NDArray[Any], images: npt.NDArray[Any], fitted_on: str
) -> tuple[Calibration, Thresholds]:
    """Platt scaling and thresholds on rows (n,) of kinds that the model was not trained on. Raises as `fit_platt`."""
    weights = kind_weights(kinds, images)
    calibration = fit_platt(logits, fake, weights, fitted_on)
    return calibration, fit_thresholds(calibration(logits), fake, weights, images, fitted_on)


def false_alarm_curve(
    scores: Floats, weights: Floats, units: npt.NDArray[Any] | None = None
) -> tuple[tuple[float, float], ...]:
    """For each threshold of `GRID` a bound on how likely a further real image is called fake: split conformal.

    With W the sum of the weights and w that of the new unit, (W(t) + w) / (W + w), where W(t) is the weight of the
    real images at or above t and w the weight of the heaviest unit at hand: the new one is counted as one above every
    threshold. It holds for a further image of the kinds at hand, mixed by their weights; with units = kinds for an
    image of a further kind, where kinds are exchangeable.

    Args:
        scores, weights: (n,) of real images that the model was not trained on.
        units: (n,) what counts as one, such as the image whose variants the rows are. None: every row.

    Returns:
        Pairs (threshold, bound), rising in threshold, never rising in bound, rounded up.
    """
    _, member = np.unique(np.arange(len(scores)) if units is None else units, return_inverse=True)
    new = np.bincount(member, weights).max()
    order = np.argsort(scores)
    above = np.concatenate([np.cumsum(weights[order][::-1])[::-1], [0.0]])
    bounds = (above[np.searchsorted(scores[order], GRID, side="left")] + new) / (weights.sum() + new)
    return tuple(zip(GRID.tolist(), (np.ceil(bounds * 1e6 - 1e-6) / 1e6).tolist(), strict=True))


def threshold_at_fpr(curve: Sequence[tuple[float, float]], rate: float) -> float | None:
    """The lowest threshold below 1 whose bound is at most `rate`; None where there are too few images for it."""
    return next((t for t, share in curve if share <= rate and t < 1), None)


def fit_thresholds(
    scores: Floats, fake: Bools, weights: Floats, units: npt.NDArray[Any], measured_on: str,
    false_alarms: float = 0.05, misses: float = 0.1,
) -> Thresholds:  # fmt: skip
    """`fake` so that a further real image reaches it with a probability of at most `false_alarms`, 1 where the images
    are too few for that; `real` so that at most the share `misses` of fake images lies at or below it. The scores (n,)
    are calibrated P(fake) on images of kinds that the model was not trained on.
    """
    curve = false_alarm_curve(scores[~fake], weights[~fake], units[~fake])
    fake_from = threshold_at_fpr(curve, false_alarms)
    missed = np.array([weights[fake][scores[fake] <= t].sum() for t in GRID]) / weights[fake].sum()
    real_to = float(GRID[missed <= misses][-1]) if (missed <= misses).any() else 0.0
    upper = 1.0 if fake_from is None else fake_from
    return Thresholds(upper, min(real_to, upper), curve, measured_on)


def verdicts(first: Floats, mean: Floats, fake_from: float | Floats, real_to: float | Floats) -> npt.NDArray[np.str_]:
    """(n,) `fake`, `real` or `uncertain`, as the detector answers.

    Args:
        first: calibrated P(fake); mean: of the mean logit over all augmented views, `first` where there are none.
            An image is called fake where both reach `fake_from`.
    """
    below = np.where((first <= real_to) & (first < fake_from), "real", "uncertain")
    return np.where((first >= fake_from) & (mean >= fake_from), "fake", below)
