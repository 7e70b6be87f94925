"""Where the faces are: boxes, landmarks and quarter turns.

The finder is CenterFace (Xu et al., Neurocomputing 2020, arXiv 1911.03599; MIT), a fully convolutional network, run
from coarse to fine. Each level searches a copy whose longest side is `LEVELS[i]` pixels. The search ends at the first
level where the largest face spans `ENOUGH` pixels: faces down to a third of the largest one have then been found. It
also ends where a finer copy could only add faces too small to judge. Where several faces are found and the smallest of
them spans less than `ENOUGH`, the next level adds what it finds more. A picture in which nothing is found is searched
once more upside down and turned to either side, and one that is found to be turned is searched again upright.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from faceauth import shipped
from faceauth.errors import ModelError
from faceauth.verdict import Box

REVISION = 3  # raised with every change that moves boxes: caches of the laboratory are keyed by it
LEVELS = (160, 320, 640, 1280, 2560)  # longest side of the searched copy, pixels
ENOUGH = 48  # a face this wide or high, in pixels of the searched copy, ends the search
SMALLEST = 16  # faces found reliably have at least so many pixels a side in the searched copy
WANTED = 40  # faces below so many pixels of the picture are not searched for
TILE = 1280  # larger copies are searched in tiles of this side
CONFIDENCE = 0.5
TURNED = 320  # longest side of the copies that are turned where nothing was found; no coarser one ends the search
SURE = 0.7  # below this confidence in the largest face, turned copies are asked which side is up
CLEARER = 0.1  # by so much a turned copy has to be more confident to be believed
OVERLAP = 0.3  # boxes that share more of their union than this are one face

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class FoundFace:
    """One face of a picture.

    Attributes:
        box: left, top, right, bottom in pixels.
        confidence: of the finder, in (0, 1].
        landmarks: (x, y) of left eye, right eye, nose, left and right corner of the mouth, as seen in the picture;
            empty where they are not known.
        turns: quarter turns counter-clockwise that set the face upright, 0 to 3.
    """

    box: Box
    confidence: float = 1.0
    landmarks: tuple[tuple[float, float], ...] = ()
    turns: int = 0

    @property
    def side(self) -> int:
        """The longer side of the box, in pixels."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])


class FaceFinder(Protocol):
    """Anything that finds faces."""

    def __call__(self, image: Image.Image) -> list[FoundFace]:
        """The faces of an upright RGB image, largest first; empty where there is none."""


class CenterFaceFinder:
    """Finds faces with CenterFace on one thread.

    Outputs of the network, at a quarter of the input's resolution: a heat map of face centres, log height and width
    in units of 4 pixels, the offset of the centre, and five landmarks as (y, x) in units of the box.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        """Open the network that comes with the package, or another file of it. Raises ModelError."""
        import onnxruntime as ort

        file = Path(path) if path is not None else shipped.folder() / "centerface.onnx"
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.enable_cpu_mem_arena = False  # inputs of every size come by: the arena would keep room for each
        try:
            data = file.read_bytes()
            shipped.digest(file, data)
            self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except ModelError:
            raise
        except Exception as error:  # onnxruntime's own classes are not public
            raise ModelError(f"cannot open the face finder {str(file)!r}", "reinstall faceauth") from error
        self._input = self._session.get_inputs()[0].name

    def __call__(self, image: Image.Image) -> list[FoundFace]:
        """The faces, largest first. A picture whose largest face is turned is set upright first, and searched again.

        So a picture turned by a quarter has the boxes of the upright one.
        """
        found = self._find(image)
        if found and (turns := found[0].turns):
            again = self._find(image.transpose(_TRANSPOSE[turns]))
            if again and not again[0].turns:
                return [_turn_back(face, turns, image.size) for face in again]
        return found

    def _find(self, image: Image.Image) -> list[FoundFace]:
        """Search `LEVELS` until the largest face is large enough; then, where nothing was found, turned copies."""
        longest = max(image.size)
        found: list[FoundFace] = []
        scale = 0.0
        for level in LEVELS:
            scale = min(1.0, level / longest)
            found = self._search(image, scale) or found
            if found and found[0].side * scale >= ENOUGH:
                break
            if scale == 1 or (scale * WANTED >= SMALLEST and (found or level >= TURNED)):
                break
        if not found:
            return next((faces for faces in self._turned(image, min(1.0, TURNED / longest)) if faces), [])
        if len(found) > 1 and found[-1].side * scale < ENOUGH:
            found = self._with_smaller(image, found, scale)
        unsure = found[0].confidence < SURE and scale * longest <= 2 * TURNED  # on larger copies it takes too long
        return self._set_upright(image, found, scale) if unsure else found

    def _turned(self, image: Image.Image, scale: float) -> Iterator[list[FoundFace]]:
        """The faces of a copy upside down, and turned to either side, in pixels of the picture."""
        for turns in (2, 1, 3):
            found = self._search(image.transpose(_TRANSPOSE[turns]), scale)
            yield [_turn_back(face, turns, image.size) for face in found]

    def _with_smaller(self, image: Image.Image, found: list[FoundFace], scale: float) -> list[FoundFace]:
        """The faces found at `scale`, and those that the next level finds more."""
        finer = next((s for level in LEVELS if (s := min(1.0, level / max(image.size))) > scale), None)
        if finer is None:
            return found
        more = (f for f in self._search(image, finer) if all(_overlap(f.box, g.box) <= OVERLAP for g in found))
        return sorted([*found, *more], key=lambda f: _area(f.box), reverse=True)

    def _set_upright(self, image: Image.Image, found: list[FoundFace], scale: float) -> list[FoundFace]:
        """The same faces, with the quarter turns at which they are found most surely where that is clear.

        The landmarks of a face that lies on its side or head are less sure than the face itself.
        """
        best = list(found)
        for faces in self._turned(image, scale):
            for face in faces:
                for i, own in enumerate(found):
                    clearer = face.confidence > max(own.confidence + CLEARER, best[i].confidence)
                    if clearer and _overlap(own.box, face.box) > OVERLAP:
                        best[i] = replace(face, box=own.box)
        return best

    def _search(self, image: Image.Image, scale: float) -> list[FoundFace]:
        """All faces of one copy at `scale`, in pixels of the image, largest first."""
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        copy = image if size == image.size else image.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)
        pixels = np.asarray(copy, np.float32)
        parts = [self._raw(pixels[y : y + TILE, x : x + TILE], x, y) for x, y in _tiles(size)]
        boxes, scores, points = (np.concatenate(p) for p in zip(*parts, strict=True))
        keep = suppress(boxes, scores)
        kx, ky = image.width / size[0], image.height / size[1]
        faces = [_face(boxes[i], scores[i], points[i], (kx, ky), image.size) for i in keep]
        return sorted((f for f in faces if f), key=lambda f: _area(f.box), reverse=True)

    def _raw(self, pixels: npt.NDArray[np.float32], left: int, top: int) -> tuple[Floats, Floats, Floats]:
        """Boxes (n, 4), confidences (n,) and landmarks (n, 5, 2) of one tile, in pixels of the copy it was cut from."""
        height, width = pixels.shape[:2]
        canvas = np.zeros((-(-height // 32) * 32, -(-width // 32) * 32, 3), np.float32)
        canvas[:height, :width] = pixels
        heat, log_size, offset, marks = self._session.run(None, {self._input: canvas.transpose(2, 0, 1)[None]})
        rows, columns = np.nonzero(heat[0, 0] >= CONFIDENCE)
        high, wide = np.exp(np.clip(log_size[0][:, rows, columns], -8, 8)) * 4
        center_y = (rows + offset[0, 0, rows, columns] + 0.5) * 4
        center_x = (columns + offset[0, 1, rows, columns] + 0.5) * 4
        x0, y0 = center_x - wide / 2, center_y - high / 2
        boxes = np.stack([x0 + left, y0 + top, x0 + wide + left, y0 + high + top], 1)
        relative = marks[0][:, rows, columns].reshape(5, 2, -1)  # point, (y, x), face
        points = np.stack([relative[:, 1] * wide + x0 + left, relative[:, 0] * high + y0 + top], -1).transpose(1, 0, 2)
        return boxes, heat[0, 0, rows, columns], points


_TRANSPOSE = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}


def upright(crop: Image.Image, turns: int) -> Image.Image:
    """A crop turned counter-clockwise by `turns` quarter turns."""
    return crop.transpose(_TRANSPOSE[turns]) if turns else crop


def _tiles(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Left and top of tiles of side `TILE` that cover a copy and overlap by a tenth at least."""
    for y in _starts(size[1]):
        for x in _starts(size[0]):
            yield x, y


def _starts(length: int) -> list[int]:
    if length <= TILE:
        return [0]
    count = -(-(length - TILE // 10) // (TILE - TILE // 10))
    return [round(i * (length - TILE) / (count - 1)) for i in range(count)]


def _face(
    box: Floats, score: float, points: Floats, factor: tuple[float, float], size: tuple[int, int]
) -> FoundFace | None:
    """A face in pixels of the picture of `size` (width, height), None where nothing of it lies inside."""
    kx, ky = factor
    left, top = max(0, round(box[0] * kx)), max(0, round(box[1] * ky))
    right, bottom = min(size[0], round(box[2] * kx)), min(size[1], round(box[3] * ky))
    if right <= left or bottom <= top:
        return None
    marks = tuple((float(x * kx), float(y * ky)) for x, y in points)
    return FoundFace((left, top, right, bottom), float(score), marks, _turns(marks))


def _turns(marks: Sequence[tuple[float, float]]) -> int:
    """Quarter turns counter-clockwise that bring the mouth below the eyes."""
    eyes = np.mean(marks[:2], axis=0)
    mouth = np.mean(marks[3:], axis=0)
    x, y = mouth - eyes  # points down in an upright face
    return int(np.round(np.degrees(np.arctan2(-x, y)) / 90)) % 4 if x or y else 0


def _turn_back(face: FoundFace, turns: int, size: tuple[int, int]) -> FoundFace:
    """A face found in a copy turned by `turns`, in pixels of the picture of `size` that was turned."""

    def back(x: float, y: float) -> tuple[float, float]:
        if turns == 2:
            return size[0] - x, size[1] - y
        return (size[0] - y, x) if turns == 1 else (y, size[1] - x)

    (x0, y0), (x1, y1) = back(*face.box[:2]), back(*face.box[2:])
    box = round(min(x0, x1)), round(min(y0, y1)), round(max(x0, x1)), round(max(y0, y1))
    return FoundFace(box, face.confidence, tuple(back(*p) for p in face.landmarks), (face.turns + turns) % 4)


def suppress(boxes: Floats, scores: Floats) -> list[int]:
    """Greedy non-maximum suppression: indices of the boxes (n, 4) that stay, most confident first."""
    order = np.argsort(-scores, kind="stable")
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    keep: list[int] = []
    while len(order):
        best, rest = order[0], order[1:]
        keep.append(int(best))
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        both = np.prod(np.clip(high - low, 0, None), axis=1)
        order = rest[both <= OVERLAP * (area[best] + area[rest] - both)]
    return keep


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(0, width) * max(0, height)
    return both / (_area(one) + _area(other) - both)


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


@cache
def finder() -> FaceFinder:
    """The finder that comes with the package, opened once a process."""
    return CenterFaceFinder()
