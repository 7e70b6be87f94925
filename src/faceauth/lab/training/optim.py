"""Optimizer, learning-rate schedule and weight averaging: the study's recipe and a modern one."""

import math
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel

from faceauth.lab.training.config import TrainConfig
from faceauth.lab.training.networks import FaceNetwork


class Recipe:
    """What the training loop needs.

    Attributes:
        evaluated: the network whose test loss is measured and whose weights are saved.
        finished: whether early stopping has ended the training.
        kept: the attributes whose state a checkpoint holds.
    """

    optimizer: torch.optim.Optimizer
    evaluated: FaceNetwork
    finished = False
    kept: ClassVar[tuple[str, ...]]

    @property
    def rate(self) -> float:
        """The learning rate of the next step, of the layers next to the heads."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    def step(self) -> None:
        """Take one step with the gradients that are there."""
        self.optimizer.step()

    def report(self, test_loss: float) -> bool:
        """Take in a test loss; returns whether the current weights are the ones to save."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """What `restore` needs, beside the network's weights."""
        return {name: getattr(self, name).state_dict() for name in self.kept}

    def restore(self, state: dict[str, Any]) -> None:
        """Resume from a `state`."""
        for name in self.kept:
            getattr(self, name).load_state_dict(state[name])


class ModernRecipe(Recipe):
    """AdamW, linear warm-up and half a cosine, clipped gradients, moving average of the weights, layer-wise decay.

    The rate falls to 1 % by half a cosine (Loshchilov and Hutter, ICLR 2017). The average forgets faster in the first
    steps, as in TensorFlow's ExponentialMovingAverage: decay min(ema, (2 + n) / (11 + n)) after n steps.
    """

    kept = ("optimizer", "schedule", "average")

    def __init__(self, config: TrainConfig, network: FaceNetwork, steps: int) -> None:
        """`steps` in all, over which the rate falls."""

        def factor(step: int) -> float:
            cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2
            return min(1.0, (step + 1) / max(1, config.warmup)) * cosine

        def averaged(mean: Tensor, value: Tensor, count: Tensor | int) -> Tensor:
            if not mean.is_floating_point():  # such as the number of batches that a batch norm has counted
                return value
            return mean.lerp(value, 1 - min(config.ema, (2 + int(count)) / (11 + int(count))))

        groups = layer_groups(network, config.layer_decay)
        for group in groups:
            group["lr"] = config.lr * group["share"]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=config.weight_decay)
        self.schedule = LambdaLR(self.optimizer, factor)
        self.clipped = [
            p for name, p in network.named_parameters() if not (network.probe and name.startswith("source_head"))
        ]
        self.network = network
        self.average = AveragedModel(network, avg_fn=averaged, use_buffers=True)
        self.evaluated = cast(FaceNetwork, self.average.module)

    @torch.no_grad()
    def step(self) -> None:
        nn.utils.clip_grad_norm_(self.clipped, 5.0)
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.network)

    def report(self, test_loss: float) -> bool:
        return False  # the budget ends the training, and the last average is saved


class StudyRecipe(Recipe):
    """SGD with momentum, the rate halved on a plateau of the test loss, early stopping, the best network kept."""

    kept = ("optimizer", "plateau")

    def __init__(self, config: TrainConfig, network: FaceNetwork) -> None:
        study = config.study
        self.evaluated, self.stop_after = network, study.stop_after
        self.optimizer = torch.optim.SGD(
            network.parameters(), lr=config.lr, momentum=study.momentum, weight_decay=config.weight_decay
        )
        self.plateau = ReduceLROnPlateau(self.optimizer, mode="min", factor=study.factor, patience=study.patience)
        self.best, self.waited = math.inf, 0

    def report(self, test_loss: float) -> bool:
        self.plateau.step(test_loss)
        better = test_loss < self.best
        self.best, self.waited = (test_loss, 0) if better else (self.best, self.waited + 1)
        self.finished = self.waited >= self.stop_after
        return better

    def state(self) -> dict[str, Any]:
        return super().state() | {"best": self.best, "waited": self.waited, "finished": self.finished}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.best, self.waited, self.finished = state["best"], state["waited"], state["finished"]


def layer_groups(network: FaceNetwork, decay: float) -> list[dict[str, Any]]:
    """Parameter groups whose `share` of the learning rate falls by `decay` from each layer to the one before it.

    Clark et al., ICLR 2020 (ELECTRA); Bao et al., ICLR 2022 (BEiT). One group where `decay` is 1.
    """
    if decay == 1:
        return [{"params": list(network.parameters()), "share": 1.0}]
    depths = network.depths()
    layers: dict[int, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        layers.setdefault(depths[name], []).append(parameter)
    last = max(layers)
    return [{"params": layers[depth], "share": decay ** (last - depth)} for depth in sorted(layers)]
