"""`faceauth mcp`, spoken to by the official SDK's client over standard input and output."""

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from command_line import command, faceauth, start
from conftest import PORTRAIT, encoded, noise, picture

pytest.importorskip("mcp")

from anyio.from_thread import start_blocking_portal
from mcp import Client, StdioServerParameters, stdio_client

from faceauth.errors import ImageError
from faceauth.mcp_server import MOST, Folders
from faceauth.output import FIELDS


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """shown/ with pictures, and links that lead out of it to secret/ beside it."""
    place = tmp_path_factory.mktemp("mcp")
    shown, secret = place / "shown", place / "secret"
    (shown / "many").mkdir(parents=True)
    (shown / "few").mkdir()
    secret.mkdir()
    shutil.copy(PORTRAIT, secret / "private.jpg")
    shutil.copy(PORTRAIT, shown / "few" / "portrait.jpg")
    picture().save(shown / "few" / "plain.png")
    (shown / "few" / "broken.jpg").write_bytes(PORTRAIT.read_bytes()[:300])
    (shown / "few" / "notes.txt").write_text("no picture")
    (shown / "out.jpg").symlink_to(secret / "private.jpg")
    (shown / "few" / "out.jpg").symlink_to(secret / "private.jpg")
    (shown / "away").symlink_to(secret)
    (shown / "in.jpg").symlink_to(shown / "few" / "portrait.jpg")
    (shown / "huge").mkdir()
    Image.new("1", (20_000, 6000)).save(shown / "huge" / "a.png")
    for number in range(MOST + 2):
        (shown / "many" / f"{number:02}.png").write_bytes(encoded(noise((16, 16), number)))
    return place


@pytest.fixture(scope="module")
def call(place, model_path):
    """Call a tool of one server that all tests share."""
    parameters = StdioServerParameters(
        command=sys.executable, args=command("mcp", place / "shown", "--model", model_path)[1:], env=dict(os.environ)
    )
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(Client(stdio_client(parameters), read_timeout_seconds=60)) as client,
    ):
        call = lambda name, **arguments: portal.call(client.call_tool, name, arguments)  # noqa: E731
        call.list = lambda: portal.call(client.list_tools).tools
        call.instructions = client.instructions
        yield call


def test_the_tools_are_described_and_only_read(call, place):
    tools = {tool.name: tool for tool in call.list()}
    assert set(tools) >= {"detect", "explain", "provenance"}
    for tool in tools.values():
        assert tool.annotations.read_only_hint and not tool.annotations.open_world_hint
        assert "path" in tool.input_schema["required"] and tool.output_schema["type"] == "object"
        assert "\n    " not in tool.description
    assert str(place / "shown") in call.instructions and "not proof" in call.instructions


def test_detect_gives_the_rows_of_the_command_line(call, place, model_path):
    answer = call("detect", path="few/portrait.jpg")
    (row,) = answer.structured_content["rows"]
    assert set(row) == set(FIELDS)
    path = place / "shown" / "few" / "portrait.jpg"
    code, out, _ = faceauth("detect", path, "--model", model_path)
    passing = {"ms", "judged_at"}
    assert {k: v for k, v in row.items() if k not in passing} == {
        k: v for k, v in json.loads(out).items() if k not in passing
    }
    assert code == 0 and answer.structured_content["summary"][0].startswith(f"{path}: face 1: {row['label']}")


def test_a_picture_that_is_too_large_is_met_with_what_a_client_can_do(call):
    (row,) = call("detect", path="huge/a.png").structured_content["rows"]
    assert row["error"] == "20000 x 6000: more than the limit of 100,000,000 pixels (use a smaller copy)"


def test_explain_gives_the_report_of_the_command_line(call, place, model_path, tmp_path):
    path = place / "shown" / "few" / "portrait.jpg"
    assert faceauth("explain", path, "--model", model_path, "-o", tmp_path / "report.json")[0] == 0
    report, answer = json.loads((tmp_path / "report.json").read_text()), call("explain", path="few/portrait.jpg")
    assert answer.structured_content.keys() == report.keys()
    for part in ("sentence", "faces", "caveats"):
        assert answer.structured_content[part] == report[part]


def test_the_picture_comes_reduced_and_bare_where_it_is_asked_for(call):
    text, image = call("explain", path="few/portrait.jpg", picture=True).content
    assert json.loads(text.text)["sentence"] and image.mime_type == "image/jpeg"
    shown = Image.open(io.BytesIO(base64.b64decode(image.data)))
    with Image.open(PORTRAIT) as whole:
        assert max(shown.size) == min(1024, max(whole.size)) and not shown.getexif()


def test_a_picture_is_returned_only_when_asked(call):
    for tool in ("detect", "explain", "provenance"):
        answer = call(tool, path="few/portrait.jpg")
        assert {block.type for block in answer.content} == {"text"}


def test_a_folder_is_searched_by_content_and_its_links_are_left_alone(call, place):
    answer = call("detect", path="few").structured_content
    assert [Path(row["path"]).name for row in answer["rows"]] == ["broken.jpg", "plain.png", "portrait.jpg"]
    assert [row["label"] for row in answer["rows"][:2]] == [None, "no-face"]
    assert answer["rows"][0]["error"] and answer["next"] is None


def test_a_large_folder_comes_in_parts(call):
    first = call("detect", path="many").structured_content
    rest = call("detect", path="many", skip=first["next"]).structured_content
    assert [len(first["rows"]), first["next"], len(rest["rows"]), rest["next"]] == [MOST, MOST, 2, None]
    assert len({row["path"] for row in first["rows"] + rest["rows"]}) == MOST + 2
    assert call("detect", path="many", skip=MOST + 2).is_error


@pytest.mark.parametrize("tool", ["detect", "explain", "provenance"])
@pytest.mark.parametrize(
    "path",
    ["../secret/private.jpg", "{place}/secret/private.jpg", "few/../../secret/private.jpg", "out.jpg", "few/out.jpg",
     "away/private.jpg", "away", "..", "/etc/passwd", "nothing.jpg", "a\0b", "https://example.org/a.jpg", "~root/a.jpg"],
)  # fmt: skip
def test_nothing_outside_the_folders_can_be_read(call, place, tool, path):
    given = path.format(place=place)
    answer = call(tool, path=given)
    assert answer.is_error and answer.structured_content is None
    assert "is no file in the folders that may be read" in answer.content[0].text  # the same whether or not it exists


def test_a_link_that_stays_inside_is_followed(call, place):
    (row,) = call("detect", path="in.jpg").structured_content["rows"]
    assert row["path"] == str(place / "shown" / "few" / "portrait.jpg")


def test_provenance_tells_the_kinds_of_evidence(call):
    report = call("provenance", path="few/portrait.jpg").structured_content
    assert report["format"] == "JPEG" and {f["kind"] for f in report["findings"]} >= {"measured", "absent"}
    assert call("provenance", path="few").is_error


def test_wrong_arguments_are_an_error_and_the_server_goes_on(call):
    assert call("detect").is_error and call("detect", path=["few"]).is_error
    assert not call("detect", path="few/plain.png").is_error


@pytest.mark.skipif(os.open not in os.supports_dir_fd, reason="no openat here")
def test_a_link_that_is_put_there_after_the_check_is_not_followed(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    for folder in ("in/deep", "out"):
        picture().save(tmp_path / folder / "a.png")
    folders = Folders([tmp_path / "in"])
    found = folders.locate("deep/a.png")
    assert folders.read(found, 10**6) == found.read_bytes()
    shutil.rmtree(tmp_path / "in" / "deep")
    (tmp_path / "in" / "deep").symlink_to(tmp_path / "out")
    with pytest.raises(ImageError, match="cannot be read"):
        folders.read(found, 10**6)


def test_what_is_no_regular_file_or_too_large_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(11))
    folders = Folders([tmp_path])
    with pytest.raises(ImageError, match="not a regular file"):
        folders.read(folders.locate("pipe"), 10)
    with pytest.raises(ImageError, match="limit of 10 bytes"):
        folders.read(folders.locate("large"), 10)


def test_a_folder_has_to_be_named_and_be_there(tmp_path):
    assert faceauth("mcp")[0] == 2
    assert "a folder is empty" in faceauth("mcp", tmp_path, "")[2]  # and not the working folder
    code, _, err = faceauth("mcp", tmp_path / "nowhere")
    assert code == 2 and "is not a folder" in err and "hint" in err


def test_without_the_sdk_it_says_what_to_install(tmp_path, model_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)
    code, _, err = faceauth("mcp", tmp_path, "--model", model_path)
    assert code == 1 and "pip install 'faceauth[mcp]'" in err


@pytest.mark.parametrize(("how", "code"), [("closed", 0), ("terminated", -signal.SIGTERM)])
def test_it_ends_with_its_client(tmp_path, model_path, how, code):
    with start("mcp", tmp_path, "--model", model_path, stdin=subprocess.PIPE) as process:
        killer = threading.Timer(30, process.kill)  # bounds every read below
        killer.start()
        try:
            process.stdin.write('{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
            process.stdin.flush()
            assert process.stdout.readline()
            process.stdin.close() if how == "closed" else process.send_signal(signal.SIGTERM)
            assert process.wait(20) == code
            assert process.stderr.read() == ""
        finally:
            killer.cancel()
            process.kill()
