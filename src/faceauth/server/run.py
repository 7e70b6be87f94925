"""The server: sockets, slow clients, signals."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from faceauth.errors import UsageError
from faceauth.server import work
from faceauth.server.app import create
from faceauth.server.gate import log_to_stderr
from faceauth.server.settings import Settings

HEAD, UNREAD = 10.0, 30.0  # seconds for the head of a request, and for a client that does not read its answer
BACKLOG = 2048


def run(settings: Settings, listening: Callable[[int], None]) -> None:
    """Serve until a signal asks to end; requests that have come are answered first.

    Args:
        listening: called with the port, once connections are taken.

    Raises:
        FaceAuthError: the model cannot be opened, or the address is taken.
    """
    app = create(settings, work.detector(settings))
    opened = bind(settings)
    log_to_stderr()
    _open_many_files()
    config = uvicorn.Config(
        app, http=Protocol, ws="none", lifespan="on", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, backlog=BACKLOG, timeout_keep_alive=15,
    )  # fmt: skip
    listening(opened.getsockname()[1])
    Server(config).run(sockets=[opened])


def bind(settings: Settings) -> socket.socket:
    """The socket to listen on. Raises UsageError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        place = f"{settings.host} port {settings.port}"
        raise UsageError(f"cannot listen at {place}: {error.strerror or error}", "choose another --port") from error


def _open_many_files() -> None:
    """As many connections as the system lets this process have."""
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard) if soft < hard else (soft, hard))


class Server(uvicorn.Server):
    """Ends well at SIGTERM and SIGINT: what has come is answered, then the process exits with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Unlike the original, the signals that came are not raised again at the end."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Protocol(H11Protocol):
    """HTTP/1.1, with an end to clients that send half a head, or do not read what they asked for."""

    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        _cancel(self._head)
        self._head = None
        _cancel(self._unread)
        self._unread = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self._unread or self.loop.call_later(UNREAD, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._unread)
        self._unread = None

    def _watch_head(self) -> None:
        """A head that is under way has to be complete in time."""
        if self.conn.their_state is not h11.IDLE:
            _cancel(self._head)
            self._head = None
        elif self._head is None:
            self._head = self.loop.call_later(HEAD, self.transport.abort)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
