"""Whether a report still holds: the judgement is repeated on the picture and compared field by field."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from faceauth.detector import Detector
from faceauth.errors import UsageError
from faceauth.explain.explaining import told
from faceauth.explain.records import FORMAT, Explanation
from faceauth.images import Limits

LARGEST = 1 << 25  # bytes of a report
CLOSE = {"rel_tol": 1e-3, "abs_tol": 1e-3}  # numbers that processors and libraries round differently
_SHOWN = 80  # characters of a value
_NONE = "not there"
Place = tuple[str | int, ...]  # keys and indices; a name with dots in it is no way into something else


def _is_milliseconds(value: Any) -> bool:
    return type(value) in {int, float} and 0 <= value < math.inf


def _is_path(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_time(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", value, re.ASCII))


def _is_version(value: Any) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"\d[\w.+-]{,40}", value, re.ASCII))


# what may differ, and what form it has to have all the same: a report holds nothing that was made up
NOT_COMPARED: dict[Place, Callable[[Any], bool]] = {
    ("ms",): _is_milliseconds, ("verdict", "ms"): _is_milliseconds,
    ("verdict", "path"): _is_path, ("provenance", "path"): _is_path,
    ("verdict", "judged_at"): _is_time, ("custody", "created_at"): _is_time,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Difference:
    """A field of a report that does not hold: where it is, what the report says, and what was found now."""

    field: str
    report: str
    now: str

    def __str__(self) -> str:
        return f"{self.field}: the report says {self.report}, found {self.now}"


def read_report(path: Path) -> dict[str, Any]:
    """A report as `faceauth explain PHOTO -o report.json` wrote it.

    Raises:
        UsageError: it cannot be read, is too large, or no such report.
    """
    hint = "give a file that faceauth explain PHOTO -o report.json wrote"
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise UsageError(f"{str(path)!r} has more than {LARGEST:,} bytes", hint)
        report = json.loads(data, object_pairs_hook=_once, parse_constant=_no_number)
    except OSError as error:
        raise UsageError(f"cannot read {str(path)!r}: {error.strerror}", hint) from error
    except _Ambiguous as error:
        raise UsageError(f"{str(path)!r} {error}", hint) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{str(path)!r} is no JSON", hint) from error
    parts = ("verdict", "faces", "custody")
    if not isinstance(report, dict) or any(name not in report for name in parts):
        raise UsageError(f"{str(path)!r} is no report of faceauth explain", hint)
    if report.get("format") != FORMAT:
        raise UsageError(f"{str(path)!r} has format {str(report.get('format'))[:20]}, not {FORMAT}", hint)
    custody = report["custody"]
    if not isinstance(custody, dict) or not isinstance(custody.get("parameters"), dict):
        raise UsageError(f"{str(path)!r} does not say with which parameters it was made", hint)
    return report


class _Ambiguous(Exception):
    """What other programs read in another way, or not at all."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names stand once: of repeated ones a reader sees all, and a program takes the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        name = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _Ambiguous(f"holds {shown(name)} twice in one place")
    return found


def _no_number(name: str) -> None:
    raise _Ambiguous(f"holds {name}, which is no JSON")


def detector_of(
    report: Mapping[str, Any], model: Path | None = None, learned: Path | None = None, limits: Limits | None = None
) -> Detector:
    """A detector with the parameters of a report.

    Args:
        model: the model file, the default one by None; learned: the file of what was taught, the user's own by None,
            where the report says that any of it took part.
        limits: up to which those of the report are taken, so that it cannot raise them; the default ones by None.

    Raises:
        UsageError: parameters that cannot be.
    """
    given = report["custody"]["parameters"]
    threshold = given.get("threshold")
    said = [given.get("max_pixels"), given.get("max_bytes")]
    switches = [given.get("recheck"), given.get("whole_image")]
    if (
        type(threshold) not in {int, float}
        or not 0 <= threshold <= 1
        or not all(type(v) is int and v > 0 for v in said)
        or not all(type(v) is bool for v in switches)
    ):
        raise UsageError("the parameters of the report cannot be", "it was changed, or damaged")
    taught: Path | bool = (learned or True) if report["custody"].get("learned_sha256") else False
    most = limits or Limits()
    return Detector(
        model, threshold=threshold, recheck=switches[0], whole_image=switches[1], learned=taught,
        limits=Limits(min(said[0], most.max_pixels), min(said[1], most.max_bytes)),
    )  # fmt: skip


def retold(now: Explanation, report: Mapping[str, Any], detector: Detector) -> Explanation:
    """An explanation whose sentences are those of the report's scores, where these are the same as far as is compared.

    A score is written to two digits in a sentence: a difference in the seventh can change them.
    """
    try:
        scores = [face["score"] for face in report["verdict"]["faces"]]
    except (KeyError, TypeError):
        return now
    if len(scores) != len(now.faces):
        return now
    faces = [
        replace(face, score=score) if face.score is not None and _same(score, face.score) else face
        for face, score in zip(now.verdict.faces, scores, strict=True)
    ]
    return told(detector, now, faces)


def differences(report: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Difference]:
    """Every field in which two explanations (`Explanation.to_dict`) differ, but for times, paths and versions.

    One after another: a report that somebody made up can differ in millions.
    """
    return _compare(report, now, ())


def _compare(report: Any, now: Any, place: Place) -> Iterator[Difference]:
    form = _is_version if place[:-1] == ("custody", "libraries") else NOT_COMPARED.get(place)
    if isinstance(report, dict) and isinstance(now, dict):
        for name in dict.fromkeys((*report, *now)):
            inner = (*place, name)
            if name in report and name in now:
                yield from _compare(report[name], now[name], inner)
            else:
                yield Difference(_field(inner), *(shown(d[name]) if name in d else _NONE for d in (report, now)))
    elif isinstance(report, list) and isinstance(now, list) and len(report) == len(now):
        for i, (a, b) in enumerate(zip(report, now, strict=True)):
            yield from _compare(a, b, (*place, i))
    elif not (form(report) if form else _same(report, now)):
        yield Difference(_field(place), shown(report), shown(now))


def _field(place: Place) -> str:
    """A place in words: `verdict.faces[0].score`; names that are no plain words in quotes."""
    cut = (p[:_SHOWN] if isinstance(p, str) else p for p in place)
    parts = (f".{p}" if isinstance(p, str) and p.isidentifier() else f"[{shown(p)}]" for p in cut)
    return "".join(parts).removeprefix(".")


def _same(a: Any, b: Any) -> bool:
    numbers = all(type(v) in {int, float} for v in (a, b))
    if numbers and float in (type(a), type(b)):
        try:
            return math.isclose(a, b, **CLOSE)
        except OverflowError:  # a whole number beyond those that a float can hold
            return False
    return type(a) is type(b) and bool(a == b)


def shown(value: Any) -> str:
    """A value of a report, which may hold anything, in at most `_SHOWN` characters."""
    try:
        text = json.dumps(value)
    except RecursionError:
        text = "something nested too deeply"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
