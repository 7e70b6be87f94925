"""The same picture in several states: the protocol's variants, and the augmented views that training sees.

A variant is made of the whole picture, as a user would meet it, and the face is found in the result. The two controls
that paint pixels over keep the box of the untouched picture. Everything is a function of the picture and a key.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageFilter

from faceauth.errors import DataError
from faceauth.faces import FoundFace
from faceauth.lab.data import edits
from faceauth.lab.data.blend import self_blended
from faceauth.lab.data.edits import Rng
from faceauth.preprocess import PreprocessSpec

VERSION = 1  # raised with every change of pixels: what is cached of variants is then made anew
ROBUSTNESS = ("resaved", "noise", "grey", "blur", "crop", "half", "laundered")  # what a picture may meet, one by one
VARIANTS = ("clean", "web", "hard", "avatar", "edited", "matched", "face-hidden", "face-only", *ROBUSTNESS)
TRAIN = "train-"  # views for training are called train-1, train-2 and so on
BLEND = "blend-"  # the same of a photograph with its own face blended in: a swap without a swap
MATCHED_FACE = 128  # pixels: width of the face box in the matched variant
LAUNDERED = 224  # pixels: the most that a side of the laundered variant has, as iFakeFaceDB's pictures
NETWORK = "launder.onnx"  # which makes it
CROP = 0.04  # of width and height, cut off at every side of a cropped picture
PAINT = (124, 116, 104)  # ImageNet's mean colour


def make(name: str, image: Image.Image, face: FoundFace, key: str) -> tuple[Image.Image, FoundFace | None] | None:
    """One variant of a picture.

    Args:
        name: one of `VARIANTS`, or `train-` or `blend-` and a number.
        image: upright RGB; face: its largest face; key: names the image, its SHA-256 say.

    Returns:
        The picture, and the face in it where that is known already; the face has to be found anew where it is None.
        None where the protocol leaves the picture out: no `matched` for faces under 128 pixels.
    """
    rng = _rng(name, key)
    if name.startswith(TRAIN):
        return augmented(image, face, rng)
    if name.startswith(BLEND):
        return augmented(*_blended(image, face, rng), rng)
    if name == "matched":  # the face box 128 pixels wide, 1.6 face boxes in all, JPEG 75
        width = face.box[2] - face.box[0]
        if width < MATCHED_FACE:
            return None
        return edits.resave(_about(image, face, lambda side: side * MATCHED_FACE / width), 75), None
    if name in ("face-hidden", "face-only"):
        return _painted(image, face, inside=name == "face-hidden"), face
    if name == "laundered":
        return launderer()(_about(image, face, lambda width: min(LAUNDERED, width))), None
    return whole(name, image, key), None


def whole(name: str, image: Image.Image, key: str) -> Image.Image:
    """A variant that needs no face: all but matched, the painted ones and laundered."""
    return _WHOLE[name](image, _rng(name, key))


def _rng(name: str, key: str) -> Rng:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(f"{VERSION}:{name}:{key}".encode()).digest()[:8]))


_WHOLE: dict[str, Callable[[Image.Image, Rng], Image.Image]] = {
    "clean": lambda image, _: image,
    "web": lambda image, _: edits.resave(edits.reduced(image, 768), 60),
    "hard": lambda image, _: edits.resave(edits.reduced(image, 512), 40),
    "avatar": lambda image, _: edits.resave(edits.reduced(image, 128), 75),
    "edited": lambda image, rng: edits.PROTOCOL[int(rng.integers(len(edits.PROTOCOL)))](
        edits.reduced(image, 1024), rng
    ),
    "resaved": lambda image, _: _resaved(image),
    "noise": lambda image, rng: edits.noisy(edits.reduced(image, 1024), 8, rng),
    "grey": edits.grey,
    "blur": lambda image, _: _blurred(edits.reduced(image, 1024)),
    "crop": lambda image, _: _cropped(image),
    "half": lambda image, _: image.reduce(2).resize(image.size, Image.Resampling.BICUBIC),
}


def _resaved(image: Image.Image) -> Image.Image:
    """Made smaller and saved three times, as on its way through three services."""
    for longest, quality, codec in ((1024, 85, "JPEG"), (896, 75, "WEBP"), (768, 60, "JPEG")):
        image = edits.resave(edits.reduced(image, longest), quality, codec)
    return image


def _cropped(image: Image.Image) -> Image.Image:
    x, y = round(CROP * image.width), round(CROP * image.height)
    return image.crop((x, y, image.width - x, image.height - y))


def _blurred(image: Image.Image) -> Image.Image:
    """Gaussian blur of 1 pixel for every 512 of the longest side."""
    return image.filter(ImageFilter.GaussianBlur(max(image.size) / 512))


def _about(image: Image.Image, face: FoundFace, size: Callable[[float], float]) -> Image.Image:
    """The square of 1.6 face boxes; `size` gives its side in pixels from what that is in the picture."""
    region = PreprocessSpec(crop=1.6).region(face.box, *image.size)
    side = max(16, round(size(region[2] - region[0])))
    return image.resize((side, side), Image.Resampling.BICUBIC, region, reducing_gap=2.0)


class Launderer:
    """An autoencoder that `faceauth.lab.training.launder` trained: an image in, and out as the network gives it back.

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


def _painted(image: Image.Image, face: FoundFace, inside: bool) -> Image.Image:
    """The face box painted over, or all but the face box."""
    if inside:
        painted = image.copy()
        ImageDraw.Draw(painted).rectangle(face.box, fill=PAINT)
        return painted
    painted = Image.new("RGB", image.size, PAINT)
    painted.paste(image.crop(face.box), face.box[:2])
    return painted


CONTEXT = 2.0  # side of the part of a picture that training views are made from, in face boxes
EDITS: tuple[tuple[float, edits.Edit], ...] = (
    (0.10, edits.grey),
    (0.06, edits.old_print),
    (0.12, edits.plain_noise),
    (0.06, edits.night),
    (0.08, edits.watermark),
    (0.06, edits.screen),
    (0.14, edits.blur),
    (0.10, edits.sharpen),
    (0.10, edits.there_and_back),
    (0.35, edits.colours),
    (0.06, edits.cover),
)
"""Share of the training views that meet each edit, both classes alike."""


def _blended(image: Image.Image, face: FoundFace, rng: Rng) -> tuple[Image.Image, FoundFace]:
    """The part of a picture about a face, its longest side at most 640 pixels, with the face blended into itself."""
    region = PreprocessSpec(crop=CONTEXT).region(face.box, *image.size)
    side = int(min(640, region[2] - region[0]))
    k = side / (region[2] - region[0])
    cut = image.resize((side, side), Image.Resampling.BICUBIC, region, reducing_gap=2.0)
    left, top, right, bottom = (round((v - region[i % 2]) * k) for i, v in enumerate(face.box))
    box = left, top, right, bottom
    return self_blended(cut, box, rng), FoundFace(box, turns=face.turns)


def augmented(image: Image.Image, face: FoundFace, rng: Rng) -> tuple[Image.Image, FoundFace]:
    """A training view: the face and what is about it, at a random size, edited and saved again once or twice."""
    left, top, right, bottom = face.box
    center = (left + right) / 2, (top + bottom) / 2
    region = PreprocessSpec(crop=CONTEXT).region(face.box, *image.size)
    native = region[2] - region[0]
    side = int(min(native, np.exp(rng.uniform(np.log(112), np.log(640)))))
    resampling = edits.RESAMPLING[rng.integers(len(edits.RESAMPLING))]
    view = image.resize((side, side), resampling, region, reducing_gap=2.0)
    for share, edit in EDITS:
        if rng.random() < share:
            view = edit(view, rng)
    for _ in range(2 if rng.random() < 0.3 else 1):
        draw = rng.random()
        if draw < 0.9:
            quality, codec = int(rng.integers(30, 96)), "JPEG" if draw < 0.75 else "WEBP"
            view = edits.resave(view, quality, codec, int(rng.choice([0, 2])))
    k = side / native
    zoom, shift = rng.uniform(0.8, 1.25), rng.uniform(-0.06, 0.06, 2) * face.side
    half = (right - left) / 2 * zoom, (bottom - top) / 2 * zoom
    middle = (center[0] + shift[0] - region[0]) * k, (center[1] + shift[1] - region[1]) * k
    box = [middle[0] - half[0] * k, middle[1] - half[1] * k, middle[0] + half[0] * k, middle[1] + half[1] * k]
    if rng.random() < 0.5 and face.turns == 0:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        box[0], box[2] = side - box[2], side - box[0]
    return view, FoundFace((round(box[0]), round(box[1]), round(box[2]), round(box[3])), turns=face.turns)
