"""Several runs of one network at once."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from faceauth.cpus import usable_cpus


def each(run: Callable[[npt.NDArray[np.uint8]], float], inputs: Sequence[npt.NDArray[np.uint8]]) -> list[float]:
    """One answer of the network for each input, as many at once as there are processors.

    One by one and not as a batch, so that an answer does not depend on how many processors there are.
    """
    with ThreadPoolExecutor(usable_cpus()) as pool:
        return list(pool.map(run, inputs))
