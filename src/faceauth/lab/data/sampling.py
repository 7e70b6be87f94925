"""How many images of each source, and which: equal classes, equal sources within a class.

A choice is a function of the seed and of the files, not of their order or of when each was read: every source
has its images in an order drawn by hash, and gives the first ones that can be used. It opens no file.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from faceauth.errors import DataError


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one image: an error, or what was learned of it.

    Attributes:
        sha256: of the original's bytes; width, height: of the original in pixels; dhash: 64-bit difference hash.
        face: face box in pixels of the stored file, None where no face was found.
        error: why it cannot be used; empty where it can.
    """

    sha256: str = ""
    dhash: int = 0
    width: int = 0
    height: int = 0
    face: tuple[float, float, float, float] | None = None
    error: str = ""


def order(names: Iterable[str], key: str) -> list[str]:
    """Names in the order drawn by hash with `key`, whatever order they came in."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{key}:{name}".encode()).digest())


def quotas(labels: Mapping[str, str], sizes: Mapping[str, int], count: int | None) -> dict[str, int]:
    """How many images each source gives. Both classes get the same number, to the image.

    Without `count` all sources of a class give the same (one more or less where it cannot be divided), as many as the
    smallest allows. With it, `count` images in all where there are so many: a source too small gives all that it
    has, and the others of its class share what it lacks equally.

    Args:
        labels: real or fake for each source; sizes: how many images it has.

    Raises:
        DataError: a class without a source, or a source without an image.
    """
    classes = {label: sorted(s for s in labels if labels[s] == label) for label in ("real", "fake")}
    for label, sources in classes.items():
        if not sources:
            raise DataError(f"there is no {label} source", f"add one: --data NAME=PATH:{label}")
    if empty := sorted(s for s in labels if not sizes[s]):
        raise DataError(f"no image of {', '.join(empty)} can be used", "correct the source, or leave it out")
    if count is None:
        each = min(len(sources) * min(sizes[s] for s in sources) for sources in classes.values())
    else:
        each = min(count // 2, *(sum(sizes[s] for s in sources) for sources in classes.values()))
    wanted: dict[str, int] = {}
    for sources in classes.values():
        left = each
        for k, source in enumerate(sorted(sources, key=lambda s: (sizes[s], s))):
            wanted[source] = min(sizes[source], -(-left // (len(sources) - k)))
            left -= wanted[source]
    return wanted


@dataclass(frozen=True, slots=True)
class Choice:
    """Which images are chosen, as things stand.

    Attributes:
        picked: names of each source; unknown: (source, name) that must be read first.
        usable: how many images a source has that fell short, none where it did not.
    """

    picked: dict[str, list[str]]
    unknown: list[tuple[str, str]]
    usable: dict[str, int]


def choose(
    wanted: Mapping[str, int], names: Mapping[str, Iterable[str]], outcomes: Mapping[tuple[str, str], Outcome]
) -> Choice:
    """The first usable images of every source. A file that comes twice under one label counts once.

    Args:
        names: of the images of each source, in its order; outcomes: of those that were read, by source and name.
    """
    choice = Choice({}, [], {})
    taken: set[str] = set()
    for source in sorted(wanted):
        picked: list[str] = []
        for name in names[source]:
            if len(picked) >= wanted[source]:
                break
            outcome = outcomes.get((source, name))
            if outcome is None:
                choice.unknown.append((source, name))
                picked.append(name)
            elif not outcome.error and outcome.sha256 not in taken:
                taken.add(outcome.sha256)
                picked.append(name)
        choice.picked[source] = picked
        if len(picked) < wanted[source]:
            choice.usable[source] = len(picked)
    return choice
