"""Options that several commands take, and how their values are read."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from faceauth.errors import FaceAuthError, UsageError


def no_nan(option: typer.CallbackParam, value: float) -> float:
    """The value of an option; a callback, as bounds let nan through. Raises UsageError."""
    if value != value:
        raise UsageError(f"{option.opts[0]} nan is no number", f"for example {option.opts[0]} {option.default}")
    return value


def no_empty(argument: typer.CallbackParam, folders: str | list[str]) -> str | list[str]:
    """The folders of an argument; Path would take the empty text of an unset variable for the working folder."""
    if "" in ([folders] if isinstance(folders, str) else folders):
        raise UsageError("the name of a folder is empty", "is a variable of the shell not set?")
    return folders


Images = Annotated[list[str], typer.Argument(help="Files, folders, quoted globs, @list.txt, or - for standard input.")]
Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="<path>",
        help="Write rows to FILE: .jsonl .json .csv .xlsx .parquet .html; FOLDER/ for Parquet parts; - for JSON Lines.",
    ),
]
Model = Annotated[
    Path | None,
    typer.Option(
        metavar="<file or name>",
        help="A model file, or the name of one that comes with the package: accurate (the default) or fast.",
    ),
]
Threshold = Annotated[
    float | None, typer.Option(metavar="<score>", help="Call a face fake from this score on.", min=0, max=1)
]
FalseAlarms = Annotated[
    str | None,
    typer.Option(metavar="<rate>", help="Instead: call at most this share of real faces fake, as 1% or 0.01."),
]
FailOn = Annotated[
    str | None,
    typer.Option(metavar="<labels>", help="Exit with 4 if any face is labelled so: fake, uncertain, fake,uncertain."),
]
WholeImage = Annotated[
    bool,
    typer.Option("--whole-image", help="Take the whole image where no face is found; nothing was measured for it."),
]
NoRecheck = Annotated[
    bool, typer.Option("--no-recheck", help="Do not try again, in re-saved copies, what reaches the threshold.")
]
Workers = Annotated[
    int, typer.Option(metavar="<n>", help="Processes; 0 takes one a core for 32 images or more.", min=0, max=256)
]
Timeout = Annotated[
    float,
    typer.Option(
        metavar="<seconds>", help="Give an image up after so long; its row says so.", min=0.01, callback=no_nan
    ),
]
MaxPixels = Annotated[
    int,
    typer.Option(
        metavar="<n>", help="Refuse larger images undecoded (a JPEG above four times that).", min=1, max=2_000_000_000
    ),
]
MaxBytes = Annotated[int, typer.Option(metavar="<n>", help="Refuse larger files unread.", min=1)]
Learned = Annotated[
    Path | None, typer.Option(help="A file of learned generators and cameras instead of the user's own.")
]
NoLearned = Annotated[bool, typer.Option("--no-learned", help="Judge without what was learned.")]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with a .jsonl or FOLDER/ output: judge what is new, was changed or could not be read, and the last "
        "one of a .jsonl again.",
    ),
]
Dedupe = Annotated[
    bool,
    typer.Option(
        "--dedupe", help="Judge one picture in several files of this run once; rows of the others name the one judged."
    ),
]
PreviousOutput = Annotated[
    Path | None,
    typer.Option("--previous", metavar="<file.jsonl>", help="Take pictures that this output holds from it."),
]
EngineName = Annotated[
    str | None, typer.Option("--engine", metavar="ray", help="Judge with Ray Data, on one machine or a cluster.")
]
Address = Annotated[str | None, typer.Option(metavar="<address>", help="The Ray cluster; a local one if left out.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")]


def check_new(output: Path, suffixes: Sequence[str], *, overwrite: bool) -> None:
    """Refuse a file that could not be written, before any work is done. Raises UsageError."""
    if output == Path():
        raise UsageError("the name of the output is empty", "is a variable of the shell not set?")
    if output.suffix.lower() not in suffixes:
        raise UsageError(f"cannot write {str(output)!r}", f"choose one of {', '.join(suffixes)}")
    if output.exists() and not overwrite:
        raise UsageError(f"{str(output)!r} exists", "--overwrite to replace it")
    if output.exists() and not output.is_file():
        raise UsageError(f"{str(output)!r} is not a regular file", "name another")
    if not output.parent.is_dir():
        raise UsageError(f"no folder {str(output.parent)!r}", "make it first")


@contextmanager
def writing(output: Path) -> Iterator[None]:
    """Say in one line why a file could not be written. Raises FaceAuthError."""
    try:
        yield
    except OSError as error:
        what = f"cannot write {str(output)!r}: {error.strerror or error}"
        raise FaceAuthError(what, "is the disk full, or read-only?") from error


def learned_file(learned: Path | None, no_learned: bool) -> Path | bool:
    """What `Detector` takes as `learned`: that file, True for the user's own, False for none."""
    return False if no_learned else learned or True


def parse_rate(text: str | None) -> float | None:
    """`1%` and `0.01` are the same rate."""
    if text is None:
        return None
    try:
        return float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError as error:
        raise UsageError(f"--false-alarms {text!r} is no rate", "write it as 1% or 0.01") from error
