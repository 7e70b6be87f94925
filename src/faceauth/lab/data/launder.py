"""The autoencoder that the variant *laundered* is made by: see `faceauth.lab.training.launder`, which trains it."""

from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from faceauth.errors import DataError

NETWORK = "launder.onnx"


class Launderer:
    """The trained network: an image in, the same image out as the network gives it back.

    Raises:
        DataError: the file is no network of `launder`.
    """

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class for each way in which a file can be wrong
            raise DataError(f"cannot use {str(path)!r}: {error}", "make one: faceauth lab launder") from error

    def __call__(self, image: Image.Image) -> Image.Image:
        """RGB of any size; the sides are cut to multiples of 4 pixels."""
        pixels = np.asarray(image)[: image.height // 4 * 4, : image.width // 4 * 4]
        [made] = self.session.run(None, {"pixels": pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255})
        return Image.fromarray(np.rint(made[0].clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0))


@cache
def launderer() -> Launderer:
    """The network that comes with the laboratory, which makes the variant *laundered*."""
    return Launderer(Path(__file__).with_name(NETWORK))
