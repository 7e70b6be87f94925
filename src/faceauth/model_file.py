"""One self-describing ONNX file: the network, and all that is needed to use it and to know what it is.

The graph takes `pixels` (n, 3, size, size) float32 and gives `logit` (n,), `source_logits` (n, k), `embedding` (n, d)
and, where the model has them, `parts` (n, 2): the logits of a generated and of a swapped face. Everything else is one
JSON text in the file's metadata under the key `faceauth`, `ModelCard` here. All of it is checked when a file is opened.
"""

import json
import math
import reprlib
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from faceauth import model_graph, shipped
from faceauth.errors import FaceAuthError, ModelError, UsageError
from faceauth.preprocess import PreprocessSpec

METADATA_KEY = "faceauth"
FORMAT = 1
OUTPUTS = ("logit", "source_logits", "embedding")
PARTS = "parts"  # an output that a model need not have
DEFAULT = "accurate"
FINDER = "centerface"  # the asset that is no detector
GIVE_ONE = "give a faceauth model file, or none for the one that comes with the package"
EXPORT_AGAIN = "export the model again: faceauth lab export RUN"

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt scaling: score = sigmoid(scale * logit + shift). Platt, 1999."""

    scale: float = 1.0
    shift: float = 0.0
    fitted_on: str = "nothing: raw logits"

    def __post_init__(self) -> None:
        if not (_is_number(self.scale) and _is_number(self.shift)):
            raise ModelError(
                f"impossible calibration: scale {reprlib.repr(self.scale)}, shift {reprlib.repr(self.shift)}",
                EXPORT_AGAIN,
            )

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
        """Raises ModelError, naming the value, for thresholds that cannot be."""
        if not (_is_number(self.real) and _is_number(self.fake) and 0 <= self.real <= self.fake <= 1):
            raise ModelError(
                f"impossible thresholds: real {reprlib.repr(self.real)}, fake {reprlib.repr(self.fake)}", EXPORT_AGAIN
            )
        if not isinstance(self.false_alarms, tuple) or not self.false_alarms:
            raise ModelError("thresholds without a curve of false alarms", EXPORT_AGAIN)
        for pair in self.false_alarms:
            if not (isinstance(pair, tuple) and len(pair) == 2 and all(_is_number(v) and 0 <= v <= 1 for v in pair)):
                raise ModelError(f"{str(pair)[:60]} is no pair of a threshold and a rate", EXPORT_AGAIN)
        rising = all(a[0] <= b[0] for a, b in pairwise(self.false_alarms))
        if not rising:
            raise ModelError("the thresholds of the curve of false alarms do not rise", EXPORT_AGAIN)

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
            if not isinstance(data, dict):
                raise ModelError("damaged faceauth metadata: no JSON object", EXPORT_AGAIN)
            if data.get("format") != FORMAT:
                raise ModelError(
                    f"model file of format {reprlib.repr(data.get('format'))}, this faceauth reads {FORMAT}",
                    "update faceauth, or export the model again",
                )
            card = cls(
                **{f.name: _tuples(data[f.name]) for f in fields(cls) if f.name not in _NESTED},
                **{name: kind(**_tuples(data[name])) for name, kind in _NESTED.items()},
            )
        except ModelError as error:
            raise ModelError(error.message, error.hint or EXPORT_AGAIN) from error
        except KeyError as error:
            raise ModelError(f"damaged faceauth metadata: {error.args[0]!r} is missing", EXPORT_AGAIN) from error
        except RecursionError as error:
            raise ModelError("damaged faceauth metadata: nested too deeply", EXPORT_AGAIN) from error
        except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise ModelError(f"damaged faceauth metadata: {str(error)[:120]}", EXPORT_AGAIN) from error
        return card

    def __post_init__(self) -> None:
        """Raises ModelError, naming the field, for what cannot be."""
        for name in ("name", "version", "licence", "trained_on", "data_sha256", "commit"):
            if not isinstance(getattr(self, name), str):
                raise ModelError(f"damaged faceauth metadata: {name} is no text", EXPORT_AGAIN)
        for name in ("seed", "parameters"):
            if type(getattr(self, name)) is not int:
                raise ModelError(f"damaged faceauth metadata: {name} is no whole number", EXPORT_AGAIN)
        if not isinstance(self.notes, Mapping):
            raise ModelError("damaged faceauth metadata: notes are no object", EXPORT_AGAIN)
        sources, labels = self.sources, self.labels
        if not (_are_texts(sources) and _are_texts(labels)) or len(sources) != len(labels):
            raise ModelError("damaged faceauth metadata: sources and labels do not match", EXPORT_AGAIN)
        if len(set(sources)) != len(sources):
            raise ModelError("damaged faceauth metadata: a source stands there twice", EXPORT_AGAIN)
        if set(labels) != {"real", "fake"}:
            raise ModelError(
                f"a model needs sources of both labels, real and fake: {len(sources)} source(s), all "
                f"{', '.join(sorted(set(labels))) or 'missing'}"[:200],
                EXPORT_AGAIN,
            )


def _is_number(value: Any) -> bool:
    return type(value) in {int, float} and abs(value) <= sys.float_info.max


def _are_texts(values: object) -> bool:
    return isinstance(values, tuple) and all(isinstance(v, str) for v in values)


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
    """What the network says of n faces, all float32.

    Attributes:
        logit: (n,); source_logits: (n, k); embedding: (n, d).
        parts: (n, 2) logits of a generated and of a swapped face; None where the model has no such output.
    """

    logit: npt.NDArray[np.float32]
    source_logits: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32]
    parts: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Inside:
    """What a network makes of one face on the way, where it is of blocks of patches (`faceauth.model_graph`).

    Attributes:
        outputs: of this one face; parts: (2,) logits, as there.
        tokens: (blocks, 1 + patches, width), the class token first, then patches in rows from the top.
        weight: (blocks, 3, width, 2) of class token, patch mean and patch standard deviation in the two logits.
    """

    outputs: Outputs
    parts: npt.NDArray[np.float32]
    tokens: npt.NDArray[np.float32]
    weight: npt.NDArray[np.float32]


class ModelFile:
    """A model file opened for use: `card`, `sha256`, all its `metadata`, and `run`.

    Attributes:
        embedding_size: values of an embedding.
        has_parts: whether `Outputs.parts` is there.
    """

    def __init__(self, model: str | Path | None = None) -> None:
        """Open a file, a model of the package by its name, or by None the default one.

        One thread: a worker a core is faster.

        Raises:
            ModelError: with the file's name and the reason, where it is missing or not a model that can be used.
        """
        import onnxruntime as ort

        self.path = resolve(model)
        if self.path.exists() and not self.path.is_file():
            raise ModelError(f"{str(self.path)!r} is no regular file", GIVE_ONE)
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise ModelError(f"cannot read the model {str(self.path)!r}: {error.strerror}", GIVE_ONE) from error
        self.sha256 = shipped.digest(self.path, data)
        self.size = len(data)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        self._inside = model_graph.find(data)  # None for a network of another making
        more = (*self._inside.blocks, self._inside.weight) if self._inside else ()
        if more:  # outputs that are computed anyway, and copied only where `inside` asks for them
            data += model_graph.extra_outputs(more)
        try:
            self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            metadata = self._session.get_modelmeta().custom_metadata_map
            inputs = {i.name: (i.type, i.shape) for i in self._session.get_inputs()}
            outputs = {o.name: (o.type, o.shape) for o in self._session.get_outputs() if o.name not in more}
        except Exception as error:  # onnxruntime's own classes are not public; any of them means the same here
            raise ModelError(f"{str(self.path)!r} is not an ONNX model that can be run", GIVE_ONE) from error
        if METADATA_KEY not in metadata:
            raise ModelError(
                f"{str(self.path)!r} is ONNX, but not a faceauth model file",
                "make one with: faceauth lab export RUN",
            )
        self.has_parts = PARTS in outputs
        try:
            self.card = ModelCard.from_json(metadata[METADATA_KEY])
            _check_inputs(inputs, self.card.preprocess.size)
            _check_outputs(outputs, len(self.card.sources))
            self.embedding_size = self._width(outputs)
        except FaceAuthError as error:
            raise ModelError(f"{str(self.path)!r}: {error.message}", error.hint) from error
        self.metadata: Mapping[str, str] = metadata

    def run(self, pixels: npt.NDArray[np.float32]) -> Outputs:
        """(n, 3, size, size) float32, as `PreprocessSpec.normalize` gives it, to the network's outputs."""
        names = [*OUTPUTS, PARTS] if self.has_parts else list(OUTPUTS)
        return Outputs(*self._session.run(names, {"pixels": pixels}))

    def inside(self, pixels: npt.NDArray[np.float32]) -> Inside | None:
        """What the network makes of one face (1, 3, size, size) on the way; None for a network of another making."""
        if self._inside is None:
            return None
        names = [*OUTPUTS, PARTS, *self._inside.blocks, self._inside.weight]
        logit, sources, embedding, parts, *blocks, weight = self._session.run(names, {"pixels": pixels})
        tokens = np.concatenate(blocks)
        shape = len(blocks), 3, tokens.shape[-1], parts.shape[-1]
        if weight.size != np.prod(shape):
            return None
        return Inside(Outputs(logit, sources, embedding, parts), parts[0], tokens, weight.reshape(shape))

    def _width(self, outputs: "Graph") -> int:
        """Values of an embedding; where the graph does not say all widths, they are measured once, and checked."""
        complete = all(shape and all(isinstance(w, int) for w in shape[1:]) for _, shape in outputs.values())
        if complete and isinstance(width := outputs["embedding"][1][1], int):
            return width
        size = self.card.preprocess.size
        names = list(outputs)
        try:
            given = self._session.run(names, {"pixels": np.zeros((1, 3, size, size), np.float32)})
        except Exception as error:  # onnxruntime's own classes are not public
            raise ModelError(f"the network does not run: {str(error)[:120]}", EXPORT_AGAIN) from error
        measured = {n: (outputs[n][0], list(v.shape)) for n, v in zip(names, given, strict=True)}
        _check_outputs(measured, len(self.card.sources), strict=True)
        return int(given[names.index("embedding")].shape[1])


Graph = dict[str, tuple[str, list[int | str | None]]]  # type and shape of each input or output; a text is any size


def _check_inputs(inputs: Graph, size: int) -> None:
    """Raises ModelError unless the graph takes `pixels` (n, 3, size, size) float32 alone."""
    if list(inputs) != ["pixels"]:
        raise ModelError(f"its inputs are {_names(inputs)}, not 'pixels'", EXPORT_AGAIN)
    kind, shape = inputs["pixels"]
    wanted = (None, 3, size, size)
    fits = len(shape) == 4 and all(not isinstance(s, int) or w in (None, s) for s, w in zip(shape, wanted, strict=True))
    if kind != "tensor(float)" or not fits:
        raise ModelError(f"its input is {kind} {_shown(shape)}, not float (n, 3, {size}, {size})", EXPORT_AGAIN)
    if isinstance(shape[0], int):
        raise ModelError(f"it takes batches of {shape[0]} only, not of any size", EXPORT_AGAIN)


def _check_outputs(outputs: Graph, sources: int, strict: bool = False) -> None:
    """Raises ModelError unless the outputs are there, of the right widths; `strict` where all sizes are known."""
    if missing := [name for name in OUTPUTS if name not in outputs]:
        raise ModelError(f"it has no output {', '.join(map(repr, missing))}: {_names(outputs)}", EXPORT_AGAIN)
    wanted = {"logit": (), "source_logits": (sources,), "embedding": (None,), PARTS: (2,)}
    for name, widths in wanted.items():
        if name not in outputs:
            continue
        kind, shape = outputs[name]
        known = strict or bool(shape)
        fits = not known or (
            len(shape) == 1 + len(widths)
            and all(not isinstance(s, int) or w in (None, s) for s, w in zip(shape[1:], widths, strict=True))
        )
        if kind != "tensor(float)" or not fits:
            width = ", ".join("d" if w is None else str(w) for w in widths)
            more = f" for {sources} sources" if name == "source_logits" else ""
            raise ModelError(
                f"its output {name!r} is {kind} {_shown(shape)}, not float (n, {width}){more}", EXPORT_AGAIN
            )


def _names(graph: Graph) -> str:
    return ", ".join(map(repr, graph))[:120] or "none"


def _shown(shape: list[int | str | None]) -> str:
    return f"({', '.join(str(s) for s in shape)})"[:60]


def packaged() -> dict[str, Path]:
    """The models that come with the package, by name."""
    return {path.stem: path for path in sorted(shipped.folder().glob("*.onnx")) if path.stem != FINDER}


def resolve(model: str | Path | None) -> Path:
    """The file of a model: by the name of one of the package (`packaged`), by its path, or by None the default one.

    Raises:
        ModelError: a name that is neither, with the names there are.
    """
    if model is None:
        return embedded_path()
    path, there = Path(model), packaged()
    if path.name != str(model):
        return path
    if path.name in there:
        return there[path.name]
    if not path.suffix and not path.exists():
        names = ", ".join(there) or "none"
        raise ModelError(f"no model is called {path.name!r}: there are {names}", "or give the path of a model file")
    return path


def embedded_path() -> Path:
    """The default model of the package. Raises ModelError where an installation lacks it."""
    there = packaged()
    if DEFAULT not in there:
        raise ModelError("this installation carries no embedded model", "give one with --model PATH")
    return there[DEFAULT]
