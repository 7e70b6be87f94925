"""One self-describing ONNX file: the network, and all that is needed to use it and to know what it is.

The graph takes `pixels` (n, 3, size, size) float32 and gives `logit` (n,), `source_logits` (n, k) and
`embedding` (n, d). Everything else is one JSON text in the file's metadata under the key `faceauth`,
`ModelCard` here. It knows nothing of images, faces or verdicts.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from faceauth.errors import ModelError, UsageError
from faceauth.preprocess import PreprocessSpec

METADATA_KEY = "faceauth"
FORMAT = 1
OUTPUTS = ("logit", "source_logits", "embedding")

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt scaling: score = sigmoid(scale * logit + shift). Platt, 1999."""

    scale: float = 1.0
    shift: float = 0.0
    fitted_on: str = "nothing: raw logits"

    def __call__(self, logits: Floats) -> Floats:
        """Logits (n,) to P(fake) in [0, 1], float64."""
        z = np.clip(self.scale * np.asarray(logits, np.float64) + self.shift, -700, 700)
        return 1 / (1 + np.exp(-z))


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where the labels change, and how often that goes wrong.

    Attributes:
        fake: from this score on a face is called fake.
        real: up to this score it is called real; between the two it is uncertain.
        false_alarms: pairs (threshold, share of real faces at or above it, a further one counted among them), rising
            in threshold. A share of 0, as files of older versions have, is one too small to be measured.
        measured_on: which real faces those are.
    """

    fake: float
    real: float
    false_alarms: tuple[tuple[float, float], ...]
    measured_on: str

    def __post_init__(self) -> None:
        if not 0 <= self.real <= self.fake <= 1 or not self.false_alarms:
            raise ModelError("impossible thresholds in the model file")

    def false_alarm_rate(self, threshold: float) -> float:
        """Share of real faces at or above `threshold`, read off the measured curve."""
        x, y = zip(*self.false_alarms, strict=True)
        return float(np.interp(threshold, x, y))

    def threshold_at_fpr(self, rate: float) -> float:
        """The lowest threshold of the curve at which the share of real faces is at most `rate`, in (0, 1).

        Raises:
            UsageError: so few real faces were measured that no threshold is known for this rate.
        """
        measured = [(t, share) for t, share in self.false_alarms if share > 0 and t < 1]
        enough = [t for t, share in measured if share <= rate]
        if not enough:
            least = math.ceil(1e4 * min((share for _, share in measured), default=1)) / 1e4
            can = f"the least is {least:.2%}" if least < 1 else "it was not calibrated (faceauth lab calibrate)"
            raise UsageError(
                f"no threshold is known for a false-alarm rate of {100 * rate:.3g}%: {can}",
                "ask for a higher rate, or give a threshold",
            )
        return min(enough)


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a model file says of itself.

    Attributes:
        sources: names of the classes of `source_logits`, in order.
        labels: for each of them `real` or `fake`.
        data_sha256: hash of the manifest of images that it was trained on.
        commit: of this repository when it was trained.
    """

    name: str
    version: str
    sources: tuple[str, ...]
    labels: tuple[str, ...]
    preprocess: PreprocessSpec
    calibration: Calibration
    thresholds: Thresholds
    licence: str
    trained_on: str
    data_sha256: str
    commit: str = "unknown"
    seed: int = 0
    parameters: int = 0
    format: int = FORMAT
    notes: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The metadata text that `from_json` reads back."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        """Read the metadata text. Raises ModelError, naming the field, where it is not one of ours."""
        try:
            data = json.loads(text)
            if data.get("format") != FORMAT:
                raise ModelError(
                    f"model file of format {data.get('format')!r}, this faceauth reads {FORMAT}",
                    "update faceauth, or export the model again",
                )
            card = cls(
                **{f.name: _tuples(data[f.name]) for f in fields(cls) if f.name not in _NESTED},
                **{name: kind(**_tuples(data[name])) for name, kind in _NESTED.items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"damaged faceauth metadata: {error!r}", "export the model again") from error
        if len(card.sources) != len(card.labels) or not set(card.labels) <= {"real", "fake"}:
            raise ModelError("damaged faceauth metadata: sources and labels do not match")
        return card


def _tuples(value: Any) -> Any:
    """JSON has lists only; the records here hold tuples."""
    if isinstance(value, list):
        return tuple(_tuples(v) for v in value)
    return {k: _tuples(v) for k, v in value.items()} if isinstance(value, dict) else value


_NESTED: dict[str, type] = {
    "preprocess": PreprocessSpec,
    "calibration": Calibration,
    "thresholds": Thresholds,
}


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the network says of n faces: logit (n,), source_logits (n, k), embedding (n, d), all float32."""

    logit: npt.NDArray[np.float32]
    source_logits: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32]


class ModelFile:
    """A model file opened for use: `card`, `sha256`, all its `metadata`, and `run`."""

    def __init__(self, path: str | Path | None = None) -> None:
        """Open `path`, or the embedded model. Raises ModelError. One thread: a worker a core is faster."""
        import onnxruntime as ort

        self.path = Path(path) if path is not None else embedded_path()
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise ModelError(f"cannot read the model {str(self.path)!r}: {error.strerror}") from error
        self.sha256 = hashlib.sha256(data).hexdigest()
        self.size = len(data)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            metadata = self._session.get_modelmeta().custom_metadata_map
            names = {output.name for output in self._session.get_outputs()}
        except Exception as error:  # onnxruntime's own classes are not public; any of them means the same here
            raise ModelError(f"{str(self.path)!r} is not an ONNX model that can be run") from error
        if METADATA_KEY not in metadata or not names.issuperset(OUTPUTS):
            raise ModelError(
                f"{str(self.path)!r} is ONNX, but not a faceauth model file",
                "make one with: faceauth lab export RUN",
            )
        self.card = ModelCard.from_json(metadata[METADATA_KEY])
        self.metadata: Mapping[str, str] = metadata

    def run(self, pixels: npt.NDArray[np.float32]) -> Outputs:
        """(n, 3, size, size) float32, as `PreprocessSpec.normalize` gives it, to the network's outputs."""
        return Outputs(*self._session.run(list(OUTPUTS), {"pixels": pixels}))


def embedded_path() -> Path:
    """The model that comes with the package. Raises ModelError where an installation lacks it."""
    path = Path(str(files("faceauth") / "assets" / "detector.onnx"))
    if not path.is_file():
        raise ModelError("this installation carries no embedded model", "give one with --model PATH")
    return path
