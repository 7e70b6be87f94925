"""A finished run to a model file: ONNX, metadata, calibration, and proof that it says what torch says."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from faceauth.errors import DataError, UsageError
from faceauth.lab.training.config import TrainConfig
from faceauth.lab.training.networks import FaceNetwork
from faceauth.lab.training.onnx_file import save
from faceauth.lab.training.zoo import build
from faceauth.model_file import OUTPUTS, Calibration, ModelCard, ModelFile, Thresholds

GRID = np.unique(np.round(np.concatenate([np.linspace(0, 1, 201), 1 - np.geomspace(1e-5, 1e-2, 31)]), 7))  # thresholds
PARITY = 1e-3  # largest difference allowed between torch and ONNX Runtime, relative to the largest output: so much
# comes of a pixel that rounding takes over the edge of a level (`Traces`)
HEADS_SEE = "values the heads see"
FEW = 50  # faces: a source of fewer weighs less than the others, so that no face weighs more than 1/50 of a source
LICENCE = "Weights: research use, as the licences of the training images ask (see the model card). Code: Apache-2.0."


def load_run(run: Path) -> tuple[FaceNetwork, TrainConfig, dict[str, Any]]:
    """The trained network of a finished run, its config, and what run.json says. Raises UsageError."""
    try:
        facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
        weights = load_file(run / "model.safetensors")
    except FileNotFoundError as error:
        raise UsageError(f"{str(run)!r} is no finished run", "train it, or --resume it, first") from error
    config = TrainConfig.model_validate(facts["config"])
    network = build(config, len(facts["sources"]))
    network.load_state_dict(weights)
    return network.eval(), config, facts


def export(run: Path, output: Path) -> float:
    """Write the run as a model file whose scores are not calibrated yet; `calibrate` is the next step.

    Returns:
        The largest difference from torch over 64 pictures, relative to the largest output.

    Raises:
        UsageError: the run is not finished.
        DataError: ONNX Runtime and torch disagree; nothing is written.
    """
    network, config, facts = load_run(run)
    example = torch.zeros(2, 3, config.size, config.size)
    program = torch.onnx.export(
        network, (example,), dynamo=True, input_names=["pixels"], output_names=list(OUTPUTS),
        dynamic_shapes=({0: torch.export.Dim("n", min=1, max=4096)},), optimize=True, verbose=False,
    )  # fmt: skip
    assert program is not None
    data = "corpus" if config.data.manifest is None else "prepared data set"
    card = ModelCard(
        name=config.name if not facts["held_out"] else run.name, version=config.version,
        sources=tuple(facts["sources"]), labels=tuple(facts["labels"]), preprocess=config.preprocess,
        calibration=Calibration(), thresholds=Thresholds(1.0, 0.0, ((0.0, 1.0), (1.0, 0.0)), "nothing: not calibrated"),
        licence=LICENCE, trained_on=f"the train split of the {data}", data_sha256=facts["data_sha256"],
        commit=facts["commit"], seed=config.seed, parameters=facts["parameters"],
        notes=_notes(config, facts) | _written_out(network, example),
    )  # fmt: skip
    part = output.with_name(output.name + ".part")
    save(program.model_proto, card, part)
    error = parity(network, ModelFile(part))
    if error > PARITY:
        part.unlink()
        raise DataError(f"ONNX Runtime differs from torch by {error:.1e}, over {PARITY:.0e}", "nothing was written")
    os.replace(part, output)
    return error


def parity(network: nn.Module, model: ModelFile, count: int = 64) -> float:
    """Largest absolute difference of any output over `count` pictures, relative to the largest output.

    The pictures are made here: noise at a scale of its own for each, from single pixels to the whole frame.
    """
    spec = model.card.preprocess
    rng = np.random.default_rng(0)
    grains = [Image.fromarray(rng.integers(0, 256, (g, g, 3), np.uint8)) for g in rng.integers(2, spec.size + 1, count)]
    inputs = spec.normalize(np.stack([spec.resize(image, (0, 0, *image.size)) for image in grains]))
    batches = np.array_split(inputs, -(-count // 8))  # 64 faces at once take 9 GB of a DeiT-base at 384 px
    with torch.no_grad():
        expected = [[t.numpy() for t in network(torch.from_numpy(batch))] for batch in batches]
    said = [model.run(batch) for batch in batches]
    given = [[getattr(outputs, name) for name in OUTPUTS] for outputs in said]
    pairs = zip(*(map(np.concatenate, zip(*parts, strict=True)) for parts in (expected, given)), strict=True)
    return max(float(np.abs(a - b).max() / max(1.0, float(np.abs(a).max()))) for a, b in pairs)


def _notes(config: TrainConfig, facts: dict[str, Any]) -> dict[str, Any]:
    own = [f"{source} {sha256[:16]}" for source, sha256 in facts.get("own_sha256", {}).items()]
    lists = {"held out": facts["held_out"], "whole": config.data.whole, "own": own}
    crops = {"crops trained on": config.images} if config.images is not None else {}
    return {name: ", ".join(sources) for name, sources in lists.items() if sources} | crops


def _written_out(network: FaceNetwork, example: torch.Tensor) -> dict[str, Any]:
    """How many values of the embedding the heads see, where others follow that are written out: see `PyramidNet`."""
    with torch.no_grad():
        values = network(example).embedding.shape[1]
    seen = network.source_head.in_features
    return {HEADS_SEE: seen} if seen < values else {}


def fit_calibration(logits: npt.NDArray[Any], fake: npt.NDArray[np.bool_], fitted_on: str) -> Calibration:
    """Platt scaling by logistic regression, both classes weighing the same. Platt, 1999."""
    from sklearn.linear_model import LogisticRegression

    if fake.all() or not fake.any():
        raise DataError("calibration needs real and fake images")
    model = LogisticRegression(C=1e6, class_weight="balanced").fit(logits.reshape(-1, 1), fake)
    scale, shift = float(model.coef_[0, 0]), float(model.intercept_[0])
    if scale <= 0:
        raise DataError("the logits do not rise with P(fake): this model cannot be calibrated", "train it for longer")
    return Calibration(scale, shift, fitted_on)


def fit_thresholds(
    scores: npt.NDArray[Any],
    fake: npt.NDArray[np.bool_],
    weights: npt.NDArray[Any],
    false_alarms: float,
    misses: float,
    measured_on: str,
    groups: npt.NDArray[Any] | None = None,
) -> Thresholds:
    """Thresholds that keep two promises.

    Args:
        scores: (n,) calibrated P(fake); weights: (n,) above zero, to count sources rather than images.
        false_alarms: a further real face lies at or above `fake` with at most this probability; `fake` is 1 where
            the real faces at hand are too few for that.
        misses: at most this share of fake faces lies at or below `real`.
        groups: (n,) what ties rows, as for `false_alarm_curve`.
    """
    curve = false_alarm_curve(scores[~fake], weights[~fake], None if groups is None else groups[~fake])
    fake_from = next((t for t, share in curve if share <= false_alarms), 1.0)
    missed = np.array([weights[fake][scores[fake] <= t].sum() for t in GRID]) / weights[fake].sum()
    real_to = float(GRID[missed <= misses][-1]) if (missed <= misses).any() else 0.0
    return Thresholds(fake_from, min(real_to, fake_from), curve, measured_on)


def false_alarm_curve(
    scores: npt.NDArray[Any], weights: npt.NDArray[Any], groups: npt.NDArray[Any] | None = None
) -> tuple[tuple[float, float], ...]:
    """For each threshold of `GRID` a bound on how likely a further real face is called fake: split conformal.

    With W the sum of the weights and w that of the new face, (W(t) + w) / (W + w), where W(t) is the weight of the
    real faces at or above t: the new face is counted as one above every threshold (Vovk, Gammerman, Shafer, 2005).
    With weights it is Tibshirani et al., 2019, and Barber et al., 2023 (arXiv 1904.06019, 2202.13415); w is that of
    the heaviest face at hand. It holds for a further face of the sources at hand, mixed by their weights. A face of
    another source may fare worse: how much, `lab.evaluation.promise` measures.

    Args:
        scores, weights: (n,) of real faces.
        groups: (n,) what ties rows, such as the copies of one image; they count as one face. None: nothing does.

    Returns:
        Pairs (threshold, bound), rising in threshold, never rising in bound, rounded up.
    """
    _, member = np.unique(np.arange(len(scores)) if groups is None else groups, return_inverse=True)
    new = np.bincount(member, weights).max()
    bounds = (np.array([weights[scores >= t].sum() for t in GRID]) + new) / (weights.sum() + new)
    return tuple(zip(GRID.tolist(), (np.ceil(bounds * 1e6 - 1e-6) / 1e6).tolist(), strict=True))


def weigh(sources: Sequence[str], groups: Sequence[str]) -> npt.NDArray[np.float64]:
    """(n,) weights by which sources count the same (the small ones less, see `FEW`), and within one its groups."""
    units, unit, rows = np.unique(
        [f"{s}\0{g}" for s, g in zip(sources, groups, strict=True)], return_inverse=True, return_counts=True
    )
    _, source, size = np.unique([u.split("\0")[0] for u in units], return_inverse=True, return_counts=True)
    return np.asarray(1 / (np.maximum(size[source], FEW) * rows)[unit])


def calibrated(
    card: ModelCard, logits: npt.NDArray[Any], fake: npt.NDArray[np.bool_], sources: Sequence[str], described: str,
    false_alarms: float = 0.05, misses: float = 0.1, groups: Sequence[str] | None = None,
) -> ModelCard:  # fmt: skip
    """The card with calibration and thresholds fitted on logits (n,) of first looks; `weigh` says what counts."""
    tied = [str(i) for i in range(len(sources))] if groups is None else groups
    calibration = fit_calibration(logits, fake, described)
    thresholds = fit_thresholds(
        calibration(logits), fake, weigh(sources, tied), false_alarms, misses, described, np.asarray(tied)
    )
    return replace(card, calibration=calibration, thresholds=thresholds)
