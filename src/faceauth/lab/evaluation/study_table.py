"""The study's table: Accuracy, Precision, Recall, AUROC and F1, with its class convention, 1 = real.

The AUROC that the study printed (0.83243) equals the balanced accuracy computed from its other figures: an AUROC from
0/1 answers is that. Here AUROC comes from scores, and balanced accuracy stands beside it under its own name.
"""

import numpy as np
import pandas as pd

from faceauth.errors import DataError
from faceauth.lab.evaluation import metrics
from faceauth.lab.evaluation.metrics import Bools, Floats
from faceauth.lab.evaluation.protocol import Row
from faceauth.lab.evaluation.score_table import PREPARED


def study_table(rows: pd.DataFrame) -> list[Row]:
    """A row for each model, on its real and fake images at logit 0 as the study did: prepared faces, else clean.

    Args:
        rows: of a table of scores; edited images are in neither class. Of fold models the held-out rows count alone.

    Raises:
        DataError: a model without real or without fake images.
    """
    variant = PREPARED if (rows["variant"] == PREPARED).any() else "clean"
    rows = rows[(rows["seed"] < 0) | rows["held_out"]]
    rows = rows[(rows["variant"] == variant) & rows["label"].isin(("real", "fake")) & rows["logit"].notna()]
    found = []
    for model, part in rows.groupby("model", sort=False):
        real = (part["label"] == "real").to_numpy()
        if real.all() or not real.any():
            raise DataError(f"{model} has no {'fake' if real.all() else 'real'} images", "score images of both classes")
        found.append({"model": str(model), **study_row(part["logit"].to_numpy(float), real)})
    return found


def study_row(logits: Floats, real: Bools) -> Row:
    """The study's columns.

    Args:
        logits: (n,) of P(fake), not calibrated; real: (n,), the positive class.

    Returns:
        Precision is None where nothing is called real.
    """
    called = logits < 0
    hits = float((called & real).sum())
    recall, passed = hits / real.sum(), float((called & ~real).sum() / (~real).sum())
    precision = hits / called.sum() if called.any() else None
    return {
        "Accuracy": float((called == real).mean()),
        "Precision": None if precision is None else float(precision),
        "Recall": float(recall),
        "AUROC": float(metrics.auroc(-logits, real)),
        "F1": float(2 * hits / (called.sum() + real.sum())),
        "balanced accuracy": float(np.mean([recall, 1 - passed])),
    }
