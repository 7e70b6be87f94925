"""The detector: images in, verdicts out. It knows nothing of terminals, files of results, or how models are made."""

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from faceauth import images as images_
from faceauth import learned as learned_
from faceauth.attribution import PROTOTYPES_KEY, Answer, Attributor, Prototypes, Taught
from faceauth.errors import FaceAuthError, ImageError, UsageError
from faceauth.faces import FaceFinder, finder
from faceauth.images import Limits, LoadedImage, Source
from faceauth.model_file import ModelFile, Outputs
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
        faces: str | Path | None = None,
        all_faces: bool = False,
        limits: Limits | None = None,
        learned: str | Path | bool = True,
    ) -> None:
        """Open a model file.

        Args:
            model: a faceauth ONNX file; None takes the embedded one.
            threshold: call a face fake from this score on, in [0, 1], instead of from the model's own.
            faces: a YuNet ONNX file to find faces with; None takes dlib.
            all_faces: search every scene to the end, for small faces beside a large one; slow.
            limits: what is too large to be decoded.
            learned: the file of what was taught with `faceauth learn`; True takes the user's own, False none. What was
                taught to another model file is left in `taught_to_others` and not used.

        Raises:
            ModelError: for a file that is missing or not a model.
            UsageError: for a threshold outside [0, 1], or a damaged file of what was taught.
        """
        if threshold is not None and not 0 <= threshold <= 1:
            raise UsageError(f"threshold {threshold} is outside 0 to 1", "it is compared with P(fake)")
        self.model = ModelFile(model)
        self.limits = limits or Limits()
        self.find_faces: FaceFinder = finder(faces, all_faces)
        thresholds = self.model.card.thresholds
        self.fake_from = thresholds.fake if threshold is None else threshold
        self.real_to = min(thresholds.real, self.fake_from)
        self.false_alarm_rate = thresholds.false_alarm_rate(self.fake_from)
        self.attributor, self.taught_to_others = self._attributor(learned)
        self._arguments: dict[str, Any] = {
            "model": model, "threshold": threshold, "faces": faces, "all_faces": all_faces, "limits": self.limits,
            "learned": learned,
        }  # fmt: skip

    def detect(self, images: Source | Iterable[Source]) -> list[Verdict]:
        """One verdict an image, in order. What cannot be read gives a verdict with `error` set.

        Args:
            images: a path, folder, glob, `@list`, bytes, PIL image, (H, W, 3) or (H, W) uint8 RGB array, or an
                iterable of such.

        Raises:
            UsageError: where a folder, glob or list names no image.
        """
        return list(self.stream(images_.references(images)))

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
        faces = self._judge_faces(loaded)
        width, height = loaded.image.size
        return Verdict(
            loaded.path,
            faces,
            *model,
            image_sha256=loaded.sha256,
            width=width,
            height=height,
            ms=_since(start),
            evidence=claims(source),
        )

    def scores(self, images: Source | Iterable[Source]) -> npt.NDArray[np.float64]:
        """Calibrated P(fake) of the largest face of each image (of the whole image where there is none).

        What was taught is taken into account, as in `detect`.

        Returns:
            (n,) float64 in [0, 1].

        Raises:
            ImageError: for an image that cannot be read; `detect` is the one that goes on.
        """
        return self._attributed(self._largest(images))[0]

    def embed(self, images: Source | Iterable[Source]) -> npt.NDArray[np.float32]:
        """The network's last layer before its heads, for the largest face of each image.

        Returns:
            (n, d) float32.

        Raises:
            ImageError: for an image that cannot be read.
        """
        return self._largest(images).embedding

    def run_faces(self, image: Image.Image, boxes: Iterable[Box | None]) -> Outputs:
        """Raw network outputs for given face boxes of one RGB image; None means the whole image."""
        spec = self.model.card.preprocess
        return self.model.run(
            spec.normalize(np.stack([spec.resize(image, spec.region(box, *image.size)) for box in boxes]))
        )

    def _largest(self, images: Source | Iterable[Source]) -> Outputs:
        outputs = []
        for reference in images_.references(images):
            try:
                image = images_.load(reference, self.limits).image
            except ImageError as error:
                name = images_.shown(reference)
                raise ImageError(f"{name}: {error.message}" if name else error.message, error.hint) from error
            outputs.append(self.run_faces(image, [next(iter(self.find_faces(image)), None)]))
        if not outputs:
            return self.run_nothing()
        return Outputs(*(np.concatenate([getattr(o, name) for o in outputs]) for name in Outputs.__slots__))

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
            outputs = self.run_faces(loaded.image, judged)
            scores, answers = self._attributed(outputs)
            sources = self._sources(outputs.source_logits, scores)
            faces = [
                self._face(None if box is None else i, box, float(scores[i]), sources[i], answers[i])
                for i, box in enumerate(judged)
            ] + faces
        return tuple(faces)

    def _attributor(self, learned: str | Path | bool) -> tuple[Attributor | None, tuple[Taught, ...]]:
        """What names generators, None where the model file holds no prototypes; and what was taught to other models."""
        file = learned_.default_file() if learned is True else Path(learned) if learned else None
        taught = learned_.read(file) if file else ()
        text = self.model.metadata.get(PROTOTYPES_KEY)
        own = [t for t in taught if t.model_sha256 == self.model.sha256]
        others = tuple(t for t in taught if t.model_sha256 != self.model.sha256)
        if text is None:
            return None, others
        fake = [label == "fake" for label in self.model.card.labels]
        return Attributor(Prototypes.from_json(text), fake, own), others

    def _attributed(self, outputs: Outputs) -> tuple[npt.NDArray[np.float64], list[Answer | None]]:
        scores = np.asarray(self.model.card.calibration(outputs.logit), np.float64)
        if self.attributor is None:
            return scores, [None] * len(scores)
        with_taught, answers = self.attributor(outputs, scores)
        return np.asarray(with_taught, np.float64), list(answers)

    def _sources(self, logits: npt.NDArray[np.float32], scores: npt.NDArray[Any]) -> list[str]:
        """The likeliest source of each face among those of the class that its score speaks for."""
        card = self.model.card
        fake = np.array([label == "fake" for label in card.labels])
        likely = np.where(fake == (scores[:, None] >= 0.5), logits, -np.inf).argmax(axis=1)
        return [card.sources[i] for i in likely]

    def _face(self, index: int | None, box: Box | None, score: float, source: str, answer: Answer | None) -> Face:
        label: Label = "fake" if score >= self.fake_from else "real" if score <= self.real_to else "uncertain"
        face = Face(index, box, label, score, source, self.fake_from, self.false_alarm_rate)
        if answer is None:
            return face
        return replace(face, generator=answer.generator, generators=answer.generators, families=answer.families)

    def _too_small(self, index: int, box: Box) -> Face:
        error = f"face too small to judge: {_side(box)} px, {SMALLEST_FACE} needed"
        return Face(index, box, "uncertain", None, None, self.fake_from, self.false_alarm_rate, error)


def _side(box: Box) -> int:
    return max(box[2] - box[0], box[3] - box[1])


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
