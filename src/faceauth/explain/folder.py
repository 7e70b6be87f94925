"""Many faces at once: where a network's embedding places them among its training sources, and their average noise."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from faceauth import images
from faceauth.attribution import Prototypes
from faceauth.detector import SMALLEST_FACE, Detector
from faceauth.errors import ImageError
from faceauth.explain.reference import Reference, frequencies, profile
from faceauth.images import Source
from faceauth.output.page import asset, head, tail, text
from faceauth.output.writers import no_formula

Floats = npt.NDArray[np.floating[Any]]
SIDE = (760, 520)  # width and height of a plot, in units of its own
LABELS = ("fake", "real", "uncertain")
DASHES = ("", "7 4", "2 3", "10 3 2 3")


@dataclass(frozen=True, slots=True)
class EmbeddedFace:
    """The largest face of a picture, or the error that kept it from being read.

    Attributes:
        label, score, generator: as in `Face`, by `embedded`; None where there is no face.
        embedding: (d,); decibels: (k,) its noise by frequency, see `reference.profile`; None where there is no face.
    """

    path: str
    label: str | None = None
    score: float | None = None
    generator: str | None = None
    embedding: npt.NDArray[np.float32] | None = None
    decibels: Floats | None = None
    error: str | None = None


def embedded(detector: Detector, pictures: Iterable[Source]) -> Iterator[EmbeddedFace]:
    """One after the other; a picture without a face of `SMALLEST_FACE` pixels has no embedding.

    Labels follow the score and the two thresholds alone: a fake one is not judged again in re-saved views.
    """
    spec = detector.model.card.preprocess
    for picture in pictures:
        name = images.shown(picture) or "-"
        try:
            image = images.load(picture, detector.limits).image
            found = detector.find_faces(image)
        except ImageError as error:
            yield EmbeddedFace(name, error=str(error))
            continue
        if not found or found[0].side < SMALLEST_FACE:
            yield EmbeddedFace(name)
            continue
        pixels = spec.cut(image, found[0])
        outputs = detector.model.run(spec.normalize(pixels[None]))
        scores, generator = detector.model.card.calibration(outputs.logit), None
        if detector.attributor:
            scores, [answer] = detector.attributor(outputs.embedding, scores)
            generator = answer.generator
        score = float(scores[0])
        yield EmbeddedFace(name, detector.label(score), score, generator, outputs.embedding[0], profile(pixels))


def on_a_map(embeddings: Floats, prototypes: Prototypes | None) -> tuple[Floats, Floats]:
    """Embeddings (n, d) in the two directions in which the training sources differ most; those of the sources (k, 2).

    Principal components of the sources' means where the model has prototypes, else of the embeddings themselves.
    """
    points = prototypes.place(embeddings) if prototypes else np.asarray(embeddings, np.float64)
    basis = prototypes.means if prototypes else points
    center = basis.mean(axis=0)
    axes = np.linalg.svd(basis - center, full_matrices=False)[2][:2]
    axes = axes * np.where(axes.sum(axis=1, keepdims=True) < 0, -1, 1)  # the same picture whatever the library
    return (points - center) @ axes.T, (prototypes.means - center) @ axes.T if prototypes else np.zeros((0, 2))


def to_npz(faces: Sequence[EmbeddedFace], places: Floats) -> bytes:
    """path, label, score, generator, embedding (n, d) and place (n, 2) of every face, for numpy.load."""
    file = io.BytesIO()
    np.savez(
        file, path=np.array([f.path for f in faces]), label=np.array([f.label for f in faces], str),
        score=np.array([f.score for f in faces], np.float64),
        generator=np.array([f.generator or "" for f in faces], str),
        embedding=np.stack([f.embedding for f in faces if f.embedding is not None]), place=places,
    )  # fmt: skip
    return file.getvalue()


def to_map(faces: Sequence[EmbeddedFace], places: Floats, sources: Floats, prototypes: Prototypes | None) -> bytes:
    """A page with a dot a face, and a cross a training source; their names come up under the pointer."""
    spread = np.concatenate([places, sources])
    low, high = spread.min(axis=0), spread.max(axis=0)
    at = [
        (16 + (SIDE[0] - 32) * x, SIDE[1] - 16 - (SIDE[1] - 32) * y)
        for x, y in (spread - low) / np.maximum(high - low, 1e-9)
    ]
    crosses = "".join(
        f'<path class="source" d="M{x - 4:.1f} {y:.1f}h8M{x:.1f} {y - 4:.1f}v8"><title>{text(kind.name)}, '
        f"{text(kind.generator)}</title></path>"
        for kind, (x, y) in zip(prototypes.kinds if prototypes else (), at[len(faces) :], strict=True)
    )
    dots = "".join(_mark(face, x, y) for face, (x, y) in zip(faces, at, strict=False))
    counted = ", ".join(f"{sum(f.label == label for f in faces)} {label}" for label in LABELS)
    said = "Crosses are the sources that the model was trained on. " if prototypes else ""
    parts = [
        head("Map of embeddings", [asset("report.css")]),
        f"<main><header><h1>Where the model places {len(faces)} faces</h1>",
        f'<p class="measure">{counted}: squares, dots and rings. {said}'
        "The two directions are those in which the sources differ most; what lies "
        "close here can be far apart in the others. Names come up under the pointer.</p></header>",
        f'<svg class="plot" viewBox="0 0 {SIDE[0]} {SIDE[1]}" role="img" aria-label="Map of {len(faces)} faces">',
        crosses, dots, "</svg><section><h2>The faces</h2><table><thead><tr>",
        "<th>picture</th><th>label</th><th>score</th><th>most resembles</th></tr></thead><tbody>",
        *(f'<tr><td>{text(f.path)}</td><td><span class="label {text(f.label)}">{text(f.label)}</span></td>'
          f"<td>{f.score:.2f}</td><td>{text(f.generator)}</td></tr>" for f in faces),
        "</tbody></table></section></main>\n", tail(),
    ]  # fmt: skip
    return "".join(parts).encode("utf-8", "backslashreplace")


def _mark(face: EmbeddedFace, x: float, y: float) -> str:
    said = f"<title>{text(face.path)}: {text(face.label)}, {face.score:.2f}, {text(face.generator)}</title>"
    if face.label == "fake":
        return f'<rect class="fake" x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9">{said}</rect>'
    return f'<circle class="{text(face.label)}" cx="{x:.1f}" cy="{y:.1f}" r="5">{said}</circle>'


def averages(groups: dict[str, Sequence[EmbeddedFace]]) -> dict[str, tuple[int, Floats]]:
    """Number of faces and mean decibels (k,) of each group that has faces."""
    found = {name: [f.decibels for f in faces if f.decibels is not None] for name, faces in groups.items()}
    return {name: (len(lines), np.mean(lines, axis=0)) for name, lines in found.items() if lines}


def to_csv(found: dict[str, tuple[int, Floats]], size: int) -> bytes:
    """group, faces, cycles a pixel and decibels, a line each."""
    import csv

    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("group", "faces", "cycles_a_pixel", "decibels"))
    for name, (count, decibels) in found.items():
        for f, value in zip(frequencies(size), decibels, strict=True):
            writer.writerow((no_formula(name), count, f"{f:.5f}", f"{value:.3f}"))
    return file.getvalue().encode("utf-8", "backslashreplace")


def to_spectra(found: dict[str, tuple[int, Floats]], size: int, beside: Reference | None) -> bytes:
    """A page with the average spectrum of each group, and where nine in ten photographs lie."""
    at = frequencies(size)
    beside = beside if beside and len(beside.low) == len(at) else None
    lines = [(name, count, values) for name, (count, values) in found.items()]
    more = [np.array(beside.low), np.array(beside.high)] if beside else []
    every = np.concatenate([*(values for _, _, values in lines), *more])
    low, high = float(every.min()), float(every.max())

    def points(values: Iterable[float]) -> str:
        return " ".join(
            f"{SIDE[0] * f / 0.5:.1f},{8 + (SIDE[1] - 40) * (high - v) / ((high - low) or 1):.1f}"
            for f, v in zip(at, values, strict=True)
        )

    shaded, dashes = "", [DASHES[i % len(DASHES)] for i in range(len(lines))]
    if beside:
        back = " ".join(reversed(points(beside.high).split()))
        shaded = f'<polygon class="range" points="{points(beside.low)} {back}"/>'
    parts = [
        head("Spectra of the noise", [asset("report.css")]),
        "<main><header><h1>Average spectrum of the noise</h1>",
        '<p class="measure">The residual of each face, cut and resized as the network is shown it, by frequency, in '
        "decibels; the mean of each group."
        + (" Shaded: where 90 of 100 photographs lie that the model was trained on." if beside else "")
        + "</p></header>",
        f'<svg class="plot" viewBox="0 0 {SIDE[0]} {SIDE[1]}" role="img" aria-label="Average spectra">{shaded}',
        *(f'<polyline stroke-dasharray="{dash or "none"}" points="{points(values)}"><title>{text(name)}</title>'
          "</polyline>" for (name, _, values), dash in zip(lines, dashes, strict=True)),
        f'<text x="0" y="8">{high:.0f} dB</text><text x="0" y="{SIDE[1] - 30}">{low:.0f} dB</text>'
        f'<text x="0" y="{SIDE[1] - 4}">0</text><text x="{SIDE[0]}" y="{SIDE[1] - 4}" text-anchor="end">0.5 cycles a '
        "pixel</text></svg><table><thead><tr><th>line</th><th>group</th><th>faces</th></tr></thead><tbody>",
        *(f'<tr><td><svg width="60" height="8" class="plot"><polyline stroke-dasharray="{dash or "none"}" '
          f'points="0,4 60,4"/></svg></td><td>{text(name)}</td><td>{count}</td></tr>'
          for (name, count, _), dash in zip(lines, dashes, strict=True)),
        "</tbody></table></main>\n", tail(),
    ]  # fmt: skip
    return "".join(parts).encode("utf-8", "backslashreplace")
