"""Two published detectors that look at residuals alone, for comparison: NPR and SAFE, each written from its paper.

Both put a fixed filter, which takes the picture away and leaves its finest detail, before the first half of a
ResNet-50. They know nothing of how they are trained; their authors' data and augmentation are not part of them.
"""

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from faceauth.lab.training.networks import FaceNetwork, Outputs


class _Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions, four times as wide at the end, and a shortcut. He et al., CVPR 2016."""

    def __init__(self, inputs: int, inner: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * inner
        self.branch = nn.Sequential(
            *_normed(inputs, inner, 1, 1), nn.ReLU(inplace=True),
            *_normed(inner, inner, 3, stride), nn.ReLU(inplace=True),
            *_normed(inner, outputs, 1, 1),
        )  # fmt: skip
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(*_normed(inputs, outputs, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.branch(x))


def _normed(inputs: int, outputs: int, side: int, stride: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False), nn.BatchNorm2d(outputs)


class ResidualNet(FaceNetwork):
    """A ResNet-50 cut off after its second of four stages, its first convolution 3 x 3; both papers have this body."""

    layers: ClassVar = {"stem": "stem", "body": r"body\.(\d+)"}

    def __init__(self, sources: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_normed(3, 64, 3, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
        first = [_Bottleneck(64, 64, 1), *(_Bottleneck(256, 64, 1) for _ in range(2))]
        second = [_Bottleneck(256, 128, 2), *(_Bottleneck(512, 128, 1) for _ in range(3))]
        self.body = nn.Sequential(*first, *second)
        self.head = nn.Linear(512, 1)
        self.source_head = nn.Linear(512, sources)

    def forward(self, pixels: Tensor) -> Outputs:
        embedding = self.body(self.stem(self.residual(pixels))).mean((2, 3))
        return Outputs(self.head(embedding)[:, 0], self.sources(embedding), embedding)

    def residual(self, pixels: Tensor) -> Tensor:
        """(n, 3, s, s) to the same shape: what the body sees."""
        raise NotImplementedError


class NprNet(ResidualNet):
    """Neighbouring pixel relationships. Tan et al., CVPR 2024, arXiv 2312.10461.

    Every second pixel is kept and repeated over its 2 x 2 block; the picture less that is how each pixel differs from
    the first of its block, which upsampling layers leave a trace in. Two thirds of it, as in the authors' code.
    """

    def residual(self, pixels: Tensor) -> Tensor:
        first = F.interpolate(pixels[:, :, ::2, ::2], size=pixels.shape[2:], mode="nearest")
        return (pixels - first) * (2 / 3)


class SafeNet(ResidualNet):
    """The diagonal band of a one-level wavelet transform. Li et al., KDD 2025, arXiv 2408.06741 (SAFE).

    The paper's wavelet is bior1.3, whose analysis high-pass is that of Haar with zeros about it; so its diagonal band
    is Haar's, (a - b - c + d) / 2 of each 2 x 2 block [[a, b], [c, d]]. It is brought back to the input's size,
    bilinear, as in the authors' code.
    """

    def residual(self, pixels: Tensor) -> Tensor:
        # Slices, as a convolution would round the pixels to bf16 before it takes their difference.
        size = pixels.shape[2:]
        even = pixels[:, :, : size[0] // 2 * 2, : size[1] // 2 * 2]
        across = even[:, :, :, ::2] - even[:, :, :, 1::2]
        band = (across[:, :, ::2] - across[:, :, 1::2]) / 2
        return F.interpolate(band, size=size, mode="bilinear", align_corners=False)


RESIDUALS: dict[str, type[ResidualNet]] = {"npr": NprNet, "safe": SafeNet}
