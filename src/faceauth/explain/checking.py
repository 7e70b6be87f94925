"""Whether a report still holds: the judgement is repeated on the picture and compared field by field."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faceauth.detector import Detector
from faceauth.errors import UsageError
from faceauth.explain.records import FORMAT
from faceauth.images import Limits

LARGEST = 1 << 25  # bytes of a report
CLOSE = {"rel_tol": 1e-3, "abs_tol": 1e-3}  # numbers that processors and libraries round differently
NOT_COMPARED = frozenset({
    "ms", "verdict.ms", "verdict.path", "verdict.judged_at", "provenance.path", "custody.created_at",
})  # fmt: skip
_SHOWN = 80  # characters of a value
_NONE = "not there"


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
        report = json.loads(data)
    except OSError as error:
        raise UsageError(f"cannot read {str(path)!r}: {error.strerror}", hint) from error
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


def detector_of(report: Mapping[str, Any], model: Path | None = None, learned: Path | None = None) -> Detector:
    """A detector with the parameters of a report.

    Args:
        model: the model file, the default one by None; learned: the file of what was taught, the user's own by None,
            where the report says that any of it took part.

    Raises:
        UsageError: parameters that cannot be.
    """
    given = report["custody"]["parameters"]
    threshold = given.get("threshold")
    limits = [given.get("max_pixels"), given.get("max_bytes")]
    switches = [given.get("recheck"), given.get("whole_image")]
    if (
        type(threshold) not in {int, float}
        or not all(type(v) is int and v > 0 for v in limits)
        or not all(type(v) is bool for v in switches)
    ):
        raise UsageError("the parameters of the report cannot be", "it was changed, or damaged")
    taught: Path | bool = (learned or True) if report["custody"].get("learned_sha256") else False
    # a report cannot raise the limits under which its picture is opened
    most = Limits()
    return Detector(
        model, threshold=threshold, recheck=switches[0], whole_image=switches[1], learned=taught,
        limits=Limits(min(limits[0], most.max_pixels), min(limits[1], most.max_bytes)),
    )  # fmt: skip


def differences(report: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """Every field in which two explanations (`Explanation.to_dict`) differ, but for times, paths and libraries."""
    return [found for found in _compare(report, now, "") if not _left_out(found.field)]


def _left_out(field: str) -> bool:
    return field in NOT_COMPARED or field.startswith("custody.libraries")


def _compare(report: Any, now: Any, field: str) -> Iterator[Difference]:
    if isinstance(report, dict) and isinstance(now, dict):
        for name in dict.fromkeys((*report, *now)):
            inner = f"{field}.{name[:_SHOWN]}" if field else name[:_SHOWN]
            if name in report and name in now:
                yield from _compare(report[name], now[name], inner)
            else:
                yield Difference(inner, *(shown(d[name]) if name in d else _NONE for d in (report, now)))
    elif isinstance(report, list) and isinstance(now, list) and len(report) == len(now):
        for i, (a, b) in enumerate(zip(report, now, strict=True)):
            yield from _compare(a, b, f"{field}[{i}]")
    elif not _same(report, now):
        yield Difference(field, shown(report), shown(now))


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
