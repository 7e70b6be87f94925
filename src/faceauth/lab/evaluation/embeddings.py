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

    def save(self, file: Path) -> None:
        """Write .npz, or .parquet with one row an image. Raises UsageError for another suffix."""
        check_suffix(file)
        if file.suffix == ".npz":
            keep(file, **{f.name: getattr(self, f.name) for f in fields(self)})
            return
        import pandas as pd

        file.parent.mkdir(parents=True, exist_ok=True)
        table = pd.DataFrame({f.name: list(getattr(self, f.name)) for f in fields(self)})
        with replacing(file) as part:
            table.to_parquet(part, index=False)


def check_suffix(file: Path) -> None:
    """Raises UsageError for a suffix in which embeddings are not written."""
    if file.suffix not in {".npz", ".parquet"}:
        raise UsageError(f"embeddings are not written as {file.suffix or 'a file without suffix'}", ".npz or .parquet")


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
        keep(
            file, **{f.name: getattr(self.embedded, f.name) for f in fields(self.embedded)},
            points=self.points, **{n: np.array(getattr(self, n)) for n in _SETTINGS},
        )  # fmt: skip

    def place(self, embedding: npt.NDArray[np.float32]) -> Floats:
        """Where new embeddings (m, d) lie on this map, (m, 2); the map itself does not move. Poličar et al., 2024."""
        import openTSNE

        known = openTSNE.TSNEEmbedding(
            np.asarray(self.points, np.float64), _affinities(self.embedded.embedding, self.perplexity, self.seed),
            random_state=self.seed, n_jobs=1,
        )  # fmt: skip
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
    or what the images allow.

    Raises:
        UsageError: the perplexity is too large for so few images, or there are fewer than four.
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


def _affinities(embedding: Floats, perplexity: float, seed: int) -> Any:
    import openTSNE

    x = np.asarray(embedding, np.float64)
    return openTSNE.affinity.PerplexityBasedNN(x, perplexity, method="exact", random_state=seed, n_jobs=1)


def clusters(embedded: Embedded, seed: int = 0) -> list[dict[str, Any]]:
    """How far images lie among their like in the full space, each number beside its chance levels.

    Silhouette (Rousseeuw, 1987; -1 to 1) and leave-one-out accuracy of the `NEIGHBOURS` nearest neighbours, by
    Euclidean distance. "the reals as one cluster" is the mean silhouette of the real images against the fakes.
    `chance` is the mean over permutations of the images' labels. Sources are lumps whatever their class, so for real
    and fake `chance, sources whole` permutes the labels of whole sources: the reals form a cluster of their own only
    as far as the value lies above that.

    Returns:
        Rows of `measure`, `of`, `value`, the chances and `images`; one that lacks a second label is left out.
    """
    distances = _distances(embedded.embedding)
    real, source = embedded.target == 1, embedded.source
    classes = np.where(real, "real", "fake")
    nearest = f"accuracy of {NEIGHBOURS} nearest"
    rows = [
        _row("silhouette", "sources", _silhouette, distances, source, None, seed),
        _row("silhouette", "real and fake", _silhouette, distances, classes, source, seed),
        _row("silhouette", "the reals as one cluster", _silhouette_of_reals, distances, classes, source, seed),
        _row(nearest, "sources", _nearest, distances, source, None, seed),
        _row(nearest, "real and fake", _nearest, distances, classes, source, seed),
    ]
    among = distances[np.ix_(real, real)], source[real]
    rows += [_row("silhouette", "real sources among themselves", _silhouette, *among, None, seed)]
    rows += [_row(nearest, "real sources among themselves", _nearest, *among, None, seed)]
    return [row for row in rows if row["value"] is not None]


def _row(
    name: str, of: str, measure: Any, distances: Floats, labels: Strings, lumps: Strings | None, seed: int
) -> dict[str, Any]:
    row: dict[str, Any] = {"measure": name, "of": of, "value": None, "chance": None, "chance, sources whole": None}
    row["images"] = len(labels)
    rng = np.random.default_rng(seed)
    if 2 <= len(set(labels.tolist())) < len(labels):
        row["value"] = float(measure(distances, labels))
        row["chance"] = float(np.mean([measure(distances, rng.permutation(labels)) for _ in range(PERMUTATIONS)]))
        if lumps is not None:
            names, first, lump = np.unique(lumps, return_index=True, return_inverse=True)
            drawn = [labels[first][rng.permutation(len(names))][lump] for _ in range(PERMUTATIONS)]
            row["chance, sources whole"] = float(np.mean([measure(distances, d) for d in drawn]))
    return row


def _distances(x: Floats) -> Floats:
    from scipy.spatial.distance import pdist, squareform

    return np.asarray(squareform(pdist(np.asarray(x, np.float64))))


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


def placed(candidate: Candidate, images: Sequence[Path]) -> npt.NDArray[np.float32]:
    """Embeddings (n, d) of image files, each found, cut and seen as `faceauth detect` does. Raises ImageError."""
    from faceauth.detector import Detector

    return Detector(candidate.file, learned=False).embed([str(p) for p in images])


def table(map_: Map) -> list[dict[str, Any]]:
    """One row an image of a map, for CSV."""
    e = map_.embedded
    return [
        {"path": p, "source": s, "target": int(t), "score": float(v), "x": float(x), "y": float(y)}
        for p, s, t, v, (x, y) in zip(e.path, e.source, e.target, e.score, map_.points, strict=True)
    ]
