"""A regularised logistic regression on features of a frozen encoder.

The loss is the weighted log loss plus l2 / 2 |w|^2 on standardised features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.floating[Any]]
CONVERGED = 1e-6  # change of the loss in a step that ends the fit
SMALLEST_SPREAD = 1e-3  # added to standard deviations, so that a constant feature is none


@dataclass(frozen=True, slots=True)
class LinearHead:
    """logit = features (n, d) @ weight (d,) + bias."""

    weight: npt.NDArray[np.float32]
    bias: float

    def __call__(self, features: Floats) -> npt.NDArray[np.float64]:
        """Logits (n,)."""
        return np.asarray(np.asarray(features, np.float32) @ self.weight + self.bias, np.float64)


def weights(groups: npt.NDArray[np.str_], fake: npt.NDArray[np.bool_], power: float) -> npt.NDArray[np.float32]:
    """(n,) weights of sum 1, half of it for either class; within a class a group of m images weighs m ** power."""
    _, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
    weight = counts[index].astype(np.float64) ** (power - 1)
    for of_class in (fake, ~fake):
        weight[of_class] /= 2 * weight[of_class].sum()
    return weight.astype(np.float32)


def fit(features: Floats, fake: npt.NDArray[np.bool_], weight: Floats, l2: float, steps: int = 60) -> LinearHead:
    """Fit a linear head by L-BFGS from zero; the same input gives the same head.

    Args:
        features: (n, d) float16; fake: (n,); weight: (n,) float32, of sum 1; l2: of the weights of standardised
            features.
    """
    import torch  # here, so that what only reads heads starts without it
    from torch.nn.functional import softplus

    mean = features.mean(axis=0, dtype=np.float32)
    spread = features.std(axis=0, dtype=np.float32) + np.float32(SMALLEST_SPREAD)
    x = torch.from_numpy((features - mean) / spread)
    sign = torch.from_numpy(np.where(fake, -1, 1).astype(np.float32))
    w = torch.from_numpy(weight)
    head = torch.zeros(x.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [head], max_iter=steps, history_size=10, line_search_fn="strong_wolfe", tolerance_change=CONVERGED
    )

    def loss() -> "Tensor":
        optimizer.zero_grad()
        logit = x @ head[:-1] + head[-1]
        total = (w * softplus(sign * logit)).sum() + l2 / 2 * head[:-1].square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    found = head.detach().numpy()
    scaled = found[:-1] / spread
    return LinearHead(scaled, float(found[-1] - scaled @ mean))


def mean_head(heads: Sequence[LinearHead]) -> LinearHead:
    """The linear head whose logit is the mean of the others'."""
    return LinearHead(np.mean([head.weight for head in heads], axis=0), float(np.mean([head.bias for head in heads])))
