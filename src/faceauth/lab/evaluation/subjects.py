"""Who is judged: a run or a model file. Here the dev split is unsealed, and each opening written down.

It knows nothing of images or metrics.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from faceauth.errors import DataError, UsageError
from faceauth.lab.data.dataset import DataSet, read_dataset
from faceauth.lab.data.examples import Examples, from_manifest
from faceauth.lab.training.folder import commit
from faceauth.model_file import ModelCard, ModelFile

LEDGER = "dev_ledger.jsonl"
MODEL = "detector.onnx"


@dataclass(frozen=True, slots=True)
class Subject:
    """One model to be judged.

    Attributes:
        name: unique among those judged together.
        file: the model file; sha256: of its bytes; card: what it says of itself.
        run: the folder it was trained in, None for a model file on its own; facts: its run.json.
    """

    name: str
    file: Path
    sha256: str
    card: ModelCard
    run: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def openings(self) -> list[dict[str, Any]]:
        """Each time that the dev split was opened for this run, oldest first."""
        ledger = self.run / LEDGER if self.run else None
        if ledger is None or not ledger.is_file():
            return []
        return [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]


def open_subjects(given: Sequence[Path]) -> list[Subject]:
    """Runs (exported now where they are not yet) and model files, each with a name of its own.

    Raises:
        UsageError: no such path, a folder that is no finished run, a model given twice.
        ModelError: a file that is no model file.
    """
    if len({p.resolve() for p in given}) < len(given):
        raise UsageError("the same model is given twice")
    subjects = [_run(path) if path.is_dir() else _file(path) for path in given]
    counts = Counter(s.name for s in subjects)
    return [s if counts[s.name] == 1 else _renamed(s, str(p)) for s, p in zip(subjects, given, strict=True)]


def _run(run: Path) -> Subject:
    try:
        facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(run)!r} is no run", "give the folder that faceauth lab train printed") from error
    if not (run / "model.safetensors").is_file():
        raise UsageError(f"{str(run)!r} is no finished run", "end it with train --resume; nothing is judged before")
    if not (run / MODEL).is_file():
        from faceauth.lab.training.export import export

        export(run, run / MODEL)
    opened = ModelFile(run / MODEL)
    return Subject(run.resolve().name, run / MODEL, opened.sha256, opened.card, run, facts)


def _file(path: Path) -> Subject:
    if not path.exists():
        raise UsageError(f"no run or model file {str(path)!r}")
    opened = ModelFile(path)
    return Subject(opened.card.name, path, opened.sha256, opened.card)


def _renamed(subject: Subject, name: str) -> Subject:
    return Subject(name, subject.file, subject.sha256, subject.card, subject.run, subject.facts)


def manifest_of(subjects: Sequence[Subject]) -> Path:
    """The manifest that the runs were trained on. Raises UsageError where there is none, or more than one."""
    found = {str(m) for s in subjects if (m := s.facts.get("config", {}).get("data", {}).get("manifest"))}
    if len(found) != 1:
        what = "the runs were trained on different manifests" if found else "no run here names a manifest"
        raise UsageError(what, "say with --manifest which one to judge on")
    return Path(found.pop())


def open_examples(subjects: Sequence[Subject], manifest: Path | None, split: str) -> tuple[DataSet, Examples]:
    """The prepared data set to look at. Raises UsageError for dev, which `evaluate` alone opens, and for no split."""
    if split not in {"train", "test"}:
        hint = "faceauth lab evaluate --open-dev opens it" if split == "dev" else "train or test"
        raise UsageError(f"the split {split!r} is sealed" if split == "dev" else f"no split {split!r}", hint)
    opened = read_dataset(manifest or manifest_of(subjects))
    return opened, from_manifest(opened)


def check_not_trained_on(subject: Subject, examples: Examples, judged: Sequence[int]) -> str | None:
    """Whether the judged images are new to a model: None, or a sentence where that cannot be known.

    Raises:
        DataError: it was trained on some of them.
    """
    if subject.card.data_sha256 == examples.sha256:
        return None
    trained = _trained_on(subject)
    if trained is None:
        return f"{subject.name} was trained on other data; whether these images were among them is not known"
    twice = [i for i in judged if examples.records[i].sha256 in trained]
    if twice:
        raise DataError(
            f"{subject.name} was trained on {len(twice)} of the images it would be judged on, "
            f"the first {examples.records[twice[0]].path!r}", "judge it on the manifest that it was trained on",
        )  # fmt: skip
    return None


def _trained_on(subject: Subject) -> set[str] | None:
    manifest = subject.facts.get("config", {}).get("data", {}).get("manifest")
    if not manifest or not Path(manifest).is_file():
        return None
    rows = read_dataset(Path(manifest)).rows
    return {r.sha256 for r in rows if r.split == "train" and r.sha256}


def open_dev(subjects: Sequence[Subject], manifest_sha256: str) -> None:
    """Unseal the dev split: one line in each run's own ledger. Raises UsageError for a model without a run."""
    for subject in subjects:
        if subject.run is None:
            raise UsageError(f"{subject.name} is a model file without a run", "the dev split opens for finished runs")
    for subject in subjects:
        row = {
            "opened": datetime.now(UTC).isoformat(timespec="seconds"),
            "model_sha256": subject.sha256,
            "manifest_sha256": manifest_sha256,
            "commit": commit(),
            "command": command(),
        }
        assert subject.run is not None
        with open(subject.run / LEDGER, "a", encoding="utf-8") as ledger:
            ledger.write(json.dumps(row) + "\n")


def command() -> str:
    """The command line of this process, as it would be typed."""
    return " ".join(["faceauth", *sys.argv[1:]])
