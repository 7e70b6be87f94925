"""One picture in several files, judged once.

Difference hashes (`images.dhash`) within `images.NEAR` bits propose which files show the same picture; about one
portrait in 500 has such a neighbour among 6,000 strangers, so `images.alike` decides. It asks every cell of a 16 x 16
copy to agree, which a picture saved again or reduced does, and one with another face, a crop and a grey copy do not.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from faceauth import images
from faceauth.detector import SMALLEST_FACE, Detector, too_small
from faceauth.errors import ImageError
from faceauth.faces import FoundFace
from faceauth.images import Limits, Source
from faceauth.provenance import claims
from faceauth.verdict import Evidence, Face, Verdict
from faceauth.workers import answers

Watch = Callable[[Iterator[Any], int], Iterator[Any]]


@dataclass(frozen=True, slots=True)
class Copy:
    """A file that shows the picture of an earlier one.

    Attributes:
        of: the place of the earlier one among the references.
        path, sha256, size, evidence, note: of this file, as in `Verdict`.
    """

    of: int
    path: str | None
    sha256: str | None
    size: tuple[int, int]
    evidence: tuple[Evidence, ...]
    note: str | None = None

    def verdict(self, first: Verdict) -> Verdict:
        """The verdict on the earlier file as one on this; boxes lie where the faces are in this one.

        A face that is too small to judge here has no verdict here.
        """
        across, down = (mine / (its or mine) for mine, its in zip(self.size, (first.width, first.height), strict=True))
        return replace(
            first, path=self.path, image_sha256=self.sha256, width=self.size[0], height=self.size[1], ms=None,
            evidence=self.evidence, duplicate_of=first.path, note=self.note,
            faces=tuple(_moved(face, across, down) for face in first.faces),
        )  # fmt: skip


Summary = tuple[npt.NDArray[np.uint8], Copy]  # the small copy of a file's picture, and the file as a copy of another


def judged_once(
    detector: Detector,
    references: Sequence[Source],
    workers: int = 1,
    *,
    timeout: float | None = None,
    watch: Watch = lambda items, _: items,
) -> Generator[Verdict, None, None]:
    """Like `Detector.stream`; of files that show one picture the first is judged, and the others get its faces.

    Every file is decoded once more, before any is judged.

    Args:
        watch: passed an iterator and its length while that goes on, and returns it; for a progress bar.
    """
    copies = find(references, detector.limits, workers, timeout=timeout, watch=watch)
    waiting = Counter(copy.of for copy in copies.values())
    firsts: dict[int, Verdict] = {}
    others = [reference for number, reference in enumerate(references) if number not in copies]
    with closing(detector.stream(others, workers, timeout=timeout)) as verdicts:
        for number in range(len(references)):
            if (copy := copies.get(number)) is None:
                verdict = next(verdicts)
                if waiting[number]:
                    firsts[number] = verdict
            else:
                verdict = copy.verdict(firsts[copy.of])
                waiting[copy.of] -= 1
                if not waiting[copy.of]:
                    del firsts[copy.of]
            yield verdict


def find(
    references: Sequence[Source],
    limits: Limits,
    workers: int = 1,
    *,
    timeout: float | None = None,
    watch: Watch = lambda items, _: items,
) -> dict[int, Copy]:
    """Which references show the picture of an earlier one, by their place; what cannot be read shows none."""
    run = partial(answers, start=start, arguments=limits, failed=nothing, workers=workers, timeout=timeout)
    with closing(run([(dhash, reference) for reference in references])) as hashes:
        known = [(number, value) for number, value in enumerate(watch(hashes, len(references))) if value is not None]
    first = near([number for number, _ in known], [value for _, value in known])
    jobs = [(_copy, references[later], references[earlier], earlier) for later, earlier in first.items()]
    with closing(run(jobs)) as copies:
        return {later: copy for later, copy in zip(first, copies, strict=True) if copy is not None}


def near(places: Sequence[int], hashes: Sequence[int]) -> dict[int, int]:
    """Of each place, rising, whose hash is near one at an earlier place, directly or through others, the earliest."""
    return {places[later]: places[earlier] for later, earlier in sorted(_firsts(hashes).items())}


def _firsts(hashes: Sequence[int]) -> Mapping[int, int]:
    """Of each hash that has an earlier one near it, directly or through others, the earliest."""
    first: dict[int, int] = {}
    for pair in images.near_pairs(hashes):
        earlier, later = sorted(pair)
        first[later] = min(earlier, first.get(later, earlier))
    for later in sorted(first):
        first[later] = first.get(first[later], first[later])
    return first


def start(limits: Limits) -> Callable[[Any], Any]:
    """For a worker process: (function, argument, ...) to what that returns; None where a file cannot be read."""
    return partial(_work, limits)


def _work(limits: Limits, job: tuple[Any, ...]) -> Any:
    function, *given = job
    try:
        return function(*given, limits)
    except ImageError:
        return None  # it is judged like any other, and its verdict says what is wrong


def dhash(source: Source, limits: Limits) -> int:
    """The difference hash of a file's picture. Raises ImageError."""
    return images.dhash(images.load(source, limits).image)


def summary(source: Source, of: int, limits: Limits) -> Summary:
    """What of a file decides whether it shows the picture at place `of`. Raises ImageError."""
    loaded = images.load(source, limits)
    copy = Copy(of, loaded.path, loaded.sha256, loaded.full_size, claims(loaded.data), loaded.note)
    return images.small_copy(loaded.image), copy


def same(later: Summary, earlier: Summary) -> bool:
    """Whether a file shows the picture of an earlier one; not a larger one, on which more can be seen."""
    return later[1].size[0] <= earlier[1].size[0] and images.alike(later[0], earlier[0])


def _copy(later: Source, earlier: Source, of: int, limits: Limits) -> Copy | None:
    seen = summary(later, of, limits)
    return seen[1] if same(seen, summary(earlier, of, limits)) else None


def nothing(job: object, reason: str) -> None:
    """What a file that took too long, or took a process down, says of itself: its verdict will say why."""


def _moved(face: Face, across: float, down: float) -> Face:
    if face.box is None:
        return face
    left, top, right, bottom = face.box
    box = round(left * across), round(top * down), round(right * across), round(bottom * down)
    found = FoundFace(box)
    if found.side < SMALLEST_FACE <= max(right - left, bottom - top):
        return too_small(face.index, found, face.threshold, face.false_alarm_rate)
    return replace(face, box=box)
