"""Calibrated scores and verdicts of a table's rows, none of them by a calibration that is fitted here to its own kind.

A row of a fold is calibrated by the held-out rows of the seed's other folds; a row of a single model by what ships
with the model, or else by the rows of the other kinds. The dev rows are calibrated by rows of the other splits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd

from faceauth.errors import DataError
from faceauth.lab.evaluation.calibration import fit, verdicts
from faceauth.lab.evaluation.metrics import Floats
from faceauth.lab.evaluation.score_sets import RESAVED
from faceauth.model_file import Calibration, ModelCard, Thresholds

ALL_BUT = "the other kinds"


@dataclass(frozen=True, slots=True)
class Fitted:
    """A calibration with thresholds."""

    calibration: Calibration
    fake_from: float
    real_to: float

    @classmethod
    def of_card(cls, given: Mapping[str, Any]) -> "Fitted":
        """From the metadata of a table: scale, shift, fake_from, real_to, measured_on. Raises DataError."""
        try:
            scale, shift, fake_from, real_to = (float(given[k]) for k in ("scale", "shift", "fake_from", "real_to"))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the table's calibration of a model is damaged: {error}", "score it again") from error
        measured_on = str(given.get("measured_on", "the model file"))
        return cls(Calibration(scale, shift, measured_on), fake_from, real_to)


def fit_rows(rows: pd.DataFrame, fitted_on: str) -> tuple[Calibration, Thresholds]:
    """Platt scaling and thresholds on rows of real and generated images; kinds count the same within a class.

    Raises DataError where a class is absent, or the logits do not rise with P(fake).
    """
    used = rows[rows["group"].isin(("real", "generated")) & rows["variant"].isin(RESAVED) & rows["logit"].notna()]
    if used.empty:
        raise DataError("calibration needs real and generated images", "score images of both classes")
    logits, fake = used["logit"].to_numpy(float), (used["group"] == "generated").to_numpy()
    return fit(logits, fake, used["kind"].to_numpy(str), used["image"].to_numpy(str), fitted_on)


def fit_card(card: ModelCard, rows: pd.DataFrame) -> ModelCard:
    """The card with calibration and thresholds from one model's rows (`score_sets.score_rows`), and what they were.

    Held-out rows where both classes have some; else new images of the kinds that it was trained on, and the card says
    which. Fold models stand in for a model trained on all kinds: their rate is measured, not proven for it. Raises as
    `fit_rows`.
    """
    rows = rows[rows["deal"] == "kind"]
    held = rows[rows["held_out"]]
    if {"real", "generated"} <= set(held["group"]):
        kinds = held[held["group"] == "real"]["kind"].nunique()
        by = "fold models that were not trained on them" if (held["seed"] >= 0).all() else "this model, held out"
        used, described = held, f"images of {kinds} real kinds, scored by {by}"
    else:
        used, described = rows, "test images of sources it was trained on"
    variants = [v for v in RESAVED if (used["variant"] == v).any()]
    calibration, thresholds = fit_rows(used, f"{described}; {', '.join(variants)}; face swaps left out")
    return replace(card, calibration=calibration, thresholds=thresholds)


def cross_fitted(
    rows: pd.DataFrame, fitting: pd.DataFrame, shipped: Mapping[str, Any] | None = None
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """One model's rows with the columns `score`, `ranking`, `verdict`, and for each part the calibration that was used.

    `ranking` is for figures of the order alone, such as AUROC: the score, or, where the pieces of a set have
    calibrations of their own, the score by one calibration of all of them, so that they lie on one scale.

    Args:
        rows: of one model and deal, with logits; fitting: rows of the same to calibrate with, without dev rows: `rows`
            themselves while developing.
        shipped: what the model file says, see `Fitted.of_card`; used for rows that are no fold's.
    """
    held = fitting[fitting["held_out"]]
    parts, used = [], []
    for (seed, fold), part in rows.groupby(["seed", "fold"], sort=False):
        pieces: list[tuple[str, pd.DataFrame, Fitted]]
        ranking: Fitted | None = None
        if seed >= 0:
            others = held[(held["seed"] == seed) & (held["fold"] != fold)]
            pieces = [(f"seed {seed}, fold {fold}", part, _fit_or_not(others, "held-out rows of the other folds"))]
        elif shipped is not None:
            pieces = [("shipped", part, Fitted.of_card(shipped))]
        else:
            own = fitting[fitting["seed"] == seed]
            pieces = _kind_by_kind(part, own)
            ranking = _fit_or_not(own, "all kinds")
        for name, piece, fitted in pieces:
            scored = _scored(piece, fitted)
            order = scored if ranking is None else _scored(piece, ranking)
            parts.append(scored.assign(ranking=order["score"]))
            used.append({
                "part": name, "scale": fitted.calibration.scale, "shift": fitted.calibration.shift,
                "fake from": fitted.fake_from, "real to": fitted.real_to, "fitted on": fitted.calibration.fitted_on,
            })  # fmt: skip
    return pd.concat(parts).loc[rows.index], used


def _kind_by_kind(part: pd.DataFrame, fitting: pd.DataFrame) -> list[tuple[str, pd.DataFrame, Fitted]]:
    """Pieces of a single model's rows: every kind, calibrated by the others of the same set where they suffice."""
    pieces = [
        (str(kind), rows, _fit_or_not(fitting[fitting["kind"] != kind], ALL_BUT))
        for kind, rows in part.groupby("kind", sort=False)
    ]
    if any(fitted.calibration.fitted_on.startswith("nothing") for _, _, fitted in pieces):
        # Leaving a kind out leaves a class empty: halve the images instead, by what cannot depend on their scores.
        pieces = []
        for half in (0, 1):
            mine = _half(part) == half
            other = fitting[_half(fitting) != half]
            pieces.append((f"half {half + 1}", part[mine], _fit_or_not(other, "the other half of the images")))
    return [piece for piece in pieces if len(piece[1])]


def _half(rows: pd.DataFrame) -> Any:
    return np.array([crc32(sha.encode()) % 2 for sha in rows["image_sha256"]], int)


def _fit_or_not(rows: pd.DataFrame, described: str) -> Fitted:
    try:
        calibration, limits = fit_rows(rows, described)
    except DataError as error:
        said = f"nothing: {error.message}; sigmoid of the logit, both thresholds 0.5"
        return Fitted(Calibration(fitted_on=said), 0.5, 0.5)
    return Fitted(calibration, limits.fake, limits.real)


def _scored(rows: pd.DataFrame, fitted: Fitted) -> pd.DataFrame:
    first, mean = calibrated(rows, fitted.calibration)
    said = verdicts(first, mean, fitted.fake_from, fitted.real_to)
    return rows.assign(score=np.where(first >= fitted.fake_from, mean, first), verdict=said)


def calibrated(rows: pd.DataFrame, calibration: Calibration) -> tuple[Floats, Floats]:
    """P(fake) (n,) of each row's logit, and of the mean of it and of those of its augmented views."""
    logits = rows["logit"].to_numpy(float)
    means = np.array([
        logit if views is None or not len(views) else float(np.mean([logit, *views]))
        for logit, views in zip(logits, rows["view_logits"], strict=True)
    ])  # fmt: skip
    return calibration(logits), calibration(means)
