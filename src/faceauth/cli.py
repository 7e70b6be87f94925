"""The commands: what they take, what they print. What a command needs is imported inside it, so `--help` is quick."""

import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faceauth import __version__, console
from faceauth.cli_options import (
    Address,
    Dedupe,
    EngineName,
    FailOn,
    FalseAlarms,
    Images,
    Learned,
    MaxBytes,
    MaxPixels,
    Model,
    NoLearned,
    NoRecheck,
    Output,
    Overwrite,
    PreviousOutput,
    Resume,
    Threshold,
    Timeout,
    WholeImage,
    Workers,
    learned_file,
    parse_rate,
)
from faceauth.cli_video import judge_clip, only_clip, refuse
from faceauth.console import Ended, Interrupted, Unreadable, echo, notice, progress, stdout
from faceauth.errors import UsageError

if TYPE_CHECKING:
    from faceauth.detector import Detector
    from faceauth.model_file import ModelFile
    from faceauth.output import Previous, Settings
    from faceauth.output.resume import Again
    from faceauth.verdict import Verdict

Judge = Callable[[list[str | bytes]], "Generator[Verdict, None, None]"]

Engine = Callable[..., tuple["Counter[str]", list[str]]]  # `faceauth.scale.engine.detect`

app = typer.Typer(
    name="faceauth",
    epilog="Exit codes: 0 done, 1 error, 2 usage, 3 some inputs could not be read, 4 --fail-on was met, "
    "128 + n ended by signal n.",
    no_args_is_help=True,
    add_completion=False,  # typer's own takes a shell's name or detects the shell, by what is installed
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
model_app = typer.Typer(help="Look into model files.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(model_app, name="model")

UNREADABLE, FAIL_ON = 3, 4
engines: dict[str, Engine] = {}  # of optional parts, by name; `__main__` enters them
SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")
FEW = 32  # images for which the start of worker processes takes longer than they save


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"faceauth {__version__}")
        raise typer.Exit


def _shell(option: str) -> str | None:
    """The word after an option, where it names a shell; typer detects the shell in use where it does not."""
    words = sys.argv[sys.argv.index(option) + 1 :] if option in sys.argv else []
    return words[0] if words and words[0] in SHELLS else None


def _install_completion(wanted: bool) -> None:
    if wanted:
        from typer.completion import install  # type: ignore[attr-defined]

        shell, path = install(_shell("--install-completion"), "faceauth")
        echo(f"{shell} completes faceauth from the next terminal on; written to {path}")
        raise typer.Exit


def _show_completion(wanted: bool) -> None:
    if wanted:
        from typer.completion import _get_shell_name, get_completion_script  # type: ignore[attr-defined]

        shell = _shell("--show-completion") or _get_shell_name() or ""
        if shell not in SHELLS:
            raise UsageError("the shell in use is not known", f"name one: {', '.join(SHELLS)}")
        typer.echo(get_completion_script(prog_name="faceauth", complete_var="_FACEAUTH_COMPLETE", shell=shell))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    install_completion: Annotated[
        bool,
        typer.Option(
            "--install-completion",
            callback=_install_completion,
            is_eager=True,
            help="Let the shell in use, or the one named after it, complete commands and options.",
        ),
    ] = False,
    show_completion: Annotated[
        bool,
        typer.Option(
            "--show-completion",
            callback=_show_completion,
            is_eager=True,
            help="Print what does so: for bash, zsh, fish, powershell or pwsh.",
        ),
    ] = False,
) -> None:
    """Is this face photograph real, and if not, what made it?

    \b
    Examples:
      faceauth detect photo.jpg
      faceauth explain photo.jpg -o report.html
      faceauth detect --help
    """
    console.debug = debug


def _file(output: str | None, resume: bool, overwrite: bool) -> str | None:
    """The file or FOLDER/ that verdicts are written to, checked; None for standard output. Raises UsageError."""
    from faceauth.images.loading import is_address
    from faceauth.output import check, check_folder, is_folder

    if output is not None and output != "-":
        if not output:
            raise UsageError("the name of the output is empty", "is a variable of the shell not set?")
        if is_address(output):
            raise UsageError(f"{output!r} is an address", "add --engine ray, or name a file or FOLDER/")
        (check_folder if is_folder(output) else check)(Path(output), resume=resume, overwrite=overwrite)
        return output
    if resume:
        raise UsageError("--resume needs an output to go on with", "add -o FILE.jsonl or FOLDER/")
    stdout()
    return None


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
    timeout: Timeout = 120.0,
    max_pixels: MaxPixels = 100_000_000,
    max_bytes: MaxBytes = 200_000_000,
    learned: Learned = None,
    no_learned: NoLearned = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dedupe: Dedupe = False,
    previous: PreviousOutput = None,
    engine: EngineName = None,
    address: Address = None,
) -> None:
    """Say of every face: real, fake or uncertain, and what made it.

    An image without a face is not judged: its label is no-face. Of a video, given alone, frames are
    judged, as faceauth video does.

    A table on a terminal, JSON Lines in a pipe, a file with -o. Nothing leaves this machine
    but what -o sends to an address.

    \b
    Examples:
      faceauth detect photo.jpg
      faceauth detect holiday/ "press/**/*.png" -o verdicts.xlsx
      faceauth detect archive/ -o verdicts.jsonl --resume
      faceauth detect archive/ -o today.jsonl --previous yesterday.jsonl --dedupe
      faceauth detect @list.txt --fail-on fake --false-alarms 1%
      curl -s https://example.org/face.jpg | faceauth detect -
      faceauth detect s3://bucket/photos -o s3://bucket/verdicts/ --engine ray
      faceauth detect folder/ | jq -r 'select(.label == "fake") | .path'
    """
    from faceauth.detector import Detector
    from faceauth.images import Limits
    from faceauth.inputs import expand
    from faceauth.output import Previous, check_apart

    wanted = _labels(fail_on)
    new_detector = partial(
        Detector, model, threshold=threshold, false_alarms=parse_rate(false_alarms), recheck=not no_recheck,
        whole_image=whole_image, limits=Limits(max_pixels, max_bytes),
        learned=learned_file(learned, no_learned),
    )  # fmt: skip
    if clip := only_clip(images):
        refuse({
            "--whole-image": whole_image, "--resume": resume, "--dedupe": dedupe, "--previous": previous,
            "--engine": engine, "--address": address, "--max-pixels": max_pixels != Limits.max_pixels,
            "--max-bytes": max_bytes != Limits.max_bytes,
        })  # fmt: skip
        labels = judge_clip(clip, new_detector, output, workers=workers, timeout=timeout, overwrite=overwrite)
        _exit(labels, wanted)
        return
    run = _engine(engine, output, address)
    file = output if run else _file(output, resume, overwrite)
    if previous and file:
        check_apart(previous, Path(file))
    if "-" in images and sys.stdin is None:
        raise UsageError("standard input is closed", "name files, or pipe an image in")
    detector = new_detector()
    earlier = Previous(previous, _settings(detector)) if previous else None
    if run:
        tally, notes = run(
            detector, images, output, workers, timeout, address, earlier,
            resume=resume, overwrite=overwrite, dedupe=dedupe,
        )  # fmt: skip
        _end(tally, detector, output, notes, wanted)
        return
    judge = partial(_verdicts, detector, workers=workers, timeout=timeout, dedupe=dedupe, previous=earlier)
    found = expand(images, max_bytes=max_bytes)
    if file is None:
        tally = _print(judge, found.references, table=output is None and stdout().isatty())
    else:
        tally = _save(judge, detector, found.references, file, resume=resume, overwrite=overwrite)
    _end(tally, detector, file, found.notes(), wanted)


def _engine(name: str | None, output: str | None, address: str | None) -> Engine | None:
    """The engine of that name; None for the plain way. Raises UsageError."""
    if name is None:
        if address is not None:
            raise UsageError("--address is that of a Ray cluster", "add --engine ray")
        return None
    if name not in engines:
        raise UsageError(f"--engine {name!r} is not known", f"one of: {', '.join(engines)}")
    if output is None or not output.split("?")[0].endswith("/"):
        raise UsageError(f"--engine {name} writes Parquet parts", "add -o FOLDER/ or -o s3://bucket/prefix/")
    return engines[name]


def _end(tally: "Counter[str]", detector: "Detector", output: str | None, notes: list[str], wanted: list[str]) -> None:
    """The summary, and the exit code that goes with it."""
    _summary(tally, detector, output, notes)
    _exit(tally, wanted)


def _exit(tally: "Counter[str]", wanted: list[str]) -> None:
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
    for name, value in (*lines.items(), *card.notes.items(), *named):
        echo(f"{name:16} {value}")


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
    labels = ("fake", "uncertain", "real", "no-face")
    wanted = [] if text is None else [t.strip().lower() for t in text.split(",")]
    for label in wanted:
        if label not in labels:
            raise UsageError(f"--fail-on {label!r} is no label", f"one of {', '.join(labels)}, or several with commas")
    return wanted


def _print(judge: Judge, references: list[str | bytes], *, table: bool) -> "Counter[str]":
    """Judge to standard output: as a table, or as JSON Lines."""
    from faceauth.output import LinesOutput, TableOutput, count, rows

    sink: LinesOutput | TableOutput = TableOutput(stdout()) if table else LinesOutput(stdout())
    tally: Counter[str] = Counter()
    with sink, closing(judge(references)) as verdicts:
        for verdict in verdicts:
            sink.write(verdict)
            count(tally, rows(verdict))
    return tally


def _save(
    judge: Judge, detector: "Detector", references: list[str | bytes], output: str, *, resume: bool, overwrite: bool
) -> "Counter[str]":
    """Judge to a file what it does not hold already; the tally is of all that is in the file."""
    from faceauth.output import FileOutput, PartsOutput, is_folder

    unreadable = Unreadable()
    sink: FileOutput | PartsOutput
    if is_folder(output):
        sink = PartsOutput(Path(output), resume=resume, overwrite=overwrite, settings=_settings(detector))
    else:
        sink = FileOutput(Path(output), resume=resume, overwrite=overwrite, settings=_settings(detector))
    try:
        with sink:
            _say_what_is_left(sink.left if isinstance(sink, FileOutput) else ())
            left, again = sink.remaining(references, detector.limits.max_bytes)
            if resume:
                _say_what_is_kept(len(references), len(left), again)
            with closing(judge(left)) as verdicts:
                for verdict in verdicts:
                    sink.write(verdict)
                    if verdict.error is not None:
                        unreadable.add(verdict.path, verdict.error)
    except Interrupted as asked:
        raise Ended(asked.number, "; ".join(filter(None, ["interrupted", sink.where()]))) from asked
    unreadable.say()
    return sink.tally


def _settings(detector: "Detector") -> "Settings":
    """What all rows of an output have in common."""
    from faceauth.detector import row_details
    from faceauth.output import Settings

    model, details = detector.model, row_details(detector)
    return Settings(
        __version__, model.card.name, model.sha256, float(detector.fake_from), details["learned_sha256"],
        details["face_finder"], detector.whole_image, detector.recheck,
    )  # fmt: skip


def _say_what_is_left(files: tuple[Path, ...]) -> None:
    """What runs that were broken off have left beside an output, and what it is good for."""
    for file in files:
        notice(f"{file} holds the rows of a run that was broken off: take them with --previous, or delete it")


def _say_what_is_kept(count: int, left: int, again: "Again") -> None:
    reasons = {"changed since": again.changed, "could not be read": again.unreadable}
    more = ", ".join(f"{n} that {why}" for why, n in reasons.items() if n)
    notice(f"{count - left} of {count} images are in the output already" + (f"; judged again: {more}" if more else ""))


def _verdicts(
    detector: "Detector",
    references: list[str | bytes],
    *,
    workers: int,
    timeout: float,
    dedupe: bool,
    previous: "Previous | None",
) -> "Generator[Verdict, None, None]":
    """The verdict on each image in order, judged or taken from an earlier output, with a bar on a terminal."""
    from faceauth.cpus import usable_cpus
    from faceauth.duplicates import judged_once

    known = previous.find(references, detector.limits.max_bytes) if previous else [None] * len(references)
    left = [reference for reference, entry in zip(references, known, strict=True) if entry is None]
    if previous:
        notice(f"{len(references) - len(left)} of {len(references)} images are taken from {previous.path}")
    number = workers or (usable_cpus() if len(left) >= FEW else 1)
    stream = partial(judged_once, watch=progress) if dedupe else type(detector).stream
    with closing(stream(detector, left, number, timeout=timeout)) as judged:
        verdicts = progress(judged, len(left))
        for reference, entry in zip(references, known, strict=True):
            yield previous.verdict(entry, reference) if previous and entry is not None else next(verdicts)


def _summary(tally: "Counter[str]", detector: "Detector", output: str | None, passed_over: list[str]) -> None:
    """What was found, in words, and what the words mean."""
    from faceauth.output import counted

    notice(
        f"{counted(tally['images'], 'image')}, {counted(tally['faces'], 'face')}"
        + (f" and {counted(tally['whole'], 'image')} without one, judged whole" if tally["whole"] else "")
        + f": {tally['real']} real, {tally['fake']} fake, {tally['uncertain']} uncertain"
        + (f"; {tally['no-face']} without a face, not judged" if tally["no-face"] else "")
        + (f"; {tally['unreadable']} unreadable" if tally["unreadable"] else "")
        + "".join(f"; {note}" for note in passed_over)
        + (f"; written to {output}" if output else "")
    )
    measured = detector.model.card.thresholds.measured_on
    meaning = f"where {detector.false_alarm_rate:.1%} of real faces are called fake (measured on {measured})"
    if measured.startswith("nothing"):
        meaning = "whose false-alarm rate is not known: this model was not calibrated (faceauth lab calibrate)"
    notice(f"{detector.model.card.name}: fake from {detector.fake_from:.2f} on, {meaning}. A score is no proof.")
    if detector.attributor and (taught := [t.kind.name for t in detector.attributor.taught]):
        notice(f"with what was learned: {', '.join(taught)}; the shares above were measured without it")
    if others := [t.kind.name for t in detector.taught_to_others]:
        notice(f"not used, learned with another model file: {', '.join(others)} (learn again, or faceauth forget)")
