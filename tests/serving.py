"""The service in a process of its own, with its log; and a client of it."""

import contextlib
import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from command_line import command, wait_for

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")


class Running:
    """A service: its process, its address, the lines of its log, and a client."""

    def __init__(self, *options, environment=None):
        words = command("serve", "--port", 0, "--workers", 1, *options)
        self.process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=os.environ | (environment or {}),
        )  # fmt: skip
        self.lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        first = wait_for(lambda: self.lines[:1])[0]
        assert first.startswith("listening at http://"), first
        self.url = first.removeprefix("listening at ").partition(";")[0]
        self.port = int(self.url.rpartition(":")[2])
        self.client = httpx.Client(base_url=self.url, timeout=120)
        wait_for(lambda: self.client.get("/readyz").status_code == 200)

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def log(self, request_id):
        """The line of one request."""

        def found():
            return [e for e in map(json.loads, self.lines[1:]) if e.get("id") == request_id]

        return wait_for(found, 20)[0]

    def workers(self):
        """The ids of the processes that judge; each thread has its own children."""
        of_threads = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        children = [pid for file in of_threads for pid in file.read_text().split()]
        return [int(pid) for pid in children if b"spawn_main" in _words(pid)]

    def memory(self):
        """Bytes that the process that speaks HTTP has in memory."""
        with open(f"/proc/{self.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def close(self):
        self.client.close()
        self.process.terminate()
        try:
            return self.process.wait(20)
        finally:
            for pid in self.workers():  # one may be held where it is
                os.kill(pid, signal.SIGKILL)
            self.process.kill()
            self._reader.join(10)
            self.process.stderr.close()


def _words(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@contextlib.contextmanager
def serving(*options, **more):
    """A service that is ready, as a context; it is ended afterwards."""
    running = Running(*options, **more)
    try:
        yield running
    finally:
        running.close()


def files(*images, field="files"):
    """A form of images (name, bytes)."""
    return [(field, (name, data, "application/octet-stream")) for name, data in images]


def problem(response, status):
    """The problem of a response, checked."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert set(body) == {"type", "title", "status", "detail", "hint", "request_id"}
    assert body["status"] == status
    assert body["request_id"] == response.headers["x-request-id"]
    assert body["detail"] and "\n" not in body["detail"]
    return body
