"""A model file whose network is an encoder of blocks of patches with linear heads, small enough to be reckoned by hand."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from conftest import make_card
from faceauth.model_file import METADATA_KEY
from faceauth.preprocess import PreprocessSpec

SIZE, PATCH, WIDTH, BLOCKS = 32, 8, 3, 2
SIDE = SIZE // PATCH


def block_card(**changes):
    spec = PreprocessSpec(size=SIZE, crop=1.3, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return make_card(**({"name": "blocks", "preprocess": spec} | changes))


def write_block_model(
    path,
    of_mean=(6.0, 0.0, 0.0),
    of_deviation=(0.0, 0.0, 0.0),
    of_class=(0.0, 0.0, 0.0),
    ddof=1,
    card=None,
    bias=-3.0,
):
    """Tokens of a block are the patches' mean colours, times 1 for the first block and 2 for the second, after a class
    token, which is their mean. logit = sum over blocks of the three weights times class token, patch mean and standard
    deviation (with N - `ddof`); the swapped output is that less 10.
    """
    card = card or block_card()
    n = SIDE**2
    weight = np.array([w for _ in range(BLOCKS) for w in (*of_class, *of_mean, *of_deviation)], np.float32)
    arrays = {
        "parts_weight": np.stack([weight, weight], axis=1), "parts_bias": np.array([bias, bias - 10], np.float32),
        "grid": np.array([0, 3, SIDE, PATCH, SIDE, PATCH]), "inner": np.array([3, 5]), "row": np.array([0, 3, n]),
        "axis": np.array([1]), "one": np.array([1]), "many": np.array([2**31 - 1]), "zero": np.array(0),
        "two": np.array(2.0, np.float32), "scale": np.array(n / (n - ddof), np.float32), "first": np.array(0),
        "sources": np.array([[-1.0, 1.0]], np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Reshape", ["pixels", "grid"], ["cut"]),
        helper.make_node("ReduceMean", ["cut", "inner"], ["means"], keepdims=0),
        helper.make_node("Reshape", ["means", "row"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["patches"], perm=[0, 2, 1]),
        helper.make_node("ReduceMean", ["patches", "axis"], ["class"], keepdims=1),
        helper.make_node("Concat", ["class", "patches"], ["tokens_0"], axis=1),
        helper.make_node("Mul", ["tokens_0", "two"], ["tokens_1"]),
    ]
    features = []
    for b in range(BLOCKS):
        names = {k: f"{k}_{b}" for k in ("token", "only", "mean", "kept", "less", "square", "var", "scaled", "std")}
        nodes += [
            helper.make_node("Gather", [f"tokens_{b}", "zero"], [names["token"]], axis=1),
            helper.make_node("Slice", [f"tokens_{b}", "one", "many", "one"], [names["only"]]),
            helper.make_node("ReduceMean", [names["only"], "axis"], [names["mean"]], keepdims=0),
            helper.make_node("ReduceMean", [names["only"], "axis"], [names["kept"]], keepdims=1),
            helper.make_node("Sub", [names["only"], names["kept"]], [names["less"]]),
            helper.make_node("Mul", [names["less"], names["less"]], [names["square"]]),
            helper.make_node("ReduceMean", [names["square"], "axis"], [names["var"]], keepdims=0),
            helper.make_node("Mul", [names["var"], "scale"], [names["scaled"]]),
            helper.make_node("Sqrt", [names["scaled"]], [names["std"]]),
        ]
        features += [names["token"], names["mean"], names["std"]]
    nodes += [
        helper.make_node("Concat", features, ["features"], axis=1),
        helper.make_node("Gemm", ["features", "parts_weight", "parts_bias"], ["parts"]),
        helper.make_node("Gather", ["parts", "first"], ["logit"], axis=1),
        helper.make_node("Unsqueeze", ["logit", "axis"], ["column"]),
        helper.make_node("MatMul", ["column", "sources"], ["source_logits"]),
        helper.make_node("Identity", ["source_logits"], ["embedding"]),
    ]
    widths = {"logit": (), "source_logits": (2,), "embedding": (2,), "parts": (2,)}
    outputs = [helper.make_tensor_value_info(k, TensorProto.FLOAT, ["n", *w]) for k, w in widths.items()]
    graph = helper.make_graph(
        nodes, "blocks", [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])], outputs,
        [numpy_helper.from_array(a, k) for k, a in arrays.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, card.to_json()
    onnx.save(model, path)
    return path


def write_reference(model_path, sha256, rates=True, size=SIZE, generators=("camera", "bulb")):
    """A reference beside a model file, with flat spectra."""
    values = (size // 2) // 4
    shares = {
        "real": {"real": 0.5, "uncertain": 0.4, "fake": 0.1},
        "generated": {"real": 0.2, "uncertain": 0.5, "fake": 0.3},
    }
    path = model_path.with_suffix(".reference.json")
    path.write_text(json.dumps({
        "format": 1, "model_sha256": sha256, "rates": {**shares, "measured_on": "test pictures"} if rates else None,
        "low": [-1.0] * values, "high": [1.0] * values,
        "profiles": [["photographs", 7, [0.0] * values], *([g, 3, [0.5] * values] for g in generators)],
    }))  # fmt: skip
    return path
