"""The commands `embed` and `spectrum`: what a model sees in the faces of whole folders, without the laboratory."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faceauth.cli_options import (
    Images,
    Learned,
    MaxBytes,
    MaxPixels,
    Model,
    NoLearned,
    Overwrite,
    check_new,
    learned_file,
    writing,
)
from faceauth.console import notice, progress
from faceauth.errors import DataError, FaceAuthError, ImageError
from faceauth.files import write_bytes

if TYPE_CHECKING:
    from faceauth.detector import Detector
    from faceauth.explain.folder import EmbeddedFace

UNREADABLE = 3
MAPS, SPECTRA = (".html", ".npz"), (".html", ".csv")


def embed(
    images: Images,
    output: Annotated[Path, typer.Option("-o", "--output", help=f"Write FILE: {', '.join(MAPS)}.")] = Path("map.html"),
    model: Model = None,
    max_pixels: MaxPixels = 100_000_000,
    max_bytes: MaxBytes = 200_000_000,
    learned: Learned = None,
    no_learned: NoLearned = False,
    overwrite: Overwrite = False,
) -> None:
    """Draw a map of faces, as the model's embedding has them.

    The largest face of every picture is placed among the model's training sources.
    The map is a page; as .npz the embeddings themselves, with paths, labels, scores and places, for numpy.load. Faces
    that one generator made lie close together even where the model does not know it. Scores are those of detect, with
    what was learned; labels follow them without a re-check.

    \b
    Examples:
      faceauth embed folder/ -o map.html
      faceauth embed folder/ "press/*.jpg" -o embeddings.npz --model fast
    """
    from faceauth.explain import folder
    from faceauth.inputs import expand

    check_new(output, MAPS, overwrite=overwrite)
    detector = _detector(model, max_pixels, max_bytes, learned=learned_file(learned, no_learned))
    found, unreadable = _faces(detector, expand(images, max_bytes=max_bytes).references)
    faces = [face for face in found if face.embedding is not None]
    if not faces:
        raise _nothing(len(found), unreadable)
    import numpy as np

    prototypes = detector.attributor.prototypes if detector.attributor else None
    places, sources = folder.on_a_map(np.stack([f.embedding for f in faces if f.embedding is not None]), prototypes)
    html = output.suffix.lower() == ".html"
    _end(
        output, folder.to_map(faces, places, sources, prototypes) if html else folder.to_npz(faces, places),
        f"{len(faces)} faces of {len(found)} pictures" + _with_learned(detector), unreadable,
    )  # fmt: skip


def spectrum(
    groups: Annotated[list[str], typer.Argument(help="Folders, files, quoted globs or @list.txt: each is a group.")],
    output: Annotated[Path, typer.Option("-o", "--output", help=f"Write FILE: {', '.join(SPECTRA)}.")] = Path(
        "spectrum.html"
    ),
    model: Model = None,
    max_pixels: MaxPixels = 100_000_000,
    max_bytes: MaxBytes = 200_000_000,
    overwrite: Overwrite = False,
) -> None:
    """Average the noise spectra of the faces in each folder.

    They are drawn beside that of photographs.
    The largest face of every picture, cut and resized as the network is shown it. Generators change how the power falls
    towards high frequencies, and leave peaks.

    \b
    Examples:
      faceauth spectrum suspects/ own-photos/ -o spectrum.html
      faceauth spectrum suspects/ -o spectrum.csv
    """
    from faceauth.explain import folder, reference

    check_new(output, SPECTRA, overwrite=overwrite)
    detector = _detector(model, max_pixels, max_bytes)
    by_group = {group: _faces(detector, pictures) for group, pictures in _groups(groups, max_bytes).items()}
    found = folder.averages({group: faces for group, (faces, _) in by_group.items()})
    unreadable = sum(count for _, count in by_group.values())
    if not found:
        raise _nothing(sum(len(faces) for faces, _ in by_group.values()), unreadable)
    for group in (name for name in by_group if name not in found):
        notice(f"{group}: left out, no face was found in it")
    size = detector.model.card.preprocess.size
    html = output.suffix.lower() == ".html"
    beside = reference.read(detector.model) if html else None
    _end(
        output, folder.to_spectra(found, size, beside) if html else folder.to_csv(found, size),
        f"{sum(count for count, _ in found.values())} faces of {len(found)} group{'' if len(found) == 1 else 's'}",
        unreadable,
    )  # fmt: skip


def _detector(model: Path | None, max_pixels: int, max_bytes: int, *, learned: Path | bool = False) -> "Detector":
    from faceauth.detector import Detector
    from faceauth.images import Limits

    return Detector(model, learned=learned, limits=Limits(max_pixels, max_bytes))


def _groups(names: Sequence[str], max_bytes: int) -> dict[str, list[str | bytes]]:
    """The pictures of each group, looked for before any is judged; of groups with the same pictures the first."""
    from faceauth.inputs import expand

    groups: dict[str, list[str | bytes]] = {}
    first: dict[tuple[str | bytes, ...], str] = {}
    for name in dict.fromkeys(names):
        pictures = expand([name], max_bytes=max_bytes).references
        key = tuple(one if isinstance(one, bytes) else os.path.abspath(one) for one in pictures)
        if key in first:
            notice(f"{name}: the same pictures as {first[key]}, counted once")
        else:
            first[key], groups[name] = name, pictures
    return groups


def _faces(detector: "Detector", pictures: Sequence[str | bytes]) -> "tuple[list[EmbeddedFace], int]":
    """What was seen in each picture that can be read, and how many cannot; each of these is named."""
    from faceauth.explain.folder import embedded

    found, unreadable = [], 0
    for one in progress(embedded(detector, pictures), len(pictures)):
        if one.error is None:
            found.append(one)
        else:
            unreadable += 1
            notice(f"{one.path}: {one.error}")
    return found, unreadable


def _nothing(read: int, unreadable: int) -> FaceAuthError:
    """The error where no face was found in the pictures that could be read, or none could be."""
    if read:
        return DataError("no face was found in any picture", "give pictures with faces of 48 pixels or more")
    what = "the picture" if unreadable == 1 else f"none of the {unreadable} pictures"
    return ImageError(f"{what} could {'not ' if unreadable == 1 else ''}be read", "the lines above say why")


def _with_learned(detector: "Detector") -> str:
    names = [t.kind.name for t in detector.attributor.taught] if detector.attributor else []
    return f"; with what was learned: {', '.join(names)}" if names else ""


def _end(output: Path, data: bytes, said: str, unreadable: int) -> None:
    with writing(output):
        write_bytes(output, data)
    notice(f"{output}: {said}" + (f"; {unreadable} unreadable" if unreadable else ""))
    if unreadable:
        raise typer.Exit(UNREADABLE)
