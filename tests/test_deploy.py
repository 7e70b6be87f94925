"""The ways to run the service: the container's files, the systemd unit, and the Gradio example."""

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import ModuleType

import pytest
from typer.main import get_command

from conftest import PORTRAIT, ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()
UNIT = (ROOT / "deploy" / "faceauth.service").read_text()
LAST = DOCKERFILE.split("\nFROM ")[-1]


def words(instruction):
    """The words of an instruction of the image's last stage that is written as JSON."""
    return json.loads(re.search(rf"\b{instruction} (\[.*\])$", LAST, re.MULTILINE)[1])


def unit(name):
    return re.search(rf"^{name}=(.*)$", UNIT, re.MULTILINE)[1]


@pytest.mark.parametrize(
    "given",
    [
        words("ENTRYPOINT") + re.findall(r'"([^"]*)"', re.search(r"^CMD (.*)$", LAST, re.M)[1]),
        shlex.split(unit("ExecStart")),
    ],
    ids=["container", "unit"],
)
def test_the_commands_are_ones_that_faceauth_knows(given):
    typer = pytest.importorskip("typer")
    pytest.importorskip("fastapi")
    from faceauth.server.cli import serve

    app = typer.Typer()
    app.command()(serve)
    assert given[0].endswith("faceauth") and given[1] == "serve"
    get_command(app).make_context("serve", given[2:])  # raises for an option that it has not


@pytest.mark.parametrize("status", [200, 503])
def test_the_health_check_asks_whether_it_is_ready(status):
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        _, *arguments = json.loads(re.search(r"^HEALTHCHECK .* CMD (\[.*\])$", LAST, re.M)[1])
        arguments = [a.replace("8000", str(server.server_port)) for a in arguments]
        done = subprocess.run([sys.executable, *arguments], timeout=30, check=False)
    assert asked == ["/readyz"] and done.returncode == (0 if status == 200 else 1)


def test_the_build_gets_all_that_the_package_is_made_of_and_nothing_else():
    shown = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    copied = {w for line in re.findall(r"^COPY (?!--)(.*)$", DOCKERFILE, re.M) for w in line.split()[:-1]}
    assert shown == copied and all((ROOT / name).exists() for name in shown)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_the_unit_is_one_that_systemd_understands(tmp_path):
    copy = tmp_path / "faceauth.service"
    copy.write_text(UNIT.replace("/opt/faceauth/bin/faceauth", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, timeout=60, check=False)
    assert "faceauth.service" not in done.stderr


def test_the_gradio_example_judges_a_photo(tmp_path, monkeypatch):
    gradio = ModuleType("gradio")  # is no dependency: what is tried is the example's own function
    gradio.Error, gradio.Interface = type("Error", (Exception,), {}), object
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    spec = importlib.util.spec_from_file_location("gradio_app", ROOT / "examples" / "gradio_app.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    (picture, boxes), rows = example.judge(str(PORTRAIT))
    assert len(boxes) == len(rows) >= 1 and rows[0][1] in {"real", "fake", "uncertain"}
    assert all(0 <= left < right <= picture.width for (left, _, right, _), _ in boxes)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(gradio.Error, match="image"):
        example.judge(str(tmp_path / "broken.jpg"))
