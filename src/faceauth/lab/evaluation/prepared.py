"""A prepared data set's answers as rows of the table of scores: the study's runs, evaluated like everything else.

The variants clean, web, hard and avatar are scored from the original files, as a user's would be; `prepared` is the
prepared face itself, as the study scored it. A kind is a source; held out are those that a model does not know.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from faceauth.errors import DataError
from faceauth.lab.data import variants
from faceauth.lab.data.archives import find_original
from faceauth.lab.data.dataset import DataSet
from faceauth.lab.data.examples import Examples, from_manifest
from faceauth.lab.evaluation import score_table
from faceauth.lab.evaluation.candidates import Candidate, check_not_trained_on, choose
from faceauth.lab.evaluation.controls import control_features, saved_as, score_controls
from faceauth.lab.evaluation.ledger import Opening
from faceauth.lab.evaluation.score_models import about_images
from faceauth.lab.evaluation.score_sets import CONTROL_MODELS
from faceauth.lab.evaluation.score_table import PREPARED
from faceauth.lab.evaluation.scoring import VARIANTS, keep, open_file, prepared_outputs, score_files, states
from faceauth.lab.parallel import parallel
from faceauth.lab.run_info import run_info

CONTROL_TRAIN = 1000  # train images of each source that the controls are fitted on, at most


@dataclass(frozen=True, slots=True)
class PreparedSet:
    """What is scored beside the models: the original files, or else the prepared ones, of both classes alike."""

    manifest: DataSet
    examples: Examples
    cache: Path
    workers: int
    originals: bool

    def files(self, indices: Sequence[int]) -> list[tuple[str, str]]:
        """The file that is scored for each image, and its SHA-256, which of a prepared file is not known: empty."""
        rows = [self.manifest.rows[i] for i in indices]
        return [(r.original, r.sha256) if self.originals else (str(self.manifest.file(r)), "") for r in rows]


def score_prepared(
    candidates: Sequence[Candidate], manifest: DataSet, path: Path, cache: Path, workers: int = 1, seed: int = 0,
    per_source: int | None = None, opening: Opening | None = None,
) -> None:  # fmt: skip
    """Score the split test, and dev for an opening, and write the table of scores.

    Args:
        per_source: at most so many images of each source and split, drawn with the seed; None for all.

    Raises:
        DataError: an image cannot be read, a split lacks a class, a model was trained on an image to be scored.
    """
    examples = from_manifest(manifest)
    splits = ("test",) if opening is None else ("test", "dev")
    indices = [i for split in splits for i in _of_split(examples, split, per_source, seed)]
    notes = [n for c in candidates if (n := check_not_trained_on(c, examples, indices))]
    if gone := sum(find_original(manifest.rows[i].original) is None for i in indices):
        notes.append(f"the prepared files are scored: {gone} originals lie elsewhere")
    given = PreparedSet(manifest, examples, cache, workers, originals=not gone)
    rows = _scored(candidates, given, indices)
    more, controls = _controls(candidates, given, choose(examples, "train", CONTROL_TRAIN, seed), indices)
    calibration = {
        c.name: {"scale": c.card.calibration.scale, "shift": c.card.calibration.shift,
                 "fake_from": c.card.thresholds.fake, "real_to": c.card.thresholds.real,
                 "measured_on": c.card.thresholds.measured_on}
        for c in candidates if not c.card.calibration.fitted_on.startswith("nothing")
    }  # fmt: skip
    metadata = run_info(manifest.sha256) | {
        "calibration": calibration, "controls": controls, "notes": notes, "manifest": str(manifest.root),
        "per_source": per_source, "seed": seed,
    }  # fmt: skip
    score_table.write(path, pd.concat([*rows, *more], ignore_index=True), metadata, opening)


def _of_split(examples: Examples, split: str, per_source: int | None, seed: int) -> list[int]:
    chosen = choose(examples, split, per_source, seed)
    for label in ("real", "fake"):
        if not any(examples.records[i].label == label for i in chosen):
            raise DataError(f"the {split} split has no {label} images", "prepare a data set with both classes")
    return chosen


def _images(given: PreparedSet, indices: Sequence[int]) -> pd.DataFrame:
    """The columns of the table that say what an image is."""
    images = about_images([given.manifest.rows[i] for i in indices])
    return images.assign(kind=images["source"])


def _scored(candidates: Sequence[Candidate], given: PreparedSet, indices: Sequence[int]) -> list[pd.DataFrame]:
    about, data = _images(given, indices), given.examples.sha256
    files = [c.file for c in candidates]
    logits = score_files(files, given.files(indices), data, given.cache, given.workers)
    prepared = prepared_outputs(files, given.examples, indices, given.cache, given.workers)
    parts = []
    for candidate, of_files, of_faces in zip(candidates, logits, prepared, strict=True):
        common = about.assign(
            model=candidate.name, model_sha256=candidate.sha256, deal="kind", seed=-1, fold=-1,
            held_out=~about["source"].isin(candidate.card.sources), face=True,
        )  # fmt: skip
        parts += [common.assign(variant=v, logit=of_files[:, k].astype(float)) for k, v in enumerate(VARIANTS)]
        parts.append(common.assign(variant=PREPARED, logit=of_faces.logit.astype(float)))
    return parts


def _controls(
    candidates: Sequence[Candidate], given: PreparedSet, train: Sequence[int], indices: Sequence[int]
) -> tuple[list[pd.DataFrame], dict[str, list[str]]]:
    """The controls beside each model, fitted on train images of the sources that it knows; none without originals."""
    files = given.files([*train, *indices])
    if not train or not all(find_original(path) for path, _ in files):
        return [], {}
    about = _images(given, [*train, *indices])
    features = _features(files, given)
    samples = pd.concat([about.assign(variant=v, face=True) for v in VARIANTS], ignore_index=True)
    flat = {name: np.concatenate([v[:, k] for k in range(len(VARIANTS))]) for name, v in features.items()}
    parts: list[pd.DataFrame] = []
    fitted: dict[str, list[str]] = {}
    done: dict[frozenset[str], pd.DataFrame] = {}
    for candidate in candidates:
        unknown = frozenset(set(about["source"]) - set(candidate.card.sources))
        if unknown not in done:
            try:
                rows, _ = score_controls(samples, flat, {("kind", -1, -1): set(unknown)}, VARIANTS)
            except DataError:
                continue  # the model knows one class alone; its rows say that there is no control
            done[unknown] = rows[rows["split"] != "train"]  # no model is scored on train images of unknown sources
        rows = done[unknown]
        parts.append(rows.assign(model=rows["model"] + f"/{candidate.name}"))
        fitted |= {f"{name}/{candidate.name}": list(VARIANTS) for name in CONTROL_MODELS}
    return parts, fitted


def _features(files: Sequence[tuple[str, str]], given: PreparedSet) -> Mapping[str, Any]:
    """For each control (n, variants, d), kept in the cache."""
    known = states(path for path, _ in files)
    key = hashlib.sha256(repr((given.examples.sha256, known, variants.VERSION, VARIANTS)).encode())
    kept = given.cache / "controls" / f"{key.hexdigest()[:32]}.npz"
    if not kept.is_file():
        found = list(parallel(_start, None, files, given.workers, "controls"))
        keep(kept, **{name: np.stack([f[name] for f in found]) for name in CONTROL_MODELS})
    with np.load(kept) as arrays:
        return {name: arrays[name] for name in CONTROL_MODELS}


def _start(_: None) -> Callable[[tuple[str, str]], dict[str, Any]]:
    return _features_of_file


def _features_of_file(file: tuple[str, str]) -> dict[str, Any]:
    path, sha256 = file
    data, image = open_file(path, sha256)
    pictures = {name: variants.whole(name, image, path) for name in VARIANTS}
    return control_features([(saved_as(name, data, picture), picture) for name, picture in pictures.items()])
