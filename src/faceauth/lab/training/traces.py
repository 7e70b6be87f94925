"""Numbers of a whole face, and lines through them that are fitted in closed form. They know nothing of networks.

A network that learns from a dozen sources learns those sources; a discriminant of a few dozen numbers cannot, and holds
better on what neither has seen (docs/research.md, sixth and eighth round).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

SIDE = 128  # pixels: what comes in has no more
RINGS = 32
EDGES = (-1.2, -0.35, 0.35, 1.2)  # between the five levels that details are sorted into, in root mean squares
STEPS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0))  # pixels down, right
SHRINK = 0.1
REACH = 2.0  # spreads within a source: what a discriminant says beyond this counts less and less
LIMIT = 4.0  # log odds that `SourceOdds` never reach
NEVER = -1e9  # log prior of a source that is not of the class
Floats = npt.NDArray[np.floating[Any]]


class Traces(nn.Module):
    """Three discriminants of a picture of about `SIDE`, each of unit spread within a source, that make one logit.

    Its `numbers` are

    - *spectrum*: log power of the luminance on rings (Durall et al., arXiv 1911.00686), its level included;
    - *colour*: joint histograms of the finest octave of luminance and of both colour differences: what a sensor and
      its demosaicing leave between channels is not what a decoder leaves (McCloskey and Albright, arXiv 1812.08247);
    - *texture*: joint histograms of neighbours in the finest octave (Fridrich and Kodovsky, IEEE TIFS 2012).

    A line says nothing of pictures unlike all that it was drawn through, such as very soft ones: a discriminant t
    counts as t exp(-t^2 / 2 `REACH`^2), which falls to nothing far off (redescending; Hampel, JASA 1974). Until `fit`
    the logit is 0.
    """

    weight: Tensor
    bias: Tensor
    ring: Tensor
    waves: Tensor

    def __init__(self, side: int) -> None:
        """`side` is that of the pictures that come in, from 16 to about `SIDE`."""
        super().__init__()
        rings = min(RINGS, side // 4)
        n = len(EDGES) + 1
        pairs = n * (n + 1) // 2
        self.groups = [rings, 2 * n * n + pairs, n // 2 + 1 + len(STEPS) * pairs]
        self.register_buffer("weight", torch.zeros(len(self.groups), sum(self.groups)))
        self.register_buffer("bias", torch.zeros(len(self.groups)))
        angle = 2 * math.pi / side * torch.arange(side)[:, None] * torch.arange(side)
        window = torch.hann_window(side)[:, None]
        self.register_buffer("waves", torch.stack([window * angle.cos(), window * angle.sin()]), persistent=False)
        down, right = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)
        ring = (torch.hypot(down, right) * 2 * rings).floor().flatten()
        self.register_buffer("ring", ring, persistent=False)

    def numbers(self, pixels: Tensor, detail: Tensor) -> Tensor:
        """What the lines are drawn through: pictures (n, 3, side, side), and their finest octave, to (n, d)."""
        return torch.cat([self._spectrum(mixed(pixels, (0.299, 0.587, 0.114))), *_histograms(detail)], 1)

    def forward(self, numbers: Tensor) -> Tensor:
        """The logit (n,) of `numbers`."""
        said = numbers @ self.weight.T + self.bias
        counted: Tensor = said * (-said.square() / (2 * REACH**2)).exp()
        return counted.sum(1)

    def _spectrum(self, light: Tensor) -> Tensor:
        """Log power (n, rings) of pictures (n, side, side), through the real and imaginary part of a windowed DFT."""
        side = light.shape[-1]
        light = light - light.mean((1, 2), keepdim=True)
        cosine, sine = self.waves
        a, b = light @ cosine[:, : side // 2 + 1], light @ sine[:, : side // 2 + 1]
        power = (cosine.T @ a - sine.T @ b).square() + (cosine.T @ b + sine.T @ a).square()
        on_ring = (self.ring[:, None] == torch.arange(self.groups[0], device=light.device)).to(light.dtype)
        mean: Tensor = power.flatten(1) @ on_ring / (on_ring.sum(0) * side**2)
        return (mean + 1e-5).log()

    @torch.no_grad()
    def fit(self, numbers: Sequence[Floats], fake: Sequence[bool]) -> None:
        """Set the lines by `numbers` (n, sum of `groups`) of each source, whose classes `fake` has. Any n will do."""
        end = 0
        for row, size in enumerate(self.groups):
            start, end = end, end + size
            line, offset = discriminant([part[:, start:end] for part in numbers], fake)
            self.weight[row, start:end] = torch.from_numpy(line)
            self.bias[row] = offset


class SourceOdds(nn.Module):
    """Log odds that one of the known generators made a picture rather than one of the known cameras.

    Every source is a Gaussian of the numbers, all with one covariance, so that each log density is a line but for what
    they share: linear discriminant analysis (Hastie, Tibshirani and Friedman, The Elements of Statistical Learning,
    4.3). `Traces` draw one line between the classes, which holds for what is unlike every source; this one asks which
    source a picture is most like, and knows those that it has seen. The odds are limited softly to `LIMIT`, as no
    picture of an unknown source is as sure as they are. Sources within a class have one prior. Until `fit` the logit
    is 0.
    """

    center: Tensor
    weight: Tensor
    real: Tensor
    fake: Tensor

    def __init__(self, sources: int, numbers: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(numbers))  # far from it single precision would not tell lines apart
        self.register_buffer("weight", torch.zeros(sources, numbers))
        self.register_buffer("real", torch.zeros(sources))  # log prior and offset of each line, `NEVER` for fakes
        self.register_buffer("fake", torch.zeros(sources))

    def forward(self, numbers: Tensor) -> Tensor:
        """The logit (n,) of numbers (n, d)."""
        said = (numbers - self.center) @ self.weight.T
        odds = (said + self.fake).logsumexp(1) - (said + self.real).logsumexp(1)
        return LIMIT * (odds / LIMIT).tanh()

    @torch.no_grad()
    def fit(self, numbers: Mapping[int, Floats], fake: Mapping[int, bool]) -> None:
        """Set the lines by numbers (n, d) of each source, which has a class. A source that is not there takes no part.

        Any n will do; both classes are there.
        """
        within, sd = _within(list(numbers.values()))
        means = {source: part.mean(axis=0, dtype=np.float64) / sd for source, part in numbers.items()}
        center = np.mean(list(means.values()), axis=0)
        self.center.copy_(torch.from_numpy(center * sd))
        self.weight.zero_()
        self.real.fill_(NEVER)
        self.fake.fill_(NEVER)
        for source, mean in means.items():
            mean = mean - center
            line = np.linalg.solve(within, mean)
            prior = -math.log(sum(fake[other] == fake[source] for other in numbers))
            self.weight[source] = torch.from_numpy((line / sd).astype(np.float32))
            (self.fake if fake[source] else self.real)[source] = prior - line @ mean / 2


def mixed(pixels: Tensor, shares: tuple[float, float, float]) -> Tensor:
    """(n, 3, h, w) to (n, h, w), so much of each channel; runtimes add planes faster than they sum over them."""
    red, green, blue = pixels.unbind(1)
    return shares[0] * red + shares[1] * green + shares[2] * blue


def _histograms(detail: Tensor) -> tuple[Tensor, Tensor]:
    """The groups *colour* and *texture* of details (n, 3, side, side)."""
    light = mixed(detail, (1, 1, 1)) / 3
    # Root mean squares of each picture, with a floor far below what a photograph has.
    parts = [
        p / (p.square().mean((1, 2), keepdim=True) + 2e-4).sqrt()
        for p in (light, detail[:, 2] - light, detail[:, 0] - light)
    ]
    light, blue, red = (_levels(part) for part in parts)
    colour = [_joint(light, blue).flatten(1), _joint(light, red).flatten(1), _mirrored(_joint(blue, red))]
    texture = [light.mean((2, 3))[:, : len(EDGES) // 2 + 1]]
    for down, right in STEPS:
        height, width = light.shape[2:]
        texture.append(_mirrored(_joint(light[..., : height - down, : width - right], light[..., down:, right:])))
    return torch.cat(colour, 1), torch.cat(texture, 1)


def _levels(values: Tensor) -> Tensor:
    """(n, h, w) to (n, 5, h, w): one of five where the value lies on its level."""
    above = (values[:, None] > values.new_tensor(EDGES)[:, None, None]).to(values.dtype)
    one = torch.ones_like(above[:, :1])
    return torch.cat([one, above], 1) - torch.cat([above, one * 0], 1)


def _joint(a: Tensor, b: Tensor) -> Tensor:
    """(n, 5, 5) how often level i of one meets level j of the other; the same with all signs turned, on average."""
    found = a.flatten(2) @ b.flatten(2).transpose(1, 2) / (a.shape[2] * a.shape[3])
    return (found + found.flip((1, 2))) / 2


def _mirrored(found: Tensor) -> Tensor:
    """The upper triangle of joint histograms (n, 5, 5) whose two sides are alike."""
    found = (found + found.transpose(1, 2)) / 2
    first, second = torch.triu_indices(found.shape[1], found.shape[2])
    return found[:, first, second]


def discriminant(numbers: Sequence[Floats], fake: Sequence[bool]) -> tuple[Floats, float]:
    """Fisher's linear discriminant between the classes, sources counting alike, of unit spread within a source.

    The covariance is that of `_within`; the line is 0 half-way between the means of the two classes.

    Args:
        numbers: (n, d) of each source; both classes are there.

    Returns:
        Weights (d,) float32 and the offset: the discriminant of x is weights @ x + offset.
    """
    within, sd = _within(numbers)
    means, made = np.stack([part.mean(axis=0, dtype=np.float64) / sd for part in numbers]), np.asarray(fake, bool)
    real, generated = means[~made].mean(axis=0), means[made].mean(axis=0)
    line = np.linalg.solve(within, generated - real)
    line /= np.sqrt(line @ within @ line) + 1e-12
    return (line / sd).astype(np.float32), float(-line @ (real + generated) / 2)


def _within(numbers: Sequence[Floats]) -> tuple[Floats, Floats]:
    """The covariance within a source, and what to divide numbers by first: (d, d) and (d,) of (n, d) a source.

    It is the mean of the sources', shrunk by `SHRINK` to a multiple of the identity (Friedman, JASA 1989).
    """
    sd = np.concatenate(numbers).std(axis=0, dtype=np.float64) + 1e-3  # a level that a thousandth lies on is noise
    within = np.mean([np.cov(np.asarray(part, np.float64).T / sd[:, None], ddof=0) for part in numbers], axis=0)
    d = len(within)
    return (1 - SHRINK) * within + SHRINK * (np.trace(within) / d + 1e-6) * np.eye(d), sd
