"""The commands `learn` and `forget`: a new generator, or a new kind of photograph, from a few pictures."""

from pathlib import Path
from typing import Annotated

import typer

from faceauth.cli_options import Learned, Model, WholeImage, no_empty
from faceauth.console import echo, notice
from faceauth.errors import DataError


def learn(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    folder: Annotated[str, typer.Argument(help="10 to 50 different pictures that it made.", callback=no_empty)],
    real: Annotated[
        bool, typer.Option("--real", help="The pictures are photographs: of a camera, an agency, a pipeline.")
    ] = False,
    family: Annotated[
        str | None, typer.Option(help="The generator's family: gan, diffusion, swap, laundered, other.")
    ] = None,
    model: Model = None,
    whole_image: WholeImage = False,
    learned: Learned = None,
) -> None:
    """Learn a new generator or camera from 10 to 50 pictures.

    With --real the pictures are photographs: of a camera, an agency, a pipeline.
    No network is trained; the mean of the pictures' embeddings is kept in your learned file, none of the pictures.
    How well it will be told apart is estimated and printed, and what cannot be told apart is refused. From then on
    detect names it. The photographs of a kind learned with --real get lower scores, and so do fakes that look the
    same to the model: learn only what you trust.

    \b
    Examples:
      faceauth learn new-generator pictures/
      faceauth learn new-generator pictures/ --family diffusion
      faceauth learn our-photographers archive/2026/ --real
    """
    from faceauth import learning
    from faceauth.detector import Detector
    from faceauth.learned import default_file

    file = learned or default_file()
    detector = Detector(model, whole_image=whole_image, learned=file if file.exists() else False)
    try:
        lesson = learning.learn(detector, name, Path(folder), file, real=real, family=family)
    except DataError as refusal:
        for line in getattr(refusal, "__notes__", ()):
            notice(line)
        raise
    for line in lesson.lines():
        notice(line)
    echo(f"{name}: learned from {lesson.taught.count} pictures, {lesson.taught.estimate()}; kept in {file}")


def forget(
    name: Annotated[str, typer.Argument(help="What was learned under this name; model info lists it.")],
    learned: Learned = None,
) -> None:
    """Remove what was learned under a name.

    \b
    Example:
      faceauth forget new-generator
    """
    from faceauth import learning
    from faceauth.learned import default_file

    file = learned or default_file()
    learning.forget(name, file)
    echo(f"{name}: forgotten; {file} is without it")
