"""The command `faceauth mcp`: a server of the Model Context Protocol on standard input and output."""

from pathlib import Path
from typing import Annotated

import typer

from faceauth.cli_options import no_empty, no_nan


def mcp(
    folders: Annotated[
        list[str], typer.Argument(help="Folders whose pictures may be read; nothing else can be.", callback=no_empty)
    ],
    model: Annotated[
        Path | None,
        typer.Option(
            help="A model file, or the name of one that comes with the package: accurate (the default) or fast."
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(help="Let detect give an image up after so many seconds.", min=0.01, callback=no_nan)
    ] = 120.0,
) -> None:
    """Let an MCP client judge pictures in the folders named.

    Such a client is a chat program or an editor that speaks the Model Context Protocol.
    It serves the tools detect, explain and provenance on standard input and output. Pictures are not returned unless
    the client asks for one, nothing is written, and nothing leaves this machine but what the client sends on.

    \b
    Examples:
      faceauth mcp ~/Pictures
      faceauth mcp ~/Pictures /data/press --model fast
    """
    from faceauth.detector import Detector
    from faceauth.images import Limits
    from faceauth.mcp_server import Folders, Tools, serve

    opened = Folders(map(Path, folders))
    serve(Tools(Detector(model, limits=Limits(adjustable=False)), opened, timeout), opened)  # it has no option for them
