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
from faceauth.lab.data.split import FRACTIONS, split
from faceauth.lab.evaluation.scoring import VARIANTS, score_files
from faceauth.lab.training.export import calibrated, rewrite
from faceauth.model_file import ModelCard, ModelFile

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Column:
    """Scored images.

    Attributes:
        records: what was scored, images x models of a column end to end.
        logits: (n, variants) raw, in the order of `VARIANTS`.
        fold: (n,) 0 for the judged model, else the fold whose model scored.
    """

    records: tuple[Record, ...]
    logits: Floats
    fold: npt.NDArray[np.int64]

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

    def where(self, wanted: Callable[[Record], bool]) -> "Column":
        """The rows whose record is wanted."""
        keep = np.array([wanted(r) for r in self.records], bool)
        chosen = tuple(r for r, k in zip(self.records, keep, strict=True) if k)
        return Column(chosen, self.logits[keep], self.fold[keep])

    def __add__(self, other: "Column") -> "Column":
        return Column(
            self.records + other.records,
            np.concatenate([self.logits, other.logits]),
            np.concatenate([self.fold, other.fold]),
        )


@dataclass(frozen=True, slots=True)
class Judged:
    """What a model is judged on: its card and columns, and the edited images as a probe outside both classes."""

    card: ModelCard
    seen: Column
    unseen: Column
    edited: Column
    folds: tuple[tuple[str, ...], ...]


def judge(
    model: Path, folds: Sequence[Path], root: Path, cache: Path, part: str, split_seed: int = 0,
    fractions: Sequence[float] = FRACTIONS, workers: int = 1,
) -> Judged:  # fmt: skip
    """Score a model and its folds' models on a part of the corpus.

    Args:
        model: the judged model file; folds: the files of the models trained with sources held out.
        part: `test`, or `dev`, which is sealed until the end.

    Raises:
        UsageError: a model of another corpus, or a fold's model that holds nothing out.
        DataError: the fold models do not hold out every source once.
    """
    corpus = read_corpus(root)
    splits = split(corpus.records, open_crops(corpus, cache).dhashes, split_seed, fractions)
    chosen = [i for i, s in enumerate(splits) if s == part]
    opened = ModelFile(model)
    same_corpus(opened.card, corpus)
    in_classes = [i for i in chosen if corpus.records[i].source in opened.card.sources]
    seen = _column(model, corpus, in_classes, 0, cache, workers)
    edited = _column(model, corpus, [i for i in chosen if corpus.records[i].label == "edited"], 0, cache, workers)
    unseen, held = [], []
    for number, fold in enumerate(folds, start=1):
        card = ModelFile(fold).card
        same_corpus(card, corpus)
        out = tuple(s for s in opened.card.sources if s not in card.sources)
        if not out:
            raise UsageError(f"{fold} holds no source out", "give models trained with --fold")
        held.append(out)
        unseen.append(
            _column(
                fold,
                corpus,
                [i for i in in_classes if corpus.records[i].source in out],
                number,
                cache,
                workers,
            )
        )
    if folds and sorted(s for out in held for s in out) != sorted(opened.card.sources):
        raise DataError("the fold models do not hold out every source exactly once", "give one model for each fold")
    empty = Column((), np.zeros((0, len(VARIANTS))), np.zeros(0, np.int64))
    return Judged(opened.card, seen, sum(unseen, empty), edited, tuple(held))


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
    )


def _column(model: Path, corpus: Corpus, indices: Sequence[int], fold: int, cache: Path, workers: int) -> Column:
    records = tuple(corpus.records[i] for i in indices)
    [logits] = score_files([model], [str(corpus.file(r)) for r in records], corpus.sha256, cache, workers)
    return Column(records, logits, np.full(len(records), fold))


def with_calibration(card: ModelCard, column: Column, variant: str) -> Floats:
    """(n,) calibrated P(fake) of a column in one variant."""
    return np.asarray(card.calibration(column.logits[:, VARIANTS.index(variant)]))
