"""A model file to one of 8-bit integers, which runs in less than half the time.

Convolutions and what lies between them are quantised, weights channel by channel, activations to the range that
training faces give them; what leads to no convolution, or comes before the first, stays as it is. Weights take 7 of
their 8 bits: with all of them sums overflow on processors without VNNI, and scores would depend on the processor.
Jacob et al., CVPR 2018.
"""

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from faceauth.errors import DataError
from faceauth.files import replacing
from faceauth.lab.data.examples import Examples
from faceauth.lab.training.export import load_run
from faceauth.lab.training.onnx_file import save
from faceauth.model_file import ModelFile

AGREEMENT = 0.1  # root mean square difference allowed between the logits, relative to their spread
PER_SOURCE = 20  # faces of each source that ranges are set by, and as many that agreement is measured on
BATCH = 8
QUANTISED = ("Conv", "Relu", "Add", "Concat", "AveragePool")
Batches = list[npt.NDArray[np.float32]]


def quantize(run: Path, model: Path) -> float:
    """Replace the model file of a run by its 8-bit edition. *train* faces set the ranges, *test* faces judge.

    Returns:
        The root mean square difference of the logits on *test* faces, relative to their standard deviation.

    Raises:
        DataError: no convolution, no faces, or logits that differ too much; the file stays as it was.
    """
    _, config, facts = load_run(run)
    examples, before = config.data.open(), ModelFile(model)
    ranges, judged = (_faces(before, examples, facts["sources"], split) for split in ("train", "test"))
    with replacing(model) as part:
        save(_quantized(model, ranges), before.card, part)
        said, now = (np.concatenate([m.run(b).logit for b in judged]) for m in (before, ModelFile(part)))
        difference = float(np.sqrt(np.mean((now - said) ** 2)) / max(float(said.std()), 1e-9))
        if difference > AGREEMENT:
            what = f"8 bits change the logits by {difference:.2f} of their spread, over {AGREEMENT}"
            raise DataError(what, f"{str(model)!r} stays as it was, with 32")
    return difference


def _faces(model: ModelFile, examples: Examples, sources: Collection[str], split: str) -> Batches:
    """Network inputs of the first faces of each source in a split."""
    spec = model.card.preprocess
    members: dict[str, list[int]] = {source: [] for source in sources}
    for i, record in enumerate(examples.records):
        if record.split == split and record.source in members:
            members[record.source].append(i)
    faces = [examples.faces[i] for of_source in members.values() for i in of_source[:PER_SOURCE]]
    if not faces:
        raise DataError(f"no {split} faces to quantise by", "export without --int8")
    inputs = spec.normalize(np.stack([spec.resize(image, spec.region(face, *image.size)) for image, face in faces]))
    return [inputs[i : i + BATCH] for i in range(0, len(inputs), BATCH)]


def _quantized(model: Path, ranges: Batches) -> Any:
    """The graph in 8 bits, as onnx.ModelProto."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    left = ({"pixels": batch} for batch in ranges)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            return next(left, None)

    with tempfile.TemporaryDirectory() as folder:
        folded, output = f"{folder}/folded.onnx", f"{folder}/int8.onnx"
        quant_pre_process(str(model), folded, skip_symbolic_shape=True)
        nodes = onnx.load(folded).graph.node
        if not any(node.op_type == "Conv" for node in nodes):
            raise DataError("no convolution to quantise", "export without --int8")
        between = _between(nodes)
        quantize_static(
            folded, output, Reader(), per_channel=True, reduce_range=True, weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8, op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=[node.name for node in nodes if node.name not in between],
        )  # fmt: skip
        return onnx.load(output)


def _between(nodes: Sequence[Any]) -> set[str]:
    """Names of the convolutions, and of the nodes that lead from one to another; `nodes` are in order."""
    after: set[str] = set()  # tensors
    for node in nodes:
        if node.op_type == "Conv" or after.intersection(node.input):
            after.update(node.output)
    before: set[str] = set()
    for node in reversed(nodes):
        if node.op_type == "Conv" or before.intersection(node.output):
            before.update(node.input)
    inside = (n for n in nodes if after.intersection(n.input) and before.intersection(n.output))
    return {node.name for node in inside} | {node.name for node in nodes if node.op_type == "Conv"}
