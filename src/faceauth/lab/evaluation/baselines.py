"""The shortcut audit: how far does one get without looking at a face?

Two classifiers that see no face: one reads how the file was saved, one a 16 x 16 thumbnail. Where they come
close to a detector, the images are told apart by something else than faces, and the column is worthless.
"""

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from faceauth import images
from faceauth.lab.data.dataset import open_crops
from faceauth.lab.data.sources import read_corpus
from faceauth.lab.data.split import FRACTIONS, split
from faceauth.lab.evaluation.protocol import Column
from faceauth.lab.evaluation.scoring import RESAVES, VARIANTS, keep, tracked

FORMATS = ("JPEG", "PNG", "WEBP")
BASELINES = ("file facts", "16 px thumbnail")


def file_facts(data: bytes) -> list[float]:
    """Format, width, height, aspect, bytes a pixel, means of the JPEG quantisation tables, EXIF presence."""
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        tables = getattr(image, "quantization", None) or {}
        means = [float(np.mean(tables[k])) if k in tables else -1.0 for k in (0, 1)]
        formats = [float(image.format == f) for f in FORMATS]
        return [
            *formats,
            width,
            height,
            width / height,
            len(data) / (width * height),
            *means,
            float(bool(image.getexif())),
        ]


def thumbnail(image: Image.Image) -> list[float]:
    """The whole picture at 16 x 16, RGB, in [0, 1]."""
    small = image.resize((16, 16), Image.Resampling.BOX)
    return [float(v) / 255 for v in np.asarray(small).reshape(-1)]


def audit(
    root: Path, cache: Path, part: str, folds: Sequence[Sequence[str]], split_seed: int = 0,
    fractions: Sequence[float] = FRACTIONS, workers: int = 1,
) -> dict[str, tuple[Column, Column]]:  # fmt: skip
    """For each of `BASELINES` the columns seen and unseen, trained on clean train files only.

    `logits` of the columns are log-odds; everything else is as in `protocol.judge`.
    """
    corpus = read_corpus(root)
    splits = np.array(split(corpus.records, open_crops(corpus, cache).dhashes, split_seed, fractions))
    fake = np.array([r.fake for r in corpus.records])
    sources = np.array([r.source for r in corpus.records])
    in_class = np.array([r.label != "edited" for r in corpus.records])
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

    model = HistGradientBoostingClassifier(max_iter=100, class_weight="balanced", random_state=0).fit(train, fake)
    return np.stack([model.decision_function(v) for v in judged], axis=1)


def features_of(
    paths: Sequence[str], data: str, cache: Path, workers: int, resaved: bool = True
) -> list[npt.NDArray[np.float32]]:
    """What each of `BASELINES` sees of every file, (n, variants, d), kept in the cache.

    Args:
        data: hash of the corpus or manifest, a part of the cache's key.
        resaved: all variants of the protocol; else the files as they are alone.
    """
    key = hashlib.sha256(repr((data, list(paths), resaved)).encode()).hexdigest()[:32]
    kept = cache / "audit" / f"{key}.npz"
    if not kept.is_file():
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            found = pool.map(_features_one, paths, [resaved] * len(paths), chunksize=32)
            facts, thumbnails = zip(*tracked(found, len(paths), "shortcut audit"), strict=True)
        keep(kept, facts=np.asarray(facts, np.float32), thumbnails=np.asarray(thumbnails, np.float32))
    with np.load(kept) as file:
        return [file["facts"], file["thumbnails"]]


def _features_one(path: str, resaved: bool) -> tuple[list[list[float]], list[list[float]]]:
    data = Path(path).read_bytes()
    image = images.decode(data)
    files = [data, *(resave(image) for resave in (RESAVES if resaved else ()))]
    return [file_facts(f) for f in files], [thumbnail(images.decode(f)) for f in files]
