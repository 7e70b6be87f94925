"""The controls that see no face: (a) facts of the file and (b) a 16 x 16 thumbnail, scored into the table of scores.

Both are fitted for each fold on the train images of the kinds, or sources, that the fold's detector was trained on,
in all the re-saved variants together that a detector trains on. Fitted to clean files alone, a control cannot use
what re-saving leaves, and looks weaker than it is.
"""

import hashlib
import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from faceauth.errors import DataError
from faceauth.lab.evaluation.score_sets import CONTROL_MODELS, RESAVED
from faceauth.lab.evaluation.score_table import OF_IMAGE

Floats = npt.NDArray[np.float32]
FORMATS = ("JPEG", "PNG", "WEBP")
THUMBNAIL = 16  # pixels a side
JPEG_QUALITY = {"web": 60, "hard": 40, "avatar": 75, "matched": 75, "resaved": 60}  # of the others 90


def file_facts(data: bytes) -> list[float]:
    """Format, width, height, aspect, bytes a pixel, means of the JPEG quantisation tables, EXIF presence."""
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        tables = getattr(image, "quantization", None) or {}
        means = [float(np.mean(tables[k])) if k in tables else -1.0 for k in (0, 1)]
        formats = [float(image.format == f) for f in FORMATS]
        size = [float(width), float(height), width / height, len(data) / (width * height)]
        return [*formats, *size, *means, float(bool(image.getexif()))]


def thumbnail(image: Image.Image) -> list[float]:
    """The whole picture at 16 x 16, RGB, in [0, 1]: 768 values."""
    small = image.convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    return [float(v) / 255 for v in np.asarray(small).reshape(-1)]


def saved_as(variant: str, original: bytes, image: Image.Image) -> bytes:
    """The bytes of a variant as its file would be: the original's where it is clean, else a JPEG of its quality.

    `image` is the variant's picture, as `faceauth.lab.data.variants` makes it.
    """
    if variant == "clean":
        return original
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=JPEG_QUALITY.get(variant, 90))
    return file.getvalue()


def control_features(samples: Iterable[tuple[bytes, Image.Image]]) -> dict[str, Floats]:
    """What each control sees, by its name: (n, 10) and (n, 768) for n pairs of a file's bytes and its picture."""
    facts, thumbnails = zip(*((file_facts(data), thumbnail(image)) for data, image in samples), strict=True)
    return dict(zip(CONTROL_MODELS, (np.array(facts, np.float32), np.array(thumbnails, np.float32)), strict=True))


def score_controls(
    samples: pd.DataFrame, features: Mapping[str, Floats], held_out: Mapping[tuple[str, int, int], set[str]],
    variants: tuple[str, ...] = RESAVED,
) -> tuple[pd.DataFrame, dict[str, list[str]]]:  # fmt: skip
    """Fit both controls for every fold, and score what a detector's table has rows of.

    Args:
        samples: a row for each image and variant, with the image's columns of `score_table.SCHEMA` and `face`; train
            images are needed in all of `variants`. A row without a face has no logit, and nothing is fitted to it.
        features: for each control those of the samples with a face, (n, d), as `control_features` gives.
        held_out: by deal, seed and fold the kinds held out, or the sources where the deal is by source.
        variants: those that the detector trains on.

    Returns:
        Rows for `score_table.write`, and the metadata entry `controls`: what each was fitted on.

    Raises:
        DataError: a fold's train images lack a class, or a variant.
    """
    fake, face = samples["label"].to_numpy(str) == "fake", samples["face"].to_numpy(bool)
    of_variant = samples["variant"].isin(variants)
    trainable = face & ((samples["split"] == "train") & (samples["label"] != "edited") & of_variant).to_numpy()
    judged_split = samples["split"].isin(("test", "dev")).to_numpy()
    parts = []
    for (deal, seed, fold), held in held_out.items():
        out = samples[deal].isin(held).to_numpy()
        train, judged = trainable & ~out, out | judged_split if deal == "kind" else out
        _check_train(samples[train], fake[train], variants, f"the deal by {deal}, seed {seed}, fold {fold}")
        for name in CONTROL_MODELS:
            values, logits = features[name], np.full(len(samples), np.nan)
            of_judged, digest = _fit(values[train[face]], fake[train], values[judged[face]])
            logits[judged & face] = of_judged
            parts.append(samples.loc[judged, ["image", *OF_IMAGE, "variant", "face"]].assign(
                model=name, model_sha256=digest, deal=deal, seed=seed, fold=fold, held_out=out[judged],
                logit=logits[judged],
            ))  # fmt: skip
    return pd.concat(parts, ignore_index=True), {name: list(variants) for name in CONTROL_MODELS}


def _check_train(train: pd.DataFrame, fake: npt.NDArray[np.bool_], variants: tuple[str, ...], where: str) -> None:
    if fake.all() or not fake.any():
        raise DataError(f"the controls of {where} have train images of one class alone", "deal the folds again")
    if missing := [v for v in variants if v not in set(train["variant"])]:
        raise DataError(
            f"the controls of {where} have no train images in {', '.join(missing)}",
            "make the train images in every variant that the detector trains on",
        )


def _fit(train: Floats, fake: npt.NDArray[np.bool_], judged: Floats) -> tuple[npt.NDArray[Any], str]:
    """Log-odds (n,) of gradient-boosted trees, classes weighing the same, and a hash of what they were fitted to."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    model = HistGradientBoostingClassifier(max_iter=100, class_weight="balanced", random_state=0)
    with threadpool_limits(1):  # OpenMP threads that wait for a busy core made this a hundred times slower
        model.fit(train, fake)
        logits = model.decision_function(judged)
    digest = hashlib.sha256(np.ascontiguousarray(train).tobytes() + fake.tobytes())
    return logits, digest.hexdigest()
