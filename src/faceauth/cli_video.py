"""The command `video`: the frames of a video judged as photographs, and their faces followed."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faceauth.cli_options import FalseAlarms, Model, Overwrite, Timeout, check_new, parse_rate
from faceauth.console import echo, notice, stdout
from faceauth.files import replacing

if TYPE_CHECKING:
    from faceauth.output import Row
    from faceauth.video import Clip


def video(
    clip: Annotated[Path, typer.Argument(help="A video file: MP4, MOV, MKV, WebM, AVI, FLV, MPEG.", metavar="CLIP")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the rows to FILE: .jsonl.")] = None,
    fps: Annotated[float, typer.Option(help="Frames of a second that are judged.", min=0.001, max=60)] = 1.0,
    model: Model = None,
    false_alarms: FalseAlarms = None,
    timeout: Timeout = 120.0,
    overwrite: Overwrite = False,
) -> None:
    """Judge frames of a video as if they were photographs.

    Needs pip install 'faceauth[video]'. Each face is followed from frame to frame.
    The model was made and measured on photographs; nothing was measured on video. A row a face and frame, with the
    fields of detect and frame, time and track; then one a track. On a terminal the tracks in words. At most 1,000
    frames are judged.

    \b
    Examples:
      faceauth video clip.mp4
      faceauth video clip.mp4 -o rows.jsonl --fps 5
      faceauth video clip.mp4 | jq 'select(.row == "track")'
    """
    from faceauth.video import CAVEAT, Clip

    if output:
        check_new(output, (".jsonl",), overwrite=overwrite)
    opened = Clip.open(clip)
    found = _judged(opened, fps, model, parse_rate(false_alarms), timeout)
    if output:
        with replacing(output) as part, open(part, "w", encoding="ascii") as file:
            _write(found, file.write)
    elif stdout().isatty():
        _say(found)
    else:
        _write(found, stdout().write)
    if opened.stopped:
        notice(opened.stopped)
    notice(CAVEAT)


def _judged(clip: "Clip", fps: float, model: Path | None, rate: float | None, timeout: float) -> "Iterator[Row]":
    from faceauth.cpus import usable_cpus
    from faceauth.detector import Detector
    from faceauth.video import judge

    return judge(Detector(model, false_alarms=rate), clip, fps, workers=usable_cpus(), timeout=timeout)


def _write(found: "Iterable[Row]", write: Callable[[str], object]) -> None:
    from faceauth.output.writers import line

    for row in found:
        write(f"{line(row)}\n")


def _say(found: "Iterable[Row]") -> None:
    """Each track in words, or that there is none."""
    from faceauth.video import sentence

    faces = 0
    for row in found:
        if row["row"] == "track":
            faces += 1
            echo(sentence(row))
    if not faces:
        echo("no face found in any frame, nothing judged")
