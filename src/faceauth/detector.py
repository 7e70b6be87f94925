"""The detector: images in, verdicts out. It knows nothing of terminals, files of results, or how models are made."""

import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from faceauth import images as images_
from faceauth import inputs
from faceauth import learned as learned_
from faceauth.attribution import PROTOTYPES_KEY, Attributor, Prototypes, Taught
from faceauth.errors import ImageError, ModelError, SourceTypeError, UsageError
from faceauth.faces import REVISION, FaceFinder, FoundFace, finder
from faceauth.images import Limits, LoadedImage, Source
from faceauth.model_file import ModelFile, Outputs, Thresholds
from faceauth.provenance import claims
from faceauth.tta import VIEWS, views
from faceauth.verdict import Face, Label, Reason, Verdict, finite
from faceauth.workers import answers

SMALLEST_FACE = 48  # pixels of the longer side of a face box; nothing was measured below
# Of a copy of a face of 96 px, in grey levels: its mean, the mean step between neighbours, and the standard deviation
# within a cell of 6 px that no skin, cloth or hair keeps to.
DARK, BLURRED, FLAT = 40, 6, 0.75
COVERED = 0.12, 0.7  # share of flat cells, between a bar over the eyes and a picture of one colour

Floats = npt.NDArray[np.floating[Any]]
Classes = list[dict[str, Any]]


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
        recheck: bool = True,
        whole_image: bool = False,
        limits: Limits | None = None,
        learned: str | Path | bool = True,
    ) -> None:
        """Open a model file.

        Args:
            model: a faceauth ONNX file, or the name of one that comes with the package; None takes the default one.
            threshold: call a face fake from this score on, in [0, 1], instead of from the model's own.
            false_alarms: instead of a threshold, the share of real faces that may be called fake, in (0, 1); the
                model file's calibration gives the threshold.
            recheck: try what reaches the threshold again in re-saved views (`faceauth.tta`).
            whole_image: judge the whole image where no face is found; nothing was measured for that.
            limits: what is too large to be decoded.
            learned: the file of what was taught with `faceauth learn`; True takes the user's own, which need not be
                there, False none. What was taught to another model file is left in `taught_to_others` and not used.

        Raises:
            ModelError: for a file that is missing or not a model.
            UsageError: for an argument of another type, for a threshold or rate out of range, for both, for a rate that
                was not measured, and for a file of what was taught that is damaged, or not there.
        """
        _check_types(model, limits, learned)
        self.model = ModelFile(model)
        self.limits = limits or Limits()
        self.find_faces: FaceFinder = finder()
        thresholds = self.model.card.thresholds
        self.fake_from = _fake_from(thresholds, threshold, false_alarms)
        self.real_to = min(thresholds.real, self.fake_from)
        self.false_alarm_rate = thresholds.false_alarm_rate(self.fake_from)
        self.recheck, self.whole_image = recheck, whole_image
        self.attributor, self.taught_to_others = self._attributor(learned)
        taught = self.attributor.taught if self.attributor else ()
        self._learned = {"learned": tuple(t.kind.name for t in taught), "learned_sha256": learned_.digest(taught)}
        self._arguments: dict[str, Any] = {
            "model": model, "threshold": threshold, "false_alarms": false_alarms, "recheck": recheck,
            "whole_image": whole_image, "limits": self.limits, "learned": learned,
        }  # fmt: skip

    @property
    def arguments(self) -> dict[str, Any]:
        """What it was opened with, for another process of any folder: files by their absolute paths."""
        model, learned = self._arguments["model"], self._arguments["learned"]
        file = learned_.default_file() if learned is True else Path(learned) if learned else None
        return self._arguments | {
            "model": str(Path(model).resolve()) if model is not None and Path(model).is_file() else model,
            "learned": str(file.resolve()) if file and file.exists() else False,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as what it was opened with: the files are opened again where it is unpickled."""
        return partial(type(self), **self._arguments), ()

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

    def stream(
        self, references: Iterable[Source], workers: int = 1, *, timeout: float | None = None
    ) -> Generator[Verdict, None, None]:
        """Like `detect`, one at a time and in order, with memory that does not grow with their number.

        Whatever goes wrong with an image, one it takes too long over or that ends its process too, is its verdict's
        `error`. Close the iterator to end the processes early.

        Args:
            references: paths, bytes, PIL images or arrays; nothing is expanded.
            workers: processes to share the work between; 1 for this process alone.
            timeout: seconds that an image may take; None for ever.

        Raises:
            FaceAuthError: where a worker process cannot be started.
            SourceTypeError: for one image in place of several.
        """
        if isinstance(references, str) or inputs.is_one(references) or not isinstance(references, Iterable):
            raise SourceTypeError(f"{type(references).__name__} is no iterable of images", "give a list, or use detect")
        details = row_details(self)
        with contextlib.closing(self._verdicts(references, workers, timeout)) as verdicts:
            for verdict in verdicts:
                yield replace(verdict, **details)

    def _verdicts(
        self, references: Iterable[Source], workers: int, timeout: float | None
    ) -> Generator[Verdict, None, None]:
        name, sha256 = self.model.card.name, self.model.sha256

        def failed(source: Source, reason: str) -> Verdict:
            return Verdict(images_.shown(source), (), name, sha256, error=reason)

        return answers(
            references, start_worker, self._arguments, failed, workers, timeout, work=partial(_judge_safely, self)
        )

    def judge(self, source: Source) -> Verdict:
        """The verdict on one image; never raises for the image's sake."""
        start = time.perf_counter()
        try:
            loaded = images_.load(source, self.limits)
        except ImageError as error:
            name, sha256 = self.model.card.name, self.model.sha256
            return Verdict(
                images_.shown(source), (), name, sha256,
                image_sha256=error.sha256, ms=_since(start), error=str(error),
            )  # fmt: skip
        return self.judge_loaded(loaded, start)

    def judge_loaded(
        self,
        loaded: LoadedImage,
        start: float | None = None,
        found: Sequence[FoundFace] | None = None,
        outputs: Outputs | None = None,
    ) -> Verdict:
        """The verdict on an image that was read already.

        Args:
            start: when work on it began (`time.perf_counter`); found: its faces, where they are known.
            outputs: of its only face, or of the whole image, where the network has been run on that.
        """
        start = time.perf_counter() if start is None else start
        found = self.find_faces(loaded.image) if found is None else found
        faces = tuple(_at_full_size(face, loaded.scale) for face in self._judge_faces(loaded.image, found, outputs))
        width, height = loaded.full_size
        return Verdict(
            loaded.path,
            faces,
            self.model.card.name,
            self.model.sha256,
            image_sha256=loaded.sha256,
            width=width,
            height=height,
            ms=_since(start),
            evidence=claims(loaded.data),
            note=loaded.note,
            picture=images_.thumbnail(loaded.image) if loaded.path in {None, "-"} else None,
        )

    def scores(self, images: Source | Iterable[Source]) -> npt.NDArray[np.float64]:
        """Calibrated P(fake) of the largest face of each image, the `score` of `detect`.

        Returns:
            (n,) float64 in [0, 1]; NaN where the largest face is too small to judge, and where no face was found and
            `whole_image` is off.

        Raises:
            ImageError: for an image that cannot be read; `detect` is the one that goes on.
        """
        scores = []
        for image, face in self._largest(images):
            judged = face.side >= SMALLEST_FACE if face else self.whole_image
            scores.append(float(self._score(self.run_faces(image, [face]))[0]) if judged else np.nan)
        return np.asarray(scores, np.float64)

    def classify(self, images: Source | Iterable[Source]) -> Classes | list[Classes]:
        """P(fake) and P(real) of the largest face, in the shape of the image classifiers of transformers.

        Returns:
            For one image `[{"label": "fake", "score": 0.98}, {"label": "real", "score": 0.02}]`, the likelier first;
            an empty list where `scores` has NaN. For a folder, a glob, a list or an iterable a list of such.

        Raises:
            ImageError: for an image that cannot be read.
        """
        answers = [_classes(float(score)) for score in self.scores(images)]
        return answers[0] if inputs.is_one(images) else answers

    def embed(self, images: Source | Iterable[Source]) -> npt.NDArray[np.float32]:
        """The network's embedding of the largest face of each image, of the whole image where there is none.

        A face that is too small to judge has one too.

        Returns:
            (n, d) float32.

        Raises:
            ImageError: for an image that cannot be read.
        """
        found = [self.run_faces(image, [face]).embedding for image, face in self._largest(images)]
        return np.concatenate(found or [self.run_nothing().embedding])

    def run_faces(self, image: Image.Image, faces: Iterable[FoundFace | None]) -> Outputs:
        """Raw network outputs for given faces of one RGB image; None means the whole image."""
        spec = self.model.card.preprocess
        return self.model.run(spec.normalize(np.stack([spec.cut(image, face) for face in faces])))

    def run_views(self, image: Image.Image, faces: Iterable[FoundFace | None]) -> npt.NDArray[np.float32]:
        """Logits (n, len(VIEWS)) of re-saved views of given faces of one RGB image; None means the whole image."""
        spec = self.model.card.preprocess
        crops = [
            np.rot90(spec.resize(crop, (0, 0, *crop.size)), face.turns if face else 0)
            for face in faces
            for crop in views(image, spec.region(face.box if face else None, *image.size), spec.size)
        ]
        return self.model.run(spec.normalize(np.stack(crops))).logit.reshape(-1, len(VIEWS))

    def score_inputs(self, pixels: npt.NDArray[np.uint8]) -> Floats:
        """Calibrated P(fake), (n,) float64, of network inputs (n, size, size, 3) as `PreprocessSpec.cut` gives them."""
        return self._score(self.model.run(self.model.card.preprocess.normalize(pixels)))

    def label(self, score: float) -> Label:
        """The label of a score by the two thresholds alone, without a re-check."""
        return self._label(score, score)

    def run_nothing(self) -> Outputs:
        """The outputs for no faces at all: zero rows of the right width."""
        size = self.model.card.preprocess.size
        one = self.model.run(np.zeros((1, 3, size, size), np.float32))
        parts = None if one.parts is None else one.parts[:0]
        return Outputs(one.logit[:0], one.source_logits[:0], one.embedding[:0], parts)

    def _largest(self, images: Source | Iterable[Source]) -> Iterator[tuple[Image.Image, FoundFace | None]]:
        for reference in inputs.references(images, self.limits.max_bytes):
            try:
                image = images_.load(reference, self.limits).image
            except ImageError as error:
                name = images_.shown(reference)
                raise ImageError(f"{name}: {error.message}" if name else error.message, error.hint) from error
            yield image, next(iter(self.find_faces(image)), None)

    def _judge_faces(self, image: Image.Image, found: Sequence[FoundFace], outputs: Outputs | None) -> tuple[Face, ...]:
        if not found:
            return self._judged(image, [None], [None], outputs) if self.whole_image else ()
        large = {i: face for i, face in enumerate(found) if face.side >= SMALLEST_FACE}
        judged = iter(self._judged(image, list(large.values()), list(large), outputs) if large else ())
        return tuple(
            next(judged) if i in large else too_small(i, face, self.fake_from, self.false_alarm_rate)
            for i, face in enumerate(found)
        )

    def _judged(
        self,
        image: Image.Image,
        faces: Sequence[FoundFace | None],
        indices: Sequence[int | None],
        outputs: Outputs | None,
    ) -> tuple[Face, ...]:
        outputs = outputs or self.run_faces(image, faces)
        parts = self._parts(outputs)
        scores = self._corrected(self.model.card.calibration(outputs.logit), parts)
        stability, mean = self._rechecked(image, faces, outputs, parts, scores)
        labels = [self._label(s, m) for s, m in zip(scores, mean, strict=True)]
        fake = np.array([label == "fake" for label in labels]) | (scores >= 0.5)
        sources = self._sources(outputs.source_logits, fake)
        answers = self._answers(outputs, scores, parts)
        strange = self.attributor.unlike(outputs.embedding) if self.attributor else np.zeros(len(faces), bool)
        rows = zip(faces, indices, labels, scores, sources, stability, answers, strange, strict=True)
        return tuple(
            Face(
                index, face.box if face else None, label, float(score), source, self.fake_from,
                self.false_alarm_rate if face else None, stability=stable,
                reason=self._reason(image, face, stable, unlike) if label == "uncertain" else None, **answer,
            )
            for face, index, label, score, source, stable, answer, unlike in rows
        )  # fmt: skip

    def _rechecked(
        self,
        image: Image.Image,
        faces: Sequence[FoundFace | None],
        outputs: Outputs,
        parts: Floats,
        scores: Floats,
    ) -> tuple[list[float | None], Floats]:
        """Stability as in `Face`, and scores (n,) of the mean logit over the views."""
        again = (scores >= self.fake_from) & self.recheck
        logits = np.repeat(outputs.logit[:, None].astype(np.float64), 1 + len(VIEWS), axis=1)
        if again.any():
            logits[again, 1:] = self.run_views(image, [face for face, more in zip(faces, again, strict=True) if more])
        mean = self._corrected(self.model.card.calibration(logits.mean(axis=1)), parts)
        reached = (self._corrected(self.model.card.calibration(logits), parts) >= self.fake_from).mean(axis=1)
        return [float(share) if more else None for share, more in zip(reached, again, strict=True)], mean

    def _label(self, score: float, mean: float) -> Label:
        if score >= self.fake_from:
            return "fake" if mean >= self.fake_from else "uncertain"
        return "real" if score <= self.real_to else "uncertain"

    def _reason(self, image: Image.Image, face: FoundFace | None, stability: float | None, unlike: bool) -> Reason:
        if stability is not None:
            return "changes when re-saved"
        pixels = np.asarray(image.crop(face.box if face else (0, 0, *image.size)).convert("L").resize((96, 96)), float)
        if COVERED[0] <= _flat_share(pixels) <= COVERED[1]:
            return "covered"
        sharpness = np.abs(np.diff(pixels, axis=0)).mean() + np.abs(np.diff(pixels, axis=1)).mean()
        if pixels.mean() < DARK or sharpness < BLURRED:
            return "blurred or dark"
        return "unlike anything tested" if unlike else "between thresholds"

    def _score(self, outputs: Outputs) -> Floats:
        return self._corrected(self.model.card.calibration(outputs.logit), self._parts(outputs))

    def _parts(self, outputs: Outputs) -> Floats:
        """(n, taught) the part of each face that belongs to each class taught."""
        return self.attributor.parts(outputs.embedding) if self.attributor else np.zeros((len(outputs.logit), 0))

    def _corrected(self, scores: Floats, parts: Floats) -> Floats:
        return self.attributor.corrected(scores, parts) if self.attributor else np.asarray(scores)

    def _attributor(self, learned: str | Path | bool) -> tuple[Attributor | None, tuple[Taught, ...]]:
        """What names generators, None where the model file holds no prototypes; and what was taught to other models."""
        file = learned_.default_file() if learned is True else Path(learned) if learned else None
        taught = learned_.read(file, must_exist=learned is not True) if file else ()
        text = self.model.metadata.get(PROTOTYPES_KEY)
        own = [t for t in taught if t.model_sha256 == self.model.sha256]
        others = tuple(t for t in taught if t.model_sha256 != self.model.sha256)
        if text is None:
            return None, others
        prototypes = Prototypes.from_json(text)
        if (size := prototypes.center.size) != self.model.embedding_size:
            raise ModelError(
                f"{str(self.model.path)!r}: prototypes for {size} values, and an embedding of "
                f"{self.model.embedding_size}",
                "make them again: faceauth lab prototypes MODEL",
            )
        return Attributor(prototypes, own), others

    def _answers(self, outputs: Outputs, scores: Floats, parts: Floats) -> list[dict[str, Any]]:
        """The fields of each face that say what made it; none where the model file holds no prototypes."""
        if self.attributor is None:
            return [{} for _ in scores]
        answers = self.attributor.answers(outputs.embedding, scores, parts)
        return [{"generator": a.generator, "generators": a.generators, "families": a.families} for a in answers]

    def _sources(self, logits: npt.NDArray[np.float32], called_fake: npt.NDArray[np.bool_]) -> list[str]:
        """The likeliest source of each face among those of the class that its label and score speak for."""
        card = self.model.card
        fake = np.array([label == "fake" for label in card.labels])
        likely = np.where(fake == called_fake[:, None], logits, -np.inf).argmax(axis=1)
        return [card.sources[i] for i in likely]


def too_small(index: int | None, face: FoundFace, threshold: float, false_alarm_rate: float | None) -> Face:
    """What is said of a face of less than `SMALLEST_FACE` pixels."""
    error = f"face too small to judge: {face.side} px, {SMALLEST_FACE} needed"
    return Face(index, face.box, "uncertain", None, None, threshold, false_alarm_rate, error, reason="too small")


def _check_types(model: object, limits: object, learned: object) -> None:
    """Raises UsageError for an argument that could not be used."""
    for name, given, types, hint in (
        ("model", model, str | os.PathLike | None, "the path of a model file, or a name: accurate, fast"),
        ("limits", limits, Limits | None, "faceauth.Limits(max_pixels, max_bytes)"),
        ("learned", learned, str | os.PathLike | bool | None, "the path of a learned file, or True or False"),
    ):
        if not isinstance(given, types):
            raise UsageError(f"{name} cannot be of type {type(given).__name__}", f"give {hint}")


def _fake_from(limits: Thresholds, threshold: float | None, false_alarms: float | None) -> float:
    """The threshold that the user asks for, by itself or by a rate; else the model's own."""
    if threshold is not None and false_alarms is not None:
        raise UsageError("a threshold and a false-alarm rate exclude each other", "give one of the two")
    if any(isinstance(given, str) for given in (threshold, false_alarms)):
        raise UsageError("a threshold or false-alarm rate given as text", "give a number: 0.01 is 1 %")
    if threshold is not None and not 0 <= threshold <= 1:
        raise UsageError(f"threshold {threshold} is outside 0 to 1", "it is compared with P(fake)")
    if false_alarms is not None:
        if not 0 < false_alarms < 1:
            raise UsageError(f"false-alarm rate {false_alarms} is not between 0 and 1", "0.01 is 1 %")
        return limits.threshold_at_fpr(false_alarms)
    return limits.fake if threshold is None else threshold


def _at_full_size(face: Face, scale: tuple[float, float]) -> Face:
    """A face that was found on a reduced copy of a very large picture, with its box in the picture itself."""
    if face.box is None or scale == (1, 1):
        return face
    left, top, right, bottom = face.box
    x, y = scale
    return replace(face, box=(round(left * x), round(top * y), round(right * x), round(bottom * y)))


def _flat_share(face: npt.NDArray[np.float64]) -> float:
    """Of the cells of 6 x 6 in a grey (96, 96) copy, but for two at each edge, the share of one flat tone."""
    cells = face.reshape(16, 6, 16, 6)[2:-2, :, 2:-2].std(axis=(1, 3))
    return float((cells < FLAT).mean())


def _classes(score: float) -> Classes:
    """Both labels with their probabilities, the likelier first; none for NaN."""
    both = [{"label": "fake", "score": score}, {"label": "real", "score": 1 - score}]
    return [] if np.isnan(score) else both if score >= 0.5 else both[::-1]


def _since(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 2)


def row_details(detector: Detector) -> dict[str, Any]:
    """What judged, as far as it differs between detectors of one model: fields of `Verdict`."""
    return {**detector._learned, "face_finder": f"centerface {REVISION}"}


def _judge_safely(detector: Detector, source: Source) -> Verdict:
    """The verdict on one image; what is raised while it is judged is its error, never the end of a run."""
    try:
        return finite(detector.judge(source))
    except Exception as error:  # anything at all: the images that follow have to be judged
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        text = f"not judged: {type(error).__name__}: {reason}"
        return Verdict(images_.shown(source), (), detector.model.card.name, detector.model.sha256, error=text)


def start_worker(arguments: dict[str, Any]) -> Callable[[Source], Verdict]:
    """Open a detector in a worker process; what is returned judges one image and never raises."""
    return partial(_judge_safely, Detector(**arguments))
