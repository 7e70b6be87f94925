"""The command line: parsing, progress, printing. Data goes to stdout, notices to stderr.

What a command needs is imported inside it, so that `--help` is quick. It computes nothing itself.
"""

import os
import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faceauth.errors import FaceAuthError, UsageError

if TYPE_CHECKING:
    from faceauth.detector import Detector
    from faceauth.model_file import ModelFile
    from faceauth.output import FileOutput, LinesOutput, TableOutput
    from faceauth.verdict import Verdict

app = typer.Typer(
    name="faceauth",
    help="Is this face photograph real, and if not, what made it?",
    epilog="Exit codes: 0 done, 1 error, 2 usage, 3 some inputs could not be read, 4 --fail-on was met.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
model_app = typer.Typer(help="Look into model files.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(model_app, name="model")

UNREADABLE, FAIL_ON = 3, 4
_debug = False


def _version(wanted: bool) -> None:
    if wanted:
        from faceauth import __version__

        typer.echo(f"faceauth {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Is this face photograph real, and if not, what made it?"""
    global _debug
    _debug = debug


def run(command: typer.Typer) -> None:
    """Run a typer app; an error of ours becomes one line on stderr and its exit code."""
    try:
        command()
    except FaceAuthError as error:
        if _debug:
            traceback.print_exc()
        _notice(f"error: {error.message}")
        if error.hint:
            _notice(f"hint: {error.hint}")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left; say nothing of it
        sys.exit(1)
    except KeyboardInterrupt:
        _notice("interrupted")
        sys.exit(130)


Images = Annotated[list[str], typer.Argument(help="Files, folders, quoted globs, @list.txt, or - for standard input.")]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", help="Write rows to FILE: .jsonl .csv .xlsx .parquet .html")
]
Model = Annotated[
    Path | None, typer.Option(help="A faceauth model file, or the name of one of the package, for the default one.")
]
Threshold = Annotated[float | None, typer.Option(help="Call a face fake from this score on, 0 to 1.", min=0, max=1)]
FalseAlarms = Annotated[
    str | None,
    typer.Option(metavar="<rate>", help="Instead: call at most this share of real faces fake, as 1% or 0.01."),
]
FailOn = Annotated[
    str | None, typer.Option(help="Exit with 4 if any face is labelled so: fake, uncertain, or fake,uncertain.")
]
WholeImage = Annotated[
    bool,
    typer.Option("--whole-image", help="Take the whole image where no face is found; nothing was measured for it."),
]
NoRecheck = Annotated[
    bool, typer.Option("--no-recheck", help="Do not try again, in re-saved copies, what reaches the threshold.")
]
Workers = Annotated[int, typer.Option(help="Processes; 0 takes one a core for 64 images or more.", min=0, max=256)]
MaxPixels = Annotated[int, typer.Option(help="Refuse larger images undecoded.", min=1, max=178_956_970)]
MaxBytes = Annotated[int, typer.Option(help="Refuse larger files unread.", min=1)]
Learned = Annotated[
    Path | None, typer.Option(help="A file of learned generators and cameras instead of the user's own.")
]
NoLearned = Annotated[bool, typer.Option("--no-learned", help="Judge without what was learned.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a .jsonl output that was broken off.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")]


@app.command()
def detect(
    images: Images,
    output: Output = None,
    model: Model = None,
    threshold: Threshold = None,
    false_alarms: FalseAlarms = None,
    fail_on: FailOn = None,
    whole_image: WholeImage = False,
    no_recheck: NoRecheck = False,
    workers: Workers = 0,
    max_pixels: MaxPixels = 100_000_000,
    max_bytes: MaxBytes = 200_000_000,
    learned: Learned = None,
    no_learned: NoLearned = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
) -> None:
    """Say of every face whether it is real, fake or uncertain, and what made it.

    An image without a face is not judged: its label is no-face.

    A table on a terminal, JSON Lines in a pipe, a file with -o. Nothing leaves this machine.

    \b
    Examples:
      faceauth detect photo.jpg
      faceauth detect holiday/ "press/**/*.png" -o verdicts.xlsx
      faceauth detect archive/ -o verdicts.jsonl --resume
      faceauth detect @list.txt --fail-on fake --false-alarms 1%
      curl -s https://example.org/face.jpg | faceauth detect -
      faceauth detect folder/ | jq -r 'select(.label == "fake") | .path'
    """
    from faceauth.detector import Detector
    from faceauth.images import Limits, expand
    from faceauth.output import check

    wanted = _labels(fail_on)
    if resume and output is None:
        raise UsageError("--resume needs an output to go on with", "add -o FILE.jsonl")
    if output is not None:
        check(output, resume=resume, overwrite=overwrite)
    limits = Limits(max_pixels, max_bytes)
    rate = _rate(false_alarms)
    detector = Detector(
        model, threshold=threshold, false_alarms=rate, recheck=not no_recheck, whole_image=whole_image, limits=limits,
        learned=False if no_learned else learned or True,
    )  # fmt: skip
    references = expand(images, max_bytes=max_bytes)
    with _sink(output, resume=resume, overwrite=overwrite) as sink:
        tally = _judge(detector, references, sink, workers)
    _summary(tally, detector, output)
    if any(tally[label] for label in wanted):
        raise typer.Exit(FAIL_ON)
    if tally["unreadable"]:
        raise typer.Exit(UNREADABLE)


@model_app.command("info")
def model_info(
    model: Annotated[Path | None, typer.Argument(help="A model file or name; the default one if left out.")] = None,
    learned: Learned = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metadata as JSON.")] = False,
) -> None:
    """Print what a model file says of itself, and what it has learned here.

    \b
    Examples:
      faceauth model info
      faceauth model info my-detector.onnx --json
    """
    from faceauth.model_file import ModelFile

    opened = ModelFile(model)
    card = opened.card
    if as_json:
        typer.echo(card.to_json())
        return
    named = list(_attribution_lines(opened, learned))  # a learned file that cannot be read ends the command first
    spec, limits = card.preprocess, card.thresholds
    fakes = [s for s, label in zip(card.sources, card.labels, strict=True) if label == "fake"]
    reals = [s for s, label in zip(card.sources, card.labels, strict=True) if label == "real"]
    lines = {
        "name": f"{card.name} {card.version}",
        "file": f"{opened.path} ({opened.size / 1e6:.1f} MB, {card.parameters:,} parameters)",
        "sha256": opened.sha256,
        "input": f"face x {spec.crop:g}, {spec.size} x {spec.size}, {spec.interpolation}",
        "real from": ", ".join(reals),
        "fake from": ", ".join(fakes),
        "trained on": f"{card.trained_on} ({card.data_sha256[:16]}), commit {card.commit[:12]}, seed {card.seed}",
        "calibration": f"sigmoid({card.calibration.scale:.3f} x logit {card.calibration.shift:+.3f}), "
        f"fitted on {card.calibration.fitted_on}",
        "fake from score": f"{limits.fake:.3f}",
        "false alarms": f"{limits.false_alarm_rate(limits.fake):.1%}, measured on {limits.measured_on}",
        "real to score": f"{limits.real:.3f}; between the two: uncertain",
        "licence": card.licence,
    }
    for name, value in lines.items():
        typer.echo(f"{name:16} {value}")
    for name, value in card.notes.items():
        typer.echo(f"{name:16} {value}")
    for name, value in named:
        typer.echo(f"{name:16} {value}")


@app.command()
def learn(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    folder: Annotated[Path, typer.Argument(help="10 to 50 different pictures that it made.")],
    real: Annotated[
        bool, typer.Option("--real", help="The pictures are photographs: of a camera, an agency, a pipeline.")
    ] = False,
    family: Annotated[
        str | None, typer.Option(help="The generator's family: gan, diffusion, swap, laundered, other.")
    ] = None,
    model: Model = None,
    whole_image: WholeImage = False,
    learned: Learned = None,
) -> None:
    """Learn a new generator, or with --real a new kind of photograph, from 10 to 50 pictures.

    No network is trained; the mean of the pictures' embeddings is kept in your learned file, none of the pictures.
    How well it will be told apart is estimated and printed, and what cannot be told apart is refused. From then on
    detect names it. The photographs of a kind learned with --real get lower scores, and so do fakes that look the
    same to the model: learn only what you trust.

    \b
    Examples:
      faceauth learn new-generator pictures/
      faceauth learn new-generator pictures/ --family diffusion
      faceauth learn our-photographers archive/2026/ --real
    """
    from faceauth import learning
    from faceauth.detector import Detector
    from faceauth.learned import default_file

    file = learned or default_file()
    detector = Detector(model, whole_image=whole_image, learned=file if file.exists() else False)
    lesson = learning.learn(detector, name, folder, file, real=real, family=family)
    for line in lesson.lines():
        _notice(line)
    typer.echo(f"{name}: learned from {lesson.taught.count} pictures, {lesson.taught.estimate()}; kept in {file}")


@app.command()
def forget(
    name: Annotated[str, typer.Argument(help="What was learned under this name; model info lists it.")],
    learned: Learned = None,
) -> None:
    """Remove what was learned under a name.

    \b
    Example:
      faceauth forget new-generator
    """
    from faceauth import learning
    from faceauth.learned import default_file

    file = learned or default_file()
    learning.forget(name, file)
    typer.echo(f"{name}: forgotten; {file} is without it")


def _attribution_lines(model: "ModelFile", file: Path | None) -> "Iterator[tuple[str, str]]":
    from faceauth import learned
    from faceauth.attribution import PROTOTYPES_KEY, Prototypes

    text = model.metadata.get(PROTOTYPES_KEY)
    if text is None:
        yield "names generators", "no: it holds no prototypes (faceauth lab prototypes)"
    else:
        found = Prototypes.from_json(text)
        names = sorted({f"{k.generator} ({k.family})" for k in found.kinds if k.label == "fake"})
        yield "names generators", ", ".join(names)
        yield "prototypes of", f"{found.fitted_on}; unknown fitted on {found.unknown.fitted_on}"
    for taught in learned.read(file or learned.default_file(), must_exist=file is not None):
        mine = "" if taught.model_sha256 == model.sha256 else "; learned with another model file, not used"
        kind = "real" if taught.kind.label == "real" else f"fake, {taught.kind.family}"
        yield (
            "learned",
            f"{taught.kind.name} ({kind}), {taught.date}, {taught.count} pictures, {taught.estimate()}{mine}",
        )


def _labels(text: str | None) -> list[str]:
    wanted = [t.strip() for t in text.split(",")] if text else []
    for label in wanted:
        if label not in {"fake", "uncertain", "real"}:
            raise UsageError(f"--fail-on {label!r} is no label", "fake, uncertain, or both with a comma")
    return wanted


def _rate(text: str | None) -> float | None:
    """`1%` and `0.01` are the same rate."""
    if text is None:
        return None
    try:
        return float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError as error:
        raise UsageError(f"--false-alarms {text!r} is no rate", "write it as 1% or 0.01") from error


def _sink(output: Path | None, *, resume: bool, overwrite: bool) -> "FileOutput | TableOutput | LinesOutput":
    from faceauth.output import FileOutput, LinesOutput, TableOutput

    if output is not None:
        return FileOutput(output, resume=resume, overwrite=overwrite)
    return TableOutput(sys.stdout) if sys.stdout.isatty() else LinesOutput(sys.stdout)


def _judge(
    detector: "Detector",
    references: list[str | bytes],
    sink: "FileOutput | TableOutput | LinesOutput",
    workers: int,
) -> "Counter[str]":
    """Judge what the sink does not hold already; returns what was counted."""
    done: set[tuple[str, str]] = getattr(sink, "done", set())
    left = [r for r in references if (r, detector.model.sha256) not in done]
    if len(left) < len(references):
        _notice(f"{len(references) - len(left)} of {len(references)} images are in the output already")
    tally: Counter[str] = Counter()
    count = workers or (os.cpu_count() or 1 if len(left) >= 64 else 1)
    for verdict in _progress(detector.stream(left, count), len(left)):
        sink.write(verdict)
        _count(tally, verdict)
    return tally


def _progress(verdicts: "Iterable[Verdict]", total: int) -> "Iterator[Verdict]":
    if total < 2 or not sys.stderr.isatty():
        yield from verdicts
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (BarColumn(), MofNCompleteColumn(), TaskProgressColumn(show_speed=True),
               TextColumn("{task.fields[rate]}"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total, rate="")
        for verdict in verdicts:
            speed = bar.tasks[0].speed
            bar.update(task, advance=1, rate=f"{speed:.0f} images/s" if speed else "")
            yield verdict


def _count(tally: "Counter[str]", verdict: "Verdict") -> None:
    tally["images"] += 1
    tally["unreadable"] += verdict.error is not None
    tally["no-face"] += verdict.label == "no-face"
    for face in verdict.faces:
        tally["whole" if face.index is None else "faces"] += 1
        tally[face.label] += 1


def _summary(tally: "Counter[str]", detector: "Detector", output: Path | None) -> None:
    _notice(
        f"{tally['images']} images, {tally['faces']} faces"
        + (f" and {tally['whole']} images without one, judged whole" if tally["whole"] else "")
        + (f" and {tally['no-face']} images without one, not judged" if tally["no-face"] else "")
        + f": {tally['real']} real, {tally['fake']} fake, {tally['uncertain']} uncertain"
        + (f"; {tally['unreadable']} unreadable" if tally["unreadable"] else "")
        + (f"; written to {output}" if output else "")
    )
    measured = detector.model.card.thresholds.measured_on
    rate = f"where {detector.false_alarm_rate:.1%} of real faces are called fake (measured on {measured})"
    if measured.startswith("nothing"):
        rate = "at a rate of false alarms that is not known: this model was not calibrated (faceauth lab calibrate)"
    _notice(f"{detector.model.card.name}: fake from {detector.fake_from:.2f} on, {rate}. A score is no proof.")
    if detector.attributor and (taught := [t.kind.name for t in detector.attributor.taught]):
        _notice(f"with what was learned: {', '.join(taught)}; the shares above were measured without it")
    if others := [t.kind.name for t in detector.taught_to_others]:
        _notice(f"not used, learned with another model file: {', '.join(others)} (learn again, or faceauth forget)")


def _notice(text: str) -> None:
    from faceauth.output import printable

    print(printable(text), file=sys.stderr)
