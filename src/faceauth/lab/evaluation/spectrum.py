"""The spectra of sources: average log-power of the noise residual, its radial profile, and how it differs from real.

The images are prepared faces, all cut and resized alike. The resize shapes every spectrum, so what is compared is the
sources after it, never a camera's or generator's own spectrum. The mathematics is in `faceauth.spectra`.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from faceauth import spectra
from faceauth.errors import DataError
from faceauth.lab.data.examples import Examples
from faceauth.lab.evaluation.candidates import choose
from faceauth.lab.progress import tracked

Floats = npt.NDArray[np.floating[Any]]
DRAWS = 500  # bootstrap means, of images with replacement
INTERVAL = (2.5, 97.5)  # percentiles
CAVEAT = (
    "Of the prepared faces, all cut and resized alike: the resize shapes every spectrum, so sources are compared after "
    "it, and none of these is the spectrum of a camera or generator itself. Residual: image less its 3 x 3 median."
)


@dataclass(frozen=True, slots=True)
class SourceSpectrum:
    """One source's spectrum, in decibels over one grey level squared.

    Attributes:
        log_power: (side, side) the mean over images, zero frequency in the middle.
        frequency: (rings,) in cycles a pixel; profile, low, high: (rings,) the mean and its 95 % bootstrap interval.
        difference, difference_low, difference_high: (rings,) the profile less the mean of the real sources' profiles.
    """

    source: str
    fake: bool
    images: int
    log_power: Floats
    frequency: Floats
    profile: Floats
    low: Floats
    high: Floats
    difference: Floats
    difference_low: Floats
    difference_high: Floats

    def rows(self) -> list[dict[str, Any]]:
        """One row a ring, for CSV."""
        rings = range(len(self.frequency))
        return [self._source() | {name: float(getattr(self, name)[k]) for name in _BY_RING} for k in rings]

    def summary(self) -> dict[str, Any]:
        """How far the source lies from the real ones' mean, in dB, over the lower and the upper half of frequencies."""
        upper = self.frequency > self.frequency[-1] / 2
        low, high = float(self.difference[~upper].mean()), float(self.difference[upper].mean())
        return self._source() | {"lower half, dB": low, "upper half, dB": high}

    def _source(self) -> dict[str, Any]:
        return {"source": self.source, "label": "fake" if self.fake else "real", "images": self.images}


_BY_RING = ("frequency", "profile", "low", "high", "difference", "difference_low", "difference_high")


def source_spectra(
    examples: Examples, split: str, per_source: int | None = 200, seed: int = 0, workers: int = 1
) -> list[SourceSpectrum]:
    """The spectrum of every source of a split, reals first; intervals over images, each real source weighing the same.

    At most `per_source` images of each source are drawn with the seed; None for all. Raises DataError for images of
    different sizes, no real images, or an unreadable one.
    """
    chosen = choose(examples, split, per_source, seed)
    records = [examples.records[i] for i in chosen]
    if not any(r.label == "real" for r in records):
        raise DataError(f"the {split} split has no real images to compare with")
    sources = sorted({(r.label == "fake", r.source) for r in records})
    planes, profiles = {}, {}
    with ThreadPoolExecutor(workers) as pool:
        for _, source in tracked(sources, len(sources), "spectra"):
            members = [i for i, r in zip(chosen, records, strict=True) if r.source == source]
            planes[source], profiles[source] = _average(examples, members, pool)
    if len({p.shape for p in planes.values()}) > 1:
        raise DataError("the prepared images are of different sizes", "prepare the data set again, with one size")
    rng = np.random.default_rng(seed)
    drawn = {s: rng.multinomial(len(p), np.full(len(p), 1 / len(p)), DRAWS) @ p / len(p) for s, p in profiles.items()}
    means = {source: p.mean(axis=0) for source, p in profiles.items()}
    real = [source for fake, source in sources if not fake]
    real_mean, real_drawn = (np.mean([of[s] for s in real], axis=0) for of in (means, drawn))
    found = []
    for fake, source in sources:
        low, high = np.percentile(drawn[source], INTERVAL, axis=0)
        difference_low, difference_high = np.percentile(drawn[source] - real_drawn, INTERVAL, axis=0)
        found.append(SourceSpectrum(
            source, fake, len(profiles[source]), planes[source], spectra.frequencies(len(planes[source])),
            means[source], low, high, means[source] - real_mean, difference_low, difference_high,
        ))  # fmt: skip
    return found


def _average(examples: Examples, members: Sequence[int], pool: ThreadPoolExecutor) -> tuple[Floats, Floats]:
    """(side, side) mean log-power and (images, rings) profiles in decibels."""
    total, profiles, side = np.zeros(()), [], 0
    for power in pool.map(lambda i: spectra.power(spectra.residual(np.asarray(examples.faces[i][0]))), members):
        side = side or len(power)
        if power.shape != (side, side):
            raise DataError("the images are not squares of one size", "spectra need a prepared data set")
        total = total + spectra.decibels(power)
        profiles.append(spectra.decibels(spectra.radial_profile(power)))
    return total / len(members), np.array(profiles)
