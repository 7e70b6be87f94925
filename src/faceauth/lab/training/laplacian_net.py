"""A small residual network on the bands of a Laplacian pyramid, each normalised to unit energy."""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from faceauth.lab.training.networks import FaceNetwork, Outputs


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


class LaplacianNet(FaceNetwork):
    """A residual network whose input is a Laplacian pyramid with every band normalised.

    The pyramid (Burt and Adelson, 1983) splits the image into octaves; each is divided by its own root mean square,
    which removes how sharp, noisy or contrasty the image is: that tells collections of photographs apart rather than
    cameras from generators. The low-pass remainder, with colours, light and pose, is not used. There are three octaves
    up to 181 px a side and one more for each doubling, so that the body works on a grid of about 32 whatever the size.

    The embedding is the spatial mean of the last block and the log-variance over space of two earlier ones: texture
    statistics (Gatys et al., NeurIPS 2015; Liu et al., CVPR 2020, on generated faces).
    """

    # a texture belongs to the block whose features it measures
    layers: ClassVar = {"stem": r"stem\.(\d+)", "body": r"(?:body|textures)\.(\d+)"}

    def __init__(self, sources: int, width: int = 24, dropout: float = 0.3, size: int = 128) -> None:
        """`width`: channels of the first octave; `size`: side of the input in pixels."""
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

    def forward(self, pixels: Tensor) -> Outputs:
        """Pixels (n, 3, size, size) to Outputs."""
        octaves = self.octaves(pixels)
        x = self.stem[0](octaves[0])
        for convolution, octave in zip(list(self.stem)[1:], octaves[1:], strict=True):
            x = convolution(torch.cat([x, octave], 1))
        found = []
        for norm, block in zip(self.textures, self.body, strict=False):
            x = block(x)
            found.append(norm((x.float().var((2, 3)) + 1e-3).log()))
        for block in list(self.body)[len(found) :]:
            x = block(x)
        embedding = torch.cat([x.float().mean((2, 3)), *found], 1)
        kept = self.dropout(embedding)
        return Outputs(self.head(kept)[:, 0], self.sources(kept), embedding)

    def octaves(self, pixels: Tensor) -> list[Tensor]:
        """The bands of pixels (n, 3, s, s), of unit root mean square, finest first, each of half the side before it."""
        found = []
        for _ in self.stem:
            smaller = _resized(pixels, 0.5)  # means of 2 x 2, which runtimes do faster than a pooling
            detail = pixels - _resized(smaller, 2)
            found.append(detail / (detail.square().mean((1, 2, 3), keepdim=True) + 4e-4).sqrt())
            pixels = smaller
        return found


def _resized(pixels: Tensor, factor: float) -> Tensor:
    return F.interpolate(pixels, scale_factor=factor, mode="bilinear", align_corners=False)
