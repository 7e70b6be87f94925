"""`faceauth lab`: train a detector, turn it into a model file, calibrate it. Heavy imports inside commands."""

from pathlib import Path
from typing import Annotated

import typer

from faceauth.errors import MissingExtra

app = typer.Typer(
    help="Train and judge detectors. Needs pip install 'faceauth[lab]'.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _need_lab() -> None:
    try:
        import onnx  # noqa: F401
        import pydantic  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtra(f"the laboratory needs {error.name}", "lab") from error


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A TOML experiment, such as configs/embedded.toml.")],
    fold: Annotated[int | None, typer.Option(help="Hold out the sources of this fold, from 1.")] = None,
    runs: Annotated[Path, typer.Option(help="Where run folders are made.")] = Path("runs"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was broken off.")] = False,
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 1,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="key=value over the config; repeatable.")] = None,
) -> None:
    """Train one model: on all sources, or with a fold's sources held out.

    \b
    Examples:
      faceauth lab train configs/embedded.toml
      faceauth lab train configs/embedded.toml --fold 1
      faceauth lab train configs/embedded.toml --resume
      faceauth lab train configs/embedded.toml --set name=short --set images=5000
    """
    _need_lab()
    from faceauth.lab.training.config import read_config
    from faceauth.lab.training.loop import train as train_

    run = train_(read_config(config, overrides), runs, fold, resume=resume, threads=threads)
    typer.echo(run)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The model file; RUN/detector.onnx.")] = None,
) -> None:
    """Write a finished run as an ONNX model file and check it against torch.

    \b
    Example:
      faceauth lab export runs/embedded
    """
    _need_lab()
    from faceauth.lab.training.export import export as export_

    target = output or run / "detector.onnx"
    error = export_(run, target)
    typer.echo(f"{target}: largest relative difference from torch over 64 pictures {error:.1e}")


@app.command()
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
    _need_lab()
    from faceauth.lab.evaluation.protocol import calibrate as calibrate_

    card = calibrate_(model, corpus, folds or [], cache, workers)
    limits = card.thresholds
    typer.echo(f"score = sigmoid({card.calibration.scale:.3f} x logit {card.calibration.shift:+.3f})")
    typer.echo(f"fake from {limits.fake:.3f}, real to {limits.real:.3f}, on {limits.measured_on}")


@app.command()
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
    _need_lab()
    from faceauth.lab.data.synthesize import synthesize as synthesize_

    loss = synthesize_(corpus, cache, output, count, images, seed)
    typer.echo(f"{count} faces in {output}, loss {loss:.4f}")
