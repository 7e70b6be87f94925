"""The laboratory's progress bar, on standard error, only where that is a terminal."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def tracked(items: Iterable[T], total: int, name: str, done: int = 0) -> Iterator[T]:
    """The items, with a bar that starts at `done` of `total`."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(items, name, total, done, console=console, disable=not console.is_terminal)
