"""Classifiers that stand beside a detector, without a network.

The shortcut audit says how far one gets without looking at a face: one classifier reads how the file was saved, one a
16 x 16 thumbnail. Where they come close to a detector, the images are told apart by something else than faces, and
the column is worthless. The third sees the face, but only its power spectrum: Durall et al., arXiv 1911.00686.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from faceauth.lab.data.dataset import DataSet, read_dataset
from faceauth.lab.evaluation.facts import features_of
from faceauth.lab.evaluation.profiles import profiles_of
from faceauth.lab.evaluation.protocol import Column, parts_of
from faceauth.lab.evaluation.scoring import VARIANTS
from faceauth.model_file import ModelCard

BASELINES = ("file facts", "16 px thumbnail")
Bools = npt.NDArray[np.bool_]
Fit = Callable[[npt.NDArray[Any], Bools, Sequence[npt.NDArray[Any]]], npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Places:
    """Who is trained on and who is judged: a corpus, its split, and the sources that are held out together.

    Attributes:
        train, judged: (n,) the train images of the model's sources, and their images of the judged part.
    """

    corpus: DataSet
    folds: Sequence[Sequence[str]]
    train: Bools
    judged: Bools

    @classmethod
    def of(cls, card: ModelCard, folds: Sequence[Sequence[str]], root: Path, cache: Path, part: str) -> "Places":
        """Those of a model, and of its folds."""
        corpus = read_dataset(root)
        splits = np.array(parts_of(card, corpus, cache))
        known = np.isin([r.source for r in corpus.rows], card.sources)
        return cls(corpus, folds, known & (splits == "train"), known & (splits == part))

    @property
    def files(self) -> npt.NDArray[np.str_]:
        """(n,) the image files."""
        return np.array([str(self.corpus.file(r)) for r in self.corpus.rows])

    def columns(self, values: npt.NDArray[Any], fit: Fit) -> tuple[Column, Column]:
        """The columns seen and unseen of a classifier of features (n, variants, d), trained on clean files only."""
        fake = np.array([r.fake for r in self.corpus.rows])
        sources = np.array([r.source for r in self.corpus.rows])
        columns = []
        for number, held in enumerate([(), *self.folds]):
            out = np.isin(sources, list(held))
            train, judged = self.train & ~out, np.flatnonzero(self.judged & (out if number else True))
            if number and not len(judged):
                continue
            records = tuple(self.corpus.rows[i] for i in judged)
            logits = fit(values[train, 0], fake[train], [values[judged, v] for v in range(len(VARIANTS))])
            columns.append(Column(records, logits, np.full(len(judged), number)))
        return columns[0], sum(columns[2:], columns[1]) if len(columns) > 1 else columns[0]


def audit(
    card: ModelCard, folds: Sequence[Sequence[str]], root: Path, cache: Path, part: str, workers: int = 1
) -> dict[str, tuple[Column, Column]]:
    """For each of `BASELINES` the columns seen and unseen, trained on the clean train files that the model had.

    `logits` of the columns are log-odds; everything else is as in `protocol.judge`.
    """
    places = Places.of(card, folds, root, cache, part)
    features = features_of(places.files.tolist(), places.corpus.sha256, cache, workers)
    return {name: places.columns(values, fit) for name, values in zip(BASELINES, features, strict=True)}


def spectrum_svm(
    card: ModelCard, folds: Sequence[Sequence[str]], root: Path, cache: Path, part: str, workers: int = 1
) -> tuple[Column, Column]:
    """The columns seen and unseen of the spectrum classifier; arguments as in `audit`.

    `logits` are distances from the margin. Durall et al., arXiv 1911.00686; here an RBF support vector machine.
    """
    places = Places.of(card, folds, root, cache, part)
    train = profiles_of(places.files[places.train].tolist(), places.corpus.sha256, cache, workers, resaved=False)
    judged = profiles_of(places.files[places.judged].tolist(), places.corpus.sha256, cache, workers)
    values = np.full((len(places.train), len(VARIANTS), train.shape[-1]), np.nan, np.float32)
    values[places.train, :1], values[places.judged] = train, judged
    return places.columns(values, fit_svm)


def fit(train: npt.NDArray[Any], fake: Bools, judged: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Log-odds (n, len(judged)) of a classifier fitted on train features (m, d) for features (n, d).

    Gradient-boosted trees, both classes weighing the same.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    model = HistGradientBoostingClassifier(max_iter=100, class_weight="balanced", random_state=0)
    with threadpool_limits(1):  # OpenMP threads that wait for a busy core made this a hundred times slower
        model.fit(train, fake)
        return np.stack([model.decision_function(v) for v in judged], axis=1)


def fit_svm(train: npt.NDArray[Any], fake: Bools, judged: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Decision values (n, len(judged)) of an RBF support vector machine on standardised features, classes balanced."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    model = make_pipeline(StandardScaler(), SVC(kernel="rbf", class_weight="balanced")).fit(train, fake)
    return np.stack([model.decision_function(v) for v in judged], axis=1)
