"""From the heads of all folds, by stored features, to the table of scores and to the model file that ships.

That is their mean, calibrated on kinds that heads had not seen.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from faceauth.errors import DataError
from faceauth.lab.evaluation import ledger, prototypes, score_table
from faceauth.lab.evaluation.calibration import fit
from faceauth.lab.evaluation.frozen_embedding import outputs_of, projection
from faceauth.lab.evaluation.score_models import about_images
from faceauth.lab.run_info import commit, run_info
from faceauth.lab.training import frozen
from faceauth.lab.training.assemble import SwapRule, assemble
from faceauth.lab.training.encoders import count_parameters, load_encoder
from faceauth.lab.training.frozen import Examples, FoldKey, FrozenConfig, Heads, Prepared
from faceauth.model_file import Calibration, ModelCard, ModelFile, Thresholds

CALIBRATED_ON = ("clean", "web", "hard")
SHIPPED_RATE, SWAP_RATE = 0.04, 0.01  # false alarms that the two outputs may have: together the 5 % of the default
LICENCE = "Weights: research use, as the licences of the training images ask (see the model card). Code: Apache-2.0."


@dataclass(frozen=True, slots=True)
class Shipped:
    """What was set on held-out kinds: see `calibrate`."""

    rule: SwapRule
    calibration: Calibration
    thresholds: Thresholds


def calibrate(prepared: Prepared, found: Examples, heads: Mapping[FoldKey, Heads]) -> Shipped:
    """The swap rule, calibration and thresholds, from train and test images of held-out kinds; heads by kind alone.

    Every image is scored by the heads of the folds that hold its kind out, as it is, *web* and *hard*. Kinds count the
    same. Generated fakes decide where `real` ends; swaps and restored images take no part. By the rule `SWAP_RATE` of
    real images pass by their swap logits, `SHIPPED_RATE` by the generated ones.
    """
    usable = prepared.real_or_generated()[found.row] & np.isin(found.view, CALIBRATED_ON)
    held = [np.flatnonzero(usable & prepared.held(key)[found.row]) for key in heads]
    of_folds = list(zip(heads.values(), held, strict=True))
    generated = np.concatenate([of.generated(found.features[at]) for of, at in of_folds])
    swapped = np.concatenate([of.swapped(found.features[at]) for of, at in of_folds])
    row = found.row[np.concatenate(held)]
    fake, kinds, images = (prepared.column(name)[row] for name in ("label", "kind", "sha256"))
    fake = fake == "fake"
    limit = float(np.quantile(generated[~fake], 1 - SHIPPED_RATE))
    rule = SwapRule(limit - float(np.quantile(swapped[~fake], 1 - SWAP_RATE)), limit)
    said = (
        f"{len(set(images[~fake]))} photographs of {len(set(kinds[~fake]))} kinds and {len(set(images[fake]))} "
        f"generated faces of {len(set(kinds[fake]))}, each scored by models fitted without its kind, as they are and "
        "saved again"
    )
    return Shipped(rule, *fit(rule(generated, swapped), fake, kinds, images, said))


def fold_rows(
    prepared: Prepared, found: Examples, heads: Mapping[FoldKey, Heads], splits: Collection[str], rule: SwapRule
) -> pd.DataFrame:
    """What every fold's model says of the images of `splits`, in every variant.

    Each image that the fold holds out is there; in the deal by kind, those of the test and dev splits of other kinds
    too. The logit is what `rule` makes of the two outputs.
    """
    images = about_images(prepared.rows)
    asked, train = images["split"].isin(splits).to_numpy(), (images["split"] == "train").to_numpy()
    seen = np.flatnonzero(frozen.scored_views(prepared, found) & asked[found.row])
    missing = [(i, view) for i, view in _faceless(prepared) if asked[i]]
    row = np.array([*found.row[seen], *(i for i, _ in missing)], int)
    pictures = images.iloc[row].reset_index(drop=True)
    pictures["variant"] = [*found.view[seen].tolist(), *(view for _, view in missing)]
    pictures["face"] = np.arange(len(row)) < len(seen)
    model_sha256 = frozen.state_digest(prepared)
    parts = []
    for key, of in heads.items():
        held = prepared.held(key)
        scored = held | (~train & (key.deal == "kind"))
        features = found.features[seen[scored[found.row[seen]]]]
        swapped = of.swapped(features)
        part = pictures[scored[row]].assign(
            held_out=held[row[scored[row]]], model=prepared.config.name,
            model_sha256=f"{model_sha256}-{key.deal}-{key.seed}-{key.fold}", **key._asdict(),
        )  # fmt: skip
        part.loc[part["face"], "logit"] = rule(of.generated(features), swapped)
        part.loc[part["face"], "swap_logit"] = swapped
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _faceless(prepared: Prepared) -> Iterator[tuple[int, str]]:
    """(row, variant) of pictures in which no face was found; those that a variant leaves out are not among them."""
    faces = prepared.store.faces(prepared.encoders[0])
    index = {row.sha256: i for i, row in enumerate(prepared.rows)}
    for task in frozen.tasks(prepared.config, prepared.data, prepared.rows, training=False):
        for view in task.views:
            if view != "matched" and faces.get((task.sha256, view)) == 0:
                yield index[task.sha256], view


def ship(prepared: Prepared, found: Examples, heads: Mapping[FoldKey, Heads], shipped: Shipped, output: Path) -> None:
    """Write the model file, with calibration, thresholds and prototypes. `heads` are of the deal by kind."""
    projected = projection(prepared, found)
    labels = {r.source: r.label for r in prepared.rows}
    config = prepared.config
    [path] = config.encoders.values()
    encoder = load_encoder(path, config.blocks)
    card = ModelCard(
        name=config.name, version=config.version, sources=projected.names,
        labels=tuple(labels[name] for name in projected.names), preprocess=config.preprocess,
        calibration=shipped.calibration, thresholds=shipped.thresholds, licence=LICENCE,
        trained_on=f"the train split of {len(projected.names)} sources, in {len(heads)} fits that each leave kinds out",
        data_sha256=prepared.data.sha256, commit=commit(), seed=config.seeds[0],
        parameters=count_parameters(encoder) + 2 * found.features.shape[1],
        notes={
            "encoder": config.credit, "swap offset": round(shipped.rule.offset, 4),
            "swap limit": round(shipped.rule.limit, 4),
        },
    )  # fmt: skip
    assemble(encoder, frozen.mean_heads(list(heads.values())), shipped.rule, projected, card, output)
    prototypes.write(output, prototypes.prototypes(outputs_of(prepared, found, card, projected, heads, shipped.rule)))


def embed_shipped(prepared: Prepared, found: Examples, run: Path) -> prototypes.EmbeddedSet:
    """The embeddings of a shipped model and of its folds' models. Raises DataError where the run has no model file."""
    file = run / "detector.onnx"
    if not file.is_file():
        raise DataError(f"no model file {str(file)!r}", "train it first: faceauth lab train CONFIG --folds")
    card = ModelFile(file).card
    heads = {key: of for key, of in frozen.fit_folds(prepared, found, run).items() if key.deal == "kind"}
    rule = SwapRule(float(card.notes["swap offset"]), float(card.notes["swap limit"]))
    return outputs_of(prepared, found, card, projection(prepared, found), heads, rule)


def train_and_ship(config: FrozenConfig, runs: Path, cache: Path, workers: int, open_dev: bool) -> Path:
    """Features, folds, scores and the model file, each step skipped where its result is there; returns the run folder.

    The folder holds `scores.parquet`, `detector.onnx` and the heads of every fold; with `open_dev` also
    `scores-dev.parquet`, after a line in the ledger `dev_ledger.jsonl` beside the folder.
    """
    prepared = frozen.prepare(config, cache, workers)
    found = frozen.examples(prepared)
    run = runs / config.name
    run.mkdir(parents=True, exist_ok=True)
    heads = frozen.fit_folds(prepared, found, run)
    by_kind = {key: of for key, of in heads.items() if key.deal == "kind"}
    shipped = calibrate(prepared, found, by_kind)
    table = fold_rows(prepared, found, heads, ("train", "test"), shipped.rule)
    score_table.write(run / "scores.parquet", table, run_info(prepared.data.sha256))
    ship(prepared, found, by_kind, shipped, run / "detector.onnx")
    if open_dev:
        models = {config.name: frozen.state_digest(prepared)}
        opening = ledger.open_dev(runs / ledger.DEFAULT, prepared.data.sha256, models, "score")
        table = fold_rows(prepared, found, heads, ("dev",), shipped.rule)
        score_table.write(run / "scores-dev.parquet", table, run_info(prepared.data.sha256), opening)
    return run
