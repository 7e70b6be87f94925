"""Prototypes of a model file's sources: fitted on train, calibrated on test, written into the file's metadata.

Means and covariance come from train images as they are and saved again (*web*), each source weighing the same. The
covariance is shrunk by Ledoit and Wolf (2004), that of the means by half towards a sphere, as a dozen sources say
little of where the next one lies. It knows nothing of what is printed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from faceauth.attribution import PROTOTYPES_KEY, Kind, Prototypes, Unknown, logsumexp, novelty, without
from faceauth.errors import DataError, UsageError
from faceauth.lab.data.dataset import ImageRow
from faceauth.lab.data.examples import Examples
from faceauth.lab.evaluation.candidates import choose
from faceauth.lab.evaluation.scoring import prepared_outputs
from faceauth.lab.training.onnx_file import rewrite
from faceauth.model_file import ModelCard, ModelFile, Outputs

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]
SEEN_IN = ("clean", "web")
PER_SOURCE = 150  # train images behind a mean; more change nothing that can be measured
REFERENCE = 20  # test images of each source that are kept in the file
SPHERE = 0.5  # how far the covariance of the means is shrunk
TEMPERATURES = np.geomspace(0.3, 30, 93)


@dataclass(frozen=True, slots=True)
class EmbeddedSet:
    """Images and what models say of them, in some variants: outputs of a model are arrays (n, variants, ...)."""

    records: tuple[ImageRow, ...]
    splits: npt.NDArray[np.str_]
    cards: tuple[ModelCard, ...]
    outputs: tuple[Outputs, ...]

    def where(self, wanted: Callable[[ImageRow], bool], split: str | None = None) -> Bools:
        """(n,) which images of a split are wanted."""
        chosen = np.array([wanted(r) for r in self.records], bool)
        return chosen if split is None else chosen & (self.splits == split)

    def sources(self, model: int) -> tuple[str, ...]:
        """The sources that a model was trained on, without those that no image here has."""
        there = self.kinds()
        return tuple(s for s in self.cards[model].sources if s in there)

    def kinds(self) -> dict[str, Kind]:
        """Every source and what it belongs to."""
        return {r.source: Kind(r.source, "fake" if r.fake else "real", r.family, r.generator) for r in self.records}


def embed_prepared(model: Path, examples: Examples, cache: Path, workers: int) -> EmbeddedSet:
    """A prepared data set's faces, train and test, as they lie. Raises DataError where a split is empty."""
    chosen = [i for split in ("train", "test") for i in choose(examples, split, PER_SOURCE, 0)]
    [outputs] = prepared_outputs([model], examples, chosen, cache, workers)
    one = Outputs(outputs.logit[:, None], outputs.source_logits[:, None], outputs.embedding[:, None])
    records = tuple(examples.records[i] for i in chosen)
    return EmbeddedSet(records, np.array([examples.splits[i] for i in chosen]), (ModelFile(model).card,), (one,))


def prototypes(embedded: EmbeddedSet, also: Sequence[str] = ()) -> Prototypes:
    """Fitted on train and calibrated on test, for the first of the models; the others have generators left out.

    `also` are sources that the network was not trained on, to be told apart all the same. Raises DataError for a source
    without train images, or nothing to calibrate on.
    """
    found = fit(embedded, 0, (*embedded.sources(0), *also))
    found = replace(found, temperature=temperature(found, embedded))
    found = with_reference(found, embedded, 0, embedded.splits == "test")
    return replace(found, unknown=fit_unknown(evidence_of_unknown(found, embedded)))


def with_reference(found: Prototypes, embedded: EmbeddedSet, model: int, allowed: Bools) -> Prototypes:
    """The same with reference images: of each source the first `REFERENCE` of those allowed, (n,), as they are."""
    source = np.array([r.source for r in embedded.records])
    chosen = [np.flatnonzero(allowed & (source == kind.name))[:REFERENCE] for kind in found.kinds]
    reference = [found.place(embedded.outputs[model].embedding[rows, 0]) for rows in chosen]
    which = np.repeat(np.arange(len(chosen)), [len(rows) for rows in chosen])
    return replace(found, reference=np.concatenate(reference), reference_kind=which)


def write(model: Path, found: Prototypes) -> None:
    """Put prototypes into a model file, in the place of older ones."""
    rewrite(model, ModelFile(model).card, {PROTOTYPES_KEY: found.to_json()})


def fit(embedded: EmbeddedSet, model: int, sources: Sequence[str]) -> Prototypes:
    """Means and covariances of sources from their train images, not calibrated yet. Raises DataError, UsageError."""
    from sklearn.covariance import ledoit_wolf

    kinds = embedded.kinds()
    if missing := [s for s in sources if s not in kinds]:
        raise UsageError(f"no images of {', '.join(missing)}", "name sources as images.csv does")
    means, residuals, counts = [], [], []
    for source in sources:
        rows = embedded.where(lambda r, s=source: r.source == s, "train")  # type: ignore[misc]
        if rows.sum() < 2:
            raise DataError(f"{source} has {rows.sum()} train images", "a prototype needs two or more")
        values = np.concatenate(np.asarray(embedded.outputs[model].embedding[rows], np.float64))
        means.append(values.mean(axis=0))
        residuals.append((values - means[-1]) / np.sqrt(len(values)))
        counts.append(float(rows.sum()))
    spread = np.concatenate(residuals)
    spread *= np.sqrt(len(spread) / len(sources))
    unit = np.sqrt((spread**2).mean(axis=0)) + 1e-9  # of each value, as what is shrunk needs one
    within, _ = ledoit_wolf(spread / unit, assume_centered=True)
    center, axes, between = _axes(np.array(means) / unit, within, np.array(counts))
    center, axes = center * unit, axes / unit
    views = embedded.outputs[model].embedding.shape[1]
    described = f"{int(sum(counts))} train images, {' and '.join(SEEN_IN[:views])}"
    coordinates = (np.array(means) - center) @ axes.T
    return Prototypes(
        tuple(kinds[s] for s in sources), np.array(counts), center, axes, between, coordinates,
        np.zeros((0, len(center))), np.zeros(0, np.int64), fitted_on=described,
    )  # fmt: skip


def _axes(means: Floats, within: Floats, counts: Floats) -> tuple[Floats, Floats, Floats]:
    """Origin, axes in which `within` is the identity and the means' covariance diagonal, and that diagonal."""
    d = len(within)
    whiten = np.linalg.inv(np.linalg.cholesky(within + 1e-6 * np.trace(within) / d * np.eye(d)))
    center = means.mean(axis=0)
    spread = (means - center) @ whiten.T
    covariance = spread.T @ spread / max(1, len(means) - 1) - np.eye(d) * np.mean(1 / counts)
    size = max(float(np.trace(covariance)) / d, 1e-3)
    values, vectors = np.linalg.eigh((1 - SPHERE) * covariance + SPHERE * size * np.eye(d))
    return center, vectors.T @ whiten, np.maximum(values, 1e-3)


def temperature(found: Prototypes, embedded: EmbeddedSet) -> float:
    """That which gives the generators of the test fakes the lowest mean negative log likelihood (Guo et al., 2017)."""
    generators, embedding = _generators(found), embedded.outputs[0].embedding
    rows = embedded.where(lambda r: r.fake and r.source in {k.name for k in found.kinds}, "test")
    if not rows.any():
        raise DataError("no fake test images to calibrate on")
    views = range(embedding.shape[1])
    densities = np.concatenate([found.densities(found.place(embedding[rows, view])) for view in views])
    fake = densities[:, :-1][:, found.fake]
    of = np.array([[k.generator == g for k in found.kinds if k.label == "fake"] for g in generators])
    own = np.array([generators.index(embedded.records[i].generator) for _ in views for i in np.flatnonzero(rows)])
    weights = 1 / np.bincount(own)[own]
    losses = []
    for t in TEMPERATURES:
        shares = np.exp(fake / t - logsumexp(fake / t)[:, None]) @ of.T
        losses.append(-(weights * np.log(np.maximum(shares[np.arange(len(own)), own], 1e-12))).sum())
    return float(TEMPERATURES[int(np.argmin(losses))])


def _generators(found: Prototypes) -> list[str]:
    return sorted({k.generator for k in found.kinds if k.label == "fake"})


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One generator left out: log densities (n, f + 1) of its images and of known fakes, and which are which.

    The densities are those of `Prototypes.of_fakes`.
    `model` is 0 where its prototype was taken away from a model that knows it, else the place of a model trained
    without it.
    """

    generator: str
    model: int
    densities: Floats
    unknown: Bools
    variant: npt.NDArray[np.int64]


def evidence_of_unknown(found: Prototypes, embedded: EmbeddedSet) -> list[LeftOut]:
    """What each generator looks like to a model that was trained without it.

    Where there is no such model, the prototype and the source logits of a generator are taken away instead, from a
    network that knows it, which is kinder to the method. A generator without test images gives no evidence, and one
    that the first model was not trained on neither: every other model would be without it.
    """
    left: list[LeftOut] = []
    for model in range(1, len(embedded.cards)):
        fold = replace(fit(embedded, model, embedded.sources(model)), temperature=found.temperature)
        lacking = set(embedded.sources(0)) - set(embedded.sources(model))
        out = {k.generator for k in found.kinds if k.label == "fake" and k.name in lacking}
        out -= {k.generator for k in fold.kinds}
        left += [_left(fold, embedded, model, generator) for generator in sorted(out)]
    if len(embedded.cards) == 1 and len(_generators(found)) > 1:
        left = [_left(without(found, [g]), embedded, 0, g) for g in _generators(found)]
    return [one for one in left if one.unknown.any() and not one.unknown.all()]


def _left(found: Prototypes, embedded: EmbeddedSet, model: int, generator: str) -> LeftOut:
    names = {k.name for k in found.kinds}
    known = embedded.where(lambda r: r.fake and r.source in names, "test")
    other = embedded.where(lambda r: r.fake and r.generator == generator, "test")
    densities, unknown, variants = [], [], []
    for variant in range(embedded.outputs[model].embedding.shape[1]):
        for rows in (known, other):
            points = found.place(embedded.outputs[model].embedding[rows, variant])
            densities.append(found.of_fakes(found.densities(points)))
            unknown.append(np.full(int(rows.sum()), rows is other))
            variants.append(np.full(int(rows.sum()), variant))
    return LeftOut(generator, model, *(np.concatenate(parts) for parts in (densities, unknown, variants)))


def fit_unknown(left: Sequence[LeftOut]) -> Unknown:
    """Logistic regression on generators left out; each of them, and known and unknown, weigh the same.

    The temperature is that with the lowest log loss.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    if not left:
        return Unknown()
    unknown = np.concatenate([one.unknown for one in left])
    weights = np.concatenate([np.where(o.unknown, 1 / o.unknown.sum(), 1 / (~o.unknown).sum()) for o in left])
    weights /= weights.mean()
    fitted = []
    for t in TEMPERATURES:
        values = np.concatenate([novelty(one.densities, t) for one in left])[:, None]
        size = float(values.std()) + 1e-9
        model = LogisticRegression(C=100).fit(values / size, unknown, sample_weight=weights)
        loss = log_loss(unknown, model.predict_proba(values / size)[:, 1], sample_weight=weights)
        fitted.append((loss, float(model.intercept_[0]), float(model.coef_[0, 0]) / size, float(t)))
    _, bias, slope, at = min(fitted)
    how = "models trained without them" if left[0].model else "their prototypes taken away"
    names = ", ".join(one.generator for one in left)
    return Unknown(bias, slope, at, f"{names}: {how}")
