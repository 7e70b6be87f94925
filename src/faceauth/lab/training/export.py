"""A finished run to a model file: ONNX, metadata, calibration, and proof that it says what torch says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from faceauth.errors import DataError, UsageError
from faceauth.files import replacing
from faceauth.lab.training.config import TrainConfig
from faceauth.lab.training.networks import FaceNetwork
from faceauth.lab.training.onnx_file import save, traced
from faceauth.lab.training.zoo import build
from faceauth.model_file import OUTPUTS, Calibration, ModelCard, ModelFile, Thresholds

PARITY = 1e-3  # largest difference allowed between torch and ONNX Runtime, relative to the largest output
PICTURES = 64  # that they are compared on
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
        The largest difference from torch over `PICTURES`, relative to the largest output.

    Raises:
        UsageError: the run is not finished.
        DataError: ONNX Runtime and torch disagree; nothing is written.
    """
    network, config, facts = load_run(run)
    proto = traced(network, torch.zeros(2, 3, config.size, config.size), OUTPUTS)
    data = "corpus" if config.data.manifest is None else "prepared data set"
    card = ModelCard(
        name=config.name if not facts["held_out"] else run.name, version=config.version,
        sources=tuple(facts["sources"]), labels=tuple(facts["labels"]), preprocess=config.preprocess,
        calibration=Calibration(), thresholds=Thresholds(1.0, 0.0, ((0.0, 1.0), (1.0, 0.0)), "nothing: not calibrated"),
        licence=LICENCE, trained_on=f"the train split of the {data}", data_sha256=facts["data_sha256"],
        commit=facts["commit"], seed=config.seed, parameters=facts["parameters"],
        notes=_notes(config, facts),
    )  # fmt: skip
    with replacing(output) as part:
        save(proto, card, part)
        error = parity(network, ModelFile(part))
        if error > PARITY:
            raise DataError(f"ONNX Runtime differs from torch by {error:.1e}, over {PARITY:.0e}", "nothing was written")
    return error


def parity(network: FaceNetwork, model: ModelFile) -> float:
    """Largest absolute difference of any output over `PICTURES`, relative to the largest output.

    The pictures are made here: noise at a scale of its own for each, from single pixels to the whole frame.
    """
    spec = model.card.preprocess
    rng = np.random.default_rng(0)
    grains = rng.integers(2, spec.size + 1, PICTURES)
    images = [Image.fromarray(rng.integers(0, 256, (grain, grain, 3), np.uint8)) for grain in grains]
    inputs = spec.normalize(np.stack([spec.cut(image, None) for image in images]))
    batches = np.split(inputs, PICTURES // 8)  # 64 faces at once take 9 GB of a DeiT-base at 384 px
    with torch.no_grad():
        answers = [(network(torch.from_numpy(batch)), model.run(batch)) for batch in batches]
    errors = []
    for name in OUTPUTS:
        said, given = (np.concatenate([getattr(a[k], name) for a in answers]) for k in (0, 1))
        errors.append(np.abs(said - given).max() / max(1.0, np.abs(said).max()))
    return float(max(errors))


def _notes(config: TrainConfig, facts: dict[str, Any]) -> dict[str, Any]:
    extra = [f"{source} {sha256[:16]}" for source, sha256 in facts.get("extra_sha256", {}).items()]
    lists = {"held out": facts["held_out"], "train only": config.data.train_only, "extra sources": extra}
    crops = {"crops trained on": config.images} if config.images is not None else {}
    return {name: ", ".join(sources) for name, sources in lists.items() if sources} | crops
