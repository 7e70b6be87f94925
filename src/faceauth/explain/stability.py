"""What becomes of a face's score under changes that say nothing of how the picture was made."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from faceauth.detector import Detector
from faceauth.explain.parallel import each
from faceauth.explain.records import Edit, Stability
from faceauth.faces import FoundFace
from faceauth.tta import View, cut_out

DIGITS = 6  # of a score
MARGIN = 0.03  # of the crop's side, cut off all around


def _trimmed(crop: Image.Image) -> Image.Image:
    cut = max(1, round(MARGIN * crop.width))
    return crop.crop((cut, cut, crop.width - cut, crop.height - cut))


EDITS: tuple[tuple[str, Callable[[Image.Image], Image.Image]], ...] = (
    ("JPEG 95", View(quality=95)),
    ("JPEG 85", View(quality=85)),
    ("JPEG 70", View(quality=70)),
    ("JPEG 50", View(quality=50)),
    ("half size", View(scale=0.5)),
    ("double size", View(scale=2.0)),
    ("3 % cut off all around", _trimmed),
    ("mirrored", ImageOps.mirror),
    ("grey", lambda crop: crop.convert("L").convert("RGB")),
)


def edited_scores(detector: Detector, image: Image.Image, face: FoundFace | None) -> list[float]:
    """The score of the face in each of `EDITS`, made of the square that the network is shown; no face is searched."""
    spec = detector.model.card.preprocess
    crop = cut_out(image, spec.region(face.box if face else None, *image.size), spec.size)
    edited = [np.rot90(_whole(detector, change(crop)), face.turns if face else 0) for _, change in EDITS]
    return each(lambda pixels: float(detector.score_inputs(pixels[None])[0]), edited)


def stability(detector: Detector, score: float, edited: Sequence[float]) -> Stability:
    """What becomes of the label of a picture's `score` under the edits, by their scores."""
    scores = [score, *edited]
    names = ["as it is", *(name for name, _ in EDITS)]
    edits = tuple(Edit(n, round(s, DIGITS), detector.label(s)) for n, s in zip(names, scores, strict=True))
    changes = sum(edit.label != edits[0].label for edit in edits)
    return Stability(edits, changes, round(min(scores), DIGITS), round(max(scores), DIGITS))


def _whole(detector: Detector, crop: Image.Image) -> npt.NDArray[np.uint8]:
    return detector.model.card.preprocess.resize(crop, (0, 0, *crop.size))
