"""What explanations need: `reference` writes what lies beside a model file, `heatmap` checks heat maps."""

from pathlib import Path
from typing import Annotated

import typer

from faceauth.lab.cli.needs import need_lab

Config = Annotated[Path, typer.Argument(help="The TOML file of a frozen detector, whose data set and splits count.")]
Model = Annotated[Path | None, typer.Option(help="A model file, or the name of one of the package.")]
Cache = Annotated[Path, typer.Option(help="Where hashes of images are kept.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(reference)


def reference(
    config: Config,
    rates: Annotated[Path, typer.Option(help="The report.md of faceauth lab evaluate, or the model card.")],
    model: Model = None,
    per_source: Annotated[int, typer.Option(help="At most so many images of each source.", min=1)] = 20,
    cache: Cache = Path("cache"),
) -> None:
    """Write NAME.reference.json beside a model file: what faceauth explain compares a face with.

    That is how pictures of unseen kinds are called, from a report's table, and the average noise spectrum of
    photographs and of each generator, from the train split.

    \b
    Example:
      faceauth lab reference configs/accurate.toml --rates src/faceauth/assets/accurate.md
    """
    need_lab()
    from faceauth.explain.reference import path_of
    from faceauth.files import write_text
    from faceauth.lab.evaluation.reference import reference as made
    from faceauth.lab.training.frozen import deal_rows, read_config
    from faceauth.model_file import ModelFile

    opened, read = ModelFile(model), read_config(config)
    dealt = deal_rows(read, cache)
    spec = opened.card.preprocess
    found = made(dealt.data, dealt.rows, spec, rates, opened.card.name, per_source)
    output = path_of(opened.path)
    write_text(output, found.to_json(opened.sha256))
    typer.echo(f"{output}: {found.real.images} photographs, {len(found.generators)} generators")
