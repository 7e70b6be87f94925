"""One model file of a frozen encoder and the lines on its features: `logit`, `source_logits`, `embedding`, `parts`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from faceauth.lab.training.encoders import compress
from faceauth.lab.training.frozen import Heads
from faceauth.lab.training.onnx_file import save
from faceauth.model_file import ModelCard

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Projection:
    """Features (n, d) to an embedding (n, e) = features @ weight (d, e) + bias (e,), and that to source logits (n, k).

    Attributes:
        sources: (e, k); sources_bias: (k,); names: of the k sources.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    sources: npt.NDArray[np.float32]
    sources_bias: npt.NDArray[np.float32]
    names: tuple[str, ...]


def assemble(encoder: Path, heads: Heads, offset: float, projection: Projection, card: ModelCard, output: Path) -> None:
    """Write the model file.

    Args:
        encoder: ONNX from `pixels` to `features`, with its weights stored as they ship.
        offset: added to the swap logit before the larger of the two becomes the logit.
    """
    proto = compose.add_prefix(onnx.load(encoder), "encoder.", rename_inputs=False, rename_outputs=False)
    graph = proto.graph
    parts = np.stack([heads.generated.weight, heads.swapped.weight], axis=1)
    biases = np.array([heads.generated.bias, heads.swapped.bias + offset], np.float32)
    arrays = {
        "parts_weight": parts.astype(np.float32), "parts_bias": biases,
        "embedding_weight": projection.weight, "embedding_bias": projection.bias,
        "sources_weight": projection.sources, "sources_bias": projection.sources_bias,
        "last_axis": np.array([1], np.int64),
    }  # fmt: skip
    graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in arrays.items())
    graph.node.extend([
        helper.make_node("Gemm", ["features", "parts_weight", "parts_bias"], ["parts"]),
        helper.make_node("ReduceMax", ["parts", "last_axis"], ["logit"], keepdims=0),
        helper.make_node("Gemm", ["features", "embedding_weight", "embedding_bias"], ["embedding"]),
        helper.make_node("Gemm", ["embedding", "sources_weight", "sources_bias"], ["source_logits"]),
    ])  # fmt: skip
    widths = {"logit": (), "source_logits": (len(projection.sources_bias),),
              "embedding": (len(projection.bias),), "parts": (2,)}  # fmt: skip
    del graph.output[:]
    graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *width]) for name, width in widths.items()
    )
    del graph.value_info[:]
    compress(proto, lossy=frozenset({"embedding_weight"}))
    save(proto, card, output)
