"""Teaching: a folder of 10 to 50 pictures becomes a class beside those that the model was trained on.

No network is trained and nothing but a mean embedding is kept. How well the class will be told apart is estimated
with each picture left out in turn, and on the model file's reference images; where it would not be, nothing is kept.
It knows nothing of terminals.
"""

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from faceauth import images, inputs, learned
from faceauth.attribution import UNKNOWN, Attributor, Kind, Prototypes, Taught, logsumexp
from faceauth.detector import SMALLEST_FACE, Detector
from faceauth.errors import DataError, ImageError, ModelError, UsageError
from faceauth.images import Source
from faceauth.learned import FAMILIES

FEWEST, MOST = 10, 50
SHOWN = 10  # files left out for one reason that are named
TAKEN = 0.01  # of the reference images, what a new class may take; its weight is lowered until that holds
LOWEST_RECALL = {"fake": 0.3, "real": 0.1}  # of photographs the mean part: scores fall by degrees
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Lesson:
    """What was made of a folder.

    Attributes:
        taught: the class, with its estimate; unreadable: files that could not be used, and why; duplicates: files left
            out because another shows the same; faceless: files left out because no face was found in them; whole:
            pictures without a face that were taken whole, as `whole_image` asks; left: files beyond `MOST`.
        confused: for pictures that would not be recognised, what they would be taken for, and how many.
    """

    taught: Taught
    unreadable: tuple[str, ...]
    duplicates: tuple[str, ...]
    faceless: tuple[str, ...]
    whole: int
    left: int
    confused: tuple[tuple[str, int], ...]

    def lines(self) -> Iterator[str]:
        """What was noticed on the way, a line each; of many files left out for one reason the first `SHOWN`."""
        yield from _passed_over(self)
        if self.confused:
            yield "when left out, taken for: " + ", ".join(f"{name} ({n})" for name, n in self.confused)


@dataclass(slots=True)
class _Seen:
    embeddings: list[npt.NDArray[np.float32]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    faceless: list[str] = field(default_factory=list)
    whole: int = 0
    left: int = 0


def _passed_over(seen: Lesson | _Seen) -> Iterator[str]:
    for reason, files in (
        ("not used", seen.unreadable),
        ("left out, shows the same as another", seen.duplicates),
        ("left out, no face found", seen.faceless),
    ):
        yield from (f"{reason}: {file}" for file in files[:SHOWN])
        if len(files) > SHOWN:
            yield f"{reason}: {len(files) - SHOWN} more"
    if seen.whole:
        yield f"no face found in {seen.whole}: taken whole"
    if seen.left:
        yield f"{seen.left} more pictures left out: {MOST} are enough"


def learn(
    detector: Detector,
    name: str,
    pictures: Path | Sequence[Source],
    file: Path,
    *,
    real: bool = False,
    family: str | None = None,
) -> Lesson:
    """Teach `name` from pictures, or from those below a folder, and add it to the learned file.

    Args:
        detector: with what was taught before; pictures without a face are taken whole if its `whole_image` is on, else
            left out. file: the learned file, rewritten whole.
        real: the pictures are photographs of one camera or pipeline, else one generator's.
        family: that of the generator, one of `FAMILIES` or of the model's.

    Raises:
        UsageError: a name in use, no such folder, no pictures in it, a file that cannot be written.
        DataError: too few pictures, or a class that could not be told apart. Nothing is kept then; the notes of the
            error (`__notes__`) are the lines that a `Lesson` would have of pictures left out.
        ModelError: the model file holds no prototypes.
    """
    attributor = attributor_of(detector)
    kind = _kind(attributor, name, real, family)
    if isinstance(pictures, Path):
        if not pictures.is_dir():
            raise UsageError(f"no folder {str(pictures)!r}", "learn takes a folder of pictures of one kind")
        pictures = inputs.expand([str(pictures)]).references
    seen = _embed(detector, pictures)
    try:
        if len(seen.embeddings) < FEWEST:
            raise DataError(_too_few(seen), f"{FEWEST} to {MOST} different pictures do")
        taught, confused = estimate(attributor, kind, np.stack(seen.embeddings), detector.model.sha256)
    except DataError as error:
        for line in _passed_over(seen):
            error.add_note(line)
        raise
    with learned.changing(file):
        known = learned.read(file)
        if any((t.kind.name, t.model_sha256) == (name, detector.model.sha256) for t in known):
            raise _learned_already(name)  # by another process, since the name was checked
        learned.write(file, [*known, taught])
    return Lesson(
        taught, tuple(seen.unreadable), tuple(seen.duplicates), tuple(seen.faceless), seen.whole, seen.left, confused
    )


def forget(name: str, file: Path) -> int:
    """Remove what was taught under a name, for every model; returns how many. Raises UsageError for an unused name."""
    if not file.exists():
        raise UsageError(f"nothing called {name!r} was learned: there is no file {str(file)!r}")
    with learned.changing(file):
        taught = learned.read(file)
        kept = [t for t in taught if t.kind.name != name]
        if len(kept) == len(taught):
            near = difflib.get_close_matches(name, [t.kind.name for t in taught], 1)
            raise UsageError(f"nothing called {name!r} was learned", f"did you mean {near[0]!r}?" if near else None)
        learned.write(file, kept)
    return len(taught) - len(kept)


def attributor_of(detector: Detector) -> Attributor:
    """What names generators. Raises ModelError for a model file without prototypes."""
    if detector.attributor is None:
        raise ModelError(
            f"the model {detector.model.card.name!r} holds no prototypes, so it cannot name or learn generators",
            "add them with: faceauth lab prototypes MODEL",
        )
    return detector.attributor


def estimate(
    attributor: Attributor, kind: Kind, embedding: Floats, model_sha256: str, lowest: float | None = None
) -> tuple[Taught, tuple[tuple[str, int], ...]]:
    """The class that embeddings (n, d) make, and what its own pictures would be taken for when left out in turn.

    The log weight is the highest, up to 0, with which it takes at most `TAKEN` of the reference images: for a generator
    it becomes the answer for so many of them; real photographs take so much of the fakes' scores. The recall is the
    share of pictures for which it is the answer; for photographs, the mean part of their scores that is taken away.

    Args:
        lowest: the recall below which it is refused; by default that of `LOWEST_RECALL`.

    Raises:
        DataError: it could not be told apart.
    """
    prototypes = attributor.prototypes
    mean, count = embedding.mean(axis=0, dtype=np.float64), len(embedding)
    taught = Taught(kind, mean, count, model_sha256, datetime.now(UTC).date().isoformat(), 0.0, 0.0, 0.0)
    rivals = logsumexp(prototypes.densities(prototypes.reference))
    own = prototypes.density(prototypes.reference, prototypes.place(mean[None])[0], count) / prototypes.temperature
    judged = prototypes.fake[prototypes.reference_kind] | (kind.label == "fake")
    weight = _weight((own - rivals)[judged], kind.label)
    taken = float((_part(own - rivals + weight) > 0.5).mean()) if len(own) else 0.0
    others = [t for t in attributor.taught if t.kind.name != kind.name]
    parts = np.stack([_left_out(attributor, others, taught, weight, embedding, i) for i in range(count)])
    recall = float((parts[:, -1] > 0.5).mean() if kind.label == "fake" else parts[:, -1].mean())
    missed = parts[:, -1] <= 0.5
    confused = _confused(prototypes, others, embedding[missed], parts[missed])
    lowest = LOWEST_RECALL[kind.label] if lowest is None else lowest
    if recall < lowest:
        known, rest = f"{count - missed.sum()} of {count} pictures would be recognised", "the others"
        if kind.label == "real":  # no picture is recognised or not: the rule is what comes off the scores of all
            known = f"{recall:.1%} would come off the pictures' scores, and {lowest:.0%} is the least"
            rest = f"{count} pictures"
        likeness = ", ".join(f"{n} like {other}" for other, n in confused[:3])
        raise DataError(
            f"{kind.name!r} cannot be told apart: left out in turn, {known}; of {rest} {likeness} to this model",
            "are they all of one kind? a larger number, or pictures as they were made, may do",
        )
    return replace(taught, log_weight=weight, recall=recall, taken=taken), confused


def _weight(margins: Floats, label: str) -> float:
    """The highest log weight up to 0 with which images of these margins lose at most `TAKEN` to the new class.

    A generator may become the answer for so many of them; a camera may take so much of their scores.
    """
    low, high = learned.LOWEST_WEIGHT, 0.0

    def loss(weight: float) -> float:
        part = _part(margins + weight)
        return float((part > 0.5).mean() if label == "fake" else part.mean())

    if not len(margins) or loss(high) <= TAKEN:
        return high
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if loss(middle) <= TAKEN else (low, middle)
    return low


def _part(margins: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(margins, -700, 700))))


def _left_out(
    attributor: Attributor, others: Sequence[Taught], taught: Taught, weight: float, embedding: Floats, index: int
) -> Floats:
    """The parts of one picture when the class is taught beside others without it; the class's own is last."""
    rest = np.delete(embedding, index, axis=0)
    without = replace(taught, mean=rest.mean(axis=0, dtype=np.float64), count=len(rest), log_weight=weight)
    return np.asarray(attributor.beside([*others, without]).parts(embedding[index : index + 1])[0])


def _confused(
    prototypes: Prototypes, others: Sequence[Taught], embedding: Floats, parts: Floats
) -> tuple[tuple[str, int], ...]:
    """What (n, d) embeddings are taken for: another class taught, where it has more than all known, or a known one.

    `parts` (n, others + 1) are theirs, as `_left_out` gives them.
    """
    if not len(embedding):
        return ()
    names = [k.generator if k.label == "fake" else k.name for k in prototypes.kinds] + [UNKNOWN]
    found = [names[i] for i in nearest(prototypes, embedding)]
    if others:
        first = parts[:, :-1].argmax(axis=1)
        ahead = parts[:, :-1].max(axis=1) > 1 - parts.sum(axis=1)
        found = [others[i].kind.name if a else name for i, a, name in zip(first, ahead, found, strict=True)]
    return tuple(Counter(found).most_common())


def nearest(prototypes: Prototypes, embedding: Floats) -> list[int]:
    """For each embedding the row of the likeliest source, or k for an unknown one."""
    return [int(i) for i in prototypes.densities(prototypes.place(embedding)).argmax(axis=1)]


def _kind(attributor: Attributor, name: str, real: bool, family: str | None) -> Kind:
    learned.check_name(name)
    kinds = attributor.prototypes.kinds
    used = set(learned.RESERVED)
    used |= {n for k in kinds for n in (k.name, k.generator, k.family)} | {t.kind.name for t in attributor.taught}
    if name in used:
        if any(t.kind.name == name for t in attributor.taught):
            raise _learned_already(name)
        raise UsageError(f"the name {name!r} is in use", "the model has it; choose another")
    label: Literal["real", "fake"] = "real" if real else "fake"
    if real:
        if family:
            raise UsageError("--family is for generators", "leave it out with --real")
        return Kind(name, label, "real", name)
    families = sorted({*FAMILIES, *(k.family for k in kinds if k.label == "fake")})
    if family and family not in families:
        near = difflib.get_close_matches(family, families, 1)
        raise UsageError(f"no family {family!r}", f"did you mean {near[0]!r}?" if near else ", ".join(families))
    return Kind(name, label, family or "other", name)


def _learned_already(name: str) -> UsageError:
    return UsageError(f"the name {name!r} is in use", f"faceauth forget {name!r} first, or choose another")


def _embed(detector: Detector, files: Sequence[Source]) -> "_Seen":
    """Embed up to `MOST` different pictures, one in memory at a time."""
    seen = _Seen()
    known: list[tuple[int, npt.NDArray[np.uint8]]] = []
    for done, path in enumerate(files):
        if len(seen.embeddings) == MOST:
            seen.left = len(files) - done
            break
        try:
            name = str(images.shown(path))
            loaded = images.load(path, detector.limits)
        except ImageError as error:
            seen.unreadable.append(f"{name}: {error.message}")
            continue
        dhash, copy = images.dhash(loaded.image), images.small_copy(loaded.image)
        face = next(iter(detector.find_faces(loaded.image)), None)
        if any((dhash ^ d).bit_count() <= images.NEAR and images.alike(copy, c) for d, c in known):
            seen.duplicates.append(name)
        elif face is None and not detector.whole_image:
            seen.faceless.append(name)
        elif face and face.side < SMALLEST_FACE:
            seen.unreadable.append(f"{name}: face too small")
        else:
            seen.whole += face is None
            seen.embeddings.append(detector.run_faces(loaded.image, [face]).embedding[0])
        known.append((dhash, copy))
    return seen


def _too_few(seen: _Seen) -> str:
    why = [f"{len(seen.duplicates)} show the same as another"] if seen.duplicates else []
    why += [f"no face was found in {len(seen.faceless)}"] if seen.faceless else []
    why += [f"{len(seen.unreadable)} cannot be used ({'; '.join(seen.unreadable[:3])})"] if seen.unreadable else []
    count = len(seen.embeddings)
    few = "1 picture is" if count == 1 else f"{count} pictures are"
    return f"{few} too few to learn from" + (f": {', '.join(why)}" if why else "")
