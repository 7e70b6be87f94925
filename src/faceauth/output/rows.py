"""A verdict as rows, one a face, and a row in words."""

import hashlib
import math
import os
from collections.abc import Sequence
from typing import Any

from faceauth.verdict import Evidence, Face, Verdict, finite

FIELDS = (
    "path", "face", "box", "label", "score", "stability", "source", "threshold", "false_alarm_rate",
    "model", "model_sha256", "image_sha256", "width", "height", "ms", "error",
    "generator", "generators", "families", "says_itself",
    "reason", "version", "judged_at", "learned", "learned_sha256", "face_finder", "path_id",
    "duplicate_of", "note",
)  # fmt: skip
# Of the rows of a video: a face in a frame has all up to `note`, a track those that say something of it.
VIDEO_FIELDS = (
    "row", "frame", "time", "track", *FIELDS,
    "from", "to", "frames", "judged", "real", "uncertain", "fake", "lowest", "highest",
)  # fmt: skip

Row = dict[str, Any]


def rows(verdict: Verdict) -> list[Row]:
    """One dict a face with the keys `FIELDS`; a single one, without a face, for an unreadable image.

    `generators` and `families` are dicts of shares, falling; `says_itself` is a list of lines. Numbers are finite: a
    value that is none becomes null, and `error` names it.
    """
    verdict = finite(verdict)
    image = {name: getattr(verdict, name) for name in FIELDS if name in Verdict.__slots__}
    says = [f"{e.where}: {e.says}" for e in verdict.evidence]
    blank: Row = dict.fromkeys(FIELDS) | image | {"says_itself": says, "path_id": path_id(verdict.path)}
    blank["learned"] = list(verdict.learned)
    if not verdict.faces:
        return [_checked(blank | {"label": verdict.label})]
    return [
        _checked(
            blank
            | {name: getattr(face, name) for name in FIELDS if name in Face.__slots__}
            | {"face": face.index, "box": list(face.box) if face.box else None}
            | {name: {k: round(v, 4) for k, v in getattr(face, name)} for name in ("generators", "families")}
        )
        for face in verdict.faces
    ]


def verdict_of(found: Sequence[Row]) -> Verdict:
    """The verdict that gave these rows; its evidence names no generators. The inverse of `rows`."""
    found = [dict.fromkeys(FIELDS) | row for row in found]  # an older output, or an edited one, may lack some
    image = {name: found[0][name] for name in FIELDS if name in Verdict.__slots__}
    says = (line.partition(": ") for line in found[0]["says_itself"] or ())
    image |= {
        "learned": tuple(found[0]["learned"] or ()),
        "evidence": tuple(Evidence(where, text, None) for where, _, text in says),
    }
    judged = [row for row in found if row["label"] not in {None, "no-face"}]
    return Verdict(faces=tuple(map(_face, judged)), **image)


def _face(row: Row) -> Face:
    values = {name: row[name] for name in FIELDS if name in Face.__slots__}
    values |= {name: tuple((row[name] or {}).items()) for name in ("generators", "families")}
    return Face(index=row["face"], **values | {"box": tuple(row["box"]) if row["box"] else None})


def path_id(path: str | None) -> str | None:
    """16 hexadecimal digits of the file's absolute path: the same however the path is spelled.

    None for standard input and pixels in memory, which have no path.
    """
    if path is None or path == "-":
        return None
    absolute = os.path.normcase(os.path.abspath(path))
    return hashlib.blake2b(os.fsencode(absolute), digest_size=8).hexdigest()


def _checked(row: Row) -> Row:
    """The row with null for each number that JSON cannot hold."""
    wrong = [name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
    if not wrong:
        return row
    error = f"{', '.join(wrong)}: no finite number"
    return row | dict.fromkeys(wrong) | {"error": f"{row['error']}; {error}" if row["error"] else error}


def flat(row: Row) -> Row:
    """The row with its lists as text, for formats without: a box as `left top right bottom`, shares as `flux 0.62`."""
    shares = {
        n: "; ".join(f"{k} {v:.4f}" for k, v in (row[n] or {}).items()) or None for n in ("generators", "families")
    }
    lists = {name: "; ".join(row[name] or []) or None for name in ("says_itself", "learned")}
    return row | shares | lists | {"box": " ".join(map(str, row["box"])) if row["box"] else None}


def encodable(text: str) -> str:
    """A text with stray bytes, which UTF-8 has no place for, escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def counted(number: int, what: str) -> str:
    """How many of something, in words: "1 image", "2 images"."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def printable(text: str | None) -> str:
    """A text without control characters and stray bytes, safe to print."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in encodable(text or ""))


def sentence(row: Row) -> str:
    """One row in words."""
    says = f"; the file says {'; '.join(row['says_itself'])}" if row["says_itself"] else ""
    if row["label"] == "no-face":
        return printable("; ".join(["no face found, nothing judged", *notes(row)]) + says)
    if row["score"] is None:
        return printable(row["error"])
    where = "whole image (no face found)" if row["face"] is None else f"face {row['face'] + 1}"
    more = "".join(f", {part}" for part in (made_by(row), *notes(row)) if part)
    return printable(f"{where}: {row['label']}, P(fake) {row['score']:.2f}{more}{says}")


def made_by(row: Row) -> str:
    """What most likely made a face, with its share; the source it resembles where the model cannot say."""
    if row["generator"] is None:
        return f"most like {row['source']}" if row["source"] else ""
    share = (row["generators"] or {}).get(row["generator"])
    return str(row["generator"]) if share is None else f"{row['generator']} {share:.0%}"


def notes(row: Row) -> list[str]:
    """Why the label is uncertain, how far the views agreed where they did not, and which picture or part was judged."""
    stability = row["stability"]
    found = [row["reason"]] if row["reason"] else []
    if stability is not None and stability != 1:
        found.append(f"called fake at {stability:.0%} of the views")
    if row["duplicate_of"]:
        found.append(f"the same picture as {row['duplicate_of']}")
    if row["note"]:
        found.append(row["note"])
    return found
