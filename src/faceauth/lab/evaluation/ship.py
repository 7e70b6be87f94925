"""From the heads of all folds to the model file that ships: their mean, calibrated on kinds that heads had not seen."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from faceauth.errors import DataError
from faceauth.lab.data.splits import ALTERED
from faceauth.lab.evaluation import ledger, prototypes, score_table
from faceauth.lab.evaluation.calibration import fit_platt, fit_thresholds, kind_weights
from faceauth.lab.evaluation.frozen_embedding import outputs_of, projection
from faceauth.lab.evaluation.frozen_scores import held_out, rows, swap_rule
from faceauth.lab.run_info import commit, run_info
from faceauth.lab.training.assemble import SwapRule, assemble
from faceauth.lab.training.encoders import count_parameters
from faceauth.lab.training.frozen import (
    Examples,
    FittedModel,
    FoldKey,
    FrozenConfig,
    Prepared,
    examples,
    fit_folds,
    mean_heads,
    prepare,
    read_config,
    state_digest,
)
from faceauth.lab.training.student import (
    StudentConfig,
    cut,
    export_student,
    fit_student,
    prepare_student,
    student_examples,
    student_file,
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


def calibrate(prepared: Prepared, folds: Mapping[FoldKey, FittedModel]) -> Shipped:
    """The swap rule, calibration and thresholds, from train and test images of held-out kinds; models by kind alone.

    Every image is scored by the models of the folds that hold its kind out, as it is, *web* and *hard*. Kinds count the
    same. Generated fakes decide where `real` ends; swaps and restored images take no part.
    """
    where, generated, swapped = held_out(prepared, folds, ("train", "test"))
    found = next(iter(folds.values())).found
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


def ship(
    prepared: Prepared, model: FittedModel, folds: Mapping[FoldKey, FittedModel], shipped: Shipped, encoder: Path,
    output: Path, notes: Mapping[str, Any] = MappingProxyType({}),
) -> None:  # fmt: skip
    """Write the model file, with calibration, thresholds and prototypes.

    Args:
        model: the one that ships; folds: those of the deal by kind, which say what it is worth on kinds never seen.
        encoder: ONNX from pixels to the features of `model`, as it ships; notes: for the card.
    """
    projected = projection(prepared, model.found)
    labels = {r.source: r.label for r in prepared.rows}
    config = prepared.config
    card = ModelCard(
        name=config.name, version=config.version, sources=projected.names,
        labels=tuple(labels[name] for name in projected.names), preprocess=config.preprocess,
        calibration=shipped.calibration, thresholds=shipped.thresholds, licence=LICENCE,
        trained_on=f"the train split of {len(projected.names)} sources; {len(folds)} fits that each leave kinds out",
        data_sha256=prepared.data.sha256, commit=commit(), seed=config.seeds[0],
        parameters=count_parameters(encoder) + 2 * model.found.features.shape[1],
        notes={
            "encoder": config.credit, "swap offset": round(shipped.rule.offset, 4),
            "swap limit": round(shipped.rule.limit, 4), **notes,
        },
    )  # fmt: skip
    assemble(encoder, model.heads, shipped.rule, projected, card, output)
    embedded = outputs_of(prepared, model, card, projected, folds, shipped.rule)
    prototypes.write(output, prototypes.prototypes(embedded))


def embed_shipped(prepared: Prepared, found: Examples, run: Path) -> prototypes.EmbeddedSet:
    """The embeddings of a shipped model and of its folds' models. Raises DataError where the run has no model file."""
    file = run / "detector.onnx"
    if not file.is_file():
        raise DataError(f"no model file {str(file)!r}", "train it first: faceauth lab train CONFIG --folds")
    card = ModelFile(file).card
    folds = _by_kind(_fitted(prepared, found, run))
    rule = SwapRule(float(card.notes["swap offset"]), float(card.notes["swap limit"]))
    return outputs_of(prepared, _mean(folds), card, projection(prepared, found), folds, rule)


def _fitted(prepared: Prepared, found: Examples, run: Path) -> dict[FoldKey, FittedModel]:
    return {key: FittedModel(found, heads) for key, heads in fit_folds(prepared, found, run).items()}


def _by_kind(models: Mapping[FoldKey, FittedModel]) -> dict[FoldKey, FittedModel]:
    return {key: model for key, model in models.items() if key.deal == "kind"}


def _mean(folds: Mapping[FoldKey, FittedModel]) -> FittedModel:
    """The frozen detector that ships: on the same features, the mean of the heads."""
    models = list(folds.values())
    return FittedModel(models[0].found, mean_heads([model.heads for model in models]))


def train_and_ship(config: FrozenConfig, runs: Path, cache: Path, workers: int, open_dev: bool) -> Path:
    """Features, folds, scores and the model file, each step skipped where its result is there; returns the run folder.

    The folder holds `scores.parquet`, `detector.onnx`, the heads of every fold and `ledger.jsonl`; with `open_dev` also
    `scores-dev.parquet`, after a line in the ledger.
    """
    prepared = prepare(config, cache, workers)
    run = _folder(runs, config.name)
    models = _fitted(prepared, examples(prepared), run)
    folds = _by_kind(models)
    shipped = calibrate(prepared, folds)
    _write_scores(prepared, models, shipped.rule, run, open_dev)
    [encoder] = config.encoders.values()
    ship(prepared, _mean(folds), folds, shipped, encoder, run / "detector.onnx")
    return run


def train_and_ship_student(config: StudentConfig, runs: Path, cache: Path, workers: int, open_dev: bool) -> Path:
    """The same for a student of a frozen detector: one network for every fold, and one that is fitted to all kinds.

    The one that ships is not among those that its calibration and thresholds are set by: they are of the same making.
    Its encoder has 8-bit integers; how far that moves its logits is on the card.
    """
    taught = read_config(config.teacher)
    teacher = prepare(taught, cache, workers)
    prepared = prepare_student(config, teacher)
    run = _folder(runs, config.name)
    views = cut(prepared, cache, workers)
    found, train = examples(teacher), np.array([row.split == "train" for row in prepared.rows])
    notes: dict[str, Any] = {"teacher": f"{taught.name} {taught.version}, {taught.credit}"}

    def fitted(key: FoldKey | None) -> FittedModel:
        allowed = train & prepared.may_fit(key) if key else train
        student = fit_student(config, teacher, found, views, allowed, student_file(run, prepared, key))
        if key is None:
            changed = export_student(student, views, config.preprocess, run / "encoder.onnx")
            notes["change by 8 bits, of the spread of logits"] = round(changed, 3)
        return FittedModel(student_examples(student, prepared, views), student.heads())

    models = {FoldKey(*dealt, fold): fitted(FoldKey(*dealt, fold)) for dealt in prepared.folds
              for fold in range(taught.folds)}  # fmt: skip
    folds = _by_kind(models)
    shipped = calibrate(prepared, folds)
    _write_scores(prepared, models, shipped.rule, run, open_dev)
    ship(prepared, fitted(None), folds, shipped, run / "encoder.onnx", run / "detector.onnx", notes)
    return run


def _folder(runs: Path, name: str) -> Path:
    run = runs / name
    run.mkdir(parents=True, exist_ok=True)
    return run


def _write_scores(
    prepared: Prepared, models: Mapping[FoldKey, FittedModel], rule: SwapRule, run: Path, open_dev: bool
) -> None:
    info = run_info(prepared.data.sha256)
    score_table.write(run / "scores.parquet", rows(prepared, models, ("train", "test"), rule), info)
    if open_dev:
        digests = {prepared.config.name: state_digest(prepared)}
        opening = ledger.open_dev(run.parent / ledger.DEFAULT, prepared.data.sha256, digests, "score")
        score_table.write(run / "scores-dev.parquet", rows(prepared, models, ("dev",), rule), info, opening)
