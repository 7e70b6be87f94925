"""Scores of model files and of the controls in every variant of the protocol: rows for the table of scores.

A model file is asked as a user would ask it: the picture in a variant, the largest face in it, the model's own
preprocessing. What is computed is kept in an SQLite file whose name carries the versions of the code that makes
variants and finds faces; rows are keyed by the model's hash, the image's hash and the variant.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from faceauth.faces import REVISION, finder
from faceauth.lab.data import variants
from faceauth.lab.data.dataset import ImageRow
from faceauth.lab.data.splits import DEALS
from faceauth.lab.evaluation.controls import control_features, saved_as, score_controls
from faceauth.lab.evaluation.score_sets import CONTROL_MODELS, RESAVED
from faceauth.lab.parallel import Workers, parallel
from faceauth.lab.training.features import Picture, Task, pictures
from faceauth.lab.training.frozen import Dealt, FrozenConfig, tasks
from faceauth.model_file import ModelFile

CONTROLS = "controls"  # what stands in the place of a model's hash where a row holds what the controls see
Answer = dict[str, Any]
Answers = dict[tuple[str, str], Answer | None]  # by image and variant
Scored = tuple[str, str, str, Answer | None]  # model or `CONTROLS`, image, variant, what it answers


class ScoreStore:
    """Answers on disk: of a model `{"logit", "swap_logit"}`, of the controls their features; null without a face."""

    def __init__(self, folder: Path) -> None:
        """Open or make the file in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._file = sqlite3.connect(folder / f"scores-{REVISION}-{variants.VERSION}.sqlite", timeout=60)
        self._file.execute("pragma journal_mode = wal")
        self._file.execute(
            "create table if not exists answers (model text, image text, variant text, answer text,"
            " primary key (model, image, variant)) without rowid"
        )

    def known(self, model: str) -> Answers:
        """Every answer of a model."""
        rows = self._file.execute("select image, variant, answer from answers where model = ?", (model,))
        return {(image, variant): json.loads(answer) for image, variant, answer in rows}

    def put(self, rows: Sequence[Scored]) -> None:
        """Write (model, image, variant, answer) rows, all or none of them."""
        with self._file:
            self._file.executemany(
                "insert or replace into answers values (?, ?, ?, ?)", [(*row[:3], json.dumps(row[3])) for row in rows]
            )


def answers(wanted: Sequence[Task], models: Sequence[Path], store: ScoreStore, workers: Workers) -> dict[str, Answers]:
    """Answers of every model, by its hash, and of the controls, by `CONTROLS`, to the tasks wanted and to nothing else.

    What the store lacks is computed; what it holds besides, of an earlier and larger run say, is left out.
    """
    hashes = [ModelFile(path).sha256 for path in models]
    known = {name: store.known(name) for name in (*hashes, CONTROLS)}
    left = [
        Task(task.path, task.sha256, views)
        for task in wanted
        if (views := tuple(v for v in task.views if any((task.sha256, v) not in known[n] for n in known)))
    ]
    if left:
        for rows in parallel(_start, tuple(map(str, models)), left, workers, "scoring"):
            store.put(rows)
    asked = {(task.sha256, view) for task in wanted for view in task.views}
    return {name: {pair: a for pair, a in store.known(name).items() if pair in asked} for name in known}


def _start(paths: tuple[str, ...]) -> Callable[[Task], list[Scored]]:
    models, find = [ModelFile(path) for path in paths], finder()
    return lambda task: [row for seen in pictures(task, find) for row in _rows(task, seen, models)]


def _rows(task: Task, seen: Picture, models: Sequence[ModelFile]) -> Iterator[Scored]:
    """What every model, and the controls, say of one view."""
    if seen.image is None or seen.face is None:
        yield from ((name, task.sha256, seen.view, None) for name in (*(m.sha256 for m in models), CONTROLS))
        return
    for model in models:
        spec = model.card.preprocess
        outputs = model.run(spec.normalize(spec.cut(seen.image, seen.face)[None]))
        swap = None if outputs.parts is None else float(outputs.parts[0, 1])
        yield model.sha256, task.sha256, seen.view, {"logit": float(outputs.logit[0]), "swap_logit": swap}
    features = control_features([(saved_as(seen.view, seen.file, seen.image), seen.image)])
    yield CONTROLS, task.sha256, seen.view, {name: values[0].tolist() for name, values in features.items()}


def about_images(rows: Sequence[ImageRow]) -> pd.DataFrame:
    """What the table of scores says of each image."""
    names = ("source", "kind", "label", "family", "generator", "split")
    return pd.DataFrame({
        "image": [r.path for r in rows], "image_sha256": [r.sha256 for r in rows],
        **{name: [getattr(r, name) for r in rows] for name in names},
    })  # fmt: skip


def score(
    config: FrozenConfig, dealt: Dealt, models: Sequence[Path], store: ScoreStore, workers: Workers
) -> tuple[pd.DataFrame, Answer]:
    """Rows of the models and of both controls, for every split but dev, and the metadata entry `controls`.

    The config says which images are scored in which variants.
    """
    about = about_images([row for row in dealt.rows if row.split != "dev"])
    images = set(about["image_sha256"])
    wanted = [t for t in tasks(config, dealt.data, dealt.rows, training=False) if t.sha256 in images]
    found = answers(wanted, models, store, workers)
    parts = [_model_rows(about, path, found[ModelFile(path).sha256]) for path in models]
    held = {
        (deal, seed, fold): set(dealt.column(deal)[np.equal(folds, fold)])
        for (deal, seed), folds in dealt.folds.items() for fold in sorted(set(folds))
    }  # fmt: skip
    samples, given = _pictures(about, found[CONTROLS])
    features = {name: np.array([a[name] for a in given if a is not None], np.float32) for name in CONTROL_MODELS}
    there = tuple(v for v in RESAVED if (samples["face"] & (samples["variant"] == v)).any())
    controls, fitted_on = score_controls(samples, features, held, there)
    return pd.concat([*parts, controls], ignore_index=True), fitted_on


def _pictures(about: pd.DataFrame, known: Answers) -> tuple[pd.DataFrame, list[Answer | None]]:
    """A row of `about_images` for each image and variant that was asked for, with `face`, and its answer.

    A picture that `matched` leaves out, for its face is small, is not one without a face, and has no row.
    """
    found = [(image, view, a) for (image, view), a in known.items() if a is not None or view != "matched"]
    rows = about.set_index("image_sha256", drop=False).loc[[image for image, _, _ in found]].reset_index(drop=True)
    given = [a for _, _, a in found]
    return rows.assign(variant=[view for _, view, _ in found], face=[a is not None for a in given]), given


def _model_rows(about: pd.DataFrame, path: Path, known: Answers) -> pd.DataFrame:
    """Rows of a model file for the images of `about`; held out are kinds none of whose sources it was trained on.

    Those of sources that it was not trained on come once more, as rows of the deal by source.
    """
    model = ModelFile(path)
    trained = about["source"].isin(model.card.sources)
    rows, given = _pictures(about, known)
    for name in ("logit", "swap_logit"):
        rows[name] = [None if a is None else a[name] for a in given]
    rows["model"], rows["model_sha256"], rows["seed"], rows["fold"] = model.card.name, model.sha256, -1, -1
    kind, source = (rows.assign(deal=d, held_out=~rows[d].isin(set(about.loc[trained, d]))) for d in DEALS)
    return pd.concat([kind, source[source["held_out"]]], ignore_index=True)
