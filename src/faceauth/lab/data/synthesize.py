"""A small face generator of our own, so that there are generated faces free to hand on, and soft ones to train on.

A variational autoencoder (Kingma and Welling, ICLR 2014) learns 64 px faces from the real train images of a corpus in
minutes on one core; its decoder then makes faces from noise. No image of the corpus is copied or reconstructed: only
draws from the latent distribution are written, as a corpus for `data.extra_sources` of a training config.
"""

import csv
import hashlib
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from faceauth.errors import UsageError
from faceauth.lab.data.dataset import IMAGES_COLUMNS, read_dataset
from faceauth.lab.data.examples import Crops, open_crops
from faceauth.lab.data.splits import given_or_assigned, tie
from faceauth.preprocess import PreprocessSpec

SPEC = PreprocessSpec(size=64, crop=1.5)
LATENT = 96


class FaceVae(nn.Module):
    """64 px faces, (n, 3, 64, 64) in [-1, 1], to `LATENT` normal variables and back."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        sizes = [3, width, 2 * width, 4 * width, 8 * width]
        down: list[nn.Module] = []
        for i, o in pairwise(sizes):
            down += [nn.Conv2d(i, o, 4, 2, 1), nn.BatchNorm2d(o), nn.LeakyReLU(0.2)]
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(8 * width * 16, 2 * LATENT))
        up: list[nn.Module] = [nn.Linear(LATENT, 8 * width * 16), nn.Unflatten(1, (8 * width, 4, 4))]
        for i, o in zip(sizes[:1:-1], sizes[-2:0:-1], strict=True):
            up += [nn.ConvTranspose2d(i, o, 4, 2, 1), nn.BatchNorm2d(o), nn.ReLU()]
        self.decoder = nn.Sequential(*up, nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Tanh())

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction, latent mean, latent log-variance."""
        mean, log_variance = self.encoder(faces).chunk(2, dim=1)
        noise = torch.randn_like(mean)
        return self.decoder(mean + noise * (log_variance / 2).exp()), mean, log_variance


def objective(faces: Tensor, made: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Absolute error of pixels and of their steps in x and y, plus the weighted Kullback-Leibler divergence."""
    steps = sum((F.l1_loss(made.diff(dim=d), faces.diff(dim=d)) for d in (2, 3)), torch.zeros(()))
    divergence = (mean.square() + log_variance.exp() - 1 - log_variance).mean() / 2
    return F.l1_loss(made, faces) + steps + 0.05 * divergence


def synthesize(root: Path, cache: Path, output: Path, count: int, images: int = 60_000, seed: int = 0) -> float:
    """Train the generator and write `count` faces as 256 px PNG files, with images.csv and recipe.json.

    Gives the mean loss of the last 20 steps.

    Raises:
        UsageError: the output folder exists and is not empty.
        DataError: the corpus cannot be read.
    """
    if output.exists() and any(output.iterdir()):
        raise UsageError(f"{str(output)!r} is not empty", "choose another folder")
    torch.manual_seed(seed)
    corpus = read_dataset(root)
    crops = open_crops(corpus, cache)
    splits = given_or_assigned(corpus.rows, tie(corpus.rows, crops.dhashes))
    chosen = [i for i, r in enumerate(corpus.rows) if r.label == "real" and splits[i] == "train"]
    model = FaceVae()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses: list[float] = []
    for faces in _batches(crops, chosen, images, seed):
        error = objective(faces, *model(faces))
        optimizer.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(error.detach()))
    loss = float(np.mean(losses[-20:]))
    _write(output, draw(model, count, seed))
    recipe = {
        "command": "faceauth lab synthesize", "images": images, "seed": seed, "corpus_sha256": corpus.sha256,
        "loss": loss,
    }  # fmt: skip
    (output / "recipe.json").write_text(json.dumps(recipe, indent=1), encoding="utf-8")
    return loss


def _write(folder: Path, faces: list[Image.Image]) -> None:
    """The faces as a corpus of one fake source, `vae`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "images.csv").open("w", encoding="utf-8", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(IMAGES_COLUMNS)
        for number, face in enumerate(faces):
            path = folder / f"vae-{number:02}.png"
            face.save(path)
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            rows.writerow((path.name, "vae", "fake", "vae", "faceauth-vae", "", sha256))


def _batches(crops: Crops, chosen: list[int], images: int, seed: int, size: int = 64) -> Iterator[Tensor]:
    faces = np.stack([SPEC.resize(c, SPEC.region(f, *c.size)) for c, f in (crops[i] for i in chosen)])
    rng = np.random.default_rng(seed)
    for _ in range(images // size):
        batch = faces[rng.integers(len(faces), size=size)]
        batch = batch[:, :, ::-1] if rng.random() < 0.5 else batch
        yield torch.from_numpy(batch.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def draw(model: FaceVae, count: int, seed: int) -> list[Image.Image]:
    """Faces from noise of standard deviation 0.8, enlarged to 256 px."""
    model.eval()
    noise = torch.randn(count, LATENT, generator=torch.Generator().manual_seed(seed)) * 0.8
    pixels = ((model.decoder(noise) + 1) * 127.5).clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(p).resize((256, 256), Image.Resampling.BICUBIC) for p in pixels]
