"""Where the faces are. Boxes only; it knows nothing of what a face is judged to be.

Looking is coarse first, because a fine search costs a hundred times as much: most portraits are found on a copy
of 192 pixels in 3 ms. A face that does not fill the frame has the 384 px copy searched too, for its neighbours.
Only where nothing was found there, or where all faces are asked for, comes the fine search of a whole scene. The
finest pass that found anything gives the answer. Grey copies come first: they are a quarter cheaper, and miss one face
in fifty that colours show, so that where grey shows nothing all is looked at in colours too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from faceauth.errors import ModelError
from faceauth.verdict import Box

# Longest side, dlib up-sampling steps, colours; the smallest face found has 80 * longest / (side * 2**steps) pixels.
PASSES = ((192, 0, "L"), (384, 0, "L"), (384, 0, "RGB"), (800, 1, "RGB"))
LAST_LOOK = (192, 0)  # in colours, where all of them found nothing
REVISION = 2  # raised with every change that moves boxes: what the lab keeps of faces is then made anew
FILLS_FRAME = 0.3  # a face at least this wide, as a share of the shorter side, ends the search
NEIGHBOURS = 384  # the pass that ends the search even where the largest face is small
FURTHER_FACE = 0.5  # confidence that a face needs beside the most confident one: folds of cloth reach 0.2


class FaceFinder(Protocol):
    """Anything that finds faces."""

    def __call__(self, image: Image.Image) -> list[Box]:
        """Boxes in pixels of an RGB image, largest first; empty where there is no face."""


class DlibFinder:
    """HOG and a linear SVM from dlib: frontal faces, offline, no weights to fetch. King, JMLR 2009."""

    def __init__(self, all_faces: bool = False) -> None:
        """`all_faces` makes the fine search always, for scenes with small faces beside a large one."""
        self._all_faces = all_faces
        try:
            import dlib
        except ImportError as error:
            raise ModelError("dlib is not installed, so no faces can be found", "pip install dlib-bin") from error
        self._detect: Any = dlib.get_frontal_face_detector()

    def __call__(self, image: Image.Image) -> list[Box]:
        """Coarse to fine over `PASSES`, until a face fills the frame."""
        boxes: list[Box] = []
        modes = {"RGB": image, "L": image.convert("L")}
        for side, steps, mode in PASSES:
            boxes = self._look(modes[mode], side, steps) or boxes
            fills = boxes and _width(boxes[0]) >= FILLS_FRAME * min(image.size)
            if not self._all_faces and (fills or (boxes and side >= NEIGHBOURS)):
                break
        return boxes or self._look(image, *LAST_LOOK)

    def _look(self, image: Image.Image, side: int, steps: int) -> list[Box]:
        k = min(1.0, side / max(image.size))
        size = max(1, round(image.width * k)), max(1, round(image.height * k))
        small = image if size == image.size else image.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)
        found, confidences, _ = self._detect.run(np.asarray(small), steps, 0.0)
        best = max(confidences, default=0.0)
        boxes = [
            (f.left() / k, f.top() / k, f.right() / k, f.bottom() / k)
            for f, confidence in zip(found, confidences, strict=True)
            if confidence >= min(best, FURTHER_FACE)
        ]
        return largest_first(boxes, image.size)


class YuNetFinder:
    """YuNet, from an ONNX file that the user gives (the 2023 release of OpenCV's model zoo, MIT).

    Outputs per stride s of 8, 16, 32: class and objectness scores, whose geometric mean is the confidence,
    and boxes as (cx - column, cy - row) / s and log(size / s). Wu et al., Machine Intelligence Research 2023.
    """

    def __init__(self, path: str | Path, confidence: float = 0.7) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = ort.InferenceSession(Path(path).read_bytes(), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(f"{str(path)!r} is not an ONNX face finder") from error
        outputs = {o.name for o in self._session.get_outputs()}
        self._names = [f"{kind}_{s}" for s in (8, 16, 32) for kind in ("cls", "obj", "bbox")]
        if not outputs.issuperset(self._names):
            raise ModelError(f"{str(path)!r} is ONNX, but not YuNet", "face_detection_yunet_2023mar.onnx is")
        shape = self._session.get_inputs()[0].shape
        self._side = shape[2] if isinstance(shape[2], int) else 640
        self._confidence = confidence

    def __call__(self, image: Image.Image) -> list[Box]:
        """One pass on a copy whose longest side is the network's input side."""
        side = self._side
        k = side / max(image.size)
        small = image.resize(
            (max(1, round(image.width * k)), max(1, round(image.height * k))), Image.Resampling.BILINEAR
        )
        canvas = np.zeros((side, side, 3), np.float32)
        canvas[: small.height, : small.width] = np.asarray(small)[:, :, ::-1]  # it was trained on BGR
        feed = {self._session.get_inputs()[0].name: canvas.transpose(2, 0, 1)[None]}
        values = dict(zip(self._names, self._session.run(self._names, feed), strict=True))
        boxes, scores = (np.concatenate(v) for v in zip(*(self._decode(values, s) for s in (8, 16, 32)), strict=True))
        keep = _suppress(boxes, scores, self._confidence)
        return largest_first([tuple(boxes[i] / k) for i in keep], image.size)

    def _decode(self, values: dict[str, Any], stride: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        score = np.sqrt(
            np.clip(values[f"cls_{stride}"][0, :, 0], 0, 1) * np.clip(values[f"obj_{stride}"][0, :, 0], 0, 1)
        )
        box = values[f"bbox_{stride}"][0]
        rows, columns = np.divmod(np.arange(len(score)), self._side // stride)
        center = (box[:, :2] + np.stack([columns, rows], 1)) * stride
        half = np.exp(np.clip(box[:, 2:], -10, 10)) * stride / 2
        return np.concatenate([center - half, center + half], 1), score


def _suppress(boxes: npt.NDArray[Any], scores: npt.NDArray[Any], confidence: float, overlap: float = 0.3) -> list[int]:
    """Greedy non-maximum suppression: indices of the boxes that stay, most confident first."""
    keep: list[int] = []
    for i in np.argsort(-scores):
        if scores[i] < confidence:
            break
        if all(_iou(boxes[i], boxes[j]) < overlap for j in keep):
            keep.append(int(i))
    return keep


def _iou(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    both = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    return float(both / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both + 1e-9))


def _width(box: Box) -> int:
    return box[2] - box[0]


def largest_first(boxes: Sequence[tuple[float, ...]], size: tuple[int, int]) -> list[Box]:
    """Round, clamp to an image of `size` (width, height), drop what is empty, largest first."""
    clamped = [
        (max(0, round(x0)), max(0, round(y0)), min(size[0], round(x1)), min(size[1], round(y1)))
        for x0, y0, x1, y1 in boxes
    ]
    kept = [b for b in clamped if b[2] > b[0] and b[3] > b[1]]
    return sorted(kept, key=lambda b: (b[2] - b[0]) * (b[3] - b[1]), reverse=True)


def finder(spec: str | Path | None = None, all_faces: bool = False) -> FaceFinder:
    """The default finder, or the one that the path of a YuNet file names (which always looks for all faces)."""
    return DlibFinder(all_faces) if spec is None else YuNetFinder(spec)
