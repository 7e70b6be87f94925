"""The server: sockets, slow clients, signals."""

import asyncio
import contextlib
import errno
import secrets
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
from faceauth.server.problems import Problem
from faceauth.server.settings import Settings

_LISTEN_HINTS = {
    errno.EADDRINUSE: "another program listens there; choose another --port",
    errno.EACCES: "choose a --port from 1024 on",
}
UNREAD = 30.0  # seconds for a client that does not read its answer
BACKLOG = 2048
CONNECTIONS, OWN_FILES = 10_000, 1000  # at most open at once; descriptors kept for pipes to workers, and files


def run(settings: Settings, listening: Callable[[int], None]) -> None:
    """Serve until a signal asks to end; requests that have come are answered first.

    Args:
        listening: called with the port, once connections are taken.

    Raises:
        FaceAuthError: the model cannot be opened, or the address is taken.
    """
    app = create(settings, work.described(settings))
    opened = bind(settings)
    log_to_stderr()
    Protocol.read_timeout, Protocol.most = settings.read_timeout, _most_connections()
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
        reason = (error.strerror or str(error)).partition(" (while")[0]
        hint = _LISTEN_HINTS.get(error.errno or 0, "--host has to be an address of this machine")
        raise UsageError(f"cannot listen at {settings.host} port {settings.port}: {reason}", hint) from error


def _most_connections() -> int:
    """As many connections as the system lets this process have open, less what it needs for itself; at most 10,000."""
    if sys.platform == "win32":
        return 500
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + OWN_FILES
    more = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if more > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
    return max(1, min(CONNECTIONS, max(soft, more) - OWN_FILES))


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

    read_timeout = 10.0
    most = 900  # connections at once; the rest of what may be open is for pipes and files
    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.abort()
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

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP gets a problem too."""
        problem = Problem(400, "this is no HTTP request").response(secrets.token_hex(16))
        headers = [*problem.raw_headers, (b"connection", b"close")]
        for event in (
            h11.Response(status_code=400, headers=headers),
            h11.Data(data=bytes(problem.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch_head(self) -> None:
        """A head that is under way has to be complete in time."""
        if self.conn.their_state is not h11.IDLE:
            _cancel(self._head)
            self._head = None
        elif self._head is None:
            self._head = self.loop.call_later(self.read_timeout, self.transport.abort)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
