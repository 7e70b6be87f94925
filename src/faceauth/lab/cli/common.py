"""What several commands need: the check of the extra `lab`, and the option by which work is given to Ray."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Annotated

import typer

from faceauth.errors import MissingExtra, UsageError
from faceauth.lab.parallel import OnRay, Workers
from faceauth.scale.cluster import connected, needs_ray

EngineName = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="ray",
        help="Give the work to Ray; on a cluster, to machines that share the folders of this one, and have the lab.",
    ),
]


def need_lab() -> None:
    """Raises MissingExtra where the extra `lab` is not installed; imports nothing of it."""
    need("the laboratory", "onnx", "pandas", "pydantic", "torch")


def need_tables() -> None:
    """Raises MissingExtra where a package is missing that tables of scores need; torch is none of them."""
    need("evaluating", "jinja2", "matplotlib", "pandas", "pyarrow", "sklearn")


def need(what: str, *packages: str) -> None:
    """Raises MissingExtra where one of the packages is not installed; `what` needs them."""
    for name in packages:
        if find_spec(name) is None:
            raise MissingExtra(f"{what} needs {name}", "lab")


@contextmanager
def chosen(engine: str | None, address: str | None, workers: int | None) -> Iterator[Workers | None]:
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
    needs_ray()
    with connected(address):
        yield OnRay(workers or 0)
