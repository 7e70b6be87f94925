"""What was measured beside a model file: how its words hold on unseen kinds, and average spectra by generator.

NAME.reference.json lies beside NAME.onnx; `faceauth lab reference` writes it. A model file without one is explained
without these figures.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from faceauth import spectra
from faceauth.errors import ModelError
from faceauth.explain.records import Profile, Spectrum
from faceauth.model_file import ModelFile
from faceauth.verdict import Label

FORMAT = 1
LARGEST = 1 << 20  # bytes
RINGS = 4  # rings of the radial profile that are averaged to one value
MOST = 4096  # profiles, and values of one
LABELS: tuple[Label, ...] = ("real", "uncertain", "fake")
Floats = npt.NDArray[np.floating[Any]]
_AGAIN = "make it again: faceauth lab reference"


@dataclass(frozen=True, slots=True)
class Rates:
    """How pictures of unseen kinds are called, at the model's own thresholds and with the re-check.

    Attributes:
        real, generated: shares of photographs and of generated faces that get each label.
        measured_on: which images, in words.
    """

    real: Mapping[Label, float]
    generated: Mapping[Label, float]
    measured_on: str


@dataclass(frozen=True, slots=True)
class Reference:
    """The content of a reference file.

    Attributes:
        rates: None where none were measured.
        real: mean over the sources of photographs; low, high: percentiles 5 and 95 of single photographs, in decibels.
        generators: mean over the sources of each generator.
    """

    rates: Rates | None
    real: Profile
    low: tuple[float, ...]
    high: tuple[float, ...]
    generators: tuple[Profile, ...]

    def to_json(self, model_sha256: str) -> str:
        """The text that `read` understands; `model_sha256` is that of the model file."""
        rates = None
        if self.rates:
            real, generated = self.rates.real, self.rates.generated
            shares = {"real": {k: real[k] for k in LABELS}, "generated": {k: generated[k] for k in LABELS}}
            rates = {**shares, "measured_on": self.rates.measured_on}
        profiles = [[p.name, p.images, list(p.decibels)] for p in (self.real, *self.generators)]
        values = {"format": FORMAT, "model_sha256": model_sha256, "rates": rates, "low": list(self.low),
                  "high": list(self.high), "profiles": profiles}  # fmt: skip
        return json.dumps(values, separators=(",", ":")) + "\n"


def path_of(model: Path) -> Path:
    """Where the reference of a model file lies."""
    return model.with_suffix(".reference.json")


def read(model: ModelFile) -> Reference | None:
    """The reference beside a model file; None where there is none, or it was made for another file of that name.

    Raises:
        ModelError: it is damaged.
    """
    path = path_of(model.path)
    try:
        if not path.is_file():
            return None
        with open(path, "rb") as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise ValueError("too large")
        data = json.loads(text)
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r}")
        return _reference(data) if data["model_sha256"] == model.sha256 else None
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(f"cannot use {str(path)!r}: {str(error)[:80]}", _AGAIN) from error


def _reference(data: Mapping[str, Any]) -> Reference:
    rates = data["rates"]
    real, *generators = (Profile(str(name), int(n), _numbers(values)) for name, n, values in data["profiles"][:MOST])
    low, high = _numbers(data["low"]), _numbers(data["high"])
    if len({len(values) for values in (low, high, real.decibels, *(g.decibels for g in generators))}) > 1:
        raise ValueError("profiles of different lengths")
    return Reference(rates and _rates(rates), real, low, high, tuple(generators))


def _rates(data: Mapping[str, Any]) -> Rates:
    real, generated = ({label: float(data[kind][label]) for label in LABELS} for kind in ("real", "generated"))
    if not all(0 <= share <= 1 for share in (*real.values(), *generated.values())):
        raise ValueError("rates outside 0 to 1")
    return Rates(real, generated, str(data["measured_on"]))


def _numbers(values: Any) -> tuple[float, ...]:
    numbers = tuple(float(v) for v in values)
    if not 0 < len(numbers) <= MOST or not all(map(math.isfinite, numbers)):
        raise ValueError("values that are no numbers")
    return numbers


def profile(pixels: npt.NDArray[np.uint8]) -> Floats:
    """(k,) decibels of the noise residual of a network input (size, size, 3), by frequency: `frequencies`."""
    rings = spectra.radial_profile(spectra.power(spectra.residual(pixels)))
    return spectra.decibels(_grouped(rings))


def frequencies(size: int) -> Floats:
    """(k,) the middle of each value of `profile`, in cycles a pixel."""
    return _grouped(spectra.frequencies(size))


def _grouped(rings: Floats) -> Floats:
    """Means of `RINGS` rings each, without the first, which holds the picture's mean, and what is left at the end."""
    whole = (len(rings) - 1) // RINGS * RINGS
    return np.asarray(rings[1 : 1 + whole].reshape(-1, RINGS).mean(axis=1))


def spectrum(pixels: npt.NDArray[np.uint8], reference: Reference | None, generator: str | None) -> Spectrum:
    """The spectrum of a network input beside the averages of a reference, as far as it holds them."""
    own = profile(pixels)
    at = tuple(round(float(f), 5) for f in frequencies(len(pixels)))
    values = tuple(round(float(v), 2) for v in own)
    if reference is None or len(reference.low) != len(own):
        return Spectrum(at, values, None, (), (), None)
    named = next((p for p in reference.generators if p.name == generator), None)
    return Spectrum(at, values, reference.real, reference.low, reference.high, named)
