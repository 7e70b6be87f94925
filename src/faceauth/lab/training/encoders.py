"""Frozen encoders as ONNX files from `pixels` (n, 3, size, size) to `features` (n, d).

CLIP's image encoder gives, for each of its blocks, the class token and the mean and the standard deviation of the
patches; a convolutional network of timm the mean and the log variance of every channel of each of its blocks; the
spectrum, a baseline, the power on rings of equal frequency. What all blocks say together is worth more than the last
one (docs/research.md).
"""

import itertools
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from faceauth.errors import ConfigError, DataError
from faceauth.lab.training.networks import import_timm, mend_torchvision, timm_facts
from faceauth.lab.training.onnx_file import refill, traced, write

EXACT = 1e-6  # largest error of 8-bit weights, relative to the largest weight, at which they count as exact
SMALL = 10_000  # weights: smaller arrays stay as they are
STATISTICS = 3  # of a block of CLIP's: class token, patch mean, patch standard deviation
FLOOR = 1e-6  # added to variances before their logarithm


class ClipBlocks(nn.Module):
    """Class token, patch mean and patch standard deviation after every block: (n, blocks * 3 * width)."""

    def __init__(self, encoder: Any) -> None:
        """`encoder` is transformers' CLIPVisionModelWithProjection."""
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (n, 3, size, size), normalised as CLIP was trained, to features."""
        states = self.encoder(pixels, output_hidden_states=True).hidden_states[1:]
        return torch.cat([t for s in states for t in (s[:, 0], s[:, 1:].mean(1), s[:, 1:].std(1))], dim=1)


class ConvBlocks(nn.Module):
    """Mean and log variance of every channel after every block and the last convolution: (n, 2 * channels)."""

    def __init__(self, network: Any) -> None:
        """`network` is one of timm's with `conv_stem`, `blocks` and `conv_head`. Raises ConfigError for others."""
        super().__init__()
        parts = ("conv_stem", "bn1", "blocks", "conv_head", "bn2")
        if missing := [name for name in parts if not hasattr(network, name)]:
            raise ConfigError(f"this network of timm has no {missing[0]}", "take an EfficientNet or a MobileNetV2")
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (n, 3, size, size), normalised as the network was trained, to features."""
        return torch.cat([t for m in self._maps(pixels) for t in (m.mean((2, 3)), (m.var((2, 3)) + FLOOR).log())], 1)

    def _maps(self, pixels: Tensor) -> Iterator[Tensor]:
        x = self.network.bn1(self.network.conv_stem(pixels))
        for block in itertools.chain.from_iterable(self.network.blocks):
            x = block(x)
            yield x
        yield self.network.bn2(self.network.conv_head(x))


class Spectrum(nn.Module):
    """Log power of a picture's grey values on rings of equal frequency, in nepers: (n, size // 2 + 1).

    The features of Durall et al., CVPR 2020: azimuthal means of the power spectrum. No weights are learned; the Fourier
    transform is two products with matrices, which every runtime has.
    """

    cos: Tensor
    sin: Tensor
    rings: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        steps = torch.arange(size, dtype=torch.float64)
        angle = 2 * torch.pi * torch.outer(steps, steps) / size
        self.register_buffer("cos", angle.cos().float())
        self.register_buffer("sin", angle.sin().float())
        waves = torch.fft.fftfreq(size, 1 / size)
        ring = torch.hypot(waves[:, None], waves[None, :]).round().long().ravel()
        rings = nn.functional.one_hot(ring)[:, : size // 2 + 1].float()
        self.register_buffer("rings", rings / rings.sum(dim=0))

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (n, 3, size, size) to the logarithms of mean power."""
        grey = pixels.mean(dim=1)
        across, down = grey @ self.cos, grey @ self.sin
        real, imaginary = self.cos @ across - self.sin @ down, self.cos @ down + self.sin @ across
        power = (real.square() + imaginary.square()) / grey.shape[-1] ** 2
        return (power.flatten(1) @ self.rings + FLOOR).log()


def export_encoder(checkpoint: str, output: Path, weights: Path | None = None) -> int:
    """Write an encoder as ONNX, from pixels (n, 3, size, size) to features (n, d); returns d.

    Weights that are 8-bit integers times a scale for each output channel are stored as such, without loss; all large
    arrays of a network of timm are rounded to that.

    Args:
        checkpoint: CLIP's image encoder as a hub's name or a folder, `timm/NAME`, or `spectrum/SIZE`.
        weights: of a network of timm, a safetensors file with timm's names; the hub's where it is None.

    Raises:
        ConfigError, DataError: there is no such network or checkpoint, or `weights` are of another.
    """
    network, size = _network(checkpoint, weights)
    example = torch.zeros(2, 3, size, size)
    proto = traced(network.eval(), example, ["features"])
    lossy = isinstance(network, ConvBlocks)
    compress(proto, {tensor.name for tensor in proto.graph.initializer} if lossy else ())
    write(proto, output)
    with torch.no_grad():
        return int(network(example).shape[1])


def _network(checkpoint: str, weights: Path | None) -> tuple[nn.Module, int]:
    """An encoder, and the side of its pictures in pixels; as `export_encoder`."""
    family, _, name = checkpoint.partition("/")
    if family == "timm":
        size = timm_facts(name).input_size[-1]
        return ConvBlocks(_timm_network(name, weights)), size
    if family == "spectrum":
        if not name.isdecimal() or not 8 <= int(name) <= 1024:
            raise ConfigError(f"{checkpoint!r} names no size of 8 to 1024 pixels", "write spectrum/224")
        return Spectrum(int(name)), int(name)
    if weights is not None:
        raise ConfigError("weights are read for a network of timm alone", "give timm/NAME, or leave --weights out")
    encoder = _clip(checkpoint)
    return ClipBlocks(encoder), int(str(encoder.config.image_size))


def _clip(checkpoint: str) -> Any:
    mend_torchvision()
    from transformers import CLIPVisionModelWithProjection

    try:
        return CLIPVisionModelWithProjection.from_pretrained(checkpoint)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"cannot load {checkpoint!r}: {reason}", "give a folder, or go online") from error


def _timm_network(name: str, weights: Path | None) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    timm = import_timm()
    try:
        if weights is None:
            return timm.create_model(name, pretrained=True)
        network = timm.create_model(name)
        network.load_state_dict(load_file(weights))
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"cannot load the weights of {name}: {reason}", "give --weights, or go online") from error
    return network


def compress(proto: onnx.ModelProto, lossy: Collection[str] = ()) -> None:
    """Store large weights in fewer bits; the graph makes floats of them, which ONNX Runtime does once, on loading.

    A matrix becomes 8-bit integers times a scale for each row or column where that is exact, or where it is named in
    `lossy`, as does the kernel (out, in, h, w) of a convolution, with a scale for each output channel; another array
    becomes 16-bit floats where that is exact. What is left stays as it is.
    """
    arrays, nodes = [], []
    for tensor in proto.graph.initializer:
        array, name = numpy_helper.to_array(tensor), tensor.name
        large = array.dtype == np.float32 and array.size > SMALL
        if large and (found := _eight_bits(array, name in lossy)):
            integers, scale = found
            arrays.append(numpy_helper.from_array(integers, f"{name}_bits"))
            arrays.append(numpy_helper.from_array(scale, f"{name}_scale"))
            nodes.append(helper.make_node("Cast", [f"{name}_bits"], [f"{name}_float"], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [name]))
        elif large and (array.astype(np.float16) == array).all():
            arrays.append(numpy_helper.from_array(array.astype(np.float16), f"{name}_bits"))
            nodes.append(helper.make_node("Cast", [f"{name}_bits"], [name], to=TensorProto.FLOAT))
        else:
            arrays.append(tensor)
    refill(proto.graph, [*nodes, *proto.graph.node], arrays)


def load_encoder(path: Path, blocks: tuple[int, int] | None = None) -> onnx.ModelProto:
    """An encoder, of CLIP's with the features of some blocks alone, and without what only later blocks compute.

    `blocks` are the first and the last of them, from 1; all by default. Raises ConfigError where it has no such blocks.
    """
    proto = onnx.load(path)
    if blocks is not None:
        parts, chosen = _parts(proto, path, blocks)
        kept = parts.input[chosen]
        del parts.input[:]
        parts.input.extend(kept)
        _prune(proto.graph)
    return proto


def columns_of(path: Path, blocks: tuple[int, int], features: int) -> slice:
    """Which of an encoder's features are those of the blocks; as `load_encoder`."""
    parts, chosen = _parts(onnx.load(path), path, blocks)
    width = features // len(parts.input)
    return slice(chosen.start * width, chosen.stop * width)


def _parts(proto: onnx.ModelProto, path: Path, blocks: tuple[int, int]) -> tuple[onnx.NodeProto, slice]:
    """The node that puts the features of all blocks side by side, and which of its inputs are those of `blocks`."""
    made: onnx.NodeProto = next(node for node in proto.graph.node if "features" in node.output)
    count = len(made.input) // STATISTICS
    if made.op_type != "Concat" or len(made.input) % STATISTICS or not 1 <= blocks[0] <= blocks[1] <= count:
        raise ConfigError(f"{path} has no blocks {blocks[0]} to {blocks[1]}", "leave blocks out of the config")
    return made, slice(STATISTICS * (blocks[0] - 1), STATISTICS * blocks[1])


def _prune(graph: onnx.GraphProto) -> None:
    """Remove nodes and weights that no output needs."""
    needed = {output.name for output in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    refill(graph, reversed(nodes), [tensor for tensor in graph.initializer if tensor.name in needed])
    del graph.value_info[:]
    for output in graph.output:
        output.type.tensor_type.shape.dim[-1].Clear()


def count_parameters(encoder: onnx.ModelProto) -> int:
    """How many weights an encoder holds, scales of 8-bit integers left out."""
    return sum(math.prod(t.dims) for t in encoder.graph.initializer if not t.name.endswith("_scale"))


def _eight_bits(array: np.ndarray[Any, Any], lossy: bool) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    """Integers and scales whose product is the array; None where it is no kernel, or the error is too large."""
    axes: dict[int, list[tuple[int, ...]]] = {2: [(0,), (1,)], 4: [(1, 2, 3)]}
    best = None
    for axis in axes.get(array.ndim, []):
        scale = np.abs(array).max(axis=axis, keepdims=True) / 127
        scale[scale == 0] = 1
        integers = np.round(array / scale)
        error = np.abs(integers * scale - array).max()
        if best is None or error < best[0]:
            best = error, integers.astype(np.int8), scale.astype(np.float32)
    if best is None:
        return None
    return best[1:] if lossy or best[0] <= EXACT * np.abs(array).max() else None
