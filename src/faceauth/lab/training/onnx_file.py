"""Networks as ONNX graphs, and on disk: with a card in the metadata, or, of encoders and the like, without."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from faceauth.files import replacing
from faceauth.model_file import METADATA_KEY, ModelCard

if TYPE_CHECKING:
    from torch import Tensor, nn


def traced(
    network: "nn.Module", example: "Tensor", outputs: Sequence[str], sides: Mapping[int, Any] | None = None
) -> Any:
    """A network as a graph (onnx.ModelProto) from `pixels`, of which `example` is one, to outputs of these names.

    Args:
        sides: the dimensions of `pixels` that are free, as torch.export knows them; by default the first.
    """
    import torch  # here, so that what only rewrites a card starts without it

    free = sides or {0: torch.export.Dim("n", min=1, max=4096)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch's own code
        program = torch.onnx.export(
            network, (example,), dynamo=True, input_names=["pixels"], output_names=list(outputs),
            dynamic_shapes=(free,), optimize=True, verbose=False,
        )  # fmt: skip
    assert program is not None
    proto = program.model_proto  # made anew whenever it is asked for
    _strip(proto)
    return proto


def refill(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto], arrays: Iterable[onnx.TensorProto]) -> None:
    """Put nodes and stored arrays in the place of a graph's own, from which they may come."""
    nodes, arrays = list(nodes), list(arrays)
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(arrays)


def write(proto: Any, path: Path) -> None:
    """Write a graph (onnx.ModelProto) without a card, whole or not at all."""
    del proto.graph.value_info[:]
    with replacing(path) as part:
        onnx.save(proto, part)


def save(proto: Any, card: ModelCard, path: Path, more: Mapping[str, str] | None = None) -> None:
    """Write a graph (onnx.ModelProto) as a model file, with `more` metadata beside its card."""
    _strip(proto)
    for key, text in {METADATA_KEY: card.to_json(), **(more or {})}.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, text
    onnx.checker.check_model(proto)
    onnx.save(proto, path)


def rewrite(path: Path, card: ModelCard, more: Mapping[str, str] | None = None) -> None:
    """Replace the card of a model file, and the entries of `more`; the network and other entries stay as they are."""
    proto = onnx.load(path)
    kept = {e.key: e.value for e in proto.metadata_props if e.key != METADATA_KEY}
    with replacing(path) as part:
        save(proto, card, part, kept | dict(more or {}))


def _strip(proto: Any) -> None:
    """Remove metadata and comments from a graph: the exporter writes paths into every node."""
    del proto.metadata_props[:]
    proto.doc_string = ""
    graph = proto.graph
    for part in [*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer]:
        del part.metadata_props[:]
        part.doc_string = ""
