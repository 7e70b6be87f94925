"""The command `video`, and what `detect` does with a clip: its frames judged as photographs, its faces followed."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faceauth.cli_options import FalseAlarms, Model, Overwrite, Timeout, check_new, no_nan, parse_rate, writing
from faceauth.console import echo, notice, stdout
from faceauth.errors import ImageError, MissingExtra, UsageError

if TYPE_CHECKING:
    from faceauth.detector import Detector
    from faceauth.output import Row
    from faceauth.video import Clip

TABLES = (".jsonl", ".json", ".csv", ".xlsx", ".parquet")


def video(
    clip: Annotated[
        Path, typer.Argument(help="A video file: MP4, MOV, MKV, WebM, AVI, FLV, WMV, MPEG, TS.", metavar="CLIP")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="<path>", help=f"Write rows to FILE: {' '.join(TABLES)}; - for JSON Lines."
        ),
    ] = None,
    fps: Annotated[
        float, typer.Option(help="Frames of a second that are judged.", min=0.001, max=60, callback=no_nan)
    ] = 1.0,
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
      faceauth video clip.mp4 -o rows.xlsx --fps 5
      faceauth video clip.mp4 | jq 'select(.row == "track")'
    """
    from faceauth.detector import Detector
    from faceauth.video import Clip

    detector = partial(Detector, model, false_alarms=parse_rate(false_alarms))
    tally = judge_clip(Clip.open(clip), detector, output, fps, timeout=timeout, overwrite=overwrite)
    if tally["unreadable"]:
        raise typer.Exit(ImageError.exit_code)


def only_clip(images: Sequence[str]) -> "Clip | None":
    """The video that is all that was given, by whatever paths; None for anything else, and without PyAV."""
    from faceauth.video import Clip

    with suppress(ImageError, MissingExtra, OSError):
        if "-" not in images and all(os.path.samefile(images[0], image) for image in images[1:]):
            return Clip.open(images[0])
    return None


def refuse(options: Mapping[str, object]) -> None:
    """Raises UsageError for options that were given and mean nothing for a video; a false value was not given."""
    if given := [name for name, value in options.items() if value]:
        raise UsageError(f"a video is judged without {', '.join(given)}", "leave out what is for photographs alone")


def judge_clip(
    clip: "Clip",
    detector: "Callable[[], Detector]",
    output: str | None,
    fps: float = 1.0,
    *,
    workers: int = 0,
    timeout: float,
    overwrite: bool,
) -> "Counter[str]":
    """Judge a clip to a file, in words on a terminal, else as JSON Lines.

    Returns how many rows have each label, and as `unreadable` how many frames could not be judged.

    Args:
        detector: makes it, once the output is known to be one that can be written.
        output: a file of `TABLES`, or "-" for standard output.
        fps: frames a second that are judged; workers: processes, 0 for one a core; timeout: seconds a frame.

    Raises:
        UsageError: the output cannot be written; ImageError: no frame can be decoded; FaceAuthError: the disk is full.
    """
    from faceauth.cpus import usable_cpus
    from faceauth.video import CAVEAT, judge

    file = _file(output, overwrite=overwrite)
    tally: Counter[str] = Counter()
    errors: list[str] = []
    with closing(judge(detector(), clip, fps, workers=workers or usable_cpus(), timeout=timeout)) as found:
        rows = _counted(found, tally, errors)
        if file:
            _save(rows, file)
        elif output is None and stdout().isatty():
            _say(rows)
        else:
            _print(rows)
    if errors:
        notice(f"{len(errors):,} of {tally['images']:,} frames could not be judged: {errors[0]}")
    if clip.note:
        notice(clip.note)
    notice(CAVEAT)
    return tally


def _file(output: str | None, *, overwrite: bool) -> Path | None:
    """The file that rows are written to, checked; None for standard output. Raises UsageError, MissingExtra."""
    from faceauth.output import is_folder
    from faceauth.output.writers import needs

    if output is None or output == "-":
        stdout()
        return None
    file = Path(output)
    if output and (is_folder(output) or file.suffix.lower() not in TABLES):
        raise UsageError(f"cannot write rows of a video to {output!r}", f"end the name in {', '.join(TABLES)}")
    check_new(file, TABLES, overwrite=overwrite)
    needs(file.suffix.lower())
    return file


def _counted(found: "Iterable[Row]", tally: "Counter[str]", errors: list[str]) -> "Iterator[Row]":
    """The rows, counted as of photographs on their way; the `errors` of frames that were not judged."""
    for row in found:
        if row["row"] == "frame":
            tally["images"] = row["frame"] + 1
        if row["label"] is None:
            tally["unreadable"] += 1
            errors.append(row["error"])
        else:
            tally[row["label"]] += 1
        yield row


def _save(found: "Iterable[Row]", file: Path) -> None:
    from faceauth.output.rows import VIDEO_FIELDS
    from faceauth.output.writers import write_file

    with writing(file):
        write_file(file, found, VIDEO_FIELDS)


def _print(found: "Iterable[Row]") -> None:
    from faceauth.output.writers import line

    for row in found:
        stdout().write(f"{line(row)}\n")


def _say(found: "Iterable[Row]") -> None:
    """Each track in words, or that there is none in frames that were judged."""
    from faceauth.video import sentence

    labels = set()
    for row in found:
        labels.add(row["label"])
        if row["row"] == "track":
            echo(sentence(row))
    if labels <= {None, "no-face"} and labels != {None}:
        echo(f"no face found in any {'other ' if None in labels else ''}frame, nothing judged")
