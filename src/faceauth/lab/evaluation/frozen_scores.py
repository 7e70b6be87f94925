"""Scores of detectors on frozen encoders, straight from stored features: rows for the table of scores."""

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from faceauth.lab.data.variants import VARIANTS
from faceauth.lab.evaluation.score_models import about_images
from faceauth.lab.training.frozen import Examples, Heads, Prepared, state_digest, tasks

SHIPPED_RATE, SWAP_RATE = 0.04, 0.01  # false alarms that the two outputs may have: together the 5 % of the default


def rows(
    prepared: Prepared, found: Examples, heads: Mapping[tuple[int, int], Heads], splits: Collection[str], offset: float
) -> pd.DataFrame:
    """What every fold's model says of the images of `splits`, in every variant.

    Each image of a kind that the fold holds out is there, of other kinds those of the test and dev splits alone. The
    logit is the larger one of the two outputs, the swap output moved by `offset`.
    """
    return pd.concat(list(_tables(prepared, found, heads, splits, offset)), ignore_index=True)


def _tables(
    prepared: Prepared, found: Examples, heads: Mapping[tuple[int, int], Heads], splits: Collection[str], offset: float
) -> Iterator[pd.DataFrame]:
    images = about_images(prepared.rows)
    quota = {
        (t.sha256, v) for t in tasks(prepared.config, prepared.data, prepared.rows, training=False) for v in t.views
    }
    sha256 = images["image_sha256"].to_numpy()[found.row]
    asked = np.array([pair in quota for pair in zip(sha256, found.view.tolist(), strict=True)])
    asked &= np.isin(images["split"].to_numpy()[found.row], list(splits))
    missing = list(_faceless(prepared, splits))
    model_sha256 = state_digest(prepared)
    for (seed, fold), of in heads.items():
        held = np.array(prepared.folds[seed]) == fold
        kept = asked & (held[found.row] | (images["split"].to_numpy()[found.row] != "train"))
        part = images.iloc[found.row[kept]].reset_index(drop=True)
        swapped = of.swapped(found.features[kept])
        part["logit"] = np.maximum(of.generated(found.features[kept]), swapped + offset)
        part["swap_logit"] = swapped
        part["variant"], part["face"], part["held_out"] = found.view[kept], True, held[found.row[kept]]
        lost = [(i, view) for i, view in missing if held[i] or images["split"][i] != "train"]
        if lost:
            without = images.iloc[[i for i, _ in lost]].reset_index(drop=True)
            without["variant"], without["face"] = [view for _, view in lost], False
            without["held_out"] = [bool(held[i]) for i, _ in lost]
            part = pd.concat([part, without], ignore_index=True)
        part["model"], part["model_sha256"], part["seed"], part["fold"] = (
            prepared.config.name, f"{model_sha256}-{seed}-{fold}", seed, fold,
        )  # fmt: skip
        yield part


def _faceless(prepared: Prepared, splits: Collection[str]) -> Iterator[tuple[int, str]]:
    """(row, variant) of pictures in which no face was found; those that a variant leaves out are not among them."""
    faces = prepared.store.faces(prepared.encoders[0])
    index = {row.sha256: i for i, row in enumerate(prepared.rows)}
    for task in tasks(prepared.config, prepared.data, prepared.rows, training=False):
        for view in set(task.views) - {"matched"}:
            i = index[task.sha256]
            if prepared.rows[i].split in splits and faces.get((task.sha256, view)) == 0:
                yield i, view


def held_out(
    prepared: Prepared, found: Examples, heads: Mapping[tuple[int, int], Heads], splits: Collection[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Index into `found`, generated and swap logits of every view in a variant, by the model that did not see its kind.

    One entry a seed, so that an image has as many as there are seeds.
    """
    split = np.array([r.split for r in prepared.rows])[found.row]
    asked = np.isin(found.view, VARIANTS) & np.isin(split, list(splits))
    where, generated, swapped = [], [], []
    for (seed, fold), of in heads.items():
        kept = np.flatnonzero(asked & (np.array(prepared.folds[seed]) == fold)[found.row])
        where.append(kept)
        generated.append(of.generated(found.features[kept]))
        swapped.append(of.swapped(found.features[kept]))
    return np.concatenate(where), np.concatenate(generated), np.concatenate(swapped)


def swap_offset(generated: npt.NDArray[np.float64], swapped: npt.NDArray[np.float64]) -> float:
    """What is added to the swap logits of real images so that `SWAP_RATE` of them pass where `SHIPPED_RATE` of the
    generated logits do: the swap output has a threshold of its own, expressed as a shift."""
    return float(np.quantile(generated, 1 - SHIPPED_RATE) - np.quantile(swapped, 1 - SWAP_RATE))
