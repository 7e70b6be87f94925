"""Data: list known `sources`, `prepare` a data set, fetch the `corpus`, `synthesize` faces, `launder` fakes."""

from pathlib import Path
from typing import Annotated

import typer

from faceauth.cli_options import Address
from faceauth.errors import UsageError
from faceauth.lab.cli.common import EngineName, chosen, need, need_lab

Fractions = Annotated[tuple[float, float, float], typer.Option(help="Shares of train, test, dev.")]
corpus = typer.Typer(
    help="The development corpus, of which the repository keeps the addresses alone.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@corpus.callback()
def _corpus() -> None:
    """Make `fetch` a command of its own, though it is the only one."""


@corpus.command()
def fetch(
    table: Annotated[Path, typer.Argument(help="Where each image was published; configs/corpus.csv.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder to make, or to go on with.")],
    from_folder: Annotated[
        Path | None, typer.Option(help="A copy at hand, with the same paths, instead of the server.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="Template of a mirror's URL, with {repo}, {commit} and {path}; GitHub's raw files."),
    ] = None,
    connections: Annotated[int, typer.Option(help="At once; few are polite.", min=1, max=16)] = 4,
) -> None:
    """Fetch the images of a table from where they were published, into a folder that the laboratory reads.

    Every file is checked by its SHA-256. A run that was broken off goes on when the same command is given again. What
    cannot be had is listed in gone.csv with the reason. The images keep their publishers' licences; most are for
    research alone, so do not publish them again.

    \b
    Examples:
      faceauth lab corpus fetch configs/corpus.csv -o corpus
      faceauth lab corpus fetch configs/corpus.csv -o corpus --from-folder /media/copy
    """
    need("fetching a corpus", "filelock", "urllib3")
    from faceauth.lab.data.corpus import URL, summary
    from faceauth.lab.data.corpus import fetch as fetch_

    fetched = fetch_(table, output, from_folder, url or URL, connections)
    for line in summary(fetched):
        typer.echo(line, err=True)
    typer.echo(output / "images.csv")


def sources() -> None:
    """List the sources that `prepare` knows: what they are, their licence, and how they must lie on disk.

    \b
    Example:
      faceauth lab sources
    """
    from faceauth.lab.data.importers import HUB, KNOWN

    for known in KNOWN.values():
        typer.echo(f"{known.source}  {known.label}, {known.family}: {known.title}")
        typer.echo(f"  layout    {known.layout}")
        typer.echo(f"  licence   {known.licence}")
        typer.echo(f"  home      {known.home}")
        typer.echo(f"  download  {f'--download {known.source}: {known.hub} of {HUB}' if known.hub else 'by hand'}")
    typer.echo("1m_faces_NN and lm_faces_NN name every archive of 1 Million Fake Faces.")


def prepare(
    output: Annotated[Path, typer.Argument(help="A new or empty folder, or one whose preparation was broken off.")],
    data: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH for a known source, else NAME=PATH:real or :fake; repeat.")
    ] = None,
    download: Annotated[
        list[str] | None, typer.Option(help="Fetch a known source from the Hugging Face hub; repeat.")
    ] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="A source of an images.csv that is not wanted; repeat.")
    ] = None,
    count: Annotated[int | None, typer.Option(help="Images in all; as many as the balance allows.", min=2)] = None,
    fractions: Fractions = (0.8, 0.1, 0.1),
    seed: Annotated[int, typer.Option(help="Of the choice and the split.", min=0)] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse where a source is too small for --count.")] = False,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the files as they are instead of cropping.")] = False,
    link: Annotated[bool, typer.Option("--link", help="Hard-link the files as they are.")] = False,
    move: Annotated[bool, typer.Option("--move", help="Move the files as they are; a kill loses none.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes; all cores.", min=1)] = None,
    engine: EngineName = None,
    address: Address = None,
) -> None:
    """Choose, split, crop and list images: a balanced data set with its manifest, from the folders they came in.

    As many real as fake images, as many of each source within a class, and nothing that belongs together on two
    sides of a split. A run that was broken off goes on when the same command is given again.

    \b
    Examples:
      faceauth lab prepare prepared/ --data celebahq256_imgs=/data/celebahq256_imgs --data text2img=/data/text2img.zip
      faceauth lab prepare prepared/ --data my-camera=/photos:real --data my-gan=/made:fake --count 2000
      faceauth lab prepare prepared/ --data corpus=corpus/ --leave-out stylegan2-avatars
      faceauth lab prepare prepared/ --download text2img --download wiki --count 10000
      faceauth lab prepare /shared/prepared/ --data wiki=/shared/wiki.tar ... --engine ray --address auto
    """
    need_lab()
    from faceauth.lab.data.prepare import prepare as prepare_
    from faceauth.lab.data.prepare import prepare_config

    modes = [mode for mode, wanted in (("copy", copy), ("link", link), ("move", move)) if wanted]
    if len(modes) > 1:
        raise UsageError(f"--{modes[0]} and --{modes[1]} at once", "choose one")
    config = prepare_config(
        {
            "data": _places(data or []), "count": count, "fractions": fractions, "seed": seed, "strict": strict,
            "mode": modes[0] if modes else "crop", "leave_out": leave_out or [], "download": download or [],
        }
    )  # fmt: skip
    with chosen(engine, address, workers) as given:
        manifest = prepare_(config, output, given, say=lambda line: typer.echo(line, err=True))
    typer.echo(manifest.root / "manifest.xlsx")


def _places(data: list[str]) -> dict[str, str]:
    places: dict[str, str] = {}
    for pair in data:
        name, equals, place = pair.partition("=")
        if not equals or not name or not place:
            raise UsageError(f"--data {pair!r} is not NAME=PATH", "for example --data wiki=/data/wiki")
        if name in places:
            raise UsageError(f"--data {name} is given twice", "call one of them otherwise")
        places[name] = place
    return places


def synthesize(
    output: Annotated[Path, typer.Argument(help="An empty or new folder for the faces.")],
    corpus: Annotated[Path, typer.Option(help="Whose real train images it learns from.")],
    count: Annotated[int, typer.Option(help="How many faces.", min=1)] = 16,
    images: Annotated[int, typer.Option(help="Training budget in images.", min=64)] = 60_000,
    cache: Annotated[Path, typer.Option(help="Where crops are kept.")] = Path("cache"),
    seed: Annotated[int, typer.Option(help="Of weights, order and faces.", min=0)] = 0,
) -> None:
    """Train our own small face generator (minutes on one core) and draw faces from it.

    The folder is a corpus of one fake source, `vae`, that `data.extra_sources` of a training config takes.

    \b
    Example:
      faceauth lab synthesize faces/ --corpus corpus/
      faceauth lab synthesize runs/vae --corpus corpus/ --count 60 --seed 1
    """
    need_lab()
    from faceauth.lab.data.synthesize import synthesize as synthesize_

    loss = synthesize_(corpus, cache, output, count, images, seed)
    typer.echo(f"{count} faces in {output}, loss {loss:.4f}")


def launder(
    output: Annotated[Path, typer.Argument(help="An empty or new folder for the faces and the network.")],
    corpus: Annotated[Path, typer.Option(help="Whose real train faces it learns, and whose fakes it launders.")],
    family: Annotated[list[str] | None, typer.Option(help="Of the fakes; repeatable.  [default: gan]")] = None,
    images: Annotated[int, typer.Option(help="Training budget in parts of faces.", min=64)] = 40_000,
    cache: Annotated[Path, typer.Option(help="Where crops are kept.")] = Path("cache"),
    seed: Annotated[int, typer.Option(help="Of weights and order.", min=0)] = 0,
) -> None:
    """Put a corpus's fakes through an autoencoder of real faces, which takes from them what their generator left.

    GANprintR (Neves et al., 2020), which made iFakeFaceDB, rebuilt: minutes on one core. The folder is a corpus of one
    fake source, `laundered`, and stands in for iFakeFaceDB.

    \b
    Examples:
      faceauth lab launder laundered/ --corpus corpus/
      faceauth lab launder laundered/ --corpus corpus/ --family gan --family diffusion
      faceauth lab prepare prepared/ --data iFakeFaceDB=laundered/ ...
    """
    need_lab()
    from faceauth.lab.training.launder import launder as launder_

    found = launder_(corpus, cache, output, tuple(family or ("gan",)), images, seed)
    typer.echo(f"{found['faces']:.0f} faces in {output}; real faces come back at {found['psnr']:.1f} dB")
