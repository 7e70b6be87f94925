"""All of it: a whole `study` from one file."""

from pathlib import Path
from typing import Annotated

import typer

from faceauth.lab.cli.needs import need_lab


def register(app: typer.Typer) -> None:
    """Add this room's command."""
    app.command()(study)


def study(
    plan: Annotated[Path, typer.Argument(help="A TOML file, such as configs/small/study.toml.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands and do nothing.")] = False,
) -> None:
    """Run a whole study: prepare, train, evaluate, t-SNE, spectra, report.

    What is done already is left out, so a study that was broken off goes on when the same command is given again.

    \b
    Examples:
      faceauth lab study configs/small/study.toml
      faceauth lab study configs/small/study.toml --dry-run
    """
    need_lab()
    from faceauth.lab.study import read_study, run_study, stages

    read = read_study(plan)
    if dry_run:
        for step in (step for stage in stages(read) for step in stage):
            typer.echo(step)
    else:
        typer.echo(run_study(read, say=lambda line: typer.echo(line, err=True)))
