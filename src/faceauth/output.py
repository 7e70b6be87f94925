"""Verdicts to rows, and rows to a terminal table or a file: one writer each, chosen by suffix.

Every format has the same columns, `FIELDS`, one row a face; an image that could not be read has one row,
with `error`. A file appears under its name only when it is complete: until then it is NAME.part, except
JSON Lines, which grow in place so that a run that was broken off can be resumed. It knows nothing of models.
"""

import csv
import html
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, ClassVar, Protocol, Self
from urllib.parse import quote

from faceauth.errors import MissingExtra, UsageError
from faceauth.verdict import Face, Verdict

FIELDS = (
    "path", "face", "box", "label", "score", "stability", "source", "threshold", "false_alarm_rate",
    "model", "model_sha256", "image_sha256", "width", "height", "ms", "error",
    "generator", "generators", "families", "says_itself", "reason",
    "learned", "learned_sha256",
)  # fmt: skip

Row = dict[str, Any]


def rows(verdict: Verdict) -> list[Row]:
    """One dict a face with the keys `FIELDS`; a single one, without a face, for an unreadable image or one without.

    `generators` and `families` are dicts of shares, falling; `says_itself` is a list of lines, `learned` one of names.
    """
    image = {name: getattr(verdict, name) for name in FIELDS if hasattr(type(verdict), name) and name != "label"}
    blank: Row = dict.fromkeys(FIELDS) | image | {"says_itself": [f"{e.where}: {e.says}" for e in verdict.evidence]}
    blank["learned"] = list(verdict.learned)
    if not verdict.faces:
        return [blank | {"label": verdict.label}]
    return [
        blank
        | {name: getattr(face, name) for name in FIELDS if name in Face.__slots__}
        | {"face": face.index, "box": list(face.box) if face.box else None}
        | {name: {k: round(v, 4) for k, v in getattr(face, name)} for name in ("generators", "families")}
        for face in verdict.faces
    ]


class Writer(Protocol):
    """Takes rows until it is closed."""

    def write(self, row: Row) -> None:
        """Add one row."""

    def close(self) -> None:
        """Finish the file."""


class JsonLinesWriter:
    """One JSON object a line, flushed as it is written."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, row: Row) -> None:
        self._stream.write(json.dumps(row) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Nothing to do: every line is flushed, and the stream is its owner's."""


class _CsvWriter:
    def __init__(self, path: Path) -> None:
        self._file = open(path, "w", encoding="utf-8", errors="backslashreplace", newline="")  # noqa: SIM115
        self._writer = csv.DictWriter(self._file, FIELDS)
        self._writer.writeheader()

    def write(self, row: Row) -> None:
        self._writer.writerow(flat(row))

    def close(self) -> None:
        self._file.close()


class _XlsxWriter:
    def __init__(self, path: Path) -> None:
        import xlsxwriter

        options = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
        self._book = xlsxwriter.Workbook(str(path), options)
        self._sheet = self._book.add_worksheet("faces")
        self._sheet.freeze_panes(1, 0)
        self._sheet.set_column(0, 0, 48)
        self._sheet.write_row(0, 0, FIELDS, self._book.add_format({"bold": True}))
        self._count = 0

    def write(self, row: Row) -> None:
        self._count += 1
        if self._count >= 1_048_576:
            raise UsageError("more rows than an Excel sheet holds", "write .jsonl, .csv or .parquet")
        values = [v if isinstance(v, int | float) or v is None else printable(v) for v in flat(row).values()]
        self._sheet.write_row(self._count, 0, values)

    def close(self) -> None:
        self._book.close()


class _ParquetWriter:
    """Row groups of 10,000; numbers keep their types and `box` is a list of integers."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise MissingExtra("writing Parquet needs pyarrow", "parquet") from error
        kinds = {"face": pa.int32(), "box": pa.list_(pa.int32()), "width": pa.int32(), "height": pa.int32()}
        kinds |= dict.fromkeys(("score", "stability", "threshold", "false_alarm_rate", "ms"), pa.float64())
        self._schema = pa.schema([(name, kinds.get(name, pa.string())) for name in FIELDS])
        self._table = pa.Table
        self._writer = pq.ParquetWriter(path, self._schema)
        self._rows: list[Row] = []

    def write(self, row: Row) -> None:
        text = flat(row) | {"box": row["box"]}
        self._rows.append({k: printable(v) if isinstance(v, str) else v for k, v in text.items()})
        if len(self._rows) >= 10_000:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(self._table.from_pylist(self._rows, self._schema))
        self._rows = []


class _HtmlWriter:
    """A page to look at: each picture, by its path and never copied, with the faces drawn on it."""

    def __init__(self, path: Path) -> None:
        self._folder = Path(path).resolve().parent
        self._file = open(path, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
        self._file.write(_HTML_HEAD)
        self._image: list[Row] = []

    def write(self, row: Row) -> None:
        if self._image and self._image[0]["path"] != row["path"]:
            self._flush()
        self._image.append(row)

    def close(self) -> None:
        self._flush()
        self._file.write("</main></html>\n")
        self._file.close()

    def _flush(self) -> None:
        if self._image:
            self._file.write(self._figure(self._image))
        self._image = []

    def _figure(self, faces: list[Row]) -> str:
        first = faces[0]
        picture = ""
        if first["width"] and first["path"] != "-":
            relative = os.path.relpath(Path(first["path"]).resolve(), self._folder)
            source = html.escape(quote(os.fsencode(relative)), quote=True)
            boxes = "".join(
                f'<rect class="{row["label"]}" x="{b[0]}" y="{b[1]}" width="{b[2] - b[0]}" height="{b[3] - b[1]}"/>'
                for row in faces
                if (b := row["box"])
            )
            size = f"0 0 {first['width']} {first['height']}"
            picture = (
                f'<div class="p"><img src="{source}" loading="lazy" alt=""><svg viewBox="{size}">{boxes}</svg></div>'
            )
        lines = "".join(f'<li class="{row["label"]}">{html.escape(sentence(row))}</li>' for row in faces)
        name = html.escape(printable(first["path"]))
        return f"<figure>{picture}<figcaption><b>{name}</b><ul>{lines}</ul></figcaption></figure>\n"


_HTML_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><title>faceauth</title><style>
:root{--real:#1a7f37;--fake:#cf222e;--uncertain:#9a6700}body{font:15px/1.4 system-ui,sans-serif;margin:2rem;color:#222}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(17rem,1fr));gap:1.2rem}
figure{margin:0;overflow-wrap:anywhere}
.p{position:relative}.p img,.p svg{display:block;width:100%}.p svg{position:absolute;inset:0;height:100%}
rect{fill:none;stroke-width:3;vector-effect:non-scaling-stroke}ul{margin:.2rem 0;padding-left:1.1rem}
.real{color:var(--real);stroke:var(--real)}.fake{color:var(--fake);stroke:var(--fake)}
.uncertain{color:var(--uncertain);stroke:var(--uncertain)}.no-face{color:#57606a}li{stroke:none!important}
</style><h1>faceauth</h1><p>One figure an image, shown from where it lies; no picture is copied into this file.
A score is the calibrated probability that the face is fake, not proof.</p><main>
"""

_WRITERS: dict[str, Callable[[Path], Writer]] = {
    ".csv": _CsvWriter, ".xlsx": _XlsxWriter, ".parquet": _ParquetWriter, ".html": _HtmlWriter
}  # fmt: skip
SUFFIXES = (".jsonl", *_WRITERS)


def check(path: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse an output that could not be written, before any work is done. Raises UsageError, MissingExtra."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"cannot tell the format of {str(path)!r}", f"end it in {', '.join(SUFFIXES)}")
    if resume and path.suffix.lower() != ".jsonl":
        raise UsageError("only a .jsonl output can be resumed", "drop --resume, or write .jsonl")
    if not path.parent.is_dir():
        raise UsageError(f"no folder {str(path.parent)!r}", "make it first")
    if path.is_dir():
        raise UsageError(f"{str(path)!r} is a folder", "name a file in it")
    if path.exists() and not (resume or overwrite):
        more = "--resume to go on with it, or " if path.suffix.lower() == ".jsonl" else ""
        raise UsageError(f"{str(path)!r} exists", f"{more}--overwrite to replace it")


class FileOutput:
    """A file of rows, opened by suffix; use as a context. Left with an exception, NAME.part stays behind."""

    def __init__(self, path: Path, *, resume: bool = False, overwrite: bool = False) -> None:
        """Open it. Raises UsageError for a suffix or place that cannot be written, MissingExtra for Parquet."""
        check(path, resume=resume, overwrite=overwrite)
        self.path = path
        self.done: set[tuple[str, str]] = set()  # (path, model_sha256) of images that a resumed file holds
        with _plainly(path):
            if path.suffix.lower() == ".jsonl":
                self._open_lines(resume)
            else:
                self._part: Path | None = path.with_name(path.name + ".part")
                self._writer = _WRITERS[path.suffix.lower()](self._part)

    def _open_lines(self, resume: bool) -> None:
        self._part = None
        if resume and self.path.exists():
            self.done = _trim_lines(self.path)
        self._stream = open(self.path, "a" if resume else "w", encoding="utf-8")  # noqa: SIM115
        self._writer = JsonLinesWriter(self._stream)

    def write(self, verdict: Verdict) -> None:
        """Add an image's rows, all or none of them where the run is broken off."""
        with _plainly(self.path):
            for row in rows(verdict):
                self._writer.write(row)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _plainly(self.path):
            if self._part is None:
                self._stream.close()
                return
            self._writer.close()
            if kind is None:
                os.replace(self._part, self.path)


@contextmanager
def _plainly(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot write {str(path)!r}: {error.strerror or error}", "is the disk full, or read-only?"
        ) from error


def _trim_lines(path: Path) -> set[tuple[str, str]]:
    """Drop a torn last line, and the image it belonged to, from a JSON Lines file; say which images are done."""
    try:
        text = path.read_text(encoding="utf-8")
        whole = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        keys = [(row["path"], row["model_sha256"]) for row in whole]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{str(path)!r} is not an output of faceauth detect", "choose another name") from error
    # The last image's faces may not all have been written: judge it once more.
    while whole and keys[-1] == keys[len(whole) - 1]:
        whole.pop()
        if not whole or keys[len(whole) - 1] != keys[-1]:
            break
    temporary = path.with_name(path.name + ".part")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in whole), encoding="utf-8")
    os.replace(temporary, path)
    return set(keys[: len(whole)])


def flat(row: Row) -> Row:
    """The row with its lists as text, for formats without: a box as `left top right bottom`, shares as `flux 0.62`."""
    shares = {
        n: "; ".join(f"{k} {v:.4f}" for k, v in (row[n] or {}).items()) or None for n in ("generators", "families")
    }
    lists = {name: "; ".join(row[name] or []) or None for name in ("says_itself", "learned")}
    return row | shares | lists | {"box": " ".join(map(str, row["box"])) if row["box"] else None}


def printable(text: str | None) -> str:
    """A name without control characters and stray bytes, safe to print."""
    clean = (text or "").encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in clean)


def sentence(row: Row) -> str:
    """One row in words."""
    says = f"; the file says {'; '.join(row['says_itself'])}" if row["says_itself"] else ""
    if row["label"] == "no-face":
        return printable(f"no face found, nothing judged{says}")
    if row["score"] is None:
        return printable(row["error"])
    where = "whole image (no face found)" if row["face"] is None else f"face {row['face'] + 1}"
    more = "".join(f", {part}" for part in (made_by(row), *notes(row)) if part)
    return printable(f"{where}: {row['label']}, P(fake) {row['score']:.2f}{more}{says}")


def made_by(row: Row) -> str:
    """What most likely made a face, with its share; the source it resembles where the model cannot say."""
    if row["generator"] is None:
        return f"most like {row['source']}" if row["source"] else ""
    return f"{row['generator']} {row['generators'][row['generator']]:.0%}"


def notes(row: Row) -> list[str]:
    """Why the label is uncertain, and how far the re-saved views agree where they do not."""
    stability = row["stability"]
    found = [row["reason"]] if row["reason"] else []
    if stability is not None and stability != 1:
        found.append(f"called fake in {stability:.0%} of the views")
    return found


class TableOutput:
    """A table for the terminal, drawn when it is closed. Rows past `limit` are counted, not drawn."""

    STYLES: ClassVar = {"real": "green", "fake": "bold red", "uncertain": "yellow", "no-face": "dim", None: "dim"}

    def __init__(self, stream: IO[str], limit: int = 2000) -> None:
        self._stream, self._limit, self._more = stream, limit, 0
        self._rows: list[Row] = []

    def write(self, verdict: Verdict) -> None:
        """Add an image's rows."""
        for row in rows(verdict):
            if len(self._rows) < self._limit:
                self._rows.append(row)
            else:
                self._more += 1

    def table(self) -> Any:
        """The rich table of what was written so far; without a column of notes where there are none."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        names = ["image", "face", "verdict", "P(fake)", "made by", "note"]
        lines = [self._cells(row) for row in self._rows]
        used = [n for n, name in enumerate(names) if name != "note" or any(line[n] for line in lines)]
        for n in used:
            table.add_column(names[n], justify="right" if n in {1, 3} else "left", overflow="fold")
        for row, line in zip(self._rows, lines, strict=True):
            style = self.STYLES[row["label"]]
            table.add_row(*(Text(printable(line[n]), style=style if n == 2 else "") for n in used))
        return table

    @staticmethod
    def _cells(row: Row) -> tuple[str, ...]:
        whole = ["no face found: whole image judged"] if row["face"] is None and row["score"] is not None else []
        face = "" if row["face"] is None else str(row["face"] + 1)
        score = "" if row["score"] is None else f"{row['score']:.2f}"
        says = (f"file says {s}" for s in row["says_itself"])
        note = "; ".join([*([row["error"]] if row["error"] else whole + notes(row)), *says])
        return row["path"], face, row["label"] or "unreadable", score, made_by(row), note

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        from rich.console import Console

        console = Console(file=self._stream)
        if self._rows:
            console.print(self.table())
        if self._more:
            console.print(f"and {self._more} rows more: write them all with -o FILE")


class LinesOutput:
    """JSON Lines on a stream."""

    def __init__(self, stream: IO[str] | io.TextIOBase) -> None:
        self._writer = JsonLinesWriter(stream)  # type: ignore[arg-type]

    def write(self, verdict: Verdict) -> None:
        """Write an image's rows."""
        for row in rows(verdict):
            self._writer.write(row)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()
