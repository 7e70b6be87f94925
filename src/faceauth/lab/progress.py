"""The laboratory's notices, on standard error, and its progress bar there, only where that is a terminal."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def tracked(items: Iterable[T], total: int, name: str, done: int = 0) -> Iterator[T]:
    """The items, with a bar that starts at `done` of `total`."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(items, name, total, done, console=console, disable=not console.is_terminal)


def notice(line: str) -> None:
    """Say a line that is no result."""
    print(line, file=sys.stderr)
