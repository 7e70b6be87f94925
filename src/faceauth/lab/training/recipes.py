"""The two ways to train: the study's own, and a modern one. They know nothing of images, batches or files.

A recipe has the optimiser, sets its rate before a step, follows the weights after it, hears the test loss, and says
which network is judged and kept and whether training is over.
"""

import copy
import math
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from faceauth.lab.training.config import TrainConfig
from faceauth.lab.training.networks import FaceNetwork


class Recipe(Protocol):
    """What the training loop asks of a recipe."""

    optimizer: torch.optim.Optimizer
    judged: FaceNetwork
    finished: bool

    def before(self, step: int) -> float:
        """Set the learning rate of a step; returns it."""
        ...

    def update(self, step: int) -> None:
        """Take the optimiser's step `step` with the gradients that are there."""
        ...

    def hear(self, test_loss: float) -> bool:
        """Take note of a test loss; returns whether the network as it is now is the one to keep."""
        ...

    def state(self) -> dict[str, Any]:
        """All that is needed to go on, beside the network."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        ...


class ModernRecipe:
    """AdamW, linear warm-up and half a cosine, clipped gradients, moving average of the weights, layer-wise decay."""

    def __init__(self, config: TrainConfig, network: FaceNetwork, steps: int) -> None:
        self.config, self.network, self.steps, self.finished = config, network, steps, False
        self.judged: FaceNetwork = copy.deepcopy(network)
        groups = layer_groups(network, config.layer_decay)
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            groups, lr=config.lr, weight_decay=config.weight_decay
        )
        self.moved = [
            p for name, p in network.named_parameters() if not (network.probe and name.startswith("source_head"))
        ]

    def before(self, step: int) -> float:
        rate = self.rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        return rate

    def rate(self, step: int) -> float:
        """Learning rate: linear warm-up, then half a cosine down to 1 %. Loshchilov and Hutter, ICLR 2017."""
        cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * step / self.steps)) / 2
        return self.config.lr * min(1.0, (step + 1) / max(1, self.config.warmup)) * cosine

    @torch.no_grad()
    def update(self, step: int) -> None:
        nn.utils.clip_grad_norm_(self.moved, 5.0)
        self.optimizer.step()
        keep = min(self.config.ema, (2 + step) / (11 + step))
        for mean, value in zip(self.judged.state_dict().values(), self.network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - keep)
            else:
                mean.copy_(value)

    def hear(self, test_loss: float) -> bool:
        return False  # the budget decides, and the last average is kept

    def state(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "average": self.judged.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.judged.load_state_dict(state["average"])


class StudyRecipe:
    """SGD with momentum, the rate halved on a plateau of the test loss, early stopping, the best network kept."""

    def __init__(self, config: TrainConfig, network: FaceNetwork) -> None:
        study = config.study
        self.judged, self.stop_after = network, study.stop_after
        self.optimizer: torch.optim.Optimizer = torch.optim.SGD(
            network.parameters(), lr=config.lr, momentum=study.momentum, weight_decay=config.weight_decay
        )
        self.plateau = ReduceLROnPlateau(self.optimizer, mode="min", factor=study.factor, patience=study.patience)
        self.best, self.waited, self.finished = math.inf, 0, False

    def before(self, step: int) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def update(self, step: int) -> None:
        self.optimizer.step()

    def hear(self, test_loss: float) -> bool:
        self.plateau.step(test_loss)
        better = test_loss < self.best
        self.best, self.waited = (test_loss, 0) if better else (self.best, self.waited + 1)
        self.finished = self.waited >= self.stop_after
        return better

    def state(self) -> dict[str, Any]:
        own = {"best": self.best, "waited": self.waited, "finished": self.finished}
        return {"optimizer": self.optimizer.state_dict(), "plateau": self.plateau.state_dict(), **own}

    def restore(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.plateau.load_state_dict(state["plateau"])
        self.best, self.waited, self.finished = state["best"], state["waited"], state["finished"]


def recipe(config: TrainConfig, network: FaceNetwork, steps: int) -> Recipe:
    """The recipe that a config names."""
    return StudyRecipe(config, network) if config.recipe == "study" else ModernRecipe(config, network, steps)


def layer_groups(network: FaceNetwork, decay: float) -> list[dict[str, Any]]:
    """Parameter groups whose `share` of the learning rate falls by `decay` from each layer to the one before it.

    Clark et al., ICLR 2020 (ELECTRA); Bao et al., ICLR 2022 (BEiT). One group where `decay` is 1.
    """
    if decay == 1:
        return [{"params": list(network.parameters()), "share": 1.0}]
    layers: dict[int, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        layers.setdefault(network.depth(name), []).append(parameter)
    last = max(layers)
    return [{"params": layers[depth], "share": decay ** (last - depth)} for depth in sorted(layers)]
