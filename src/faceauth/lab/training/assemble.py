"""One model file of a frozen encoder and the linear heads on it: `logit`, `source_logits`, `embedding`, `parts`."""

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
class SwapRule:
    """When the swap output decides: where its logit plus `offset` reaches `limit`, the larger logit counts; else the
    generated one alone. `limit` is the generated output's own threshold, so that either output passes at one score."""

    offset: float
    limit: float

    def __call__(self, generated: Floats, swapped: Floats) -> Floats:
        """The model's logits (n,)."""
        moved = swapped + self.offset
        return np.where(moved >= self.limit, np.maximum(generated, moved), generated)


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


def assemble(
    encoder: onnx.ModelProto, heads: Heads, rule: SwapRule, projection: Projection, card: ModelCard, output: Path
) -> None:
    """Write the model file.

    Args:
        encoder: from `pixels` to `features`, with its weights stored as they ship (`encoders.load_encoder`).
        rule: how the two outputs become the logit.
    """
    proto = compose.add_prefix(encoder, "encoder.", rename_inputs=False, rename_outputs=False)
    graph = proto.graph
    parts = np.stack([heads.generated.weight, heads.swapped.weight], axis=1)
    biases = np.array([heads.generated.bias, heads.swapped.bias + rule.offset], np.float32)
    arrays: dict[str, npt.NDArray[Any]] = {
        "parts_weight": parts.astype(np.float32), "parts_bias": biases,
        "embedding_weight": projection.weight, "embedding_bias": projection.bias,
        "sources_weight": projection.sources, "sources_bias": projection.sources_bias,
        "last_axis": np.array([1], np.int64), "swap_limit": np.array(rule.limit, np.float32),
        "first": np.array(0, np.int64), "second": np.array(1, np.int64),
    }  # fmt: skip
    graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in arrays.items())
    graph.node.extend([
        helper.make_node("Gemm", ["features", "parts_weight", "parts_bias"], ["parts"]),
        helper.make_node("ReduceMax", ["parts", "last_axis"], ["larger"], keepdims=0),
        helper.make_node("Gather", ["parts", "first"], ["generated"], axis=1),
        helper.make_node("Gather", ["parts", "second"], ["swapped"], axis=1),
        helper.make_node("GreaterOrEqual", ["swapped", "swap_limit"], ["swap_decides"]),
        helper.make_node("Where", ["swap_decides", "larger", "generated"], ["logit"]),
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
    compress(proto, lossy={"embedding_weight"})
    save(proto, card, output)
