"""A finished run as a teacher of the distillation token. Touvron et al., ICML 2021, arXiv 2012.12877.

The teacher is frozen and sees the student's own pixels, brought to its own size, mean and std.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from faceauth.errors import UsageError
from faceauth.lab.training.batches import Pixels
from faceauth.lab.training.config import DistillConfig, TrainConfig
from faceauth.lab.training.export import load_run


class Teacher:
    """The network of a finished run, in evaluation."""

    def __init__(self, config: TrainConfig, data_sha256: str, held_out: Sequence[str], device: torch.device) -> None:
        """Raises UsageError for a teacher that is unfinished, or that saw what the student must not learn from."""
        assert config.distill is not None
        path = config.distill.teacher
        network, taught, facts = load_run(path)
        seen = sorted(set(held_out) & set(facts["sources"]))
        if facts["data_sha256"] != data_sha256 or _split(taught) != _split(config):
            raise UsageError(f"the teacher {str(path)!r} was trained on other data", "train it on this split first")
        if seen:
            raise UsageError(f"the teacher {str(path)!r} has seen {', '.join(seen)}, held out here", "take another one")
        self.sha256 = hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()
        self.network, self.preprocess, self.device = network.to(device).requires_grad_(False), taught.preprocess, device

    @torch.no_grad()
    def logits(self, pixels: Pixels) -> Tensor:
        """What it says of the student's pixels (n, size, size, 3): (n,)."""
        spec = self.preprocess
        if pixels.shape[1] != spec.size:
            images = [Image.fromarray(p) for p in pixels]
            pixels = np.stack([spec.resize(image, (0, 0, *image.size)) for image in images])
        logit: Tensor = self.network(torch.from_numpy(spec.normalize(pixels)).to(self.device)).logit
        return logit.float()


def teachers_loss(logit: Tensor, teacher: Tensor, config: DistillConfig) -> Tensor:
    """How far the distillation token is from the teacher; both logits (n,).

    hard: binary cross-entropy against the teacher's decision. soft: t^2 KL(teacher || student) of the two-class
    distributions at temperature t (Hinton et al., 2015, arXiv 1503.02531).
    """
    if config.kind == "hard":
        return F.binary_cross_entropy_with_logits(logit, (teacher > 0).float())
    t = config.temperature
    target = torch.sigmoid(teacher / t)
    entropy = F.binary_cross_entropy_with_logits(teacher / t, target)
    return t**2 * (F.binary_cross_entropy_with_logits(logit / t, target) - entropy)


def _split(config: TrainConfig) -> object:
    data = config.data
    return None if data.manifest is not None else (data.split_seed, data.fractions, data.train_only)
