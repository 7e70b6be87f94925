"""Models judged on a prepared data set: the study's table, the protocol's tables, and the shortcut audit beside them.

The study's table is computed on the prepared faces at logit 0, as the study did; the protocol's on the original
files, as a user's would be. Everything ends in one dictionary of plain values, `evaluation.json`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from faceauth.errors import DataError
from faceauth.lab.data.archives import find_original
from faceauth.lab.data.dataset import DataSet, read_dataset
from faceauth.lab.data.examples import Examples, from_manifest
from faceauth.lab.evaluation import metrics
from faceauth.lab.evaluation.baselines import BASELINES, fit
from faceauth.lab.evaluation.facts import features_of
from faceauth.lab.evaluation.protocol import Column, verdicts, with_calibration
from faceauth.lab.evaluation.protocol import fit as fit_calibration
from faceauth.lab.evaluation.scoring import VARIANTS, Floats, look, score_files
from faceauth.lab.evaluation.subjects import (
    Subject,
    check_not_trained_on,
    command,
    manifest_of,
    open_dev,
    open_subjects,
)
from faceauth.lab.training.export import fit_thresholds, rewrite
from faceauth.lab.training.folder import commit
from faceauth.model_file import ModelCard, Outputs

AUDIT_TRAIN = 1000  # train images of each source that the audit's classifiers are fitted on, at most
CLOSE = 0.05  # of AUROC: a baseline that comes so near to a model makes a column worthless
WORST = 6  # mistakes shown of each class
POINTS = 200  # of a curve, at most
KNOWN = "test images of sources it was trained on"


@dataclass(frozen=True, slots=True)
class Judging:
    """What a judging needs beside the models.

    Attributes:
        per_source: at most so many images of each source, drawn with the seed; None for all.
        originals: whether the protocol's tables are computed on the original files, or on the prepared ones.
    """

    manifest: DataSet
    examples: Examples
    part: str
    cache: Path
    workers: int
    seed: int = 0
    per_source: int | None = None
    originals: bool = True

    def indices(self, part: str) -> list[int]:
        """The images of a split. Raises DataError where it lacks a class."""
        chosen = choose(self.examples, part, self.per_source, self.seed)
        for label in ("real", "fake"):
            if not any(self.examples.records[i].label == label for i in chosen):
                raise DataError(f"the {part} split has no {label} images", "prepare a data set with both classes")
        return chosen

    def files(self, indices: Sequence[int]) -> list[str]:
        """The file of each image, as the protocol looks at it."""
        rows = [self.manifest.rows[i] for i in indices]
        return [r.original if self.originals else str(self.manifest.file(r)) for r in rows]

    def gone(self, indices: Iterable[int]) -> int:
        """How many originals are no longer where the manifest says."""
        return sum(find_original(self.manifest.rows[i].original) is None for i in indices)


def choose(examples: Examples, part: str, per_source: int | None, seed: int) -> list[int]:
    """Indices of a split's images, in order; at most `per_source` of each source, drawn with the seed."""
    rng = np.random.default_rng(seed)
    members: dict[str, list[int]] = {}
    for i, (record, side) in enumerate(zip(examples.records, examples.splits, strict=True)):
        if side == part:
            members.setdefault(record.source, []).append(i)
    if per_source is not None:
        drawn = {s: rng.permutation(members[s])[:per_source].tolist() for s in sorted(members)}
        members = drawn
    return sorted(i for chosen in members.values() for i in chosen)


def evaluate(
    subjects: Sequence[Subject], manifest: Path, part: str = "test", cache: Path = Path("cache"), workers: int = 1,
    seed: int = 0, per_source: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Judge models on one split of a prepared data set.

    Args:
        part: `test`, or `dev`, whose opening is written in each run's ledger.

    Returns:
        Plain values: `made` says of what, `models` one entry a model. See docs/judge.md.

    Raises:
        DataError: an unreadable manifest or image, a split without a class, a model trained on a judged image.
        UsageError: dev is to be opened for a model file without a run.
    """
    opened = read_dataset(manifest)
    judging = Judging(opened, from_manifest(opened), part, cache, workers, seed, per_source)
    indices = judging.indices(part)
    notes = {s.name: [n] if (n := check_not_trained_on(s, judging.examples, indices)) else [] for s in subjects}
    if part == "dev":
        open_dev(subjects, opened.sha256)
    parts = {name: judging.indices(name) for name in dict.fromkeys((part, "test"))}
    gone = judging.gone(i for chosen in parts.values() for i in chosen)
    judging = replace(judging, originals=not gone)
    columns = {name: _scored(subjects, judging, chosen) for name, chosen in parts.items()}
    looks = look([s.file for s in subjects], judging.examples, indices, cache, workers)
    models: list[dict[str, Any]] = []
    for k, subject in enumerate(subjects):
        card, note = _calibrated(subject.card, columns["test"][k], part)
        said = notes[subject.name] + ([note] if note else [])
        models.append(_judge(replace(subject, card=card), columns[part][k], looks[k], judging, indices, said))
    return {"made": _made(judging, indices, gone), "models": models}


def calibrate(model: Path, manifest: Path | None, cache: Path, workers: int = 1) -> ModelCard:
    """Fit calibration and thresholds on the test images of the sources a model knows, and write them into its file.

    Args:
        model: a finished run, or a model file; manifest: by default the run's own.

    Raises:
        DataError: the test split lacks a class, an image cannot be read, or the logits do not rise with P(fake).
    """
    [subject] = open_subjects([model])
    opened = read_dataset(manifest or manifest_of([subject]))
    judging = Judging(opened, from_manifest(opened), "test", cache, workers)
    indices = judging.indices("test")
    check_not_trained_on(subject, judging.examples, indices)
    [column] = _scored([subject], replace(judging, originals=not judging.gone(indices)), indices)
    card = fit_calibration(subject.card, _known(subject.card, column), KNOWN)
    rewrite(subject.file, card)
    return card


def _known(card: ModelCard, column: Column) -> Column:
    return column.where(lambda record: record.source in card.sources)


def _scored(subjects: Sequence[Subject], judging: Judging, indices: Sequence[int]) -> list[Column]:
    records = tuple(judging.examples.records[i] for i in indices)
    data, files = judging.examples.sha256, judging.files(indices)
    logits = score_files([s.file for s in subjects], files, data, judging.cache, judging.workers)
    return [Column(records, v[..., 0], np.zeros(len(records), np.int64), v[..., 1]) for v in logits]


def _made(judging: Judging, indices: Sequence[int], gone: int) -> dict[str, Any]:
    labels = [judging.examples.records[i].label for i in indices]
    return {
        "split": judging.part, "real": labels.count("real"), "fake": labels.count("fake"),
        "manifest": str(judging.manifest.root), "manifest_sha256": judging.manifest.sha256,
        "files": "the original files" if judging.originals else f"the prepared files ({gone} originals lie elsewhere)",
        "per_source": judging.per_source, "seed": judging.seed, "commit": commit(), "command": command(),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def _calibrated(card: ModelCard, test: Column, part: str) -> tuple[ModelCard, str | None]:
    """The model file's own calibration; else one fitted on the test images of the sources that it knows."""
    if not card.calibration.fitted_on.startswith("nothing"):
        return card, None
    where = "; these are the images judged here" if part == "test" else ""
    try:
        fitted = fit_calibration(card, _known(card, test), KNOWN)
        return fitted, f"calibration and thresholds fitted on {KNOWN}{where}"
    except DataError as error:
        scores = card.calibration(test.logits[:, 0])
        limits = fit_thresholds(scores, test.fake, np.ones(len(scores)), 0.05, 0.1, "all test images")
        return replace(card, thresholds=limits), f"not calibrated: {error.message}; thresholds from all test images"


def _judge(
    subject: Subject, column: Column, outputs: Outputs, judging: Judging, indices: Sequence[int], notes: list[str]
) -> dict[str, Any]:
    card = subject.card
    columns, left_out = columns_of(card, column)
    clean = with_calibration(card, column, "clean")
    areas = {n: float(metrics.auroc(with_calibration(card, p, "clean"), p.fake)) for n, p in columns.items()}
    audit = _audit(subject.name, card, column, judging, indices)
    notes = notes + list(_shortcuts(audit, areas))
    return {
        "name": subject.name, "file": str(subject.file), "run": str(subject.run) if subject.run else None,
        "model_sha256": subject.sha256, "sources": card.sources, "labels": card.labels,
        "calibration": asdict(card.calibration), "fake_from": card.thresholds.fake, "real_to": card.thresholds.real,
        "notes": notes, "left_out": left_out, "dev_openings": subject.openings(),
        "study": {"model": subject.name, **study_row(outputs.logit, column.fake)},
        "protocol": [
            {"model": subject.name, "column": name, "images": variant, **_protocol_row(card, part, variant)}
            for name, part in columns.items() for variant in VARIANTS
        ],
        "by_source": list(_by_source(subject.name, card, column)),
        "audit": audit,
        "roc": {name: _curve(with_calibration(card, part, "clean"), part) for name, part in columns.items()},
        "reliability": _reliability(clean, column),
        "confusion": _confusion(card, outputs, column),
        "worst": _worst(clean, column, judging, indices),
    }  # fmt: skip


def study_row(logits: Floats, fake: metrics.Bools) -> dict[str, float | None]:
    """The study's columns, 1 = real being the positive class, at logit 0; and balanced accuracy.

    Args:
        logits: (n,) of P(fake), not calibrated; fake: (n,).

    Returns:
        Precision is None where nothing is called real.
    """
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, precision_score, recall_score

    real, called = ~fake, logits < 0
    return {
        "Accuracy": float(accuracy_score(real, called)),
        "Precision": float(precision_score(real, called)) if called.any() else None,
        "Recall": float(recall_score(real, called)),
        "AUROC": float(metrics.auroc(-logits, real)),
        "F1": float(f1_score(real, called)),
        "balanced accuracy": float(balanced_accuracy_score(real, called)),
    }


def columns_of(card: ModelCard, column: Column) -> tuple[dict[str, Column], list[str]]:
    """Seen, unseen and all together, by the sources that the model knows; and why some are left out.

    Where only one class has unseen sources, they are laid against the other class's seen ones, and the name says so.
    """
    seen = column.where(lambda r: r.source in card.sources)
    unseen = column.where(lambda r: r.source not in card.sources)
    name, labels = "unseen", {r.label for r in unseen.records}
    if labels == {"fake"}:
        name, unseen = "unseen fakes, seen reals", unseen + seen.where(lambda r: not r.fake)
    elif labels == {"real"}:
        name, unseen = "unseen reals, seen fakes", unseen + seen.where(lambda r: r.fake)
    kept, left_out = {}, []
    for title, part in {"seen": seen, name: unseen, "all together": column}.items():
        if part.records and part.fake.any() and not part.fake.all():
            kept[title] = part
        else:
            lacks = "no images" if not part.records else "no real images" if part.fake.any() else "no fake images"
            left_out.append(f"the column {title!r} is left out: it has {lacks}")
    return kept, left_out


def _protocol_row(card: ModelCard, column: Column, variant: str) -> dict[str, Any]:
    scores, fake = with_calibration(card, column, variant), column.fake
    fake_from = card.thresholds.fake
    wanted: dict[str, metrics.Metric] = {
        "AUROC": metrics.auroc,
        "balanced accuracy": partial(metrics.balanced_accuracy, threshold=fake_from),
        "TPR at 1 % FPR": metrics.tpr_at_fpr,
        "EER": metrics.eer,
        "ECE": metrics.calibration_error,
        "Brier": metrics.brier,
    }
    return {
        "real": int((~fake).sum()),
        "fake": int(fake.sum()),
        **{name: asdict(v) for name, v in metrics.intervals(wanted, scores, fake, column.groups).items()},
        "real called fake": float((scores[~fake] >= fake_from).mean()),
        "fake caught": float((scores[fake] >= fake_from).mean()),
        "uncertain": int((verdicts(card, column, variant) == "uncertain").sum()),
    }


def _by_source(name: str, card: ModelCard, column: Column) -> Iterator[dict[str, Any]]:
    for source in sorted(set(column.sources.tolist()), key=lambda s: (s not in card.sources, s)):
        rows = column.where(lambda r, s=source: r.source == s)  # type: ignore[misc]
        scores = {v: with_calibration(card, rows, v) for v in VARIANTS}
        yield {
            "model": name, "source": source, "label": rows.records[0].label, "n": len(rows.records),
            "in training": "seen" if source in card.sources else "unseen",
            **{f"called fake, {v}": float((s >= card.thresholds.fake).mean()) for v, s in scores.items()},
            "uncertain, clean": int((verdicts(card, rows, "clean") == "uncertain").sum()),
        }  # fmt: skip


def _audit(
    name: str, card: ModelCard, column: Column, judging: Judging, indices: Sequence[int]
) -> list[dict[str, Any]]:
    """AUROC of classifiers that see no face, trained on the train images of the sources that the model knows."""
    every = choose(judging.examples, "train", AUDIT_TRAIN, judging.seed)
    if not all(find_original(f) for f in judging.files(every)):
        return []
    of, cache, workers = judging.examples, judging.cache, judging.workers
    trained = features_of(judging.files(every), of.sha256, cache, workers, resaved=False)
    judged = features_of(judging.files(indices), of.sha256, cache, workers)
    known = np.array([of.records[i].source in card.sources for i in every], bool)
    fake = np.array([of.records[i].fake for i in every], bool)
    if not known.any() or len(set(fake[known])) < 2:
        return []
    rows = []
    for baseline, train, values in zip(BASELINES, trained, judged, strict=True):
        logits = fit(train[known, 0], fake[known], [values[:, v] for v in range(len(VARIANTS))])
        columns, _ = columns_of(card, Column(column.records, logits, column.fold))
        for title, part in columns.items():
            areas = {v: float(metrics.auroc(part.logits[:, i], part.fake)) for i, v in enumerate(VARIANTS)}
            rows.append({"beside": name, "baseline": baseline, "column": title, **areas})
    return rows


def _shortcuts(audit: list[dict[str, Any]], areas: dict[str, float]) -> Iterator[str]:
    """A sentence for each baseline that comes close to the model, or beats it, on clean images."""
    for baseline in BASELINES:
        near = [r for r in audit if r["baseline"] == baseline and r["clean"] > areas[r["column"]] - CLOSE]
        if near:
            named = ", ".join(f"{r['column']} {r['clean']:.3f} against {areas[r['column']]:.3f}" for r in near)
            yield f"a classifier of {baseline} alone does as well, clean: {named}; AUROC there says nothing of faces"


def _curve(scores: Floats, column: Column) -> dict[str, list[float]]:
    fpr, tpr = metrics.roc(scores, column.fake)
    at = np.unique(np.concatenate([np.geomspace(1e-3, 1, POINTS), [0]]))
    thin = np.unique(np.searchsorted(fpr, at, side="right") - 1)
    return {"fpr": [0.0, *fpr[thin].tolist()], "tpr": [0.0, *tpr[thin].tolist()]}


def _reliability(scores: Floats, column: Column, bins: int = 10) -> list[dict[str, float]]:
    """Mean score and share of fakes in equally wide bins, both classes weighing the same; empty bins left out."""
    weight = np.where(column.fake, 1 / column.fake.sum(), 1 / (~column.fake).sum())
    which = np.minimum((scores * bins).astype(int), bins - 1)
    filled = [rows for b in range(bins) if (rows := which == b).any()]
    return [
        {
            "score": float(np.average(scores[rows], weights=weight[rows])),
            "fake": float(np.average(column.fake[rows], weights=weight[rows])),
            "n": int(rows.sum()),
        }
        for rows in filled
    ]


def _confusion(card: ModelCard, outputs: Outputs, column: Column) -> list[dict[str, Any]]:
    """For each true source, how often the source head named each source that the model knows."""
    named = outputs.source_logits.argmax(axis=1)
    rows = []
    order = {source: i for i, source in enumerate(card.sources)}
    for source in sorted(set(column.sources.tolist()), key=lambda s: (order.get(s, len(order)), s)):
        counts = np.bincount(named[column.sources == source], minlength=len(card.sources))
        rows.append({"true source": source, **dict(zip(card.sources, counts.tolist(), strict=True))})
    return rows


def _worst(scores: Floats, column: Column, judging: Judging, indices: Sequence[int]) -> list[dict[str, Any]]:
    """The reals with the highest and the fakes with the lowest scores, among those on the wrong side of 0.5."""
    distance = np.where(column.fake, 1 - scores, scores)
    rows = []
    for fake in (False, True):
        of_class = np.flatnonzero((column.fake == fake) & (distance > 0.5))
        for i in of_class[np.argsort(-distance[of_class], kind="stable")][:WORST]:
            row = judging.manifest.rows[indices[i]]
            rows.append({
                "image": row.path, "source": row.source, "label": "fake" if fake else "real",
                "score": float(scores[i]),
            })  # fmt: skip
    return rows
