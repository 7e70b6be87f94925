"""Judging: `calibrate` a model file."""

from pathlib import Path
from typing import Annotated

import typer

from faceauth.lab.cli.needs import need_lab


def register(app: typer.Typer) -> None:
    """Add this room's commands."""
    for command in (calibrate,):
        app.command()(command)


def calibrate(
    model: Annotated[Path, typer.Argument(help="A model file; its metadata is rewritten.")],
    corpus: Annotated[Path, typer.Option(help="The corpus that it was trained on.")],
    folds: Annotated[
        list[Path] | None, typer.Option("--fold", help="A fold's model file; repeat for every fold.")
    ] = None,
    cache: Annotated[Path, typer.Option(help="Where crops and scores are kept.")] = Path("cache"),
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
) -> None:
    """Fit calibration and thresholds on the test split, on sources that the scoring model has not seen.

    With --fold models, each scores the test images of the sources it was trained without, and the promise of
    5 % false alarms is kept on those. Without, it is kept on sources the model knows, and the file says so.

    \b
    Example:
      faceauth lab calibrate runs/embedded/detector.onnx --corpus ../shared/data \\
        --fold runs/embedded-fold1/detector.onnx --fold runs/embedded-fold2/detector.onnx
    """
    need_lab()
    from faceauth.lab.evaluation.protocol import calibrate as calibrate_

    card = calibrate_(model, corpus, folds or [], cache, workers)
    limits = card.thresholds
    typer.echo(f"score = sigmoid({card.calibration.scale:.3f} x logit {card.calibration.shift:+.3f})")
    typer.echo(f"fake from {limits.fake:.3f}, real to {limits.real:.3f}, on {limits.measured_on}")
