"""From an image to its explanation."""

import time
from collections.abc import Collection, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from faceauth import __version__, images
from faceauth.detector import SMALLEST_FACE, Detector, row_details
from faceauth.explain import reference, words
from faceauth.explain.heatmap import Evidence, evidence, heat_map, run_inside
from faceauth.explain.records import Custody, Explanation, FaceExplanation, Neighbour, Region
from faceauth.explain.stability import edited_scores, stability
from faceauth.faces import FoundFace
from faceauth.images import LoadedImage, Source
from faceauth.provenance import TrustList
from faceauth.provenance.report import examine
from faceauth.verdict import Face, Verdict, finite, utc_now

MOST_FACES = 4  # explained in full, the largest; others have their verdict in words
AT_ONCE = 4  # first pass, verdict, heat map and edits of a face; verdict and map wait for the first pass
NEAREST = 8  # training sources that are listed
LIBRARIES = ("numpy", "pillow", "onnxruntime")


def explain(detector: Detector, source: Source | LoadedImage, *, trust: TrustList | None = None) -> Explanation:
    """Judge one image and say why, how firm that is, and what judged it.

    Args:
        source: a path, bytes, PIL image or array, or what `images.load` made of one.
        trust: vouches for the signers of C2PA manifests.

    Raises:
        ImageError: the image cannot be read.
        ModelError: the reference beside the model file is damaged.
    """
    start = time.perf_counter()
    beside = reference.read(detector.model)
    loaded = source if isinstance(source, LoadedImage) else images.load(source, detector.limits)
    found = detector.find_faces(loaded.image)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        seen = {i: _Seen(detector, loaded.image, face, pool) for i, face in _in_full(detector, found).items()}
        judged = pool.submit(_judged, detector, loaded, start, found, seen.values())
        for one in seen.values():
            one.go_on()
        verdict = replace(finite(judged.result()), **row_details(detector))
        faces = tuple(_face(detector, loaded, face, beside, seen.get(face.index)) for face in verdict.faces)
    return Explanation(
        verdict, words.headline(verdict), faces,
        None if loaded.data is None else examine(loaded.data, loaded.path or "-", trust),
        _custody(detector, loaded, trust), words.CAVEATS, round((time.perf_counter() - start) * 1000, 2),
    )  # fmt: skip


def told(detector: Detector, explanation: Explanation, faces: Sequence[Face]) -> Explanation:
    """An explanation whose sentences and rates are told of other `faces`: its own, with scores rounded otherwise."""
    beside = reference.read(detector.model)
    again = (
        replace(said, **_words(detector, face, beside, in_full=said.stability is not None))
        for said, face in zip(explanation.faces, faces, strict=True)
    )
    return replace(explanation, faces=tuple(again))


def _in_full(detector: Detector, found: Sequence[FoundFace]) -> "dict[int | None, FoundFace | None]":
    """The faces that are explained in full, by their index in the verdict; None is the whole image."""
    if not found:
        return {None: None} if detector.whole_image else {}
    return dict([(i, face) for i, face in enumerate(found) if face.side >= SMALLEST_FACE][:MOST_FACES])


def _judged(
    detector: Detector, loaded: LoadedImage, start: float, found: Sequence[FoundFace], seen: "Collection[_Seen]"
) -> Verdict:
    """The verdict; of a single face without running the network on it once more."""
    only = next(iter(seen)) if len(seen) == 1 and len(found) <= 1 else None
    return detector.judge_loaded(loaded, start, found, only.first.result()[0] if only else None)


class _Seen:
    """What the network makes of one face, and then of changed copies, worked out beside the verdict."""

    def __init__(self, detector: Detector, image: Image.Image, face: FoundFace | None, pool: Executor) -> None:
        spec = detector.model.card.preprocess
        self._detector, self._image, self._found, self._pool = detector, image, face, pool
        self.region = spec.region(face.box if face else None, *image.size)
        self.turns = face.turns if face else 0
        self.pixels = spec.cut(image, face)
        self.first = pool.submit(run_inside, detector.model, self.pixels)

    def go_on(self) -> None:
        """Begin what follows the first pass of every face."""
        self.evidence: Future[Evidence] = self._pool.submit(
            lambda: evidence(self._detector.model, self.pixels, self.first.result())
        )
        self.edited: Future[list[float]] = self._pool.submit(edited_scores, self._detector, self._image, self._found)


def _face(
    detector: Detector, loaded: LoadedImage, face: Face, beside: "reference.Reference | None", seen: _Seen | None
) -> FaceExplanation:
    said = FaceExplanation(face.index, reason=words.reason(face), **_words(detector, face, beside, in_full=bool(seen)))
    if face.score is None or seen is None:
        return said
    region = _at_full_size(seen.region, loaded.scale)
    lies = seen.evidence.result()
    return replace(
        said, region=region, heat_map=heat_map(lies, region, seen.turns, detector.model.card.calibration),
        spectrum=reference.spectrum(seen.pixels, beside, face.generator),
        nearest=_nearest(detector, lies.embedding), stability=stability(detector, face.score, seen.edited.result()),
    )  # fmt: skip


def _words(detector: Detector, face: Face, beside: "reference.Reference | None", *, in_full: bool) -> dict[str, Any]:
    """The fields of a face that are told of its score."""
    more = "" if in_full or face.score is None else f" Only the {MOST_FACES} largest faces are explained in full."
    return {
        "sentence": words.sentence(face, detector.real_to) + more,
        "worth": words.worth(detector, face, beside.rates if beside else None),
    }


def _at_full_size(region: Region, scale: tuple[float, float]) -> Region:
    left, top, right, bottom = region
    x, y = scale
    return round(left * x, 2), round(top * y, 2), round(right * x, 2), round(bottom * y, 2)


def _nearest(detector: Detector, embedding: npt.NDArray[np.float32]) -> tuple[Neighbour, ...]:
    """The training sources whose means lie nearest to the face's embedding (1, d), nearest first."""
    if detector.attributor is None:
        return ()
    prototypes = detector.attributor.prototypes
    point = prototypes.place(embedding)
    density = prototypes.densities(point)[0]
    shares = np.exp(density - density.max())
    shares /= shares.sum()
    distances = np.linalg.norm(prototypes.means - point, axis=1)
    return tuple(
        Neighbour(k.name, k.label, k.generator, k.family, round(float(distances[i]), 3), round(float(shares[i]), 4))
        for i, k in ((i, prototypes.kinds[i]) for i in np.argsort(distances, kind="stable")[:NEAREST])
    )


def _custody(detector: Detector, loaded: LoadedImage, trust: TrustList | None) -> Custody:
    card, details = detector.model.card, row_details(detector)
    parameters = {
        "threshold": detector.fake_from, "real_to": detector.real_to, "recheck": detector.recheck,
        "whole_image": detector.whole_image, "max_pixels": detector.limits.max_pixels,
        "max_bytes": detector.limits.max_bytes, "trust_sha256": trust.sha256 if trust else None,
    }  # fmt: skip
    return Custody(
        loaded.sha256, None if loaded.data is None else len(loaded.data), card.name, card.version,
        detector.model.sha256, details["learned_sha256"], details["face_finder"], "faceauth", __version__,
        tuple((name, version(name)) for name in LIBRARIES), tuple(parameters.items()), utc_now(),
    )  # fmt: skip
