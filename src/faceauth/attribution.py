"""What made a face: prototypes of sources in the embedding space, `unknown`, and classes that a user has taught.

Sources are Gaussians with one covariance, whose means are draws from a Gaussian themselves: probabilistic linear
discriminant analysis (Ioffe, ECCV 2006). One model so answers three questions. The likeliest source is that of the
highest density. A face is of no known source where the density of a fresh draw is higher, which is the relative
Mahalanobis distance of Ren et al. (2021) with the uncertainty of every mean taken in; what the known sources say
together is an energy with a temperature of its own (Liu et al., NeurIPS 2020). And a class taught with a few images has
a mean known to within a stated error, so that it takes its place among classes of hundreds. It knows nothing of images,
files or terminals.
"""

import base64
import json
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from faceauth.errors import ModelError, UsageError
from faceauth.verdict import Label, Shares

PROTOTYPES_KEY = "faceauth.prototypes"
FORMAT = 2
UNKNOWN = "unknown"
FEWEST_TESTED, RAREST = 100, 0.01  # images behind the limit of `Attributor.unlike`, and their share beyond it
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A source and what it belongs to: `generator` is the same for all its publishers, `family` for its relatives."""

    name: str
    label: Label
    family: str
    generator: str


@dataclass(frozen=True, slots=True)
class Taught:
    """A class that a user has taught, from `count` images whose mean embedding is `mean`, (d,) float32.

    `model_sha256` is that of the model file that embedded them. `log_weight` is added to its log density: the log of
    its prior against that of one known source. `recall` and `taken` are the leave-one-out estimate.
    """

    kind: Kind
    mean: Floats
    count: int
    model_sha256: str
    date: str
    log_weight: float
    recall: float
    taken: float

    def estimate(self) -> str:
        """How well it will be told apart, in words."""
        own = "of them recognised when left out" if self.kind.label == "fake" else "off their scores when left out"
        return f"{self.recall:.0%} {own}, {self.taken:.1%} of other images taken for it"


@dataclass(frozen=True, slots=True)
class Unknown:
    """Log-odds of `unknown` among fakes: bias + slope * `novelty` at a temperature."""

    bias: float = 0.0
    slope: float = 1.0
    temperature: float = 1.0
    fitted_on: str = "nothing"


@dataclass(frozen=True, slots=True)
class Prototypes:
    """Sources in the embedding space, in axes where each has covariance 1 and the means have variance `between`.

    Attributes:
        kinds: the k sources; counts: (k,) embeddings behind each mean.
        center: (d,) values at the origin; axes: (d, d) from values to coordinates; between: (d,) above 0.
        means: (k, d) coordinates.
        reference: (r, d) coordinates of images that no mean was made from, to try new classes on;
            reference_kind: (r,) their rows in `kinds`.
        temperature: what log densities are divided by; unknown: see there; fitted_on: which images, in words.
    """

    kinds: tuple[Kind, ...]
    counts: Floats
    center: Floats
    axes: Floats
    between: Floats
    means: Floats
    reference: Floats
    reference_kind: npt.NDArray[np.int64]
    temperature: float = 1.0
    unknown: Unknown = Unknown()
    fitted_on: str = "nothing"

    @property
    def fake(self) -> npt.NDArray[np.bool_]:
        """(k,) which sources are fake."""
        return np.array([kind.label == "fake" for kind in self.kinds])

    def place(self, embedding: Floats) -> Floats:
        """Embeddings (n, d) to coordinates (n, d). Raises ModelError for embeddings of another size."""
        if embedding.shape[1] != (size := self.center.size):
            raise ModelError(f"prototypes for {size} values, and an embedding of {embedding.shape[1]}", _REMAKE)
        return (np.asarray(embedding, np.float64) - self.center) @ self.axes.T

    def density(self, points: Floats, mean: Floats, count: float | Floats) -> Floats:
        """Log density (n,), up to a constant, at (n, d) of a class whose mean was seen in `count` images.

        With no images at all (`count` 0) this is the density of an unknown class. Of k classes, means (k, d) and
        counts (k,), it is (n, k) at (n, 1, d).
        """
        count = np.asarray(count, np.float64)[..., None]
        shrink = count * self.between / (count * self.between + 1)
        variance = 1 + self.between / (count * self.between + 1)
        return np.asarray(-0.5 * ((points - shrink * mean) ** 2 / variance + np.log(variance)).sum(-1))

    def densities(self, points: Floats) -> Floats:
        """Log densities (n, k + 1) of the sources and, last, of an unknown one, divided by the temperature."""
        known = self.density(points[:, None], self.means, self.counts)
        return np.column_stack([known, self.density(points, self.center * 0, 0.0)]) / self.temperature

    def of_fakes(self, densities: Floats) -> Floats:
        """Those (n, f + 1) of the known fake sources and, last, of an unknown one, as they are without temperature."""
        return densities[:, np.append(self.fake, True)] * self.temperature

    def to_json(self) -> str:
        """The metadata text that `from_json` reads back; arrays as float32 in base64."""
        arrays = {name: pack(getattr(self, name)) for name in _ARRAYS}
        kinds = [[k.name, k.label, k.family, k.generator] for k in self.kinds]
        unknown = [getattr(self.unknown, f.name) for f in fields(Unknown)]
        return json.dumps(
            {"format": FORMAT, "kinds": kinds, "temperature": self.temperature, "unknown": unknown,
             "fitted_on": self.fitted_on, "reference_kind": self.reference_kind.tolist(), **arrays}
        )  # fmt: skip

    @classmethod
    def from_json(cls, text: str) -> "Prototypes":
        """Read the metadata text. Raises ModelError where it is damaged."""
        try:
            data = json.loads(text)
            if data["format"] != FORMAT:
                raise ModelError(f"prototypes of format {reprlib.repr(data['format'])}, not {FORMAT}", _REMAKE)
            kinds = tuple(Kind(*(str(v) for v in row)) for row in data["kinds"])  # type: ignore[arg-type]
            k, r = len(kinds), len(data["reference_kind"])
            d = len(base64.b64decode(data["center"])) // 4
            shapes = {"counts": (k,), "center": (d,), "axes": (d, d), "between": (d,), "means": (k, d),
                      "reference": (r, d)}  # fmt: skip
            arrays = {name: unpack(data[name], shape) for name, shape in shapes.items()}
            which = np.array(data["reference_kind"], np.int64).reshape(-1)
            bias, slope, novelty_at, on = data["unknown"]
            unknown = Unknown(float(bias), float(slope), float(novelty_at), str(on))
            found = cls(
                kinds, **arrays, reference_kind=which, temperature=float(data["temperature"]),
                unknown=unknown, fitted_on=str(data["fitted_on"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            raise ModelError(f"damaged prototypes in the model file: {repr(error)[:120]}", _REMAKE) from error
        in_range = not len(which) or (which.min() >= 0 and which.max() < k)
        numbers = [found.temperature, unknown.temperature, unknown.bias, unknown.slope]
        positive = found.temperature > 0 and unknown.temperature > 0 and (found.between > 0).all() and d > 0
        positive = positive and (found.counts > 0).all() and _has_fakes(kinds)
        if not (k and in_range and np.isfinite(numbers).all() and positive):
            raise ModelError("impossible prototypes in the model file", _REMAKE)
        return found


def _has_fakes(kinds: Sequence[Kind]) -> bool:
    labels = {kind.label for kind in kinds}
    return "fake" in labels and labels <= {"real", "fake"}


_ARRAYS = ("counts", "center", "axes", "between", "means", "reference")


_REMAKE = "update faceauth, or make them again: faceauth lab prototypes"
_AGAIN = "faceauth forget it, and learn it again"


class Attributor:
    """Prototypes and what a user has taught beside them; turns embeddings and scores into shares."""

    def __init__(self, prototypes: Prototypes, taught: Sequence[Taught] = ()) -> None:
        """Raises UsageError for a taught class whose mean is of another size than the embedding."""
        self.prototypes, self.taught = prototypes, tuple(taught)
        size = prototypes.center.size
        for one in taught:
            if one.mean.shape != (size,):
                raise UsageError(f"{one.kind.name!r} has {one.mean.size} values, not {size}", _AGAIN)
        self._means = [prototypes.place(t.mean[None])[0] for t in taught]
        self._usual = -np.inf
        if len(prototypes.reference) >= FEWEST_TESTED:
            self._usual = float(np.quantile(self._nearest(prototypes.reference), RAREST))

    def beside(self, taught: Sequence[Taught]) -> "Attributor":
        """The same prototypes with other taught classes."""
        return Attributor(self.prototypes, taught)

    def __call__(self, embedding: Floats, scores: Floats) -> tuple[Floats, list["Answer"]]:
        """Calibrated scores (n,) with what was taught taken into account, and an answer for each."""
        parts = self.parts(embedding)
        with_taught = self.corrected(scores, parts)
        return with_taught, self.answers(embedding, with_taught, parts)

    def unlike(self, embedding: Floats) -> npt.NDArray[np.bool_]:
        """(n,) whether a face lies farther from every known source than 99 of 100 test images of the sources do.

        By the log density at the nearest source, among the images that the model file keeps for trying new classes on;
        never where it keeps fewer than `FEWEST_TESTED`.
        """
        return self._nearest(self.prototypes.place(embedding)) < self._usual

    def _nearest(self, points: Floats) -> Floats:
        """(n,) log density of the likeliest known source at coordinates (n, d)."""
        return np.asarray(self.prototypes.densities(points)[:, :-1].max(axis=1))

    def parts(self, embedding: Floats) -> Floats:
        """(n, taught) the part of each face that belongs to each class taught, before the score has a say."""
        p = self.prototypes
        if not self.taught:
            return np.zeros((len(embedding), 0))
        points = p.place(embedding)
        own = [
            p.density(points, m, t.count) / p.temperature + t.log_weight
            for m, t in zip(self._means, self.taught, strict=True)
        ]
        return _softmax(np.column_stack([logsumexp(p.densities(points)), *own]))[:, 1:]

    def corrected(self, scores: Floats, parts: Floats) -> Floats:
        """Calibrated P(fake), (n,) or of several views (n, views), with what was taught taken into account.

        What is taught takes its part of a face first, by its density against that of everything else, and the score
        holds for the rest: with parts p of taught fakes and q of taught reals, score * (1 - p - q) + p. All views
        of a face have the parts of the picture as it is, so they keep their order.
        """
        fakes = np.array([t.kind.label == "fake" for t in self.taught], bool)
        rest, p = np.maximum(1 - parts.sum(axis=1), 0), parts[:, fakes].sum(axis=1)
        return np.asarray(np.clip((scores.T * rest + p).T, 0, 1), np.float64)

    def answers(self, embedding: Floats, scores: Floats, parts: Floats) -> list["Answer"]:
        """What made each face. P(real) is 1 - score, so the shares never contradict it.

        Args:
            scores: (n,) as `corrected` gives them; parts: (n, taught) as `parts` does.
        """
        p = self.prototypes
        densities = p.densities(p.place(embedding))
        fakes = np.array([t.kind.label == "fake" for t in self.taught], bool)
        fake = np.maximum(scores - parts[:, fakes].sum(axis=1), 0)
        real = np.maximum(1 - scores - parts[:, ~fakes].sum(axis=1), 0)
        unknown = self.unknown(densities)
        known = _softmax(densities[:, :-1][:, p.fake]) * ((1 - unknown) * fake)[:, None]
        rows = zip(known, unknown * fake, real, parts, scores, strict=True)
        return [self._answer(k, float(u), float(r), own, float(s)) for k, u, r, own, s in rows]

    def unknown(self, densities: Floats) -> Floats:
        """(n,) P(no known generator | fake), by log densities as `Prototypes.densities` gives them."""
        w = self.prototypes.unknown
        odds = w.bias + w.slope * novelty(self.prototypes.of_fakes(densities), w.temperature)
        return np.asarray(1 / (1 + np.exp(-np.clip(odds, -700, 700))))

    def _answer(self, known: Floats, unknown: float, real: float, parts: Floats, score: float) -> "Answer":
        kinds = [k for k in self.prototypes.kinds if k.label == "fake"] + [t.kind for t in self.taught]
        shares = [*known.tolist(), *parts.tolist()]
        generators: dict[str, float] = {"camera": real, UNKNOWN: unknown}
        families: dict[str, float] = {"real": real, UNKNOWN: unknown}
        fake = {UNKNOWN}
        for kind, share in zip(kinds, shares, strict=True):
            generators[kind.generator] = generators.get(kind.generator, 0.0) + share
            families[kind.family] = families.get(kind.family, 0.0) + share
            fake |= {kind.generator} if kind.label == "fake" else set()
        ranked = _ranked(generators)
        top = next(name for name, _ in ranked if (name in fake) == (score >= 0.5))
        return Answer(top, ranked, _ranked(families))


@dataclass(frozen=True, slots=True)
class Answer:
    """The likeliest generator of the class that the score speaks for, and the shares of all, falling, of sum 1."""

    generator: str
    generators: Shares
    families: Shares


def novelty(densities: Floats, temperature: float) -> Floats:
    """(n,) by how much an unknown class explains a face better than the known fake ones together.

    The higher the temperature, the more every known source counts, and not the likeliest alone.

    Args:
        densities: log densities (n, f + 1) of the known ones and, last, of an unknown one.
    """
    densities = densities / temperature
    return np.asarray(densities[:, -1] - logsumexp(densities[:, :-1]))


def without(prototypes: Prototypes, generators: Sequence[str]) -> Prototypes:
    """The same without some generators, as if they had never been seen. Raises UsageError where no fake is left."""
    keep = np.array([k.generator not in generators for k in prototypes.kinds])
    if not (keep & prototypes.fake).any():
        raise UsageError("no generator is left")
    kinds = tuple(k for k, kept in zip(prototypes.kinds, keep, strict=True) if kept)
    rows = keep[prototypes.reference_kind]
    where = (np.cumsum(keep) - 1)[prototypes.reference_kind[rows]]
    return replace(
        prototypes, kinds=kinds, counts=prototypes.counts[keep], means=prototypes.means[keep],
        reference=prototypes.reference[rows], reference_kind=where,
    )  # fmt: skip


def logsumexp(values: Floats) -> Floats:
    """log sum exp over the last axis."""
    top = values.max(axis=-1, keepdims=True)
    return np.asarray((top + np.log(np.exp(values - top).sum(axis=-1, keepdims=True))).squeeze(-1))


def _softmax(values: Floats) -> Floats:
    return np.asarray(np.exp(values - logsumexp(values)[:, None]))


def _ranked(shares: dict[str, float]) -> Shares:
    return tuple(sorted(shares.items(), key=lambda item: -item[1]))


def pack(array: Floats) -> str:
    """Numbers as base64 of little-endian float32."""
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode("ascii")


def unpack(text: str, shape: tuple[int, ...]) -> Floats:
    """What `pack` wrote, float64. Raises ValueError for another number of values, or one that is not finite."""
    values = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("values that are no numbers")
    return values.reshape(shape)
