"""The shortcut audit: how far does one get without looking at a face?

Two classifiers that see no face: one reads how the file was saved, one a 16 x 16 thumbnail. Where they come
close to a detector, the images are told apart by something else than faces, and the column is worthless.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from faceauth.lab.data.sources import read_corpus
from faceauth.lab.evaluation.facts import features_of
from faceauth.lab.evaluation.protocol import Column, parts_of
from faceauth.lab.evaluation.scoring import VARIANTS
from faceauth.model_file import ModelCard

BASELINES = ("file facts", "16 px thumbnail")


def audit(
    card: ModelCard, folds: Sequence[Sequence[str]], root: Path, cache: Path, part: str, workers: int = 1
) -> dict[str, tuple[Column, Column]]:
    """For each of `BASELINES` the columns seen and unseen, trained on the clean train files that the model had.

    `logits` of the columns are log-odds; everything else is as in `protocol.judge`.
    """
    corpus = read_corpus(root)
    splits = np.array(parts_of(card, corpus, cache))
    fake = np.array([r.fake for r in corpus.records])
    sources = np.array([r.source for r in corpus.records])
    in_class = np.isin(sources, card.sources)
    files = [str(corpus.file(r)) for r in corpus.records]
    features = features_of(files, corpus.sha256, cache, workers)
    found = {}
    for name, values in zip(BASELINES, features, strict=True):
        columns = []
        for number, held in enumerate([(), *folds]):
            out = np.isin(sources, list(held))
            train = in_class & (splits == "train") & ~out
            judged = np.flatnonzero(in_class & (splits == part) & (out if number else True))
            records = tuple(corpus.records[i] for i in judged)
            logits = fit(values[train, 0], fake[train], [values[judged, v] for v in range(len(VARIANTS))])
            columns.append(Column(records, logits, np.full(len(judged), number)))
        found[name] = columns[0], sum(columns[2:], columns[1]) if len(columns) > 1 else columns[0]
    return found


def fit(train: npt.NDArray[Any], fake: npt.NDArray[np.bool_], judged: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Log-odds (n, len(judged)) of a classifier fitted on train features (m, d) for features (n, d).

    Gradient-boosted trees, both classes weighing the same.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    model = HistGradientBoostingClassifier(max_iter=100, class_weight="balanced", random_state=0)
    with threadpool_limits(1):  # OpenMP threads that wait for a busy core made this a hundred times slower
        model.fit(train, fake)
        return np.stack([model.decision_function(v) for v in judged], axis=1)
