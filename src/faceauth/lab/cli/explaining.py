"""What explanations need: `reference` writes what lies beside a model file, `heatmap` checks heat maps."""

from pathlib import Path
from typing import Annotated

import typer

from faceauth.lab.cli.common import need_lab

Config = Annotated[Path, typer.Argument(help="The TOML file of a frozen detector, whose data set and splits count.")]
Model = Annotated[Path | None, typer.Option(help="A model file, or the name of one of the package.")]
Cache = Annotated[Path, typer.Option(help="Where hashes of images are kept.")]


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

    opened, dealt = ModelFile(model), deal_rows(read_config(config), cache)
    found = made(dealt.data, dealt.rows, opened.card.preprocess, rates, opened.card.name, per_source)
    output = path_of(opened.path)
    write_text(output, found.to_json(opened.sha256))
    typer.echo(f"{output}: {found.real.images} photographs, {len(found.generators)} generators")


def heatmap(
    config: Config,
    model: Model = None,
    count: Annotated[int, typer.Option("--images", help="So many images of the test split.", min=2)] = 40,
    cache: Cache = Path("cache"),
    seed: Annotated[int, typer.Option(help="Of the random map and of the intervals.", min=0)] = 0,
) -> None:
    """Check heat maps: deletion and insertion areas against occlusion, a random map and a centre prior.

    The strongest patches of a map are blurred first (deletion) or left unblurred first (insertion); printed are mean
    areas under the logit for the verdict, with 95 % intervals over images. Images of the test split, photographs and
    fakes in turn, a source at a time. A model that was trained on every kind of the data set sees none that is new.

    \b
    Example:
      faceauth lab heatmap configs/accurate.toml
    """
    need_lab()
    from faceauth.lab.evaluation import heatmaps, tables
    from faceauth.lab.training.frozen import deal_rows, read_config
    from faceauth.model_file import ModelFile

    opened, dealt = ModelFile(model), deal_rows(read_config(config), cache)
    areas, used = heatmaps.faithfulness(opened, dealt.data, heatmaps.choose(dealt.rows, count), seed)
    labels = [row.label for row in used]
    typer.echo(
        f"{opened.card.name} {opened.card.version}, test split of {dealt.data.sha256[:16]}: {labels.count('real')} "
        f"photographs, {labels.count('fake')} fakes of {len({row.source for row in used})} sources",
        err=True,
    )
    typer.echo(tables.markdown(heatmaps.table(areas, seed)))
