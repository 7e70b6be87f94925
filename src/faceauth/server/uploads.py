"""The body of a request as images in memory: within limits of size and time, never in a file."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from faceauth.images import EncodedImage
from faceauth.output.rows import printable
from faceauth.server.problems import Problem, busy
from faceauth.server.settings import LEAST, WINDOWS, Settings

FIELD = "files"
LONGEST_NAME = 255
MULTIPART = "multipart/form-data"
HOW = "curl -F files=@photo.jpg URL, or: curl -H 'Content-Type: application/octet-stream' --data-binary @photo.jpg URL"


class Held:
    """Bytes of bodies that are in memory, of all requests together; one client has at most half of what there may be.

    Attributes:
        now: bytes; by_client: of each client that has any.
    """

    def __init__(self, most: int) -> None:
        self.most, self.now = most, 0
        self.by_client: Counter[str] = Counter()

    def take(self, client: str, count: int) -> None:
        """Count bytes. Raises Problem 429 where there would be too many."""
        if self.now + count > self.most or self.by_client[client] + count > self.most // 2:
            raise busy("too many bytes of other requests are in memory", 5)
        self.now += count
        self.by_client[client] += count

    def release(self, client: str, count: int) -> None:
        """They are no longer held."""
        self.now -= count
        self.by_client[client] -= count
        if not self.by_client[client]:
            del self.by_client[client]


class Body:
    """One request's body: `size` bytes of it have come, and are held until `release`."""

    def __init__(self, held: Held, client: str) -> None:
        self._held, self._client, self.size = held, client, 0

    def take(self, count: int) -> None:
        """Count bytes that have come. Raises Problem 429."""
        self._held.take(self._client, count)
        self.size += count

    def release(self) -> None:
        """Nothing of it is held any more."""
        self._held.release(self._client, self.size)
        self.size = 0


async def read(request: Request, settings: Settings, body: Body) -> list[EncodedImage]:
    """The images of a request: those in the field `files` of a form, or the one that the body is.

    Raises:
        Problem: 400 for a form that is broken or holds none, 408 for one that comes too slowly, 413 for too much of it,
            415 for another type, 429 where others' bodies take the memory.
        ClientDisconnect: the client has gone.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    type_ = kind.decode("latin-1").lower()
    if type_ == MULTIPART:
        form = _Form(options.get(b"boundary", b""), settings.max_files)
        async for chunk in _chunks(request, settings, body):
            form.write(chunk)
        images = form.images()
    elif type_ in {"", "application/octet-stream"} or type_.startswith("image/"):
        data = bytearray()
        async for chunk in _chunks(request, settings, body):
            data += chunk
        images = [EncodedImage(bytes(data))] if data else []
    else:
        raise Problem(415, "the body is neither a form of files nor an image", HOW)
    if not images:
        raise Problem(400, "no image was sent", HOW)
    return images


async def _chunks(request: Request, settings: Settings, body: Body) -> AsyncIterator[bytes]:
    too_large = Problem(413, f"more than the limit of {settings.max_bytes:,} bytes", "send fewer or smaller files")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > settings.max_bytes:
        raise too_large
    clock = _Clock(settings)
    while True:
        try:
            async with asyncio.timeout(clock.left()):
                message = await request.receive()
        except TimeoutError:
            clock.turn()
            continue
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        if body.size + len(chunk) > settings.max_bytes:
            raise too_large
        body.take(len(chunk))
        clock.came(len(chunk))
        yield chunk
        if not message.get("more_body", False):
            return


class _Clock:
    """Windows of time, in each of which enough of a body has to come."""

    def __init__(self, settings: Settings) -> None:
        self._window = settings.read_timeout
        self._end = time.monotonic() + WINDOWS * settings.read_timeout
        self._until, self._bytes = time.monotonic() + self._window, 0

    def left(self) -> float:
        """Seconds until the window ends."""
        return max(0.0, self._until - time.monotonic())

    def came(self, count: int) -> None:
        """So many bytes have come. Raises Problem 408 where too few did in the window that is over."""
        self._bytes += count
        if not self.left():
            self.turn()

    def turn(self) -> None:
        """The window is over. Raises Problem 408 where too little came in it, or the time for all is over."""
        now = time.monotonic()
        if self._bytes < LEAST or now >= self._end:
            raise Problem(408, "the body came too slowly", "try again on a faster line")
        self._until, self._bytes = min(now + self._window, self._end), 0


class _Form:
    """The files of a multipart form, gathered as its bytes come."""

    def __init__(self, boundary: bytes, most: int) -> None:
        self._most = most
        self._images: list[EncodedImage] = []
        self._complete = False
        self._header, self._value = bytearray(), bytearray()
        callbacks = {
            "on_part_begin": self._begin, "on_header_field": self._field, "on_header_value": self._header_value,
            "on_header_end": self._header_end, "on_part_data": self._part_data, "on_part_end": self._end,
            "on_end": self._all,
        }  # fmt: skip
        if not boundary:
            raise _broken("it names no boundary")
        try:
            self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        except FormParserError as error:
            raise _broken("its boundary is too long") from error

    def write(self, chunk: bytes) -> None:
        """Take the next bytes. Raises Problem."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            long = "header size" in str(error).lower()
            why = "the name of a file is too long" if long else "it is not as multipart/form-data has to be"
            raise _broken(why) from error

    def images(self) -> list[EncodedImage]:
        """All files. Raises Problem for a form that has not come to its end."""
        if not self._complete:
            raise _broken("its end is missing")
        return self._images

    def _begin(self) -> None:
        self._disposition = b""
        self._data = bytearray()

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def _end(self) -> None:
        _, options = parse_options_header(self._disposition)
        field = options.get(b"name", b"").decode("utf-8", "replace")
        name = options.get(b"filename", b"")
        if field != FIELD:
            raise Problem(400, f"the form has a field {printable(field)[:40]!r}, and {FIELD!r} is the one known", HOW)
        if not name and not self._data:  # a form in a browser in which no file was chosen
            return
        if len(self._images) == self._most:
            raise Problem(413, f"more than the limit of {self._most} files", "send them in several requests")
        shown = printable(name.decode("utf-8", "replace"))[:LONGEST_NAME]
        self._images.append(EncodedImage(bytes(self._data), shown or None))
        self._data = bytearray()

    def _all(self) -> None:
        self._complete = True


def _broken(why: str) -> Problem:
    return Problem(400, f"the form cannot be read: {why}", HOW)
