"""The command `faceauth provenance`: what files say of their own making, what is signed, what is measured; no model."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from faceauth.cli_options import check_new, writing
from faceauth.console import Unreadable, notice, stdout
from faceauth.errors import FaceAuthError, UsageError
from faceauth.files import replacing

if TYPE_CHECKING:
    from faceauth.provenance import TrustList
    from faceauth.provenance.report import Report

UNREADABLE = 3
SUFFIXES = (".json", ".jsonl")


def provenance(
    images: Annotated[
        list[str], typer.Argument(help="Files, folders, quoted globs, @list.txt, or - for standard input.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write the reports to FILE: .json (a list) or .jsonl.")
    ] = None,
    trust_anchors: Annotated[
        Path | None, typer.Option(help="PEM certificates that vouch for the signers of C2PA manifests.")
    ] = None,
    trust_usages: Annotated[
        Path | None, typer.Option(help="Extended key usages a signer may have besides: one object identifier a line.")
    ] = None,
    max_bytes: Annotated[int, typer.Option(help="Refuse larger files unread.", min=1)] = 200_000_000,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")] = False,
) -> None:
    """Print what files say of their making, and who signed it.

    What can be measured on the files stands beside it; no model is needed.
    Every line is one of: `says`, which anybody can write; `signed`, which a signature covers; `measured`, from the
    file's own numbers; `absent`, which proves nothing. Where lines disagree, that is printed first. Nothing is fetched.

    \b
    Examples:
      faceauth provenance photo.jpg
      faceauth provenance folder/ -o provenance.json
      faceauth provenance signed.jpg --trust-anchors anchors.pem
      faceauth provenance folder/ | jq -r 'select(.disagreements != []) | .path'
    """
    from faceauth.inputs import expand
    from faceauth.provenance import TrustList

    if trust_usages and not trust_anchors:
        raise UsageError("--trust-usages needs a trust list", "add --trust-anchors FILE.pem")
    if output is not None:
        check_new(output, SUFFIXES, overwrite=overwrite)
    trust = TrustList.read(trust_anchors, trust_usages) if trust_anchors else None
    reports = _reports(expand(images, max_bytes=max_bytes).references, trust, max_bytes)
    unreadable = Unreadable()
    if output:
        files = _write_file(output, _noted(reports, unreadable))
        unreadable.say()
        notice(_summary(files, unreadable.count, output))
    else:
        _print(_noted(reports, unreadable))
    if unreadable.count:
        raise typer.Exit(UNREADABLE)


def _reports(references: list[str | bytes], trust: "TrustList | None", max_bytes: int) -> "Iterator[Report]":
    """One report a file; a file that cannot be read has a report with the error alone."""
    from faceauth.images import Limits, read
    from faceauth.provenance.report import Report, examine

    for reference in references:
        path = reference if isinstance(reference, str) else "-"
        try:
            data = reference if isinstance(reference, bytes) else read(reference, Limits(max_bytes=max_bytes))
            yield examine(data, path, trust)
        except UsageError:
            raise
        except FaceAuthError as error:
            yield Report(path, error=str(error))
        except Exception as error:  # one file is never the end of a run
            yield Report(path, error=f"cannot be examined: {type(error).__name__}")


def _noted(reports: "Iterator[Report]", unreadable: Unreadable) -> "Iterator[Report]":
    """The reports on their way, those of unreadable files noted."""
    for report in reports:
        if report.error is not None:
            unreadable.add(report.path, report.error)
        yield report


def _summary(files: int, unreadable: int, output: Path) -> str:
    from faceauth.output import counted

    return counted(files, "file") + (f"; {unreadable} unreadable" if unreadable else "") + f"; written to {output}"


def _write_file(output: Path, reports: "Iterator[Report]") -> int:
    """Write all reports, whole or not at all; returns how many."""
    write = _lines if output.suffix.lower() == ".jsonl" else _list
    with writing(output), replacing(output) as part, open(part, "w", encoding="utf-8") as file:
        return write(file, reports)


def _lines(file: IO[str], reports: "Iterator[Report]") -> int:
    files = 0
    for report in reports:
        file.write(json.dumps(_row(report)) + "\n")
        file.flush()
        files += 1
    return files


def _list(file: IO[str], reports: "Iterator[Report]") -> int:
    rows = [_row(report) for report in reports]
    json.dump(rows, file, indent=1)
    file.write("\n")
    return len(rows)


def _row(report: "Report") -> dict[str, Any]:
    from faceauth import __version__

    return report.to_dict() | {"version": __version__}


def _print(reports: "Iterator[Report]") -> None:
    if not stdout().isatty():
        _lines(stdout(), reports)
        return
    from rich.console import Console

    console = Console(file=stdout())
    for report in reports:
        _draw(report, console.print)


def _draw(report: "Report", show: "Callable[[Any], None]") -> None:
    """One file for a terminal: its name, what disagrees, then a table with a row a line."""
    from rich.table import Table
    from rich.text import Text

    from faceauth.output import printable

    show(Text(printable(report.path), style="bold"))
    if report.error:
        show(Text(f"  {printable(report.error)}", style="red"))
        return
    for sentence in report.disagreements:
        show(Text(f"  disagreement: {printable(sentence)}", style="bold yellow"))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 2), show_header=False)
    styles = {"says": "", "signed": "green", "measured": "cyan", "absent": "dim"}
    for line in report.findings:
        cells = (line.kind, line.where, line.text)
        table.add_row(*(Text(printable(cell), style=styles[line.kind]) for cell in cells))
    show(table)
