"""What lies beside a model file for its explanations: rates from a report, spectra from the corpus's train split."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from faceauth import images
from faceauth.errors import DataError, ImageError
from faceauth.explain.records import Profile
from faceauth.explain.reference import LABELS, Rates, Reference, profile
from faceauth.faces import FaceFinder, finder
from faceauth.lab.data.dataset import DataSet, ImageRow
from faceauth.lab.evaluation.score_sets import UNSEEN
from faceauth.lab.progress import tracked
from faceauth.preprocess import PreprocessSpec

Floats = npt.NDArray[np.floating[Any]]
GENERATED = ("GAN", "diffusion", "other generated")  # pictures of the report's table that are generated whole
_COLUMNS = ("pictures", "n", *(f"called {label}" if label != "uncertain" else label for label in LABELS))


def reference(
    data: DataSet, rows: Sequence[ImageRow], spec: PreprocessSpec, page: Path, model: str, per_source: int
) -> Reference:
    """Spectra of the train split's pictures as a network is shown them, and the rates that a report prints.

    `rows` are with their splits, of which at most `per_source` of each source count, the first by hash. `page` is
    Markdown with the table of `faceauth lab evaluate` on what pictures are called. Raises DataError where it has no
    such table, or a source no readable face.
    """
    rates = read_rates(page, model)
    profiles = _profiles(data, rows, spec, per_source)
    of = {row.source: row for row in rows}
    photographs = [found for source, found in profiles.items() if of[source].label == "real"]
    by_generator: dict[str, list[Floats]] = defaultdict(list)
    for source, found in profiles.items():
        if of[source].label == "fake":
            by_generator[of[source].generator].append(found)
    low, high = np.percentile(np.concatenate(photographs), [5, 95], axis=0)
    generators = tuple(_profile(name, found) for name, found in sorted(by_generator.items()))
    return Reference(rates, _profile("photographs", photographs), _values(low), _values(high), generators)


def _profiles(data: DataSet, rows: Sequence[ImageRow], spec: PreprocessSpec, per_source: int) -> Mapping[str, Floats]:
    """(images, k) decibels by source."""
    found: dict[str, list[Floats]] = defaultdict(list)
    find = finder()
    chosen = sorted((r for r in rows if r.split == "train" and r.label in {"real", "fake"}), key=lambda r: r.sha256)
    for row in tracked(chosen, len(chosen), "spectra"):
        if len(found[row.source]) < per_source and (pixels := cut_face(data.file(row), find, spec)) is not None:
            found[row.source].append(profile(pixels))
    if empty := [source for source, values in found.items() if not values]:
        raise DataError(f"no face was found in any image of {', '.join(empty)}")
    return {source: np.array(values) for source, values in found.items()}


def cut_face(path: Path, find: FaceFinder, spec: PreprocessSpec) -> npt.NDArray[np.uint8] | None:
    """The largest face of an image of a data set, as `spec` shows it; None without one. Raises DataError."""
    try:
        image = images.load(str(path)).image
    except ImageError as error:
        raise DataError(f"{path}: {error}", "is the data set complete?") from error
    faces = find(image)
    return spec.cut(image, faces[0]) if faces else None


def _profile(name: str, sources: Sequence[Floats]) -> Profile:
    """The mean over sources, each of which weighs the same."""
    mean = np.mean([found.mean(axis=0) for found in sources], axis=0)
    return Profile(name, sum(map(len, sources)), _values(mean))


def _values(decibels: Floats) -> tuple[float, ...]:
    return tuple(round(float(v), 2) for v in decibels)


def read_rates(page: Path, model: str) -> Rates:
    """How pictures of unseen kinds are called as they are, from the table of a report in Markdown.

    Raises DataError where the page cannot be read, or has no such table.
    """
    hint = "give the report.md of faceauth lab evaluate, or the model card"
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {str(page)!r}", hint) from error
    wanted = {"variant": "clean", "model": model, "set": UNSEEN["kind"]}
    rows = [r for r in _table(text) if all(r.get(name, value) == value for name, value in wanted.items())]
    photographs = [r for r in rows if r["pictures"] == "real"]
    generated = [r for r in rows if r["pictures"] in GENERATED]
    if not photographs or not generated:
        raise DataError(f"{str(page)!r} does not say how pictures of unseen kinds are called", hint)
    real, fake = (_mean(found) for found in (photographs, generated))
    counts = [sum(int(r["n"]) for r in found) for found in (photographs, generated)]
    return Rates(real, fake, f"{counts[0]} photographs, {counts[1]} generated faces of kinds held out")


def _table(text: str) -> Iterator[dict[str, str]]:
    """Rows of the first table of a Markdown text that has the wanted columns."""
    header: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if header and not cells:
            return
        if header and len(cells) == len(header) and not cells[0].startswith("--"):
            yield dict(zip(header, cells, strict=True))
        elif not header and set(_COLUMNS) <= set(cells):
            header = cells


def _mean(rows: Sequence[Mapping[str, str]]) -> dict[Any, float]:
    """The share of each label over all images of some rows."""
    try:
        counts = np.array([int(r["n"]) for r in rows])
        columns = {label: [float(r[column]) for r in rows] for label, column in zip(LABELS, _COLUMNS[2:], strict=True)}
    except ValueError as error:
        raise DataError(f"the table holds no numbers: {error}") from error
    return {label: round(float(np.average(shares, weights=counts)), 4) for label, shares in columns.items()}
