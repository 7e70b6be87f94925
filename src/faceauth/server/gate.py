"""What every request passes: its id, the Host header, security headers, the log line, the end of what it holds."""

import asyncio
import json
import logging
import re
import secrets
import sys
import time
from contextlib import ExitStack, suppress
from ipaddress import ip_address
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from faceauth.server.metrics import Metrics
from faceauth.server.problems import Problem
from faceauth.server.settings import LOOPBACK, WILDCARDS, Settings
from faceauth.verdict import utc_now

ID = "x-request-id"
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(r"((?P<name>[A-Za-z0-9._-]+)|\[(?P<v6>[0-9A-Fa-f:.]+)\])(:[0-9]{1,5})?")
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
GONE = 499  # in the log: the client went before there was an answer
SECURITY = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
log = logging.getLogger("faceauth.server")


class Visit:
    """One request on its way: what the log says of it, and what is released at its end."""

    def __init__(self, request_id: str) -> None:
        self.id = request_id
        self.start = time.perf_counter()
        self.status = 0
        self.fields: dict[str, Any] = {}
        self.holds = ExitStack()


class Gate:
    """An ASGI application around the service's own."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._names = LOOPBACK | {settings.host.lower(), *(name.lower() for name in settings.hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(ID, "")
        visit = Visit(given if _ID.fullmatch(given) else secrets.token_hex(16))
        scope.setdefault("state", {})["visit"] = visit
        passage = _Passage(visit, receive, send, self._settings, drain="expect" not in headers)
        try:
            self._check(headers)
            await self._app(scope, passage.receive, passage.send)
        except ClientDisconnect:
            visit.status = GONE
        except Problem as problem:
            await problem.response(visit.id)(scope, passage.receive, passage.send)
        except Exception as error:
            visit.fields["fault"] = _where(error)
            if not visit.status:
                fault = Problem(500, "a fault of faceauth", "please report it with the request id and the log line")
                await fault.response(visit.id)(scope, passage.receive, passage.send)
        finally:
            visit.holds.close()
            self._account(scope, visit)

    def _check(self, headers: Headers) -> None:
        """Raises Problem for a name that this service does not have, and for pages of other sites."""
        host = headers.get("host", "")
        if not self._own(host):
            hint = "whoever runs the service can allow this name with --allow-host"
            raise Problem(421, "the Host header names another machine", hint)
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != host.lower():
            raise Problem(403, "a page of another site may not ask this service")

    def _own(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        name = (found["name"] or found["v6"]).lower() if found else ""
        return name in self._names or (self._settings.host in WILDCARDS and _is_address(name))

    def _account(self, scope: Scope, visit: Visit) -> None:
        method = scope["method"] if scope["method"] in METHODS else "other"
        route = getattr(scope.get("route"), "path", None) or "other"
        seconds = time.perf_counter() - visit.start
        self._metrics.requests.labels(method, route, str(visit.status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        fields = {"id": visit.id, "method": method, "route": route, "status": visit.status}
        log.info("request", extra={"fields": fields | {"ms": round(seconds * 1000, 1)} | visit.fields})


class _Passage:
    """`receive` and `send` of one request. An error is sent at once; then what is left of the body is read and dropped.

    A client that is still sending would otherwise see a broken connection in place of the answer. The connection is
    closed after it, unless the whole body was there.
    """

    def __init__(self, visit: Visit, receive: Receive, send: Send, settings: Settings, *, drain: bool) -> None:
        self._visit, self._receive, self._send = visit, receive, send
        self._settings, self._drain, self._done = settings, drain, False
        self._failed, self._dropped = False, 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._done = self._done or message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._visit.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY.items():
                headers[name] = value
            headers[ID] = self._visit.id
            headers.setdefault("cache-control", "no-store")
            self._failed = message["status"] >= 400
            if self._failed:
                await self._drop_body(0)
                if not self._done:
                    headers["connection"] = "close"
        elif self._failed and not self._done and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._drop_body(self._settings.read_timeout)
            message = {"type": "http.response.body"}
        await self._send(message)

    async def _drop_body(self, seconds: float) -> None:
        """Drop what comes of the body in so many seconds; in none what has come already."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._drain and not self._done and self._dropped <= self._settings.max_bytes:
                    self._dropped += len((await self.receive()).get("body", b""))


class JsonLines(logging.Formatter):
    """One JSON object a line: when, how grave, what, and the fields of the record. No contents, no file names."""

    def format(self, record: logging.LogRecord) -> str:
        values = {"time": utc_now(), "level": record.levelname.lower(), "event": record.msg}  # not what is put into it
        return json.dumps(values | getattr(record, "fields", {}))


def log_to_stderr() -> None:
    """Send the service's lines, and the warnings of all others, to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    log.setLevel(logging.INFO)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _where(error: BaseException) -> str:
    """The class of an error and the line that raised it; its words may hold what was sent."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f" in {trace.tb_frame.f_code.co_qualname}, line {trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}{place}"
