"""What the pages that faceauth writes share: the frame, in one file and with nothing fetched, and a picture with boxes.

A page runs the one script that it is written with and no other: its policy names script and styles by their hashes, so
that markup which comes from a file's name or metadata stays without effect even if it were not escaped.
"""

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from faceauth.output.rows import printable

LONGEST = 300  # characters of a text that come on a page
LEAST_BOX = 0.055  # height of the number beside a box, of the picture's


def asset(name: str) -> str:
    """A style sheet or a script that lies beside this module."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def clipped(value: str | None, longest: int = LONGEST) -> str:
    """A text on one line without control characters, its middle left out where it is long."""
    value = value or ""
    line = printable(value if len(value) <= 2 * longest else value[:longest] + value[-longest:])
    return line if len(line) <= longest else f"{line[: longest - longest // 3]}…{line[-(longest // 3) + 1 :]}"


def text(value: object, longest: int = LONGEST) -> str:
    """What comes from outside, for HTML's text and quoted attributes: clipped and escaped."""
    return html.escape(clipped(str(value), longest), quote=True)


def head(title: str, styles: Sequence[str] = (), script: str = "") -> str:
    """A page up to its body; `styles` come after the shared ones, `script` is what `tail` will end it with."""
    style = "\n".join([asset("page.css"), *styles])
    runs = f"'{_hash(script)}'" if script else "'none'"
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src {runs}; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{text(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
    )


def tail(script: str = "") -> str:
    """The end of a page."""
    return (f"<script>{script}</script>\n" if script else "") + "</body>\n</html>\n"


def data_uri(jpeg: bytes) -> str:
    """A JPEG as an address that holds it."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"


def picture(
    jpeg: bytes,
    size: tuple[int, int],
    boxes: Iterable[tuple[Sequence[int], str | None, int | None]],
    alt: str,
    inner: str = "",
) -> str:
    """A JPEG with the boxes of its faces over it.

    Args:
        jpeg: of the picture, in any size; size: (width, height) that the boxes are given in.
        boxes: left, top, right, bottom, the label, and the face's index; numbered by it where there are more than one.
        alt: what a screen reader says; inner: more elements, between the picture and the boxes.
    """
    drawn = list(boxes)
    over = "".join(_box(box, label, (i or 0) + 1 if len(drawn) > 1 else 0, size) for box, label, i in drawn)
    width, height = size
    return (
        f'<div class="picture"><img src="{data_uri(jpeg)}" alt="{text(alt)}" width="{width}" height="{height}">{inner}'
        f'<svg viewBox="0 0 {width} {height}" aria-hidden="true">{over}</svg></div>'
    )


def _box(box: Sequence[int], label: str | None, number: int, size: tuple[int, int]) -> str:
    left, top, right, bottom = (int(value) for value in box)
    at = f'x="{left}" y="{top}" width="{right - left}" height="{bottom - top}"'
    drawn = f'<rect class="halo" {at}/><rect class="{text(label)}" {at}/>'
    if not number:
        return drawn
    high = LEAST_BOX * max(size)
    return drawn + f'<text x="{left + high / 4:.0f}" y="{top + high:.0f}" font-size="{high:.0f}">{number}</text>'


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode('ascii')}"
