"""What lies inside a model file's network, read from its bytes without the onnx package.

An encoder of the lab (`faceauth lab encoder`) gives, of each of its blocks, the class token and the mean and standard
deviation of its patches, and the heads are linear in these. `find` looks for that structure in the graph and names the
tensors in which it can be followed patch by patch. A message of protocol buffers that is appended to another is merged
with it, so the bytes of `extra_outputs` behind a model file make outputs of tensors that it computes anyway.

Sources: onnx.proto of ONNX 1.17, and the encoding of protocol buffers (protobuf.dev).
"""

from collections.abc import Iterator
from dataclasses import dataclass

PARTS = "parts"
_GRAPH, _NODE, _OUTPUT = 7, 1, 12  # fields of ModelProto and of GraphProto
_NODE_INPUT, _NODE_OUTPUT, _NODE_TYPE, _VALUE_NAME = 1, 2, 4, 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_MOST_NODES = 100_000


@dataclass(frozen=True, slots=True)
class Node:
    """One operation of a graph, with the names of the tensors that it takes and gives."""

    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BlockTensors:
    """Names of tensors: of each block's tokens (n, 1 + patches, width), class token first, and the heads' weight.

    The weight (3 * blocks * width, 2) has the rows class token, patch mean and patch standard deviation of each block.
    """

    blocks: tuple[str, ...]
    weight: str


def find(model: bytes) -> BlockTensors | None:
    """The tensors that `parts` can be followed by; None for a network of another making, or bytes that are no model."""
    try:
        makers = {name: node for node in _nodes(model) for name in node.outputs}
    except (ValueError, IndexError):  # onnxruntime says what is wrong with it
        return None
    head = makers.get(PARTS)
    features = makers.get(head.inputs[0]) if head and head.type == "Gemm" and len(head.inputs) > 1 else None
    if head is None or features is None or features.type != "Concat" or len(features.inputs) % 3:
        return None
    blocks = [_tokens(features.inputs[i : i + 3], makers) for i in range(0, len(features.inputs), 3)]
    named = tuple(name for name in blocks if name)
    return BlockTensors(named, head.inputs[1]) if len(named) == len(blocks) > 0 else None


def extra_outputs(names: tuple[str, ...]) -> bytes:
    """Bytes that, behind those of a model file, make outputs of these tensors."""
    values = (_field(_OUTPUT, _field(_VALUE_NAME, name.encode())) for name in names)
    return _field(_GRAPH, b"".join(values))


def _tokens(names: tuple[str, ...], makers: dict[str, Node]) -> str | None:
    """The tensor whose class token, patch mean and patch standard deviation these three are, if they are."""
    token, mean, deviation = (makers.get(name) for name in names)
    if not (token and mean and deviation):
        return None
    patches = makers.get(mean.inputs[0]) if mean.inputs else None
    types = [token.type, mean.type, deviation.type, patches.type if patches else ""]
    if types != ["Gather", "ReduceMean", "Sqrt", "Slice"] or patches is None or token.inputs[:1] != patches.inputs[:1]:
        return None
    return token.inputs[0] if token.inputs else None


def _nodes(model: bytes) -> Iterator[Node]:
    count = 0
    for number, graph in _fields(memoryview(model)):
        if number != _GRAPH:
            continue
        for inner, node in _fields(graph):
            if inner != _NODE:
                continue
            count += 1
            if count > _MOST_NODES:
                raise ValueError("too many nodes")
            parts = [(n, bytes(value).decode()) for n, value in _fields(node) if n <= _NODE_TYPE]
            inputs, outputs, types = (
                tuple(text for n, text in parts if n == kind) for kind in (_NODE_INPUT, _NODE_OUTPUT, _NODE_TYPE)
            )
            yield Node(types[0] if types else "", inputs, outputs)


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each field that has a length; others are passed over. Raises ValueError for other bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == _BYTES:
            size, at = _varint(data, at)
            if at + size > len(data):
                raise ValueError("a field that is longer than what holds it")
            yield key >> 3, data[at : at + size]
            at += size
        elif wire == _VARINT:
            _, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError("an unknown kind of field")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number at a place, and the place behind it. Raises ValueError, or IndexError at the end of the data."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a number without an end")


def _field(number: int, content: bytes) -> bytes:
    return _encoded(number << 3 | _BYTES) + _encoded(len(content)) + content


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
