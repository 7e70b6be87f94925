"""The space before the head: embeddings of a split, their map by t-SNE, and what a map cannot say as numbers.

A map is saved with its embeddings, and its affinities are computed again on loading, so that new images can be
placed on it. It knows nothing of figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from faceauth.errors import DataError, UsageError
from faceauth.files import replacing
from faceauth.lab.data.examples import Examples
from faceauth.lab.evaluation.candidates import Candidate, choose
from faceauth.lab.evaluation.scoring import keep, prepared_outputs

Floats = npt.NDArray[np.floating[Any]]
Strings = npt.NDArray[np.str_]
NEIGHBOURS = 5
PERPLEXITY = 30
PERMUTATIONS = 20  # of the labels, for a chance level


@dataclass(frozen=True, slots=True)
class Embedded:
    """Images as a network sees them before its head.

    Attributes:
        embedding: (n, d) float32; path: (n,) of the prepared file, relative to the manifest; source: (n,).
        target: (n,) 1 = real, 0 = fake, as in the manifest; score: (n,) P(fake) by the model file's calibration.
    """

    embedding: npt.NDArray[np.float32]
    path: Strings
    source: Strings
    target: npt.NDArray[np.int64]
    score: Floats

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Every attribute by its name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def save(self, file: Path) -> None:
        """Write .npz, or with any other suffix Parquet, one row an image."""
        if file.suffix == ".npz":
            keep(file, **self.arrays())
            return
        import pandas as pd

        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as part:
            pd.DataFrame({name: list(array) for name, array in self.arrays().items()}).to_parquet(part, index=False)


def embed(
    candidate: Candidate,
    examples: Examples,
    split: str,
    cache: Path,
    workers: int,
    per_source: int | None = None,
    seed: int = 0,
) -> Embedded:
    """The embeddings of a split's prepared faces. Raises DataError for an empty split or an unreadable image."""
    chosen = choose(examples, split, per_source, seed)
    if not chosen:
        raise DataError(f"the {split} split is empty")
    [outputs] = prepared_outputs([candidate.file], examples, chosen, cache, workers)
    records = [examples.records[i] for i in chosen]
    return Embedded(
        outputs.embedding,
        np.array([r.path for r in records]),
        np.array([r.source for r in records]),
        np.array([0 if r.fake else 1 for r in records]),
        np.asarray(candidate.card.calibration(outputs.logit)),
    )


@dataclass(frozen=True, slots=True)
class Map:
    """A t-SNE map: where each embedded image lies, (n, 2), and what it was made with."""

    embedded: Embedded
    points: Floats
    seed: int
    perplexity: float
    model_sha256: str
    manifest_sha256: str

    def save(self, file: Path) -> None:
        """Write .npz, without pickle."""
        settings = {name: np.array(getattr(self, name)) for name in _SETTINGS}
        keep(file, **self.embedded.arrays(), points=self.points, **settings)

    def place(self, embedding: npt.NDArray[np.float32]) -> Floats:
        """Where new embeddings (m, d) lie on this map, (m, 2); the map itself does not move. Poličar et al., 2024."""
        import openTSNE

        affinities = openTSNE.affinity.PerplexityBasedNN(
            np.asarray(self.embedded.embedding, np.float64), self.perplexity, method="exact", random_state=self.seed,
            n_jobs=1,
        )  # fmt: skip
        known = openTSNE.TSNEEmbedding(
            np.asarray(self.points, np.float64), affinities, random_state=self.seed, n_jobs=1
        )
        return np.asarray(known.transform(np.asarray(embedding, np.float64), perplexity=min(5, len(self.points) - 1)))

    def nearest(self, point: Sequence[float]) -> str:
        """The source of the image that lies nearest to a point of the map."""
        return str(self.embedded.source[np.square(self.points - np.asarray(point)).sum(axis=1).argmin()])


_SETTINGS = ("seed", "perplexity", "model_sha256", "manifest_sha256")


def load_map(file: Path, model_sha256: str) -> Map:
    """A saved map. Raises DataError where it is none, UsageError where it is another model's."""
    try:
        with np.load(file, allow_pickle=False) as a:
            embedded = Embedded(*(a[f.name] for f in fields(Embedded)))
            found = Map(embedded, a["points"], *(a[name].item() for name in _SETTINGS))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{str(file)!r} is no map", "make it again with faceauth lab tsne") from error
    if found.model_sha256 != model_sha256:
        raise UsageError(f"{str(file)!r} is the map of another model", "choose another folder with -o")
    return found


def tsne(embedded: Embedded, seed: int, perplexity: float | None, model_sha256: str, manifest_sha256: str) -> Map:
    """Lay embeddings out in the plane; the same seed gives the same map. van der Maaten and Hinton, JMLR 2008.

    Exact neighbours, started from the principal components (Kobak and Berens, 2019). Without a perplexity it is 30,
    or what the images allow. Raises UsageError where it is too large for so few images, or they are fewer than four.
    """
    import openTSNE

    most = (len(embedded.path) - 1) // 3
    perplexity = min(PERPLEXITY, most) if perplexity is None else perplexity
    if not 1 <= perplexity <= most:
        raise UsageError(f"perplexity {perplexity:g} does not suit {len(embedded.path)} images", f"1 to {most} does")
    x = np.asarray(embedded.embedding, np.float64)
    method = openTSNE.TSNE(
        perplexity=perplexity, random_state=seed, initialization="pca", neighbors="exact",
        negative_gradient_method="bh", n_jobs=1,
    )  # fmt: skip
    return Map(embedded, np.asarray(method.fit(x)), seed, float(perplexity), model_sha256, manifest_sha256)


def clusters(embedded: Embedded, seed: int = 0) -> list[dict[str, Any]]:
    """How far images lie among their like in the full space, each number beside its chance levels.

    Silhouette (Rousseeuw, 1987; -1 to 1) and leave-one-out accuracy of the `NEIGHBOURS` nearest neighbours, by
    Euclidean distance. "the reals as one cluster" is the mean silhouette of the real images against the fakes.
    `chance` is the mean over permutations of the images' labels. Sources are lumps whatever their class, so for real
    and fake `chance, sources whole` permutes the labels of whole sources: the reals form a cluster of their own only
    as far as the value lies above that. A row that lacks a second label is left out.
    """
    from scipy.spatial.distance import pdist, squareform

    distances = squareform(pdist(np.asarray(embedded.embedding, np.float64)))
    real, source = embedded.target == 1, embedded.source
    classes = np.where(real, "real", "fake")
    among = distances[np.ix_(real, real)], source[real]
    nearest = f"accuracy of {NEIGHBOURS} nearest"
    rows = [
        _row("silhouette", "sources", _silhouette, distances, source, None, seed),
        _row("silhouette", "real and fake", _silhouette, distances, classes, source, seed),
        _row("silhouette", "the reals as one cluster", _silhouette_of_reals, distances, classes, source, seed),
        _row(nearest, "sources", _nearest, distances, source, None, seed),
        _row(nearest, "real and fake", _nearest, distances, classes, source, seed),
        _row("silhouette", "real sources among themselves", _silhouette, *among, None, seed),
        _row(nearest, "real sources among themselves", _nearest, *among, None, seed),
    ]
    return [row for row in rows if row]


def _row(
    name: str, of: str, measure: Any, distances: Floats, labels: Strings, lumps: Strings | None, seed: int
) -> dict[str, Any] | None:
    if not 2 <= len(set(labels.tolist())) < len(labels):
        return None
    rng = np.random.default_rng(seed)
    chance, whole = [measure(distances, rng.permutation(labels)) for _ in range(PERMUTATIONS)], None
    if lumps is not None:
        names, first, lump = np.unique(lumps, return_index=True, return_inverse=True)
        drawn = [labels[first][rng.permutation(len(names))][lump] for _ in range(PERMUTATIONS)]
        whole = float(np.mean([measure(distances, d) for d in drawn]))
    return {
        "measure": name, "of": of, "value": measure(distances, labels), "chance": float(np.mean(chance)),
        "chance, sources whole": whole, "images": len(labels),
    }  # fmt: skip


def _silhouette(distances: Floats, labels: Strings) -> float:
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(distances, labels, metric="precomputed"))


def _silhouette_of_reals(distances: Floats, labels: Strings) -> float:
    from sklearn.metrics import silhouette_samples

    return float(silhouette_samples(distances, labels, metric="precomputed")[labels == "real"].mean())


def _nearest(distances: Floats, labels: Strings) -> float:
    """Share of images whose most frequent label among their neighbours is their own; a tie goes to the nearest."""
    others = distances + np.where(np.eye(len(distances), dtype=bool), np.inf, 0)
    near = labels[np.argsort(others, axis=1, kind="stable")[:, :NEIGHBOURS]]
    votes = (near[:, :, None] == near[:, None, :]).sum(axis=2)
    return float((near[np.arange(len(near)), votes.argmax(axis=1)] == labels).mean())


def table(map_: Map) -> list[dict[str, Any]]:
    """One row an image of a map, for CSV."""
    e = map_.embedded
    return [
        {"path": p, "source": s, "target": int(t), "score": float(v), "x": float(x), "y": float(y)}
        for p, s, t, v, (x, y) in zip(e.path, e.source, e.target, e.score, map_.points, strict=True)
    ]
