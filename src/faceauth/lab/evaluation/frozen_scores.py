"""Scores of detectors on frozen encoders, straight from stored features: rows for the table of scores."""

from collections.abc import Collection, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from faceauth.lab.data.variants import VARIANTS
from faceauth.lab.evaluation.score_models import about_images
from faceauth.lab.training.assemble import SwapRule
from faceauth.lab.training.frozen import Examples, FoldKey, Heads, Prepared, scored_views, state_digest, tasks

SHIPPED_RATE, SWAP_RATE = 0.04, 0.01  # false alarms that the two outputs may have: together the 5 % of the default


def rows(
    prepared: Prepared, found: Examples, heads: Mapping[FoldKey, Heads], splits: Collection[str], rule: SwapRule
) -> pd.DataFrame:
    """What every fold's model says of the images of `splits`, in every variant.

    Each image that the fold holds out is there; in the deal by kind, those of the test and dev splits of other kinds
    too. The logit is what `rule` makes of the two outputs.
    """
    return pd.concat(list(_tables(prepared, found, heads, splits, rule)), ignore_index=True)


def _tables(
    prepared: Prepared, found: Examples, heads: Mapping[FoldKey, Heads], splits: Collection[str], rule: SwapRule
) -> Iterator[pd.DataFrame]:
    images = about_images(prepared.rows)
    asked = scored_views(prepared, found) & np.isin(images["split"].to_numpy()[found.row], list(splits))
    missing = list(_faceless(prepared, splits))
    model_sha256 = state_digest(prepared)
    for key, of in heads.items():
        held = prepared.held(key)
        scored = held | ((images["split"] != "train").to_numpy() & (key.deal == "kind"))
        kept = asked & scored[found.row]
        part = images.iloc[found.row[kept]].reset_index(drop=True)
        swapped = of.swapped(found.features[kept])
        part["logit"] = rule(of.generated(found.features[kept]), swapped)
        part["swap_logit"] = swapped
        part["variant"], part["face"], part["held_out"] = found.view[kept], True, held[found.row[kept]]
        lost = [(i, view) for i, view in missing if scored[i]]
        if lost:
            without = images.iloc[[i for i, _ in lost]].reset_index(drop=True)
            without["variant"], without["face"] = [view for _, view in lost], False
            without["held_out"] = [bool(held[i]) for i, _ in lost]
            part = pd.concat([part, without], ignore_index=True)
        name = f"{model_sha256}-{key.deal}-{key.seed}-{key.fold}"
        yield part.assign(model=prepared.config.name, model_sha256=name, **key._asdict())


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
    prepared: Prepared, found: Examples, heads: Mapping[FoldKey, Heads], splits: Collection[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Index into `found`, generated and swap logits of every view in a variant, by the model that did not see its kind.

    One entry a seed, so that an image has as many as there are seeds.
    """
    split = prepared.column("split")[found.row]
    asked = np.isin(found.view, VARIANTS) & np.isin(split, list(splits))
    where, generated, swapped = [], [], []
    for key, of in heads.items():
        kept = np.flatnonzero(asked & prepared.held(key)[found.row])
        where.append(kept)
        generated.append(of.generated(found.features[kept]))
        swapped.append(of.swapped(found.features[kept]))
    return np.concatenate(where), np.concatenate(generated), np.concatenate(swapped)


def swap_rule(generated: npt.NDArray[np.float64], swapped: npt.NDArray[np.float64]) -> SwapRule:
    """The rule by which `SWAP_RATE` of real images pass by their swap logits, `SHIPPED_RATE` by the generated ones."""
    limit = float(np.quantile(generated, 1 - SHIPPED_RATE))
    return SwapRule(limit - float(np.quantile(swapped, 1 - SWAP_RATE)), limit)
