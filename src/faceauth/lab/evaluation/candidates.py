"""Candidate models, to be scored and evaluated: a finished run's folder, or a model file."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from faceauth.errors import DataError, UsageError
from faceauth.lab.data.dataset import DataSet, read_dataset
from faceauth.lab.data.examples import Examples, from_manifest
from faceauth.model_file import ModelCard, ModelFile

MODEL = "detector.onnx"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model to be evaluated.

    Attributes:
        name: unique among those evaluated together.
        file: the model file; sha256: of its bytes; card: what it says of itself.
        run: the folder it was trained in, None for a model file on its own; facts: its run.json.
    """

    name: str
    file: Path
    sha256: str
    card: ModelCard
    run: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def open_candidates(given: Sequence[Path]) -> list[Candidate]:
    """Runs (exported now where they are not yet) and model files, each with a name of its own.

    Raises:
        UsageError: no such path, a folder that is no finished run, a model given twice.
        ModelError: a file that is no model file.
    """
    if len({p.resolve() for p in given}) < len(given):
        raise UsageError("the same model is given twice")
    candidates = [_run(path) if path.is_dir() else _file(path) for path in given]
    counts = Counter(s.name for s in candidates)
    return [s if counts[s.name] == 1 else replace(s, name=str(p)) for s, p in zip(candidates, given, strict=True)]


def _run(run: Path) -> Candidate:
    try:
        facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(run)!r} is no run", "give the folder that faceauth lab train printed") from error
    if not (run / "model.safetensors").is_file():
        raise UsageError(f"{str(run)!r} is no finished run", "end it with train --resume; nothing is evaluated before")
    if not (run / MODEL).is_file():
        from faceauth.lab.training.export import export

        export(run, run / MODEL)
    opened = ModelFile(run / MODEL)
    return Candidate(run.resolve().name, run / MODEL, opened.sha256, opened.card, run, facts)


def _file(path: Path) -> Candidate:
    if not path.exists():
        raise UsageError(f"no run or model file {str(path)!r}")
    opened = ModelFile(path)
    return Candidate(opened.card.name, path, opened.sha256, opened.card)


def manifest_of(candidates: Sequence[Candidate]) -> Path:
    """The manifest that the runs were trained on. Raises UsageError where there is none, or more than one."""
    found = {str(m) for s in candidates if (m := s.facts.get("config", {}).get("data", {}).get("manifest"))}
    if len(found) != 1:
        what = "the runs were trained on different manifests" if found else "no run here names a manifest"
        raise UsageError(what, "say with --manifest which one to evaluate on")
    return Path(found.pop())


def open_examples(candidates: Sequence[Candidate], manifest: Path | None, split: str) -> tuple[DataSet, Examples]:
    """The prepared data set to look at. Raises UsageError for dev, which `evaluate` alone opens, and for no split."""
    if split not in {"train", "test"}:
        hint = "faceauth lab evaluate --open-dev opens it" if split == "dev" else "train or test"
        raise UsageError(f"the split {split!r} is sealed" if split == "dev" else f"no split {split!r}", hint)
    opened = read_dataset(manifest or manifest_of(candidates))
    return opened, from_manifest(opened)


def check_not_trained_on(candidate: Candidate, examples: Examples, scored: Sequence[int]) -> str | None:
    """Whether the images to be scored are new to a model: None, or a sentence where that cannot be known.

    Raises DataError where it was trained on some of them.
    """
    if candidate.card.data_sha256 == examples.sha256:
        return None
    path = candidate.facts.get("config", {}).get("data", {}).get("manifest")
    manifest = read_dataset(Path(path)) if path and Path(path).is_file() else None
    if manifest is None or manifest.sha256 != candidate.card.data_sha256:  # gone, or another than was trained on
        return f"{candidate.name} was trained on other data; whether these images were among them is not known"
    trained = {r.sha256 for r in manifest.rows if r.split == "train" and r.sha256}
    if twice := [i for i in scored if examples.records[i].sha256 in trained]:
        raise DataError(
            f"{candidate.name} was trained on {len(twice)} of the images it would be scored on, "
            f"the first {examples.records[twice[0]].path!r}", "evaluate it on the manifest that it was trained on",
        )  # fmt: skip
    return None


def choose(examples: Examples, split: str, per_source: int | None, seed: int) -> list[int]:
    """Indices of a split's images, in order; at most `per_source` of each source, drawn with the seed."""
    rng = np.random.default_rng(seed)
    members: dict[str, list[int]] = {}
    for i, (record, side) in enumerate(zip(examples.records, examples.splits, strict=True)):
        if side == split:
            members.setdefault(record.source, []).append(i)
    if per_source is not None:
        members = {s: rng.permutation(members[s])[:per_source].tolist() for s in sorted(members)}
    return sorted(i for chosen in members.values() for i in chosen)
