"""From the heads of all folds to the model file that ships: their mean, calibrated on kinds that heads had not seen."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faceauth.lab.evaluation import ledger, score_table
from faceauth.lab.evaluation.calibration import fit_platt, fit_thresholds, kind_weights
from faceauth.lab.evaluation.frozen_scores import held_out, rows, swap_offset
from faceauth.lab.run_info import commit, run_info
from faceauth.lab.training.assemble import Projection, assemble
from faceauth.lab.training.encoders import count_parameters
from faceauth.lab.training.frozen import (
    Examples,
    FrozenConfig,
    Heads,
    Prepared,
    examples,
    fit_folds,
    mean_heads,
    prepare,
    state_digest,
)
from faceauth.model_file import Calibration, ModelCard, Thresholds

CALIBRATED_ON = ("clean", "web", "hard")
EMBEDDING = 64  # values, at most
COMPONENTS = 400  # principal components that discriminants are taken of
LICENCE = "Weights: research use, as the licences of the training images ask (see the model card). Code: Apache-2.0."


@dataclass(frozen=True, slots=True)
class Shipped:
    """What was set on held-out kinds: see `calibrate`."""

    offset: float
    calibration: Calibration
    thresholds: Thresholds


def calibrate(prepared: Prepared, found: Examples, heads: Mapping[tuple[int, int], Heads]) -> Shipped:
    """Offset of the swap output, calibration and thresholds, from train and test images of held-out kinds.

    Every image is scored by the heads of the folds that hold its kind out, as it is, *web* and *hard*. Kinds count the
    same. Generated fakes decide where `real` ends; swaps and restored images take no part.
    """
    where, generated, swapped = held_out(prepared, found, heads, ("train", "test"))
    of = [prepared.rows[i] for i in found.row[where]]
    usable = np.array([r.label == "real" or (r.label == "fake" and r.family not in ("swap", "restored")) for r in of])
    usable &= np.isin(found.view[where], CALIBRATED_ON)
    fake = np.array([r.label == "fake" for r in of])
    offset = swap_offset(generated[usable & ~fake], swapped[usable & ~fake])
    logit = np.maximum(generated, swapped + offset)[usable]
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
    return Shipped(offset, calibration, thresholds)


def projection(prepared: Prepared, found: Examples) -> Projection:
    """Discriminants of the sources, and the sources' logits: linear discriminant analysis of training views.

    The features are standardised and reduced to their first principal components before; the embedding's axes have
    unit variance within sources.
    """
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    split = np.array([r.split for r in prepared.rows])[found.row]
    source = np.array([r.source for r in prepared.rows])[found.row]
    label = np.array([r.label for r in prepared.rows])[found.row]
    chosen = np.isin(found.view, prepared.config.views.train) & (split == "train") & (label != "edited")
    features = found.features[chosen].astype(np.float32)
    mean, spread = features.mean(axis=0), features.std(axis=0) + np.float32(1e-3)
    features = (features - mean) / spread
    pca = PCA(COMPONENTS, svd_solver="randomized", random_state=0).fit(features)
    reduced = pca.transform(features)
    names = np.unique(source[chosen])
    of_source = LinearDiscriminantAnalysis(
        solver="eigen", shrinkage="auto", priors=np.full(len(names), 1 / len(names))
    ).fit(reduced, source[chosen])
    axes = of_source.scalings_[:, : min(EMBEDDING, len(names) - 1)]
    weight = (pca.components_.T @ axes) / spread[:, None]
    bias = -(mean @ weight) - pca.mean_ @ (pca.components_.T @ axes)
    embedding = reduced @ axes
    means = np.stack([embedding[source[chosen] == name].mean(axis=0) for name in names])
    return Projection(
        weight.astype(np.float32), bias.astype(np.float32), means.T.astype(np.float32),
        (-0.5 * (means**2).sum(axis=1)).astype(np.float32), tuple(names.tolist()),
    )  # fmt: skip


def ship(
    prepared: Prepared, found: Examples, heads: Mapping[tuple[int, int], Heads], output: Path
) -> tuple[ModelCard, Shipped]:
    """Write the model file, with calibration and thresholds but without prototypes."""
    shipped = calibrate(prepared, found, heads)
    projected = projection(prepared, found)
    labels = {r.source: r.label for r in prepared.rows}
    config = prepared.config
    [encoder] = config.encoders.values()
    card = ModelCard(
        name=config.name, version=config.version, sources=projected.names,
        labels=tuple(labels[name] for name in projected.names), preprocess=config.preprocess,
        calibration=shipped.calibration, thresholds=shipped.thresholds, licence=LICENCE,
        trained_on=f"the train split of {len(projected.names)} sources, in {len(heads)} fits that each leave kinds out",
        data_sha256=prepared.data.sha256, commit=commit(), seed=config.seeds[0],
        parameters=count_parameters(encoder) + 2 * found.features.shape[1],
        notes={"encoder": "CLIP ViT-B/16 image encoder (OpenAI, MIT), frozen", "swap offset": round(shipped.offset, 4)},
    )  # fmt: skip
    assemble(encoder, mean_heads(list(heads.values())), shipped.offset, projected, card, output)
    return card, shipped


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
    _, shipped = ship(prepared, found, heads, run / "detector.onnx")
    table = rows(prepared, found, heads, ("train", "test"), shipped.offset)
    score_table.write(run / "scores.parquet", table, run_info(prepared.data.sha256))
    if open_dev:
        models = {config.name: state_digest(prepared)}
        opening = ledger.open_dev(runs / ledger.DEFAULT, prepared.data.sha256, models, "score")
        table = rows(prepared, found, heads, ("dev",), shipped.offset)
        score_table.write(run / "scores-dev.parquet", table, run_info(prepared.data.sha256), opening)
    return run
