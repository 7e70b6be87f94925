"""The options by which a command gives its work to Ray."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from faceauth.errors import UsageError

if TYPE_CHECKING:
    from faceauth.lab.parallel import OnRay

EngineName = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="ray",
        help="Give the work to Ray; on a cluster, to machines that share the folders of this one, and have the lab.",
    ),
]


@contextmanager
def chosen(engine: str | None, address: str | None, workers: int | None) -> Iterator["int | OnRay | None"]:
    """The workers of `faceauth.lab.parallel`, for as long as the block lasts; `workers` itself without an engine.

    Raises:
        UsageError: no such engine, or an address without one.
        MissingExtra: Ray is not installed.
        FaceAuthError: there is no such cluster.
    """
    if engine is None:
        if address is not None:
            raise UsageError("--address is that of a Ray cluster", "add --engine ray")
        yield workers
        return
    if engine != "ray":
        raise UsageError(f"--engine {engine!r} is not known", "one of: ray")
    from faceauth.lab.parallel import OnRay
    from faceauth.scale.cluster import connected, needs_ray

    needs_ray()
    with connected(address):
        yield OnRay(workers or 0)
