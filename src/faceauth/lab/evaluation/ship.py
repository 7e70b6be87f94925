"""From the heads of all folds to the model file that ships: their mean, calibrated on kinds that heads had not seen."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faceauth.errors import DataError
from faceauth.lab.data.splits import ALTERED
from faceauth.lab.evaluation import ledger, prototypes, score_table
from faceauth.lab.evaluation.calibration import fit_platt, fit_thresholds, kind_weights
from faceauth.lab.evaluation.frozen_embedding import outputs_of, projection
from faceauth.lab.evaluation.frozen_scores import held_out, rows, swap_rule
from faceauth.lab.run_info import commit, run_info
from faceauth.lab.training.assemble import SwapRule, assemble
from faceauth.lab.training.encoders import count_parameters, load_encoder
from faceauth.lab.training.frozen import (
    Examples,
    FoldKey,
    FrozenConfig,
    Heads,
    Prepared,
    examples,
    fit_folds,
    mean_heads,
    prepare,
    state_digest,
)
from faceauth.model_file import Calibration, ModelCard, ModelFile, Thresholds

CALIBRATED_ON = ("clean", "web", "hard")
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
    same. Generated fakes decide where `real` ends; swaps and restored images take no part.
    """
    where, generated, swapped = held_out(prepared, found, heads, ("train", "test"))
    of = [prepared.rows[i] for i in found.row[where]]
    usable = np.array([r.label == "real" or (r.label == "fake" and r.family not in ALTERED) for r in of])
    usable &= np.isin(found.view[where], CALIBRATED_ON)
    fake = np.array([r.label == "fake" for r in of])
    rule = swap_rule(generated[usable & ~fake], swapped[usable & ~fake])
    logit = rule(generated, swapped)[usable]
    fake, kept = fake[usable], [r for r, used in zip(of, usable, strict=True) if used]
    images = np.array([r.sha256 for r in kept])
    weights = kind_weights([r.kind for r in kept], images)
    counts = {label: len({r.kind for r in kept if r.label == label}) for label in ("real", "fake")}
    said = (
        f"{len(set(images[~fake]))} photographs of {counts['real']} kinds and {len(set(images[fake]))} generated faces "
        f"of {counts['fake']}, each scored by models fitted without its kind, as they are and saved again"
    )
    calibration = fit_platt(logit, fake, weights, said)
    thresholds = fit_thresholds(calibration(logit), fake, weights, images, said)
    return Shipped(rule, calibration, thresholds)


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
    assemble(encoder, mean_heads(list(heads.values())), shipped.rule, projected, card, output)
    prototypes.write(output, prototypes.prototypes(outputs_of(prepared, found, card, projected, heads, shipped.rule)))


def embed_shipped(prepared: Prepared, found: Examples, run: Path) -> prototypes.EmbeddedSet:
    """The embeddings of a shipped model and of its folds' models. Raises DataError where the run has no model file."""
    file = run / "detector.onnx"
    if not file.is_file():
        raise DataError(f"no model file {str(file)!r}", "train it first: faceauth lab train CONFIG --folds")
    card = ModelFile(file).card
    heads = {key: of for key, of in fit_folds(prepared, found, run).items() if key.deal == "kind"}
    rule = SwapRule(float(card.notes["swap offset"]), float(card.notes["swap limit"]))
    return outputs_of(prepared, found, card, projection(prepared, found), heads, rule)


def train_and_ship(config: FrozenConfig, runs: Path, cache: Path, workers: int, open_dev: bool) -> Path:
    """Features, folds, scores and the model file, each step skipped where its result is there; returns the run folder.

    The folder holds `scores.parquet`, `detector.onnx`, the heads of every fold and `ledger.jsonl`; with `open_dev` also
    `scores-dev.parquet`, after a line in the ledger.
    """
    prepared = prepare(config, cache, workers)
    found = examples(prepared)
    run = runs / config.name
    run.mkdir(parents=True, exist_ok=True)
    heads = fit_folds(prepared, found, run)
    by_kind = {key: of for key, of in heads.items() if key.deal == "kind"}
    shipped = calibrate(prepared, found, by_kind)
    table = rows(prepared, found, heads, ("train", "test"), shipped.rule)
    score_table.write(run / "scores.parquet", table, run_info(prepared.data.sha256))
    ship(prepared, found, by_kind, shipped, run / "detector.onnx")
    if open_dev:
        models = {config.name: state_digest(prepared)}
        opening = ledger.open_dev(runs / ledger.DEFAULT, prepared.data.sha256, models, "score")
        table = rows(prepared, found, heads, ("dev",), shipped.rule)
        score_table.write(run / "scores-dev.parquet", table, run_info(prepared.data.sha256), opening)
    return run
