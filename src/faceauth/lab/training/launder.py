"""GANprintR rebuilt: an autoencoder that has learned real faces alone takes the marks of a generator from a fake.

Neves et al., "GANprintR: Improved Fakes and Evaluation of the State of the Art in Face Manipulation Detection", IEEE
Journal of Selected Topics in Signal Processing 14(5), 2020, arXiv 1911.05351: what the bottleneck of such an
autoencoder lets through looks like a face, and less like the generator. iFakeFaceDB was made so, of StyleGAN faces at
224 pixels; the widths of this network are our own.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from faceauth.errors import DataError, UsageError
from faceauth.files import write_text
from faceauth.lab.data.dataset import IMAGES_COLUMNS, read_dataset
from faceauth.lab.data.examples import Crops, open_crops
from faceauth.lab.data.splits import given_or_assigned, tie
from faceauth.lab.data.variants import NETWORK, Launderer
from faceauth.lab.progress import tracked
from faceauth.lab.run_info import file_sha256
from faceauth.lab.training.onnx_file import traced, write
from faceauth.preprocess import PreprocessSpec

Pixels = npt.NDArray[np.uint8]
SPEC = PreprocessSpec(size=224, crop=1.6)  # of the faces that are learned and written
WINDOW = 96  # pixels a side of the parts of faces that are learned
BATCH = 32  # such parts
QUALITY = 95  # of the JPEG files, as iFakeFaceDB is JPEG too


def launder(
    root: Path, cache: Path, output: Path, families: Sequence[str] = ("gan",), images: int = 40_000, seed: int = 0
) -> dict[str, float]:
    """Train the network on a corpus's real train faces, and put its fakes through it.

    The folder gets the network, recipe.json, and the faces as 224 px JPEG files with images.csv: a corpus of one fake
    source, `laundered`, and what `faceauth lab prepare --data iFakeFaceDB=FOLDER` takes.

    Args:
        families: of the fakes, as images.csv names them; images: training budget, in parts of faces.

    Returns:
        `psnr`: peak signal-to-noise ratio in dB on real test faces; `faces`: how many were written.

    Raises:
        UsageError: the output folder exists and is not empty.
        DataError: the corpus cannot be read, or has no fake of these families.
    """
    if output.exists() and any(output.iterdir()):
        raise UsageError(f"{str(output)!r} is not empty", "choose another folder")
    corpus = read_dataset(root)
    crops = open_crops(corpus, cache)
    splits = given_or_assigned(corpus.rows, tie(corpus.rows, crops.dhashes))
    real = {
        split: [i for i, r in enumerate(corpus.rows) if r.label == "real" and splits[i] == split]
        for split in ("train", "test")
    }
    fake = [i for i, r in enumerate(corpus.rows) if r.label == "fake" and r.family in families]
    if not fake or not real["train"]:
        has = f"{len(real['train'])} real train images and {len(fake)} fakes of {', '.join(families)}"
        hint = "name families that its images.csv has: --family gan --family diffusion"
        raise DataError(f"{str(root)!r} has {has}", hint)
    output.mkdir(parents=True, exist_ok=True)
    train_network(_parts(_faces(crops, real["train"]), images, seed), images, output / NETWORK, seed)
    network = Launderer(output / NETWORK)
    generators = (corpus.rows[i].generator for i in fake)
    _write(output, list(zip(generators, _faces(crops, fake), strict=True)), network)
    found = {"psnr": psnr(_faces(crops, real["test"][:200]), network), "faces": float(len(fake))}
    recipe = {
        "command": "faceauth lab launder", "images": images, "seed": seed, "families": list(families),
        "corpus_sha256": corpus.sha256, **found,
    }  # fmt: skip
    (output / "recipe.json").write_text(json.dumps(recipe, indent=1), encoding="utf-8")
    return found


def psnr(faces: Sequence[Pixels], network: Launderer) -> float:
    """Mean peak signal-to-noise ratio in dB of faces (h, w, 3) against what the network makes of them."""
    errors = []
    for face in faces:
        made = np.asarray(network(Image.fromarray(face)), float)
        errors.append(np.square(made - face[: made.shape[0], : made.shape[1]]).mean())
    return float(np.mean(10 * np.log10(255**2 / np.maximum(errors, 1e-9))))


def _faces(crops: Crops, chosen: Sequence[int]) -> list[Pixels]:
    return [SPEC.resize(c, SPEC.region(f, *c.size)) for c, f in (crops[i] for i in chosen)]


def _parts(faces: Sequence[Pixels], images: int, seed: int) -> Iterator[Pixels]:
    """Batches (BATCH, WINDOW, WINDOW, 3) of parts of faces, half of them mirrored."""
    rng = np.random.default_rng(seed)
    for _ in tracked(range(images // BATCH), images // BATCH, "training"):
        parts = []
        for k in rng.integers(len(faces), size=BATCH):
            y, x = rng.integers(SPEC.size - WINDOW + 1, size=2)
            part = faces[k][y : y + WINDOW, x : x + WINDOW]
            parts.append(part[:, ::-1] if rng.random() < 0.5 else part)
        yield np.stack(parts)


def _write(folder: Path, fakes: Sequence[tuple[str, Pixels]], network: Launderer) -> None:
    """The faces as a corpus of one fake source."""
    rows = []
    for number, (generator, face) in enumerate(tracked(fakes, len(fakes), "laundering")):
        path = folder / f"laundered-{number:05}.jpg"
        network(Image.fromarray(face)).save(path, "JPEG", quality=QUALITY)
        known = {"source": "laundered", "label": "fake", "family": "laundered", "generator": generator, "group": ""}
        rows.append({"path": path.name, **known, "sha256": file_sha256(path)})
    table = pd.DataFrame(rows, columns=IMAGES_COLUMNS)
    write_text(folder / "images.csv", table.to_csv(index=False, lineterminator="\r\n"))


def _autoencoder() -> nn.Sequential:
    """RGB (n, 3, h, w) in [0, 1] to (n, 16, h / 4, w / 4) and back; h and w are multiples of 4."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 3, 3, padding=1),
    )  # fmt: skip


def train_network(batches: Iterable[Pixels], images: int, output: Path, seed: int) -> None:
    """Fit an autoencoder to batches (`BATCH`, h, w, 3) of `images` parts in all, and write it as ONNX.

    The file has free sides: `pixels` (1, 3, 4 h, 4 w) to `made` of the same shape.
    """
    torch.manual_seed(seed)
    network = _autoencoder()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0)
    schedule = LambdaLR(optimizer, lambda step: max(0.02, 1 - step * BATCH / images))
    for batch in batches:
        pixels = torch.from_numpy(batch.copy()).permute(0, 3, 1, 2).float() / 255
        error = F.mse_loss(network(pixels), pixels)
        optimizer.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    sides = {2: 4 * torch.export.Dim("h", min=2, max=1024), 3: 4 * torch.export.Dim("w", min=2, max=1024)}
    write(traced(network.eval(), torch.zeros(1, 3, 32, 40), ["made"], sides), output)
