"""The controls beside a model, fold by fold: what can be told without a face, or from the wrong part of the picture.

(a) file facts and (b) a 16 x 16 thumbnail are models of the same table (`controls`); (c) the face painted over and (d)
all but the face painted over are variants that the model itself was asked. A control counts by its distance from 0.5
in either direction: one of 0.3 tells the classes apart as well as one of 0.7.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from faceauth.lab.evaluation.protocol import Row, area, by_variant
from faceauth.lab.evaluation.score_sets import CONTROL_MODELS, CONTROL_VARIANTS, SEEN, UNSEEN, VARIANTS

CLOSE = 0.05  # of AUROC


def control_folds(rows: pd.DataFrame, controls: pd.DataFrame) -> list[Row]:
    """For each set, variant, seed and fold the model's AUROC and each control's, on the images that both answer.

    The rows are one detector's, with logits; the controls as `score_sets.controls_of` gives them.
    """
    of_controls = dict(iter(controls.groupby(["set", "seed", "fold", "variant"])))
    found = []
    for (name, seed, fold), own in rows.groupby(["set", "seed", "fold"]):
        painted = by_variant(own, CONTROL_VARIANTS)
        asked = {v: area(painted[v], "logit") if v in painted else None for v in CONTROL_VARIANTS}
        for variant, part in by_variant(own).items():
            of_model = area(part, "logit")
            if of_model is None:
                continue
            same = of_controls.get((name, seed, fold, variant), controls.iloc[:0])
            same = same[same["image"].isin(set(part["image"]))]
            found.append({
                "set": name, "variant": variant, "seed": seed, "fold": fold, "AUROC": of_model,
                **{c: area(same[same["model"] == c], "logit") for c in CONTROL_MODELS}, **asked,
            })  # fmt: skip
    order = {name: i for i, name in enumerate((*UNSEEN.values(), SEEN, *VARIANTS))}
    return sorted(found, key=lambda r: (order[r["set"]], order[r["variant"]]))


def control_table(folds: Sequence[Row]) -> list[Row]:
    """The means over folds, each control's mean distance from 0.5, and a note where (a) or (b) comes close.

    (a) or (b) comes close where its distance is within 0.05 of the model's own AUROC above 0.5, or exceeds it: the
    column then says that the images can be told apart by their files alone.
    """
    found = []
    for model, name, variant in dict.fromkeys((r["model"], r["set"], r["variant"]) for r in folds):
        own = [r for r in folds if (r["model"], r["set"], r["variant"]) == (model, name, variant)]
        of_model = float(np.mean([r["AUROC"] for r in own]))
        row: Row = {"model": model, "set": name, "variant": variant, "folds": len(own), "AUROC": of_model}
        close = []
        for control in (*CONTROL_MODELS, *CONTROL_VARIANTS):
            values = [r[control] for r in own if r[control] is not None]
            distance = float(np.mean(np.abs(np.array(values) - 0.5))) if values else None
            row[control] = float(np.mean(values)) if values else None
            row[f"{control}, distance"] = distance
            if distance is not None and control in CONTROL_MODELS and distance > of_model - 0.5 - CLOSE:
                close.append(control)
        missing = [c for c in CONTROL_MODELS if row[c] is None]
        row["note"] = "; ".join(
            ([f"within {CLOSE} of the model: {', '.join(close)}"] if close else [])
            + ([f"no control: {', '.join(missing)}"] if missing else [])
        )
        found.append(row)
    return found
