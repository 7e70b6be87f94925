"""An HTML page to look at: each picture, by its path and never copied, with the faces drawn on it."""

import html
import ntpath
import os
from pathlib import Path, PureWindowsPath
from types import ModuleType
from urllib.parse import quote

from faceauth.output.rows import Row, printable, sentence


class HtmlWriter:
    """One figure an image. `folder` is where the finished page will lie, which the links start from."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._folder = os.path.realpath(folder)
        self._file = open(path, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
        self._file.write(_HEAD)
        self._image: list[Row] = []

    def write(self, row: Row) -> None:
        """Add one row; an image's rows come one after the other."""
        if self._image and self._image[0]["path"] != row["path"]:
            self._flush()
        self._image.append(row)

    def close(self) -> None:
        """Finish the page."""
        try:
            self._flush()
            self._file.write("</main></html>\n")
        finally:
            self._file.close()

    def _flush(self) -> None:
        if self._image:
            self._file.write(_figure(self._image, self._folder))
        self._image = []


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


def _figure(faces: list[Row], folder: str) -> str:
    first = faces[0]
    picture = ""
    if first["width"] and first["path"] not in {None, "-"}:
        source = html.escape(link(os.path.realpath(first["path"]), folder), quote=True)
        boxes = "".join(
            f'<rect class="{row["label"]}" x="{b[0]}" y="{b[1]}" width="{b[2] - b[0]}" height="{b[3] - b[1]}"/>'
            for row in faces
            if (b := row["box"])
        )
        size = f"0 0 {first['width']} {first['height']}"
        picture = f'<div class="p"><img src="{source}" loading="lazy" alt=""><svg viewBox="{size}">{boxes}</svg></div>'
    lines = "".join(f'<li class="{row["label"] or "error"}">{html.escape(sentence(row))}</li>' for row in faces)
    name = html.escape(printable(first["path"]))
    return f"<figure>{picture}<figcaption><b>{name}</b><ul>{lines}</ul></figcaption></figure>\n"


_HEAD = """<!doctype html><html lang="en"><meta charset="utf-8"><title>faceauth</title><style>
:root{--real:#1a7f37;--fake:#cf222e;--uncertain:#9a6700}body{font:15px/1.4 system-ui,sans-serif;margin:2rem;color:#222}
main{display:grid;grid-template-columns:repeat(auto-fill,minmax(17rem,1fr));gap:1.2rem}
figure{margin:0;overflow-wrap:anywhere}
.p{position:relative}.p img,.p svg{display:block;width:100%}.p svg{position:absolute;inset:0;height:100%}
rect{fill:none;stroke-width:3;vector-effect:non-scaling-stroke}ul{margin:.2rem 0;padding-left:1.1rem}
.real{color:var(--real);stroke:var(--real)}.fake{color:var(--fake);stroke:var(--fake)}
.uncertain{color:var(--uncertain);stroke:var(--uncertain)}.no-face,.error{color:#666}li{stroke:none!important}
</style><h1>faceauth</h1><p>One figure an image, shown from where it lies; no picture is copied into this file.
A score is the calibrated probability that the face is fake, not proof.</p><main>
"""
