"""The table of detectors side by side, for `python benchmarks/quality.py`: all on the same images.

It knows what `benchmarks/beside.py` leaves behind, and nothing of how it was trained.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faceauth.lab.data.dataset import DataSet, ImageRow, read_dataset
from faceauth.lab.evaluation import metrics
from faceauth.lab.evaluation.protocol import Column, parts_of
from faceauth.lab.evaluation.scoring import VARIANTS, score_files
from faceauth.model_file import ModelCard, ModelFile

SHOWN = VARIANTS[:3]


def generated(record: ImageRow) -> bool:
    """Whole faces made by a generator, against every real source that is not a swap's own."""
    return record.family != "swap" and record.source != "dfdc-real"


@dataclass(frozen=True, slots=True)
class Family:
    """A model, and the models of its folds with what each of them holds out."""

    name: str
    model: Path
    card: ModelCard
    folds: dict[frozenset[str], Path]


@dataclass(frozen=True, slots=True)
class Row:
    """One detector: its two columns, how large it is, and how many crops it was trained on, where it says so."""

    name: str
    seen: Column
    unseen: Column
    parameters: str = ""
    crops: str = ""

    @classmethod
    def of_model(cls, name: str, card: ModelCard, seen: Column, unseen: Column) -> "Row":
        """The row of a network, by its card."""
        crops = card.notes.get("crops trained on")
        return cls(name, seen, unseen, f"{card.parameters:,}", "" if crops is None else f"{crops:,}")

    @property
    def cells(self) -> list[str]:
        """AUROC on generated faces in each column and variant; empty where a column lacks a class."""
        cells = []
        for column in (self.unseen.where(generated), self.seen.where(generated)):
            fake = column.fake
            whole = len(fake) > 0 and fake.any() and not fake.all()
            cells += [f"{metrics.auroc(column.logits[:, i], fake):.3f}" if whole else "" for i in range(len(SHOWN))]
        return cells


def found_in(folder: Path, corpus: DataSet) -> tuple[list[Family], list[str]]:
    """The models of a folder with all of their folds, and one line on each that cannot be judged, and why."""
    families, left_out = [], []
    for model in sorted(folder.glob("*/detector.onnx")):
        name, card = model.parent.name, ModelFile(model).card
        if re.search(r"-fold\d+$", name):
            continue
        if card.data_sha256 != corpus.sha256:
            left_out.append(f"{name} was trained on another corpus")
            continue
        folds = {}
        for path in sorted(folder.glob(f"{name}-fold*/detector.onnx")):
            folds[frozenset(card.sources) - frozenset(ModelFile(path).card.sources)] = path
        missing = _wanted(card, corpus) - {source for held in folds for source in held}
        if missing:
            left_out.append(f"{name} has no model yet that holds out {', '.join(sorted(missing))}")
        else:
            families.append(Family(name, model, card, folds))
    if not families:
        left_out.append("networks to lay beside it are trained by `python benchmarks/beside.py --jobs 2`")
    return families, left_out


def _wanted(card: ModelCard, corpus: DataSet) -> set[str]:
    return {r.source for r in corpus.rows if generated(r)} & set(card.sources)


def rows_of(families: Sequence[Family], root: Path, cache: Path, part: str, workers: int) -> list[Row]:
    """Score the families; all models that judge the same images do so in one pass over them."""
    if not families:
        return []
    corpus = read_dataset(root)
    splits = parts_of(families[0].card, corpus, cache)
    chosen = [r for r, side in zip(corpus.rows, splits, strict=True) if side == part and generated(r)]
    together: dict[frozenset[str], list[Path]] = {}
    for family in families:
        for sources, model in ((frozenset(family.card.sources), family.model), *family.folds.items()):
            together.setdefault(sources, []).append(model)
    columns: dict[Path, Column] = {}
    for sources, models in together.items():
        records = tuple(r for r in chosen if r.source in sources)
        files = [str(corpus.file(r)) for r in records]
        found = score_files(models, files, corpus.sha256, cache, workers, again=False)
        for model, logits in zip(models, found, strict=True):
            columns[model] = Column(records, logits[..., 0], np.zeros(len(records), np.int64))
    return [_row(family, columns) for family in families]


def _row(family: Family, columns: dict[Path, Column]) -> Row:
    first, *others = (columns[model] for model in family.folds.values())
    return Row.of_model(family.name, family.card, columns[family.model], sum(others, first))


def table(rows: Sequence[Row], left_out: Sequence[str]) -> Iterator[str]:
    """The lines of the table, and what is not in it."""
    yield "\nSide by side, generated faces, AUROC; the same split, every source unseen once:\n"
    heads = [f"{column} {variant}" for column in ("unseen", "seen") for variant in SHOWN]
    yield f"| detector | {' | '.join(heads)} | parameters | crops trained on |\n|---|{'---|' * (len(heads) + 2)}"
    for row in rows:
        yield f"| {row.name} | {' | '.join(row.cells)} | {row.parameters} | {row.crops} |"
    yield from (f"\nNot in the table: {line}." for line in left_out)
