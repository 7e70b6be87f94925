"""Which images a network is shown, and in which order: by chance within a budget, or epoch by epoch.

Step k draws everything it needs from (seed, k), so that a resumed run sees what an unbroken one would have seen, and
several processes agree on a batch of which each takes its slice. It knows nothing of networks.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from faceauth.errors import DataError
from faceauth.lab.data.augment import augment
from faceauth.lab.data.blend import BLENDED, self_blended
from faceauth.lab.data.examples import Examples
from faceauth.lab.training.config import TrainConfig

Pixels = npt.NDArray[np.uint8]
Draw = tuple[int, int, np.random.Generator]  # index of the image, of its source, what augmentation draws from


class Batch(NamedTuple):
    """A process's slice of a batch: pixels (n, size, size, 3), index of the source (n,), images in the whole batch."""

    pixels: Pixels
    sources: Tensor
    whole: int


class ImageSet:
    """The images of one split, by source; sources held out are left out.

    Attributes:
        members: the images of each source, by index; sources are in the order of the source logits.
        labels: real or fake for each source.
    """

    def __init__(self, config: TrainConfig, examples: Examples, held_out: Sequence[str], split: str) -> None:
        self.config, self.faces = config, examples.faces
        labels = {s: label for label in ("real", "fake") for s in examples.sources(label) if s not in held_out}
        self.members: dict[str, list[int]] = {source: [] for source in labels}
        self.labels = list(labels.values())
        for i, record in enumerate(examples.records):
            if record.split == split and record.source in self.members:
                self.members[record.source].append(i)

    def blend(self) -> None:
        """Where `data.fake` names them, add the blended photographs: as many of a source as of the plain ones.

        Raises DataError where the corpus has a source of that name.
        """
        if BLENDED not in self.config.data.fake:
            return
        if BLENDED in self.members:
            raise DataError(f"a source is named {BLENDED!r}, as blended photographs are", "rename it in images.csv")
        photographs = [m for m, label in zip(self.members.values(), self.labels, strict=True) if label == "real"]
        counts = np.array([len(members) for members in photographs])
        chances = counts**self.config.data.sampling_power
        wanted = (counts.sum() * chances / max(chances.sum(), 1e-9)).round().astype(int)
        self.members[BLENDED] = [int(i) for m, n in zip(photographs, wanted, strict=True) if m for i in np.resize(m, n)]
        self.labels.append("fake")

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources, in the order of the source logits."""
        return tuple(self.members)

    def face(self, drawn: Draw) -> tuple[Image.Image, Sequence[float]]:
        """The picture, as its source shows it, and its face box."""
        index, source, rng = drawn
        image, face = self.faces[index]
        return (self_blended(image, face, rng) if self.sources[source] == BLENDED else image), face

    def plain(self, drawn: Draw) -> Pixels:
        """It as a user's would be seen: (size, size, 3)."""
        image, face = self.face(drawn)
        spec = self.config.preprocess
        return spec.resize(image, spec.region(face, *image.size))

    def balanced(self, rng: np.random.Generator) -> list[tuple[int, int]]:
        """Equally many images of each class, shuffled: pairs of image and source index.

        Of the larger class some are left out, by chance, so that its sources come as close to equal as they can.
        """
        counts = np.array([len(m) for m in self.members.values()])
        fake = np.array([label == "fake" for label in self.labels])
        each = int(min(counts[fake].sum(), counts[~fake].sum()))
        taken = np.zeros_like(counts)
        for side in (fake, ~fake):
            taken[side] = evenly(counts[side], each)
        chosen = [
            (int(i), source)
            for source, (members, n) in enumerate(zip(self.members.values(), taken, strict=True))
            for i in rng.permutation(members)[:n]
        ]
        return [chosen[k] for k in rng.permutation(len(chosen))]


class TrainingSet(ImageSet):
    """What is trained on: batch k of a run, real and fake equally.

    The modern recipe draws each image by itself, a source in proportion to a power of its count; the study's
    goes through all of them in a new order each epoch, in batches of nearly one size.
    """

    def __init__(self, config: TrainConfig, examples: Examples, held_out: Sequence[str]) -> None:
        """Raises DataError where a class or a source is left without training images."""
        super().__init__(config, examples, held_out, "train")
        for source, members in enumerate(self.members.values()):
            np.random.default_rng((config.seed, source, 4)).shuffle(members)
            del members[math.ceil(config.data.train_fraction * len(members)) :]
        self.blend()
        empty = [s for s, members in self.members.items() if not members]
        if empty or set(self.labels) != {"real", "fake"}:
            raise DataError(f"nothing to train on for {', '.join(empty) or 'one of the classes'}", "mend the folds")
        counts = np.array([len(m) for m in self.members.values()], float) ** config.data.sampling_power
        fake = np.array([label == "fake" for label in self.labels])
        self.chances = np.where(fake, counts / counts[fake].sum(), counts / counts[~fake].sum()) / 2
        self._epoch: tuple[int, list[tuple[int, int]]] = (-1, [])
        self.epoch_steps = math.ceil(len(self._order(0)) / config.batch)
        of_epochs = config.study.epochs * self.epoch_steps
        self.steps = of_epochs if config.images is None else math.ceil(config.images / config.batch)

    def batch(self, step: int, pool: ThreadPoolExecutor, rank: int = 0, world: int = 1) -> Batch:
        """The slice of batch `step` that belongs to process `rank` of `world`."""
        drawn = self.draw(step)
        mine = [drawn[i] for i in np.array_split(np.arange(len(drawn)), world)[rank]]
        pixels = np.stack(list(pool.map(self._pixels, mine)))
        return Batch(pixels, torch.tensor([source for _, source, _ in mine]), len(drawn))

    def draw(self, step: int) -> list[Draw]:
        """All images of batch `step`."""
        rng = np.random.default_rng((self.config.seed, step))
        if self.config.recipe == "study":
            epoch, position = divmod(step, self.epoch_steps)
            order = self._order(epoch)
            part = np.array_split(np.arange(len(order)), self.epoch_steps)[position]
            return [(*order[i], rng.spawn(1)[0]) for i in part]
        classes = rng.choice(len(self.chances), self.config.batch, p=self.chances)
        members = list(self.members.values())
        return [(members[c][rng.integers(len(members[c]))], int(c), rng.spawn(1)[0]) for c in classes]

    def _order(self, epoch: int) -> list[tuple[int, int]]:
        if self._epoch[0] != epoch:
            self._epoch = epoch, self.balanced(np.random.default_rng((self.config.seed, epoch, 1)))
        return self._epoch[1]

    def _pixels(self, drawn: Draw) -> Pixels:
        if self.config.view == "augmented":
            image, face = self.face(drawn)
            return augment(image, face, self.config.preprocess, self.config.augment, drawn[2])
        pixels = self.plain(drawn)
        return pixels[:, ::-1] if self.config.view == "flipped" and drawn[2].random() < 0.5 else pixels


class ValidationSet(ImageSet):
    """Test images of the sources that a run trains on, as many of either class, for the test loss during training."""

    def __init__(self, config: TrainConfig, examples: Examples, held_out: Sequence[str]) -> None:
        super().__init__(config, examples, held_out, "test")
        self.blend()
        self.chosen = self.balanced(np.random.default_rng((config.seed, 0, 2)))

    def batches(self, pool: ThreadPoolExecutor, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """The images of process `rank`, as a user's would be seen: no augmentation."""
        mine = self.chosen[rank::world]
        size = max(1, self.config.batch // self.config.accumulate)
        for start in range(0, len(mine), size):
            part = mine[start : start + size]
            drawn = [(i, source, np.random.default_rng((self.config.seed, i, 5))) for i, source in part]
            pixels = np.stack(list(pool.map(self.plain, drawn)))
            yield Batch(pixels, torch.tensor([source for _, source in part]), len(self.chosen))


def evenly(counts: npt.NDArray[np.int64], total: int) -> npt.NDArray[np.int64]:
    """How many to take of each of `counts`, `total` in all: one ceiling for all, a remainder to the first ones."""
    levels = range(int(counts.max(initial=0)) + 1)
    ceiling = bisect_right(levels, total, key=lambda level: int(np.minimum(counts, level).sum())) - 1
    taken = np.minimum(counts, ceiling)
    taken[np.flatnonzero(counts > ceiling)[: total - taken.sum()]] += 1
    return taken
