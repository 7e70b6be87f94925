"""Model files on disk: an ONNX graph with its card in the metadata, written whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from faceauth.files import replacing
from faceauth.model_file import METADATA_KEY, ModelCard


def strip(proto: Any) -> None:
    """Remove metadata and comments from a graph (onnx.ModelProto): the exporter writes paths into every node."""
    del proto.metadata_props[:]
    proto.doc_string = ""
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer]:
        del value.metadata_props[:]
        value.doc_string = ""


def save(proto: Any, card: ModelCard, path: Path, more: Mapping[str, str] | None = None) -> None:
    """Write a graph (onnx.ModelProto) as a model file, with `more` metadata beside its card."""
    strip(proto)
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
