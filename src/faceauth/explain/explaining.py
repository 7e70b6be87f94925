"""From an image to its explanation."""

import time
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import numpy.typing as npt

from faceauth import __version__, images
from faceauth.detector import Detector, row_details
from faceauth.explain import reference, words
from faceauth.explain.heatmap import heat_map
from faceauth.explain.records import Custody, Explanation, FaceExplanation, Neighbour, Region
from faceauth.explain.stability import stability
from faceauth.faces import FoundFace
from faceauth.images import LoadedImage, Source
from faceauth.provenance import TrustList
from faceauth.provenance.report import examine
from faceauth.verdict import Face, finite, utc_now

MOST_FACES = 4  # explained in full, the largest; others have their verdict in words
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
    verdict = replace(finite(detector.judge_loaded(loaded)), **row_details(detector))
    found = detector.find_faces(loaded.image)
    faces = tuple(
        _face(detector, loaded, face, None if face.index is None else found[face.index], beside, full=i < MOST_FACES)
        for i, face in enumerate(verdict.faces)
    )
    return Explanation(
        verdict, words.headline(verdict), faces,
        None if loaded.data is None else examine(loaded.data, loaded.path or "-", trust),
        _custody(detector, loaded, trust), words.CAVEATS, round((time.perf_counter() - start) * 1000, 2),
    )  # fmt: skip


def _face(
    detector: Detector, loaded: LoadedImage, face: Face, found: FoundFace | None, beside: "reference.Reference | None",
    *, full: bool,
) -> FaceExplanation:  # fmt: skip
    said = FaceExplanation(
        face.index, words.sentence(face, detector.real_to), words.reason(face),
        words.worth(detector, face, beside.rates if beside else None),
    )  # fmt: skip
    if face.score is None or not full:
        return said
    spec = detector.model.card.preprocess
    region = _at_full_size(spec.region(found.box if found else None, *loaded.image.size), loaded.scale)
    pixels = spec.cut(loaded.image, found)
    return replace(
        said, region=region,
        heat_map=heat_map(detector.model, pixels, region, found.turns if found else 0),
        spectrum=reference.spectrum(pixels, beside, face.generator),
        nearest=_nearest(detector, pixels), stability=stability(detector, loaded.image, found, face.score),
    )  # fmt: skip


def _at_full_size(region: Region, scale: tuple[float, float]) -> Region:
    left, top, right, bottom = region
    x, y = scale
    return round(left * x, 2), round(top * y, 2), round(right * x, 2), round(bottom * y, 2)


def _nearest(detector: Detector, pixels: npt.NDArray[np.uint8]) -> tuple[Neighbour, ...]:
    """The training sources whose means lie nearest to the face's embedding, nearest first."""
    if detector.attributor is None:
        return ()
    prototypes = detector.attributor.prototypes
    spec = detector.model.card.preprocess
    point = prototypes.place(detector.model.run(spec.normalize(pixels[None])).embedding)
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
