"""An object store on the loopback address: as much of S3 as pyarrow asks for, with requests that are answered 503."""

import contextlib
import http.server
import io
import threading
import urllib.parse
from hashlib import md5
from xml.sax.saxutils import escape


class Handler(http.server.BaseHTTPRequestHandler):
    """Of a server with `files` and `uploads` by key.

    Requests whose number is in `away` are answered 503; those for the key `slow` set the event `reached` and wait for
    `gate`.
    """

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _answer(self):
        self.body = self._read()
        address = urllib.parse.urlsplit(self.path)
        self.key = urllib.parse.unquote(address.path).strip("/")
        self.asked = dict(urllib.parse.parse_qsl(address.query, keep_blank_values=True))
        self.more = {}
        if self.key == self.server.slow:
            self.server.reached.set()
            self.server.gate.wait()
        work = {"PUT": self._put, "POST": self._post}.get(self.command, self._get)
        with self.server.lock:
            self.server.count += 1
            away = self.server.count in self.server.away
            status, data = (503, b"<Error><Code>SlowDown</Code></Error>") if away else work()
        self.send_response(status)
        for name, value in ({"Content-Length": len(data)} | self.more).items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_HEAD = do_PUT = do_POST = _answer  # noqa: N815

    def _read(self):
        """The body, without the chunks and signatures that it comes in."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            data = self._chunks(self.rfile)
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            data = self._chunks(io.BytesIO(data))
        return data

    @staticmethod
    def _chunks(file):
        data = b""
        while size := int(file.readline().split(b";")[0], 16):
            data += file.read(size)
            file.readline()
        while file.readline().strip():
            pass
        return data

    def _get(self):
        files, asked = self.server.files, self.asked
        if "prefix" in asked or "list-type" in asked:
            prefix = f"{self.key}/{asked.get('prefix', '')}"
            found = {k: d for k, d in sorted(files.items()) if k.startswith(prefix)}
            rows = "".join(
                f"<Contents><Key>{escape(key.removeprefix(self.key + '/'))}</Key><Size>{len(data)}</Size>"
                "<LastModified>2026-01-31T12:00:00.000Z</LastModified></Contents>"
                for key, data in found.items()
            )
            return 200, f"<ListBucketResult><KeyCount>{len(found)}</KeyCount>{rows}</ListBucketResult>".encode()
        if "/" not in self.key:
            return 200, b""
        if self.key not in files:
            return 404, b"<Error><Code>NoSuchKey</Code></Error>"
        data, wanted = files[self.key], self.headers.get("Range")
        self.more = {"ETag": f'"{md5(data).hexdigest()}"', "Last-Modified": "Sat, 31 Jan 2026 12:00:00 GMT"}
        if not wanted:
            return 200, data
        first, last = wanted.removeprefix("bytes=").split("-")
        part = data[int(first) : int(last or len(data)) + 1]
        self.more["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
        return 206, part

    def _put(self):
        if "partNumber" in self.asked:
            self.server.uploads[self.key][int(self.asked["partNumber"])] = self.body
        elif "/" in self.key:
            self.server.files[self.key] = self.body
        self.more = {"ETag": f'"{md5(self.body).hexdigest()}"'}
        return 200, b""

    def _post(self):
        if "uploads" in self.asked:
            self.server.uploads[self.key] = {}
            return 200, b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
        parts = self.server.uploads.pop(self.key)
        self.server.files[self.key] = b"".join(parts[n] for n in sorted(parts))
        return 200, b"<CompleteMultipartUploadResult><ETag>1</ETag></CompleteMultipartUploadResult>"


@contextlib.contextmanager
def serving():
    """The server, while the block lasts; `options` are those of an address in it."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.uploads, server.lock = {}, {}, threading.Lock()
    server.count, server.away, server.slow, server.gate = 0, (), None, threading.Event()
    server.reached = threading.Event()
    server.options = f"scheme=http&region=us-east-1&endpoint_override=127.0.0.1:{server.server_port}"
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.gate.set()
        server.shutdown()
        server.server_close()
