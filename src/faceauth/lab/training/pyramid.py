"""Our own network: a small residual one that sees octaves of detail. It knows nothing of how it is trained."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faceauth.lab.training.networks import FaceNetwork, Outputs
from faceauth.lab.training.traces import SIDE, Floats, SourceOdds, Traces, mixed

STATISTICS = 17  # of each octave
LAGS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (2, 2), (0, 3), (3, 0), (0, 4), (4, 0))  # pixels down, right


class _Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut. He et al., CVPR 2016; average-pooled shortcut, He et al., CVPR 2019."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, stride)
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
            self.shortcut = nn.Sequential(pool, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.second(self.first(x)))


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class PyramidNet(FaceNetwork):
    """A small residual network that sees a face as octaves of detail, each brought to unit energy.

    The Laplacian pyramid (Burt and Adelson, 1983) splits the picture into octaves; dividing each by its own
    root mean square takes away how sharp, noisy or contrasty the picture is, which tells collections of
    photographs apart rather than cameras from generators. The smooth remainder, which holds colours, light and
    pose, is not seen at all. There are three octaves up to 181 px a side and one more for each doubling: the body works
    on a grid of about 32 whatever the size, so that 256 px cost 1.5 times what 128 px cost.

    The heads see what the last block finds on average, and how much the features of two earlier ones vary over
    the face: a texture is known by such statistics wherever it lies (Gatys et al., NeurIPS 2015; Liu et al., CVPR
    2020, on generated faces).

    The logit is the sum of what the head says and what `Traces` and `SourceOdds` say of numbers that are written out:
    `statistics` of every octave, and those behind the traces. The odds leave out the octaves down to the traces' own:
    how much is there tells how large a picture was, which is not what made it. These two are fitted before training and
    take no part in it: in training the head answers alone. In the embedding the numbers follow, which the heads do not
    see: a generator or a camera is known by them.
    """

    def __init__(self, sources: int, width: int = 24, dropout: float = 0.3, size: int = 128) -> None:
        super().__init__()
        count = max(3, round(math.log2(size / 32)) + 1)
        widths = [round(width * min(2, 1 + i / (count - 2))) for i in range(count)]
        strides = [2] * (count - 1) + [1]
        inputs = [3, *(w + 3 for w in widths)]
        self.stem = nn.ModuleList(map(_convolution, inputs, widths, strides))
        self.body = nn.Sequential(
            _Block(2 * width, 2 * width, 1),
            _Block(2 * width, 4 * width, 2),
            _Block(4 * width, 4 * width, 1),
            _Block(4 * width, 8 * width, 2),
        )
        self.textures = nn.ModuleList([nn.BatchNorm1d(2 * width), nn.BatchNorm1d(4 * width)])
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear((8 + 4 + 2) * width, 1)
        self.source_head = nn.Linear((8 + 4 + 2) * width, sources)
        self.traced = max(0, math.ceil(math.log2(size / SIDE)))  # the octave whose picture the traces are of
        self.traces = Traces(size >> self.traced)
        self.finer = (self.traced + 1) * STATISTICS  # numbers that the odds are not taken from
        self.odds = SourceOdds(sources, count * STATISTICS + sum(self.traces.groups) - self.finer)

    def forward(self, pixels: Tensor) -> Outputs:
        octaves = self.octaves(pixels)
        x = self.stem[0](octaves[0].unit)
        for convolution, octave in zip(list(self.stem)[1:], octaves[1:], strict=True):
            x = convolution(torch.cat([x, octave.unit], 1))
        found = []
        for norm, block in zip(self.textures, self.body, strict=False):
            x = block(x)
            found.append(norm((x.float().var((2, 3)) + 1e-3).log()))
        for block in list(self.body)[len(found) :]:
            x = block(x)
        seen = torch.cat([x.float().mean((2, 3)), *found], 1)
        kept = self.dropout(seen)
        logit, sources = self.head(kept)[:, 0], self.sources(kept)
        if self.training:
            return Outputs(logit, sources, seen)
        numbers = self.numbers(octaves)
        said = self.traces(numbers[:, len(octaves) * STATISTICS :]) + self.odds(numbers[:, self.finer :])
        return Outputs(logit + said, sources, torch.cat([seen, numbers], 1))

    def numbers(self, octaves: list["Octave"]) -> Tensor:
        """What is written out of octaves: `statistics` of each, then the numbers of `Traces`."""
        of_octaves = [statistics(octave.pixels, octave.detail) for octave in octaves]
        traced = octaves[self.traced]
        return torch.cat([*of_octaves, self.traces.numbers(traced.pixels, traced.detail)], 1)

    @torch.no_grad()
    def fit(self, traces: Mapping[int, Floats], odds: Mapping[int, Floats], fake: Mapping[int, bool]) -> None:
        """Fit what is not learned by numbers (n, d) of each source, which has a class: one set for each part.

        A part that one of the classes gives nothing to goes on saying nothing.
        """
        if len({fake[source] for source in traces}) == 2:
            of_traces = [part[:, -sum(self.traces.groups) :] for part in traces.values()]
            self.traces.fit(of_traces, [fake[source] for source in traces])
        if len({fake[source] for source in odds}) == 2:
            self.odds.fit({source: part[:, self.finer :] for source, part in odds.items()}, fake)

    def depth(self, name: str) -> int:
        part, _, rest = name.partition(".")
        if part == "stem":
            return int(rest[0])
        if part == "textures":
            part = "body"  # each belongs to the block whose features it measures
        return len(self.stem) + (int(rest[0]) if part == "body" else len(self.body))

    def octaves(self, pixels: Tensor) -> list["Octave"]:
        """The octaves of pixels (n, 3, s, s), finest first, each of half the side of the one before it."""
        found = []
        for _ in self.stem:
            smaller = _resized(pixels, 0.5)  # means of 2 x 2, which runtimes do faster than a pooling
            detail = pixels - _resized(smaller, 2)
            unit = detail / (detail.square().mean((1, 2, 3), keepdim=True) + 4e-4).sqrt()
            found.append(Octave(pixels, detail, unit))
            pixels = smaller
        return found


def _resized(pixels: Tensor, factor: float) -> Tensor:
    return F.interpolate(pixels, scale_factor=factor, mode="bilinear", align_corners=False)


class Octave(NamedTuple):
    """A picture (n, 3, s, s), the same without what the next octave holds, and that of unit root mean square."""

    pixels: Tensor
    detail: Tensor
    unit: Tensor


def statistics(pixels: Tensor, detail: Tensor) -> Tensor:
    """What is left of how a picture was made, whatever it shows: (n, `STATISTICS`) of one octave.

    Log energy of the channels, and their correlations: sensors and demosaicing leave other ones than decoders do
    (McCloskey and Albright, arXiv 1812.08247). Of the Laplacian of the grey picture log energy, and autocorrelation
    at `LAGS`: upsampling leaves periods (Zhang et al., WIFS 2019).

    Args:
        pixels: (n, 3, s, s), s at least 8; detail: the same without what the next octave holds.
    """
    energy = detail.square().mean((2, 3)) + 1e-4
    together = (detail * detail.roll(-1, 1)).mean((2, 3)) / (energy * energy.roll(-1, 1)).sqrt()
    grey = mixed(pixels, (1, 1, 1)) / 3
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    edges = 4 * grey[:, 1:-1, 1:-1] - around
    height, width = edges.shape[1:]
    power = edges.square().mean((1, 2)) + 1e-6
    shifted = [(edges[:, : height - y, : width - x] * edges[:, y:, x:]).mean((1, 2)) / power for y, x in LAGS]
    return torch.cat([energy.log(), together, torch.stack([power.log(), *shifted], 1)], 1)
