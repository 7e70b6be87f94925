"""Which rows of a table of scores count for which figure, and whether all of them are there.

- unseen kind: held-out rows, each by the fold model that was not trained on the image's kind;
- unseen source: the same in the deal by source, where other sources of the kind may have been trained on;
- seen: images of the split test, of kinds that the model was trained on.

The headline is real against generated (GAN, diffusion). Face swaps, restored and edited images have rows of their own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from faceauth.errors import DataError
from faceauth.lab.data.splits import ALTERED, DEALS
from faceauth.lab.evaluation.score_table import ScoreTable

RESAVED = ("clean", "web", "hard", "avatar", "edited")  # every image can be had in each
VARIANTS = (*RESAVED, "matched")
CONTROL_MODELS = ("file-facts", "thumbnail")
CONTROL_VARIANTS = ("face-hidden", "face-only")
SPECIAL = ("swap", "restored", "edited")
UNSEEN = {"kind": "unseen kind", "source": "unseen source"}  # by deal
SEEN = "seen"
SEEDS, FOLDS = 2, 6  # of the protocol
_NAMES = ("image", "source", "kind", "label", "family", "split", "variant", "model", "deal", "group", "set")
TO_SCORE = "score the missing images with faceauth lab score, or leave the model out"


def score_rows(table: ScoreTable, models: Sequence[str] = ()) -> pd.DataFrame:
    """The rows that figures are computed from, with the columns `group` and `set`.

    A row's group is `real`, `generated`, or one of `SPECIAL`; its set is one of `UNSEEN`, or `SEEN`. The models named
    are kept, and the controls; all where none is. Raises DataError where there is no model of a name.
    """
    rows = table.rows
    there = sorted(set(rows["model"]))
    if unknown := sorted(set(models) - set(there)):
        raise DataError(f"no scores of a model {unknown[0]!r}", f"the table has {', '.join(there)}")
    if models:
        rows = rows[rows["model"].isin(models) | rows["model"].map(is_control)]
    rows = rows[rows["held_out"] | rows["split"].isin(("test", "dev"))]
    special = rows["family"].isin(ALTERED)
    of_class = [rows["label"] == "edited", rows["label"] == "real", special]
    groups = np.select(of_class, ["edited", "real", rows["family"]], "generated")
    rows = rows.assign(group=groups, set=rows["deal"].map(UNSEEN).where(rows["held_out"], SEEN))
    return rows.astype(dict.fromkeys(_NAMES, "category"))  # strings are compared a thousand times below


def detectors(rows: pd.DataFrame) -> list[str]:
    """Names of the models that are no controls, in order of appearance."""
    return [m for m in rows["model"].unique().tolist() if not is_control(m)]


def deals(rows: pd.DataFrame) -> list[str]:
    """The deals that a model's rows are of."""
    return [deal for deal in DEALS if (rows["deal"] == deal).any()]


def is_control(model: str) -> bool:
    """Whether a model is a control: by its name, or its name and `/` and the one detector that it belongs to."""
    return model.partition("/")[0] in CONTROL_MODELS


def controls_of(rows: pd.DataFrame, detector: str) -> pd.DataFrame:
    """The controls beside a detector, under their plain names: its own where there are some, else those of all."""
    own = {f"{name}/{detector}": name for name in CONTROL_MODELS}
    there = set(rows["model"])
    names = own if there & set(own) else {name: name for name in CONTROL_MODELS}
    found = rows[rows["model"].isin(set(names))]
    return found.assign(model=found["model"].astype(object).map(names))


def check_complete(rows: pd.DataFrame) -> None:
    """What the figures of a table rest on.

    Raises:
        DataError: a class is absent; a kind is not held out in a seed of the deal by kind; a held-out image lacks its
            row, or has two, in a seed; models disagree about the fold of an image; a fold without real or without
            generated images. Of the sealed set, which is too small for it, neither every kind nor both classes are
            asked for: a fold without a class has no figure there.
    """
    for name in ("real", "generated"):
        if not (rows["group"] == name).any():
            raise DataError(f"the table has no {name} images", "score images of both classes")
    counted = rows[rows["group"].isin(("real", "generated"))]
    folds = counted[counted["seed"] >= 0]
    for deal in deals(folds):
        of_deal = folds[folds["deal"] == deal]
        if deal == "kind":
            _check_every_kind(of_deal[of_deal["split"] != "dev"])
        _check_held_out_rows(of_deal[of_deal["held_out"]], of_deal, deal)
    single = counted[counted["seed"] < 0]
    single = single[single["deal"] == "kind"]
    for (model, variant), part in single[single["variant"].isin(RESAVED)].groupby(["model", "variant"], sort=False):
        lacking = set(single["image"]) - set(part["image"])
        _complain(lacking, f"{model} has no {variant} score of")


def _check_every_kind(folds: pd.DataFrame) -> None:
    kinds = set(folds["kind"])
    for (model, seed), part in folds.groupby(["model", "seed"], sort=False):
        if lacking := sorted(kinds - set(part[part["held_out"]]["kind"])):
            raise DataError(
                f"{model}, seed {seed}: {len(lacking)} of {len(kinds)} kinds are held out by no fold, the first "
                f"{lacking[0]!r}", "score every fold of the seed",
            )  # fmt: skip


def _check_held_out_rows(held: pd.DataFrame, folds: pd.DataFrame, deal: str) -> None:
    wanted = set(folds[folds[deal].isin(set(held[deal]))]["image"])
    for (model, seed, variant), part in held.groupby(["model", "seed", "variant"], sort=False):
        twice = part[part["image"].duplicated()]
        if not twice.empty:
            raise DataError(
                f"two fold models of {model}, seed {seed}, hold out the image {twice['image'].iloc[0]!r}",
                f"every {deal} is held out once in a seed: deal the folds again",
            )
        if variant in RESAVED:
            _complain(wanted - set(part["image"]), f"{model}, seed {seed}, has no held-out {variant} score of")
    for seed, part in held.groupby("seed"):
        pairs = part[[deal, "fold"]].drop_duplicates()
        if pairs[deal].duplicated().any():
            raise DataError(
                f"the {deal} {pairs[pairs[deal].duplicated()][deal].iloc[0]} is held out by two folds of seed {seed}",
                f"a {deal} is dealt whole, and alike for every model: train and score with the same folds",
            )
    for (model, seed, fold, variant), part in held.groupby(["model", "seed", "fold", "variant"], sort=False):
        if len(set(part["group"])) < 2 and variant in RESAVED and (part["split"] != "dev").any():
            lacks = "generated" if part["group"].iloc[0] == "real" else "real"
            raise DataError(f"{model}, seed {seed}, fold {fold}: no held-out {lacks} images", "deal the folds again")


def _complain(missing: set[str], said: str) -> None:
    if missing:
        raise DataError(f"{said} {len(missing)} images, the first {min(missing)!r}", TO_SCORE)


def check_fitted_on(metadata: Mapping[str, Any], rows: pd.DataFrame) -> None:
    """Raises DataError where a control was not fitted on all the re-saved variants that the table has."""
    fitted = metadata.get("controls", {})
    wanted = [v for v in RESAVED if (rows["variant"] == v).any()]
    for control in rows["model"].unique().tolist():
        if is_control(control) and (lacking := [v for v in wanted if v not in fitted.get(control, ())]):
            raise DataError(
                f"the control {control} was not fitted on {', '.join(lacking)}",
                "fit the controls on the variants that the detector trains on: faceauth.lab.evaluation.controls",
            )


def answered(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with a logit, of images that the model answers in all of `RESAVED` that it has: columns compare.

    Held-out and seen rows count apart, as do deals, seeds and folds. A row of another variant is kept if it has a logit
    and the image is kept.
    """
    keys = ["model", "deal", "seed", "fold", "image"]
    lacking = rows[rows["variant"].isin(RESAVED) & rows["logit"].isna()]
    index = pd.MultiIndex.from_frame(rows[keys])
    return rows[rows["logit"].notna() & ~index.isin(pd.MultiIndex.from_frame(lacking[keys]))]


def remarks(rows: pd.DataFrame) -> list[str]:
    """Where a table has less than the protocol asks for: variants, seeds, folds, controls."""
    said = []
    for model in rows["model"].unique().tolist():
        part = rows[rows["model"] == model]
        if missing := [v for v in VARIANTS if v not in set(part["variant"])]:
            said.append(f"{model}: not scored in {', '.join(missing)}")
        folds = part[(part["seed"] >= 0) & part["held_out"]]
        for deal in DEALS if (part["seed"] >= 0).any() else ():
            pairs = folds[folds["deal"] == deal][["seed", "fold"]].drop_duplicates()
            if pairs["seed"].nunique() < SEEDS or len(pairs) < SEEDS * FOLDS:
                said.append(
                    f"{model}: {len(pairs)} folds of {pairs['seed'].nunique()} seeds by {deal}; the protocol asks for "
                    f"{SEEDS * FOLDS} of {SEEDS}"
                )
    there = set(rows["model"])
    missing = [c for c in CONTROL_MODELS if not any(m.partition("/")[0] == c for m in there)]
    return said + [f"the control {c} is not in the table" for c in missing]


def counts(rows: pd.DataFrame) -> list[dict[str, object]]:
    """How many images each model answers: of each variant, without a face, with an error."""
    found = []
    for (model, variant), part in rows.groupby(["model", "variant"], sort=False):
        images = part.drop_duplicates("image")
        found.append({
            "model": model, "variant": variant,
            **{name: int((images["group"] == name).sum()) for name in ("real", "generated", *SPECIAL)},
            "without a face": int((~images["face"] & images["error"].isna()).sum()),
            "errors": int(images["error"].notna().sum()),
        })  # fmt: skip
    return found
