"""A verdict as HTML, for notebooks: the picture, the boxes of its faces, and the verdict in words."""

import base64
import html

from faceauth import images
from faceauth.output import printable, rows, sentence
from faceauth.verdict import Verdict

COLOURS = {"real": "#1a7f37", "fake": "#cf222e", "uncertain": "#9a6700", "no-face": "#57606a"}


def to_html(verdict: Verdict) -> str:
    """A figure: the picture, where it can be had, as a data URI with the boxes over it, and one line a face."""
    found = rows(verdict)
    lines = "".join(
        f'<li style="color:{COLOURS.get(str(row["label"]), "inherit")}">{html.escape(sentence(row))}</li>'
        for row in found
    )
    name = html.escape(printable(verdict.path if verdict.path is not None else "picture in memory"))
    return (
        f'<figure style="margin:0 0 1em;max-width:40em">{_picture(verdict)}<figcaption><b>{name}</b>'
        f'<ul style="margin:.2em 0;padding-left:1.2em">{lines}</ul></figcaption></figure>'
    )


def _picture(verdict: Verdict) -> str:
    data = verdict.picture if verdict.picture is not None else _read(verdict)
    if data is None or not (verdict.width and verdict.height):
        return ""
    boxes = "".join(
        f'<rect x="{x0}" y="{y0}" width="{x1 - x0}" height="{y1 - y0}" fill="none" stroke="{COLOURS[face.label]}" '
        'stroke-width="3" vector-effect="non-scaling-stroke"/>'
        for face in verdict.faces
        if face.box
        for x0, y0, x1, y1 in (face.box,)
    )
    source = f"data:image/jpeg;base64,{base64.b64encode(data).decode('ascii')}"
    return (
        f'<div style="position:relative;width:{images.THUMBNAIL_SIDE}px">'
        f'<img src="{source}" alt="" style="display:block;width:100%">'
        f'<svg viewBox="0 0 {verdict.width} {verdict.height}" style="position:absolute;inset:0;width:100%;height:100%">'
        f"{boxes}</svg></div>"
    )


def _read(verdict: Verdict) -> bytes | None:
    """The picture from its file, if that can still be read and is the one that was judged."""
    if verdict.error is not None or verdict.path in {None, "-"}:
        return None
    return images.thumbnail_of_file(str(verdict.path), verdict.image_sha256)
