"""Images: `synthesize` faces of our own."""

from pathlib import Path
from typing import Annotated

import typer

from faceauth.lab.cli.needs import need_lab


def register(app: typer.Typer) -> None:
    """Add this room's commands."""
    for command in (synthesize,):
        app.command()(command)


def synthesize(
    output: Annotated[Path, typer.Argument(help="An empty or new folder for the faces.")],
    corpus: Annotated[Path, typer.Option(help="Whose real train images it learns from.")],
    count: Annotated[int, typer.Option(help="How many faces.", min=1)] = 16,
    images: Annotated[int, typer.Option(help="Training budget in images.", min=64)] = 60_000,
    cache: Annotated[Path, typer.Option(help="Where crops are kept.")] = Path("cache"),
    seed: Annotated[int, typer.Option(help="Of weights, order and faces.")] = 0,
) -> None:
    """Train our own small face generator (minutes on one core) and draw faces from it.

    \b
    Example:
      faceauth lab synthesize faces/ --corpus ../shared/data
    """
    need_lab()
    from faceauth.lab.data.synthesize import synthesize as synthesize_

    loss = synthesize_(corpus, cache, output, count, images, seed)
    typer.echo(f"{count} faces in {output}, loss {loss:.4f}")
