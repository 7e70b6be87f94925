"""How a command meets its surroundings: signals, standard streams, notices, progress. It knows no command.

Data goes to standard output, notices to standard error. Every error is one line and a hint, every way to end has its
exit code: 0 done, 1 error, 2 usage, 3 some inputs could not be read, 4 --fail-on was met, 128 + n ended by signal n.
"""

import contextlib
import io
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, TextIO, TypeVar

import typer

from faceauth.errors import FaceAuthError, UsageError

T = TypeVar("T")
debug = False  # whether tracebacks are wanted


class Interrupted(KeyboardInterrupt):
    """A signal asked the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Ended(FaceAuthError):
    """An interrupted command says where its results are."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


def run(command: typer.Typer) -> None:
    """Run a typer app, and exit the process with the code that belongs to how it ended."""
    open_streams()
    if "_FACEAUTH_COMPLETE" in os.environ:  # the shell asks for completions
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    with _signals() as asked:
        code = _code(command, asked)
    for stream in (sys.stdout, sys.stderr):
        code = _flushed(stream) or code
    sys.exit(code)


def _code(command: typer.Typer, asked: list[int]) -> int:
    """Run the command; what it raises becomes a line on standard error."""
    try:
        code = int(command(prog_name="faceauth", standalone_mode=False) or 0)
        if asked:  # typer has caught it
            raise Interrupted(asked[0])
        return code
    except Ended as ended:
        notice(ended.message)
        return ended.exit_code
    except KeyboardInterrupt:
        notice("interrupted")
        return 128 + (asked[0] if asked else signal.SIGINT)
    except FaceAuthError as error:
        _error(error.message, error.hint)
        return error.exit_code
    except BrokenPipeError:
        _close_quietly(sys.stdout)  # the reader has left, which is no error to speak of
        return 1
    except OSError as error:
        if _folder_is_gone():
            _error("the current folder is not there any more", "change to one that is, and run it again")
            return 1
        where = f"{error.filename!r}" if error.filename else "cannot write standard output"
        _error(f"{where}: {error.strerror or error}", "is the disk full, or the place not yours?")
        return 1
    except typer.Abort:
        return 1
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "show"):  # typer's usage errors
            shown = io.StringIO()
            error.show(shown)
            for line in shown.getvalue().splitlines():
                notice(line)
            _hint_at_words(str(error))
            return int(error.exit_code)
        if asked:  # an interrupted import of a compiled module ends as ImportError
            notice("interrupted")
            return 128 + asked[0]
        reason = str(error).splitlines()[0][:200] if str(error) else ""
        _error(
            f"{type(error).__name__}: {reason}",
            "a fault of faceauth; please report it with what faceauth --debug COMMAND prints",
        )
        return 1


def _folder_is_gone() -> bool:
    try:
        os.getcwd()
    except OSError:
        return True
    return False


def _hint_at_words(problem: str) -> None:
    """What to write where a file's name was taken for a command or an option, or --debug was given too late."""
    if problem.startswith("No such option: --debug"):
        notice("hint: it stands before the command: faceauth --debug COMMAND")
        return
    file = next((word for word in sys.argv[1:] if os.path.isfile(word)), None)
    if file and problem.startswith("No such command"):
        notice(f"hint: faceauth detect {shlex.quote(file)}")
    elif file and problem.startswith("No such option") and file.startswith("-"):
        notice(f"hint: for a file whose name begins with a dash: {shlex.quote(f'.{os.sep}{file}')}")


def _error(message: str, hint: str | None) -> None:
    if debug:
        traceback.print_exc()
    notice(f"error: {message}")
    if hint:
        notice(f"hint: {hint}")


def notice(text: str) -> None:
    """One line on standard error, without control characters; nothing where that is closed."""
    from faceauth.output import printable

    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(printable(text), file=sys.stderr, flush=True)


class Unreadable:
    """Files that a run could not read, for a screen that does not show their rows: the first `SHOWN` and how many more.

    Attributes:
        count: of all that were added.
    """

    SHOWN = 10

    def __init__(self) -> None:
        self.count = 0
        self._lines: list[str] = []

    def add(self, path: str | None, error: str) -> None:
        """One file, and why it could not be read."""
        self.count += 1
        if self.count <= self.SHOWN:
            self._lines.append(f"{path}: {error}")

    def say(self) -> None:
        """Name them on standard error."""
        for text in self._lines:
            notice(text)
        if self.count > self.SHOWN:
            notice(f"and {self.count - self.SHOWN:,} more that could not be read; the output says why")


def echo(text: str) -> None:
    """One line of data on standard output, without control characters."""
    from faceauth.output import printable

    print(printable(text), file=stdout())


def stdout() -> TextIO:
    """Standard output. Raises UsageError where it is closed."""
    if sys.stdout is None:
        raise UsageError("standard output is closed", "write to a file with -o FILE")
    return sys.stdout


def open_streams() -> None:
    """Make standard streams safe to use: what cannot be encoded is escaped, closed descriptors lead nowhere.

    Without the latter the next file opened would take the place of standard error, and a C library write into it.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            if os.open(os.devnull, os.O_RDWR) != number:
                break
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _flushed(stream: TextIO | None) -> int:
    """0 where all was written, else the exit code 1, said on standard error."""
    try:
        if stream is not None and not stream.closed:
            stream.flush()
    except OSError as error:
        _close_quietly(stream)
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):
            notice(f"error: cannot write standard output: {error.strerror or error}")
        return 1
    return 0


def _close_quietly(stream: TextIO | None) -> None:
    """Lead a stream nowhere, so that the interpreter has nothing to say of it when it exits."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[union-attr]
        os.close(nowhere)


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """While it lasts, a signal that asks to end raises Interrupted, a second one ends the process at once.

    Yields the list of the signals that came. One that is ignored, as under nohup, stays ignored.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before: dict[int, Any] = {}

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for other in before:
            signal.signal(other, signal.SIG_DFL)
        raise Interrupted(number)

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) not in {signal.SIG_IGN, None}:
            before[number] = signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def progress(items: Iterable[T], total: int, what: str = "images") -> Iterator[T]:
    """The items, with a bar, their rate (in `what`) and the time left on standard error, where that is a terminal."""
    if total < 2 or sys.stderr is None or not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (BarColumn(), MofNCompleteColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}"),
               TimeRemainingColumn(), TextColumn("left"))  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total, rate="")
        for item in items:
            speed = bar.tasks[0].speed
            bar.update(task, advance=1, rate=f"{speed:.1f} {what}/s" if speed else "")
            yield item
