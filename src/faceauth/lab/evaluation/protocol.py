"""How a detector is judged: which images, saved again how, in which columns. One protocol for every number.

Everything is scored through the hall's own `Detector`, from the image file on, as a user would. The columns:

- seen: new images of sources that the model was trained on;
- unseen: for every fold, the sources held out together, scored by the model trained without them;
- all together: both.

Raw logits of every model go through the judged model's calibration, so that one threshold holds for all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from faceauth.errors import DataError, UsageError
from faceauth.lab.data.dataset import open_crops
from faceauth.lab.data.sources import Corpus, Record, read_corpus
from faceauth.lab.data.split import split
from faceauth.lab.evaluation.scoring import VARIANTS, score_files
from faceauth.lab.training.export import calibrated, rewrite
from faceauth.model_file import ModelCard, ModelFile

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Column:
    """Scored images.

    Attributes:
        records: what was scored, images x models of a column end to end.
        logits: (n, variants) raw, in the order of `VARIANTS`, at the first look.
        fold: (n,) 0 for the judged model, else the fold whose model scored.
        means: (n, variants) the mean over all looks; None where there is one look only.
    """

    records: tuple[Record, ...]
    logits: Floats
    fold: npt.NDArray[np.int64]
    means: Floats | None = None

    @property
    def fake(self) -> npt.NDArray[np.bool_]:
        """(n,) the labels."""
        return np.array([r.fake for r in self.records])

    @property
    def sources(self) -> npt.NDArray[np.str_]:
        """(n,) the sources."""
        return np.array([r.source for r in self.records])

    @property
    def groups(self) -> npt.NDArray[np.str_]:
        """(n,) what is drawn as one by the bootstrap."""
        return np.array([r.group or r.sha256 for r in self.records])

    @property
    def all_looks(self) -> Floats:
        """(n, variants) the mean logits over all looks."""
        return self.logits if self.means is None else self.means

    def where(self, wanted: Callable[[Record], bool]) -> "Column":
        """The rows whose record is wanted."""
        keep = np.array([wanted(r) for r in self.records], bool)
        chosen = tuple(r for r, k in zip(self.records, keep, strict=True) if k)
        return Column(chosen, self.logits[keep], self.fold[keep], self.all_looks[keep])

    def __add__(self, other: "Column") -> "Column":
        return Column(
            self.records + other.records,
            np.concatenate([self.logits, other.logits]),
            np.concatenate([self.fold, other.fold]),
            np.concatenate([self.all_looks, other.all_looks]),
        )


@dataclass(frozen=True, slots=True)
class Judged:
    """What a model is judged on: its card and columns.

    Attributes:
        foreign: sources that neither it nor any fold's model was trained on, scored by it.
        edited: a probe outside both classes.
    """

    card: ModelCard
    seen: Column
    unseen: Column
    foreign: Column
    edited: Column
    folds: tuple[tuple[str, ...], ...]


def judge(model: Path, folds: Sequence[Path], root: Path, cache: Path, part: str, workers: int = 1) -> Judged:
    """Score a model and its folds' models on a part of the corpus.

    Args:
        model: the judged model file; folds: the files of the models trained with sources held out.
        part: `test`, or `dev`, which is sealed until the end.

    Raises:
        UsageError: a model of another corpus, or a fold's model that holds nothing out.
        DataError: the fold models do not hold out every source once.
    """
    corpus = read_corpus(root)
    card = ModelFile(model).card
    same_corpus(card, corpus)
    splits = parts_of(card, corpus, cache)

    def column(file: Path, fold: int, wanted: Callable[[Record], bool]) -> Column:
        indices = [i for i, r in enumerate(corpus.records) if splits[i] == part and wanted(r)]
        return _column(file, corpus, indices, fold, cache, workers)

    held = [_held_out(fold, card, corpus) for fold in folds]
    there = {r.source for r in corpus.records}  # faces of our own, trained on beside the corpus, are not judged
    if folds and sorted(s for out in held for s in out) != sorted(there.intersection(card.sources)):
        raise DataError("the fold models do not hold out every source exactly once", "give one model for each fold")
    unseen = [
        column(fold, number, lambda r, out=out: r.source in out)  # type: ignore[misc]
        for number, (fold, out) in enumerate(zip(folds, held, strict=True), start=1)
    ]
    return Judged(
        card,
        column(model, 0, lambda r: r.source in card.sources),
        sum(unseen, Column((), np.zeros((0, len(VARIANTS))), np.zeros(0, np.int64))),
        column(model, 0, lambda r: r.label != "edited" and r.source not in card.sources),
        column(model, 0, lambda r: r.label == "edited"),
        tuple(held),
    )


def parts_of(card: ModelCard, corpus: Corpus, cache: Path) -> list[str]:
    """The split of every record, as the model was trained with it."""
    whole = str(card.notes.get("whole", "")).split(", ")
    return split(corpus.records, open_crops(corpus, cache).dhashes, whole=whole)


def _held_out(fold: Path, judged: ModelCard, corpus: Corpus) -> tuple[str, ...]:
    card = ModelFile(fold).card
    same_corpus(card, corpus)
    out = tuple(s for s in judged.sources if s not in card.sources)
    if not out:
        raise UsageError(f"{fold} holds no source out", "give models trained with --fold")
    return out


def same_corpus(card: ModelCard, corpus: Corpus) -> None:
    """Raises UsageError where a model was trained on another corpus."""
    if card.data_sha256 != corpus.sha256:
        raise UsageError(
            f"{card.name} was trained on another corpus ({card.data_sha256[:12]}, not {corpus.sha256[:12]})",
            "its train split may hold the images it would be judged on",
        )


def calibrate(model: Path, root: Path, folds: Sequence[Path], cache: Path, workers: int = 1) -> ModelCard:
    """Fit a model file's calibration and thresholds on the test split, and write them into it.

    Face swaps are left out: on unseen ones the scores of this kind of network say nothing, and a calibration that
    includes them makes every score of a generated face say nothing too (docs/research.md).
    """
    judged = judge(model, folds, root, cache, "test", workers=workers)
    column = (judged.unseen if folds else judged.seen).where(lambda record: record.family != "swap")
    described = "test photos of sources " + ("the scoring model had not seen" if folds else "it was trained on")
    card = fit(judged.card, column, described + ", face swaps left out")
    rewrite(model, card)
    return card


def fit(card: ModelCard, column: Column, described: str) -> ModelCard:
    """The card with calibration and thresholds fitted on a column, clean, web and hard. Raises DataError."""
    repeats = 3
    return calibrated(
        card,
        column.logits[:, :repeats].T.reshape(-1),
        np.tile(column.fake, repeats),
        np.tile(column.sources, repeats).tolist(),
        f"{described}, {', '.join(VARIANTS[:repeats])}",
        groups=np.tile(column.groups, repeats).tolist(),
    )


def _column(model: Path, corpus: Corpus, indices: Sequence[int], fold: int, cache: Path, workers: int) -> Column:
    records = tuple(corpus.records[i] for i in indices)
    [logits] = score_files([model], [str(corpus.file(r)) for r in records], corpus.sha256, cache, workers)
    return Column(records, logits[..., 0], np.full(len(records), fold), logits[..., 1])


def with_calibration(card: ModelCard, column: Column, variant: str) -> Floats:
    """(n,) calibrated P(fake) of a column in one variant, as a user gets it."""
    return _both(card, column, variant)[0]


def verdicts(card: ModelCard, column: Column, variant: str) -> npt.NDArray[np.str_]:
    """(n,) `real`, `fake` or `uncertain` of a column in one variant, as a user gets them."""
    first, mean = _both(card, column, variant)
    limits = card.thresholds
    kept = np.where((first <= limits.real) & (first < limits.fake), "real", "uncertain")
    return np.where((first >= limits.fake) & (mean >= limits.fake), "fake", kept)


def _both(card: ModelCard, column: Column, variant: str) -> tuple[Floats, Floats]:
    v = VARIANTS.index(variant)
    return card.calibration(column.logits[:, v]), card.calibration(column.all_looks[:, v])
