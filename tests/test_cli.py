import contextlib
import io
import json
import os
import subprocess
import sys
from unittest import mock

import pytest

from conftest import PORTRAIT, encoded, noise, picture
from faceauth.__main__ import main


def faceauth(*arguments, stdin=b"", cwd=None):
    """Run the command in this process, as the installed script does; stdout and stderr are no terminals."""
    out, err = io.StringIO(), io.StringIO()
    before = os.getcwd()
    os.chdir(cwd or before)
    try:
        with (
            mock.patch.object(sys, "argv", ["faceauth", *map(str, arguments)]),
            mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            main()
    except SystemExit as leaving:
        return leaving.code or 0, out.getvalue(), err.getvalue()
    finally:
        os.chdir(before)
    raise AssertionError("the command did not exit")


def test_the_installed_command_does_the_same(folder, model_path):
    options = ["--whole-image", "--fail-on", "fake"]
    command = [sys.executable, "-m", "faceauth", "detect", str(folder), "--model", str(model_path), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert [json.loads(line)["label"] for line in done.stdout.splitlines()] == ["fake", "real", "uncertain"]


def test_a_reader_that_leaves_early_is_no_error(folder, model_path):
    command = f"{sys.executable} -m faceauth detect {folder} --model {model_path} | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_a_pipe_gets_json_lines_and_notices_go_to_stderr(folder, model_path):
    code, out, err = faceauth("detect", folder, "--model", model_path, "--whole-image")
    assert code == 0
    assert [json.loads(line)["label"] for line in out.splitlines()] == ["fake", "real", "uncertain"]
    assert "1 real, 1 fake, 1 uncertain" in err


@pytest.mark.parametrize("rate", ["15%", "15 %", "0.15"])
def test_a_rate_of_false_alarms(folder, model_path, rate):
    code, out, err = faceauth(
        "detect", folder / "bright.png", "--model", model_path, "--false-alarms", rate, "--whole-image"
    )
    assert code == 0
    assert json.loads(out)["threshold"] == 0.9
    assert "10.0% of real faces" in err


@pytest.mark.parametrize(("options", "told"), [
    (["--false-alarms", "few"], "no rate"), (["--false-alarms", "5"], "between 0 and 1"),
    (["--false-alarms", "1%"], "no threshold is known"), (["--false-alarms", "10%", "--threshold", "0.5"], "exclude"),
])  # fmt: skip
def test_rates_that_cannot_be_had(folder, model_path, options, told):
    code, out, err = faceauth("detect", folder, "--model", model_path, *options)
    assert (code, out) == (2, "")
    assert told in err


@pytest.mark.parametrize(("wanted", "code"), [("fake", 4), ("uncertain,fake", 4), ("uncertain", 4), (None, 0)])
def test_fail_on(folder, model_path, wanted, code):
    extra = ["--fail-on", wanted] if wanted else []
    assert faceauth("detect", folder, "--model", model_path, "--whole-image", *extra)[0] == code


def test_fail_on_is_not_met_by_real_faces(folder, model_path):
    arguments = ["detect", folder / "dark.jpg", "--model", model_path, "--whole-image", "--fail-on", "fake,uncertain"]
    assert faceauth(*arguments)[0] == 0


def test_pictures_without_a_face_are_rows_that_fail_nothing(folder, model_path):
    code, out, err = faceauth("detect", folder, "--model", model_path, "--fail-on", "fake,uncertain")
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(r["label"], r["score"], r["false_alarm_rate"], r["error"]) for r in found] == [
        ("no-face", *[None] * 3)
    ] * 3
    assert "3 images without one, not judged" in err


def test_unreadable_inputs_are_rows_and_exit_code_3(folder, model_path):
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0nothing")
    code, out, err = faceauth("detect", folder, folder / "missing.png", "--model", model_path)
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 3
    assert [bool(r["error"]) for r in found] == [False, True, False, False, True]
    assert "2 unreadable" in err
    assert "Traceback" not in err


def test_fail_on_outweighs_unreadable(folder, model_path):
    (folder / "broken.jpg").write_bytes(b"")
    assert faceauth("detect", folder, "--model", model_path, "--whole-image", "--fail-on", "fake")[0] == 4


@pytest.mark.parametrize("arguments", [
    ["detect", "no-such-folder/*.jpg"], ["detect", "x.jpg", "--threshold", "2"], ["detect", "x.jpg", "-o", "out.txt"],
    ["detect", "x.jpg", "--fail-on", "fkae"], ["detect", "x.jpg", "--resume"], ["detect"], ["dtect"],
    ["lab", "train", "missing.toml"],
])  # fmt: skip
def test_usage_errors_are_code_2_without_a_traceback(arguments, tmp_path):
    code, out, err = faceauth(*arguments, cwd=tmp_path)
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    assert err.strip()


def test_a_model_that_is_none_is_code_1(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"x")
    code, _, err = faceauth("detect", PORTRAIT, "--model", tmp_path / "m.onnx")
    assert code == 1
    assert err.startswith("error: ")
    assert "Traceback" in faceauth("--debug", "detect", PORTRAIT, "--model", tmp_path / "m.onnx")[2]


def test_stdin_takes_bytes_or_paths(folder, model_path):
    code, out, _ = faceauth(
        "detect", "-", "--whole-image", "--model", model_path, stdin=encoded(picture((255, 255, 255)))
    )
    assert (code, json.loads(out)["path"], json.loads(out)["label"]) == (0, "-", "fake")
    code, out, _ = faceauth(
        "detect", "-", "--whole-image", "--model", model_path, stdin=os.fsencode(f"{folder}/dark.jpg\n")
    )
    assert json.loads(out)["label"] == "real"


def test_resume_does_only_what_is_left(folder, model_path):
    target = folder / "o.jsonl"
    arguments = ["detect", folder, "--model", model_path, "-o", target]
    assert faceauth(*arguments)[0] == 0
    assert faceauth(*arguments)[0] == 2
    picture((3, 3, 3)).save(folder / "new.png")
    code, _, err = faceauth(*arguments, "--resume")
    assert code == 0
    assert "2 of 4 images are in the output" in err
    names = [os.path.basename(json.loads(line)["path"]) for line in target.read_text().splitlines()]
    assert sorted(names) == ["bright.png", "dark.jpg", "grey.webp", "new.png"]


def test_a_hostile_name_cannot_write_to_the_terminal(folder, model_path):
    name = "\x1b[31mred\n.png"
    noise().save(folder / name)
    _, out, err = faceauth("detect", folder, "--model", model_path)
    assert "\x1b" not in out + err


def test_model_info_says_what_the_file_says(model_path):
    code, out, _ = faceauth("model", "info", model_path)
    assert code == 0
    assert "brightness 1" in out
    assert "bulb" in out
    data = json.loads(faceauth("model", "info", model_path, "--json")[1])
    assert data["sources"] == ["camera", "bulb"]


def test_help_has_examples_for_every_command():
    for command in (
        ["detect"],
        ["learn"],
        ["forget"],
        ["lab", "prototypes"],
        ["model", "info"],
        ["lab", "train"],
        ["lab", "export"],
        ["lab", "calibrate"],
        ["lab", "synthesize"],
        ["lab", "finder"],
    ):
        code, out, _ = faceauth(*command, "--help")
        assert code == 0
        assert "Example" in out
        assert f"faceauth {' '.join(command)}" in out
