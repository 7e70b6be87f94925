"""An HTML page of all verdicts: one file with small copies of the pictures, to be sorted, filtered and searched."""

import ntpath
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from types import ModuleType
from urllib.parse import quote

from faceauth.images import SUFFIXES, thumbnail_of_file
from faceauth.output.page import asset, head, picture, tail, text
from faceauth.output.resume import count
from faceauth.output.rows import Row, made_by, notes
from faceauth.verdict import GRAVEST_FIRST

MOST_PICTURES = 3000  # that are shown in the page, about 10 kB each; the others are named and linked
MOST_FACES = 50  # of a picture that are listed
LONGEST_PATH = 1000  # characters of a path that the search looks through


class HtmlWriter:
    """One card an image. `folder` is where the finished page will lie, which the links start from."""

    def __init__(self, path: Path, folder: Path, fields: Sequence[str]) -> None:
        self._folder = os.path.realpath(folder)
        self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115
        self._cards = tempfile.TemporaryFile("w+", encoding="utf-8", dir=path.parent)  # noqa: SIM115
        self._image: list[Row] = []
        self._judged: Row | None = None
        self._tally: Counter[str] = Counter()
        self._shown = 0

    def write(self, row: Row) -> None:
        """Add one row; an image's rows come one after the other."""
        if self._image and self._image[0]["path"] != row["path"]:
            self._flush()
        self._image.append(row)
        if row["score"] is not None:
            self._judged = self._judged or row

    def close(self) -> None:
        """Finish the page: what was found in all, then the cards."""
        try:
            self._flush()
            script = asset("gallery.js")
            title = f"{_counted(self._tally['images'], 'picture')} judged by faceauth"
            self._file.write(head(title, [asset("gallery.css")], script))
            self._file.write(f"<header><h1>{title}</h1>{''.join(self._summary())}</header>\n{_CONTROLS}<main>\n")
            self._cards.seek(0)
            shutil.copyfileobj(self._cards, self._file)
            self._file.write(f'</main><p id="end" hidden>More follow as the page is scrolled.</p>\n{tail(script)}')
        finally:
            self._cards.close()
            self._file.close()

    def _flush(self) -> None:
        if self._image:
            small = _small(self._image[0]) if self._shown < MOST_PICTURES else None
            self._shown += small is not None
            self._cards.write(_card(self._image, self._folder, small))
            count(self._tally, self._image)
        self._image = []

    def _summary(self) -> list[str]:
        n = self._tally
        faces = ", ".join(f"{n[label]} {label}" for label in ("fake", "uncertain", "real"))
        more = [f"{_counted(n['whole'], 'picture')} judged whole"] * bool(n["whole"])
        more += [f"{n['no-face']} without a face, not judged"] * bool(n["no-face"])
        more += [f"{n['unreadable']} unreadable"] * bool(n["unreadable"])
        found = "; ".join([f"{_counted(n['faces'], 'face')}: {faces}", *more])
        lines = [f"<p>{found}.</p>"]
        worth = "A score is the calibrated probability that a face is fake. It is evidence, not proof."
        if row := self._judged:
            rate = row["false_alarm_rate"]
            measured = "" if rate is None else f"; {rate:.1%} of real faces of unseen kinds reach that"
            worth += f" Model {text(row['model'])}: fake from {row['threshold']:.2f} on{measured}."
        lines.append(f'<p class="soft measure">{worth}</p>')
        if self._shown >= MOST_PICTURES:
            rest = f"The first {MOST_PICTURES} pictures are shown, the others named and linked."
            lines.append(f'<p class="soft">{rest}</p>')
        return lines


def link(picture: str, folder: str, paths: ModuleType = os.path) -> str:
    """The URL of a picture in a page that lies in `folder`, quoted.

    Relative, so that page and pictures can be moved together; on another drive of Windows, where no relative path
    leads, a `file:` URL. `paths` is `posixpath` or `ntpath`.
    """
    if paths is ntpath:
        absolute = PureWindowsPath(ntpath.normpath(ntpath.join(folder, picture)))
        if ntpath.splitdrive(folder)[0].lower() != absolute.drive.lower():
            return absolute.as_uri()
        return quote(ntpath.relpath(str(absolute), folder).replace("\\", "/"), errors="backslashreplace")
    return quote(os.fsencode(paths.relpath(picture, folder)))


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _small(row: Row) -> bytes | None:
    return thumbnail_of_file(row["path"], row["image_sha256"]) if row["width"] and _is_file(row) else None


def _is_file(row: Row) -> bool:
    return row["path"] not in {None, "-"}


def _card(faces: Sequence[Row], folder: str, small: bytes | None) -> str:
    """One picture; in a `noscript`, which shows it as it stands where no script sorts and filters."""
    first, listed = faces[0], faces[:MOST_FACES]
    if small:
        boxes = [(row["box"], row["label"], row["face"]) for row in listed if row["box"]]
        shown = picture(small, (first["width"], first["height"]), boxes, _described(faces))
    else:
        why = "cannot be read" if first["label"] is None else "not shown here"
        shown = f'<div class="picture none">{why}</div>'
    lines = "".join(f"<li>{_line(row, len(faces) > 1)}</li>" for row in listed)
    if len(faces) > MOST_FACES:
        lines += f'<li class="soft small">and {len(faces) - MOST_FACES} faces more</li>'
    says = "".join(f'<p class="says small">says itself: {text(line)}</p>' for line in first["says_itself"] or [])
    return (
        f'<noscript {_sorted_by(faces)}><article class="card" tabindex="-1">{shown}<h2>{_name(first, folder)}</h2>'
        f"<ul>{lines}</ul>{says}</article></noscript>\n"
    )


def _name(row: Row, folder: str) -> str:
    """The file's name, which leads to the picture; not where a browser could take the file for anything else."""
    if not _is_file(row):
        return "standard input" if row["path"] == "-" else "picture in memory"
    place, name = os.path.split(row["path"])
    within = f'<span class="soft small">{text(place)}{os.sep}</span><br>' if place else ""
    if row["label"] is None or os.path.splitext(name)[1].lower() not in SUFFIXES:
        return within + text(name)
    return f'{within}<a href="{link(os.path.realpath(row["path"]), folder)}">{text(name)}</a>'


def _line(row: Row, numbered: bool) -> str:
    if row["label"] is None:
        return f'<span class="label unreadable">unreadable</span> <span class="small">{text(row["error"])}</span>'
    if row["label"] == "no-face":
        noted = text("; ".join(["not judged", *notes(row)]))
        return f'<span class="label no-face">no face</span> <span class="small">{noted}</span>'
    number = f"{row['face'] + 1}. " if numbered and row["face"] is not None else ""
    score = "" if row["score"] is None else f' <span class="score">{row["score"]:.2f}</span>'
    whole = ["whole image, no face found"] if row["face"] is None else []
    about = [part for part in (*whole, made_by(row), *notes(row), row["error"]) if part]
    return (
        f'{number}<span class="label {row["label"]}">{row["label"]}</span>{score} '
        f'<span class="small">{text("; ".join(about))}</span>'
    )


def _described(faces: Sequence[Row]) -> str:
    """What a screen reader says of the picture."""
    boxed = Counter(row["label"] for row in faces if row["box"])
    words = ", ".join(f"{boxed[label]} {label}" for label in GRAVEST_FIRST if boxed[label])
    return f"{_counted(boxed.total(), 'face')} marked: {words}" if words else "no face marked"


def _sorted_by(faces: Sequence[Row]) -> str:
    """What the page sorts and filters by, as attributes; several values lie on lines of their own."""
    first = faces[0]
    scores = [row["score"] for row in faces if row["score"] is not None]
    generators = dict.fromkeys(row["generator"] for row in faces if row["generator"])
    values = {
        "labels": dict.fromkeys(row["label"] or "unreadable" for row in faces),
        "generators": generators, "reasons": dict.fromkeys(row["reason"] for row in faces if row["reason"]),
        "claims": ["something" if first["says_itself"] else "nothing"],
        "score": [max(scores)] if scores else [],
    }  # fmt: skip
    attributes = [f'data-path="{text(first["path"] or "", LONGEST_PATH)}"']
    lines = {name: "&#10;".join(text(value) for value in found) for name, found in values.items()}
    attributes += [f'data-{name}="{said}"' for name, said in lines.items()]
    return " ".join(attributes)


_CONTROLS = """<div class="controls" role="search" aria-label="Pictures" hidden>
<label>Search in paths <input type="search" autocomplete="off" spellcheck="false"></label>
<label>Verdict <select><option value="">all</option></select></label>
<label>Made by <select><option value="">all</option></select></label>
<label>Why uncertain <select><option value="">all</option></select></label>
<label>The file says of itself <select><option value="">anything or nothing</option>
<option value="something">something</option><option value="nothing">nothing</option></select></label>
<label>Order <select><option value="given">as judged</option><option value="high">highest score first</option>
<option value="low">lowest score first</option><option value="path">by path</option></select></label>
</div>
<div class="found soft small"><p id="found" role="status"></p>
<p class="keys" hidden><kbd>/</kbd> searches, arrow keys go from picture to picture, <kbd>Enter</kbd> opens one</p>
</div>
"""
