"""The command `faceauth serve`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faceauth.cli_options import learned_file, no_nan
from faceauth.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from faceauth.server.settings import Settings


Host = Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all of this machine's.")]
Port = Annotated[int, typer.Option(min=0, max=65535)]
AllowHost = Annotated[
    list[str] | None, typer.Option(help="A name under which it is asked for besides; again for each.")
]
Workers = Annotated[int, typer.Option(help="Processes that judge; 0 takes one a core.", min=0, max=256)]
ApiKeys = Annotated[Path | None, typer.Option(help="File of hashed keys; FACEAUTH_API_KEYS may hold such lines too.")]
NewKey = Annotated[
    str | None, typer.Option(metavar="NAME", help="Make a key, print it once, add its hash to --api-keys, and end.")
]
NoAuth = Annotated[bool, typer.Option("--no-auth", help="Let in everybody who can reach the address.")]
Model = Annotated[
    Path | None,
    typer.Option(help="A model file, or the name of one that comes with the package: accurate (the default) or fast."),
]
FalseAlarms = Annotated[
    float | None, typer.Option(help="Call at most this share of real faces fake, as 0.01.", min=0, max=1)
]
WholeImage = Annotated[bool, typer.Option("--whole-image", help="Take the whole image where no face is found.")]
Learned = Annotated[
    Path | None, typer.Option(help="A file of learned generators and cameras instead of the user's own.")
]
NoLearned = Annotated[bool, typer.Option("--no-learned", help="Judge without what was learned.")]
AllowLearn = Annotated[bool, typer.Option("--allow-learn", help="Let whoever may ask teach it too, at /v1/learn.")]
MaxBytes = Annotated[int, typer.Option(help="Bytes of a request.", min=1)]
MaxFiles = Annotated[int, typer.Option(help="Images in a request.", min=1)]
MaxPixels = Annotated[int, typer.Option(help="Pixels of an image, as for detect.", min=1)]
MaxFaces = Annotated[int, typer.Option(help="Faces in an image.", min=1)]
Timeout = Annotated[float, typer.Option(help="Seconds that an image may take.", min=0.01, callback=no_nan)]
Queue = Annotated[int, typer.Option(help="Requests judged or waiting at once; more get 429.", min=1)]
Rate = Annotated[int, typer.Option(help="Images a minute and key; 0 for any number.", min=0)]
ReadTimeout = Annotated[
    float,
    typer.Option(
        help="Seconds in which a head, and every further 64 kB of a body, have to come.", min=0.1, callback=no_nan
    ),
]
WorkerMemory = Annotated[int, typer.Option(help="Megabytes of data that a process may hold.", min=64)]


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    allow_host: AllowHost = None,
    workers: Workers = 0,
    api_keys: ApiKeys = None,
    new_key: NewKey = None,
    no_auth: NoAuth = False,
    model: Model = None,
    false_alarms: FalseAlarms = None,
    whole_image: WholeImage = False,
    learned: Learned = None,
    no_learned: NoLearned = False,
    allow_learn: AllowLearn = False,
    max_bytes: MaxBytes = 64_000_000,
    max_files: MaxFiles = 64,
    max_pixels: MaxPixels = 50_000_000,
    max_faces: MaxFaces = 64,
    timeout: Timeout = 60.0,
    queue: Queue = 64,
    rate: Rate = 600,
    read_timeout: ReadTimeout = 10.0,
    worker_memory: WorkerMemory = 4000,
) -> None:
    """Serve verdicts over HTTP, and a page to try photos on.

    It listens on this machine alone unless --host says otherwise, and then wants keys, or --no-auth. Images are kept in
    memory until they are judged, and never written or logged. The API is described at /v1/openapi.json.

    \b
    Examples:
      faceauth serve
      faceauth serve --new-key reviewers --api-keys keys.txt
      faceauth serve --host 0.0.0.0 --allow-host faces.example.org --api-keys keys.txt
      curl -F files=@photo.jpg http://127.0.0.1:8000/v1/detect
      curl -F files=@a.jpg -F files=@b.jpg -H "Authorization: Bearer $KEY" http://faces.example.org/v1/detect
    """
    _need_server()
    from faceauth.cpus import usable_cpus
    from faceauth.server import keys
    from faceauth.server.settings import Settings

    if new_key is not None:
        _make_key(new_key, api_keys)
        return
    _check(learned, no_learned, allow_learn)
    settings = Settings(
        host=host, port=port, hosts=tuple(allow_host or ()), keys=() if no_auth else keys.load(api_keys),
        workers=workers or usable_cpus(), memory=worker_memory * 1_000_000, model=model, false_alarms=false_alarms,
        whole_image=whole_image, learned=learned_file(learned, no_learned), teach=allow_learn,
        max_bytes=max_bytes, max_files=max_files, max_pixels=max_pixels, max_faces=max_faces, timeout=timeout,
        queue=queue, rate=rate, read_timeout=read_timeout,
    )  # fmt: skip
    _start(settings, no_auth=no_auth)


def _make_key(name: str, file: Path | None) -> None:
    from faceauth.console import echo, notice
    from faceauth.server import keys

    if file is None:
        raise UsageError("--new-key needs a file for its hash", "add --api-keys FILE")
    echo(keys.make(name, file))
    notice(f"this key is shown once; its hash is in {file}")


def _check(learned: Path | None, no_learned: bool, allow_learn: bool) -> None:
    """Raises UsageError for options that exclude each other."""
    for given, option in ((learned is not None, "--learned"), (allow_learn, "--allow-learn")):
        if given and no_learned:
            raise UsageError(f"{option} and --no-learned exclude each other", "give one of the two")


def _start(settings: "Settings", *, no_auth: bool) -> None:
    from faceauth.console import notice
    from faceauth.server.run import run

    if not settings.on_loopback and not settings.keys and not no_auth:
        raise UsageError(
            f"everybody who can reach {settings.host} could use this service",
            "add --api-keys FILE (made with --new-key NAME), or --no-auth to let everybody in",
        )
    run(settings, lambda port: notice(f"listening at {_address(settings.host, port)}; Ctrl-C ends it"))


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _need_server() -> None:
    """Raises MissingExtra where the extra `server` is not installed."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtra(f"the service needs {error.name}", "server") from error
