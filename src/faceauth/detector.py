"""The detector: images in, verdicts out. It knows nothing of terminals, files of results, or how models are made."""

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from faceauth import images as images_
from faceauth import inputs
from faceauth import learned as learned_
from faceauth.attribution import PROTOTYPES_KEY, Attributor, Prototypes, Taught
from faceauth.errors import FaceAuthError, ImageError, UsageError
from faceauth.faces import FaceFinder, finder
from faceauth.images import Limits, LoadedImage, Source
from faceauth.looks import LOOKS, combined, further, labels
from faceauth.model_file import ModelFile, Outputs, Thresholds
from faceauth.provenance import claims
from faceauth.verdict import Box, Face, Label, Verdict

SMALLEST_FACE = 48  # pixels a side; the corpus behind the model holds none smaller, so nothing is known below
CHUNK = 8  # images handed to a worker at a time


class Detector:
    """Judges face photographs with one model file.

    >>> import faceauth
    >>> detector = faceauth.load()
    >>> for verdict in detector.detect("photo.jpg"):
    ...     print(verdict.path, verdict.label)
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        threshold: float | None = None,
        false_alarms: float | None = None,
        second_look: bool = True,
        faces: str | Path | None = None,
        all_faces: bool = False,
        limits: Limits | None = None,
        learned: str | Path | bool = True,
    ) -> None:
        """Open a model file.

        Args:
            model: a faceauth ONNX file; None takes the embedded one.
            threshold: call a face fake from this score on, in [0, 1], instead of from the model's own.
            false_alarms: instead of a threshold, the share of real faces that may be called fake, in (0, 1); the
                model file's calibration gives the threshold.
            second_look: look again, under small changes, at what the first look calls fake (`faceauth.looks`).
            faces: a YuNet ONNX file to find faces with; None takes dlib.
            all_faces: search every scene to the end, for small faces beside a large one; slow.
            limits: what is too large to be decoded.
            learned: the file of what was taught with `faceauth learn`; True takes the user's own, False none. What was
                taught to another model file is left in `taught_to_others` and not used.

        Raises:
            ModelError: for a file that is missing or not a model.
            UsageError: for a threshold or rate out of range, for both, for a rate that the file cannot promise, and for
                a damaged file of what was taught.
        """
        self.model = ModelFile(model)
        self.limits = limits or Limits()
        self.find_faces: FaceFinder = finder(faces, all_faces)
        thresholds = self.model.card.thresholds
        self.fake_from = _fake_from(thresholds, threshold, false_alarms)
        self.real_to = min(thresholds.real, self.fake_from)
        self.false_alarm_rate = thresholds.false_alarm_rate(self.fake_from)
        self.second_look = second_look
        self.attributor, self.taught_to_others = self._attributor(learned)
        self._arguments: dict[str, Any] = {
            "model": model, "threshold": threshold, "false_alarms": false_alarms, "second_look": second_look,
            "faces": faces, "all_faces": all_faces, "limits": self.limits, "learned": learned,
        }  # fmt: skip

    def detect(self, images: Source | Iterable[Source]) -> list[Verdict]:
        """One verdict an image, in order. What cannot be read gives a verdict with `error` set.

        Args:
            images: a path, folder, glob, `@list`, bytes, open binary file, `{"bytes", "path"}`, PIL image, (H, W, 3)
                or (H, W) uint8 RGB array, or an iterable of such.

        Raises:
            UsageError: where a folder, glob or list names no image.
            SourceTypeError: for what is no image, nor a way to one; a TypeError too.
        """
        return list(self.stream(inputs.references(images, self.limits.max_bytes)))

    def stream(self, references: Iterable[Source], workers: int = 1) -> Iterator[Verdict]:
        """Like `detect`, one at a time and in order, with memory that does not grow with their number.

        Args:
            references: paths, bytes, PIL images or arrays; nothing is expanded.
            workers: processes to share the work between, 1 for none.
        """
        if workers <= 1:
            yield from map(self.judge, references)
            return
        context = multiprocessing.get_context("spawn")  # forking a process that holds onnxruntime's threads hangs
        pending: deque[Future[list[Verdict]]] = deque()
        with ProcessPoolExecutor(workers, context, _start_worker, (self._arguments,)) as pool:
            try:
                iterator = iter(references)
                while chunk := list(islice(iterator, CHUNK)):
                    pending.append(pool.submit(_judge_chunk, chunk))
                    if len(pending) > 3 * workers:
                        yield from pending.popleft().result()
                while pending:
                    yield from pending.popleft().result()
            except BrokenProcessPool as error:
                hint = "out of memory? try --workers 1, and --resume with a .jsonl output"
                raise FaceAuthError("a worker process died", hint) from error
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def judge(self, source: Source) -> Verdict:
        """The verdict on one image; never raises for the image's sake."""
        start = time.perf_counter()
        model = self.model.card.name, self.model.sha256
        try:
            loaded = images_.load(source, self.limits)
        except ImageError as error:
            path = images_.shown(source)
            return Verdict(path, (), *model, ms=_since(start), error=str(error))
        faces = tuple(_at_full_size(face, loaded.scale) for face in self._judge_faces(loaded))
        width, height = loaded.full_size
        return Verdict(
            loaded.path,
            faces,
            *model,
            image_sha256=loaded.sha256,
            width=width,
            height=height,
            ms=_since(start),
            evidence=claims(source if loaded.data is None else loaded.data),
        )

    def scores(self, images: Source | Iterable[Source]) -> npt.NDArray[np.float64]:
        """Calibrated P(fake) of the largest face of each image (of the whole image where there is none).

        What was taught is taken into account, as in `detect`.

        Returns:
            (n,) float64 in [0, 1].

        Raises:
            ImageError: for an image that cannot be read; `detect` is the one that goes on.
        """
        found = [self._looked(image, [box]).scores for image, box in self._largest(images)]
        return np.concatenate([np.zeros(0), *found])

    def embed(self, images: Source | Iterable[Source]) -> npt.NDArray[np.float32]:
        """The network's last layer before its heads, for the largest face of each image.

        Returns:
            (n, d) float32.

        Raises:
            ImageError: for an image that cannot be read.
        """
        found = [self.run_faces(image, [box]).embedding for image, box in self._largest(images)]
        return np.concatenate(found or [self.run_nothing().embedding])

    def run_faces(self, image: Image.Image, boxes: Iterable[Box | None]) -> Outputs:
        """Raw network outputs for given face boxes of one RGB image, at the first look; None means the whole image."""
        spec = self.model.card.preprocess
        return self.model.run(
            spec.normalize(np.stack([spec.resize(image, spec.region(box, *image.size)) for box in boxes]))
        )

    def run_again(self, image: Image.Image, boxes: Iterable[Box | None]) -> npt.NDArray[np.float32]:
        """Logits (n, len(LOOKS)) of further looks at given face boxes of one RGB image; None means the whole image."""
        spec = self.model.card.preprocess
        crops = (crop for box in boxes for crop in further(image, spec.region(box, *image.size), spec.size))
        pixels = np.stack([spec.resize(crop, (0, 0, *crop.size)) for crop in crops])
        return self.model.run(spec.normalize(pixels)).logit.reshape(-1, len(LOOKS))

    def _largest(self, images: Source | Iterable[Source]) -> Iterator[tuple[Image.Image, Box | None]]:
        for reference in inputs.references(images, self.limits.max_bytes):
            try:
                image = images_.load(reference, self.limits).image
            except ImageError as error:
                name = images_.shown(reference)
                raise ImageError(f"{name}: {error.message}" if name else error.message, error.hint) from error
            yield image, next(iter(self.find_faces(image)), None)

    def run_nothing(self) -> Outputs:
        """The outputs for no faces at all: zero rows of the right width."""
        size = self.model.card.preprocess.size
        one = self.model.run(np.zeros((1, 3, size, size), np.float32))
        return Outputs(one.logit[:0], one.source_logits[:0], one.embedding[:0])

    def _judge_faces(self, loaded: LoadedImage) -> tuple[Face, ...]:
        boxes = self.find_faces(loaded.image)
        judged: list[Box | None] = [b for b in boxes if _side(b) >= SMALLEST_FACE]
        if not boxes:
            judged = [None]
        faces = [self._too_small(i, b) for i, b in enumerate(boxes) if _side(b) < SMALLEST_FACE]
        if judged:
            looked = self._looked(loaded.image, judged)
            sources = self._sources(looked.outputs.source_logits, looked.scores)
            answers = self._answers(looked)
            faces = [
                Face(
                    None if box is None else i, box, looked.labels[i], float(looked.scores[i]), sources[i],
                    self.fake_from, self.false_alarm_rate, stability=looked.stability[i], **answers[i],
                )
                for i, box in enumerate(judged)
            ] + faces  # fmt: skip
        return tuple(faces)

    def _looked(self, image: Image.Image, boxes: Sequence[Box | None]) -> "_Looked":
        """Look at faces, and again at those that the first look, with what was taught, calls fake."""
        outputs = self.run_faces(image, boxes)
        parts = self.attributor.parts(outputs.embedding) if self.attributor else np.zeros((len(outputs.logit), 0))

        def score(logits: npt.NDArray[Any]) -> npt.NDArray[np.floating[Any]]:
            scores = self.model.card.calibration(logits)
            return self.attributor.corrected(scores, parts) if self.attributor else scores

        first = score(outputs.logit)
        again = (first >= self.fake_from) & self.second_look
        logits = np.repeat(outputs.logit[:, None].astype(np.float64), 1 + len(LOOKS), axis=1)
        if again.any():
            logits[again, 1:] = self.run_again(image, [box for box, more in zip(boxes, again, strict=True) if more])
        mean = score(logits.mean(axis=1))
        reached = (score(logits) >= self.fake_from).mean(axis=1)
        return _Looked(
            outputs,
            parts,
            combined(first, mean, self.fake_from),
            labels(first, mean, self.fake_from, self.real_to).tolist(),
            [float(share) if more else None for share, more in zip(reached, again, strict=True)],
        )

    def _attributor(self, learned: str | Path | bool) -> tuple[Attributor | None, tuple[Taught, ...]]:
        """What names generators, None where the model file holds no prototypes; and what was taught to other models."""
        file = learned_.default_file() if learned is True else Path(learned) if learned else None
        taught = learned_.read(file) if file else ()
        text = self.model.metadata.get(PROTOTYPES_KEY)
        own = [t for t in taught if t.model_sha256 == self.model.sha256]
        others = tuple(t for t in taught if t.model_sha256 != self.model.sha256)
        if text is None:
            return None, others
        return Attributor(Prototypes.from_json(text), own), others

    def _answers(self, looked: "_Looked") -> list[dict[str, Any]]:
        """The fields of each face that say what made it; none where the model file holds no prototypes."""
        if self.attributor is None:
            return [{} for _ in looked.labels]
        answers = self.attributor.answers(looked.outputs.embedding, looked.scores, looked.parts)
        return [{"generator": a.generator, "generators": a.generators, "families": a.families} for a in answers]

    def _sources(self, logits: npt.NDArray[np.float32], scores: npt.NDArray[Any]) -> list[str]:
        """The likeliest source of each face among those of the class that its score speaks for."""
        card = self.model.card
        fake = np.array([label == "fake" for label in card.labels])
        likely = np.where(fake == (scores[:, None] >= 0.5), logits, -np.inf).argmax(axis=1)
        return [card.sources[i] for i in likely]

    def _too_small(self, index: int, box: Box) -> Face:
        error = f"face too small to judge: {_side(box)} px, {SMALLEST_FACE} needed"
        return Face(index, box, "uncertain", None, None, self.fake_from, self.false_alarm_rate, error)


@dataclass(frozen=True, slots=True)
class _Looked:
    """n faces after all looks: network outputs, and parts (n, taught) of what was taught, at the first; scores, labels
    (n,), with what was taught; stability as in `Face`."""

    outputs: Outputs
    parts: npt.NDArray[np.floating[Any]]
    scores: npt.NDArray[np.floating[Any]]
    labels: list[Label]
    stability: list[float | None]


def _fake_from(limits: Thresholds, threshold: float | None, false_alarms: float | None) -> float:
    """The threshold that the user asks for, by itself or by a rate; else the model's own."""
    if threshold is not None and false_alarms is not None:
        raise UsageError("a threshold and a false-alarm rate exclude each other", "give one of the two")
    if threshold is not None and not 0 <= threshold <= 1:
        raise UsageError(f"threshold {threshold} is outside 0 to 1", "it is compared with P(fake)")
    if false_alarms is not None:
        if not 0 < false_alarms < 1:
            raise UsageError(f"false-alarm rate {false_alarms} is not between 0 and 1", "0.01 is 1 %")
        return limits.promising(false_alarms)
    return limits.fake if threshold is None else threshold


def _side(box: Box) -> int:
    return max(box[2] - box[0], box[3] - box[1])


def _at_full_size(face: Face, scale: tuple[float, float]) -> Face:
    """A face that was found on a reduced copy of a very large picture, with its box in the picture itself."""
    if face.box is None or scale == (1, 1):
        return face
    left, top, right, bottom = face.box
    x, y = scale
    return replace(face, box=(round(left * x), round(top * y), round(right * x), round(bottom * y)))


def _since(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 2)


_worker: Detector | None = None


def _start_worker(arguments: dict[str, Any]) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the run
    _worker = Detector(**arguments)


def _judge_chunk(chunk: list[Source]) -> list[Verdict]:
    assert _worker is not None
    return [_worker.judge(source) for source in chunk]
