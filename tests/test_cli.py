import json
import os
import subprocess
import sys
import types

import pytest

from command_line import command, faceauth
from conftest import PORTRAIT, encoded, make_card, needing, noise, picture, write_model
from faceauth import console, images, inputs
from faceauth.detector import Detector


@pytest.mark.slow
def test_the_installed_command_does_the_same(folder, model_path):
    options = ["--whole-image", "--fail-on", "fake"]
    command = [sys.executable, "-m", "faceauth", "detect", str(folder), "--model", str(model_path), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert [json.loads(line)["label"] for line in done.stdout.splitlines()] == ["fake", "real", "uncertain"]


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("wanted", "code"), [("fake", 4), ("Fake", 4), ("uncertain,fake", 4), ("uncertain", 4), (None, 0)]
)
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
    assert "3 without a face, not judged" in err


def test_unreadable_inputs_are_rows_and_exit_code_3(folder, model_path):
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0nothing")
    code, out, err = faceauth("detect", folder, folder / "missing.png", "--model", model_path)
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 3
    assert [bool(r["error"]) for r in found] == [False, True, False, False, True]
    assert "2 unreadable" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("name", ["o.jsonl", "o.csv", "o/"])
def test_with_an_output_the_first_unreadable_inputs_are_named_on_the_screen(folder, model_path, tmp_path, name):
    output = f"{tmp_path}/out-{name}"
    code, out, err = faceauth("detect", folder, folder / "missing.png", "--model", model_path, "-o", output)
    assert (code, out) == (3, "")
    assert err.splitlines()[0] == f"{folder / 'missing.png'}: no such file"
    assert "1 unreadable" in err.splitlines()[1]
    many = [folder / f"missing{number}.png" for number in range(12)]
    err = faceauth("detect", *many, "--model", model_path, "-o", output, "--overwrite")[2].splitlines()
    assert err[9].endswith("missing9.png: no such file")
    assert err[10] == "and 2 more that could not be read; the output says why"
    assert "12 unreadable" in err[11]


@pytest.mark.parametrize("command", ["detect", "provenance", "explain"])
def test_an_empty_name_of_an_output_is_called_so(folder, command):
    code, _, err = faceauth(command, folder / "dark.jpg", "-o", "")
    assert code == 2 and "the name of the output is empty" in err


def test_fail_on_outweighs_unreadable(folder, model_path):
    (folder / "broken.jpg").write_bytes(b"")
    assert faceauth("detect", folder, "--model", model_path, "--whole-image", "--fail-on", "fake")[0] == 4


@pytest.mark.parametrize("arguments", [
    ["detect", "no-such-folder/*.jpg"], ["detect", "x.jpg", "--threshold", "2"], ["detect", "x.jpg", "-o", "out.txt"],
    ["detect", "x.jpg", "--fail-on", "fkae"], ["detect", "x.jpg", "--fail-on", ""], ["detect", "x.jpg", "--timeout", "nan"],
    ["detect", "x.jpg", "-o", "o.jsonl", "--resume", "--overwrite"],
    ["detect", "x.jpg", "--resume"], ["detect"], ["dtect"],
    needing("torch", ["lab", "train", "missing.toml"]),
])  # fmt: skip
def test_usage_errors_are_code_2_without_a_traceback(arguments, tmp_path):
    code, out, err = faceauth(*arguments, cwd=tmp_path)
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    assert err.strip()


@pytest.mark.parametrize("words", [
    ["detect", "x.jpg", "--timeout"], ["video", "x.mp4", "--timeout"], ["video", "x.mp4", "--fps"],
    ["mcp", ".", "--timeout"], ["serve", "--timeout"], ["serve", "--read-timeout"],
])  # fmt: skip
def test_nan_is_no_number_of_seconds_or_frames(words):
    code, out, err = faceauth(*words, "nan")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {words[-1]} nan is no number\nhint: for example {words[-1]} ")
    assert float(err.split()[-1]) >= 1 and len(err.splitlines()) == 2


@pytest.mark.parametrize("output", ["s3://bucket/verdicts/", "https://example.org/v.jsonl"])
def test_an_output_at_an_address_needs_an_engine(output):
    code, _, err = faceauth("detect", PORTRAIT, "-o", output)
    assert code == 2 and "add --engine ray" in err


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


def commands():
    """Every command with its parents' names, as typer builds them."""
    import typer.main

    from faceauth.cli import app
    from faceauth.lab.cli import app as lab

    def below(group, names):
        for name, one in group.commands.items():
            if hasattr(one, "commands"):
                yield from below(one, [*names, name])
            else:
                yield [*names, name]

    yield from below(typer.main.get_command(app), [])
    yield from ([*c] for c in below(typer.main.get_command(lab), ["lab"]))


@pytest.mark.parametrize("words", [list(c) for c in sorted(set(map(tuple, commands())))], ids="-".join)
def test_help_has_an_example(words):
    code, out, _ = faceauth(*words, "--help")
    assert code == 0
    assert "Example" in out
    assert f"faceauth {' '.join(words)}" in out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_can_be_shown(shell):
    code, out, _ = faceauth("--show-completion", shell)
    assert code == 0
    assert f"_FACEAUTH_COMPLETE={shell and 'complete_' + shell}".lower() in out.lower().replace('"', "").replace(
        " = ", "="
    )


def test_completion_can_be_installed_and_completes(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    code, out, _ = faceauth("--install-completion", "bash")
    assert code == 0
    assert "bash" in out
    assert "faceauth" in (tmp_path / ".bashrc").read_text()
    asked = {"_FACEAUTH_COMPLETE": "complete_bash", "COMP_WORDS": "faceauth model ", "COMP_CWORD": "2"}
    done = subprocess.run(command(), env=os.environ | asked, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["info"]


def test_the_list_of_sources_needs_no_laboratory(tmp_path):
    code = """
import sys
import types
for name in ("torch", "pandas", "onnx", "pydantic", "sklearn"): sys.modules[name] = None
sys.argv = ["faceauth", "lab", "sources"]
from faceauth.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "licence" in done.stdout


def test_without_pyav_a_video_is_a_row_that_says_what_to_do(model_path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "c.mp4").write_bytes(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\0" * 90)
    code, out, err = faceauth("detect", tmp_path / "c.mp4", "--model", model_path)
    assert code == 3 and "1 unreadable" in err and len(out.splitlines()) == 1
    assert all(step in json.loads(out)["error"] for step in ("faceauth video VIDEO", "ffmpeg -i"))
    output = tmp_path / "o.html"
    assert faceauth("detect", tmp_path / "c.mp4", "--model", model_path, "--dedupe", "-o", output)[0] == 3
    assert "ffmpeg -i" in output.read_text()
    code, out, err = faceauth("video", tmp_path / "c.mp4", "--model", model_path)
    assert (code, out) == (1, "") and "faceauth[video]" in err


def test_the_hint_for_a_video_names_the_extra_where_pyav_is_missing():
    code = "import sys; sys.modules['av'] = None; from faceauth.images.formats import VIDEO; print(VIDEO.hint)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("with pip install 'faceauth[video]', faceauth video VIDEO judges its frames; or ")


@pytest.mark.parametrize("suffix", ["tsv", "pdf", "txt"])
def test_what_cannot_be_written_is_told_with_what_can(tmp_path, suffix):
    code, _, err = faceauth("detect", "x.jpg", "-o", tmp_path / f"v.{suffix}")
    assert code == 2
    assert f"cannot write a .{suffix} file" in err
    assert all(known in err for known in (".jsonl", ".json", ".csv", ".xlsx", ".parquet", ".html"))


def test_a_dash_writes_json_lines(folder, model_path):
    code, out, err = faceauth("detect", folder, "--model", model_path, "--whole-image", "-o", "-")
    assert code == 0
    assert [json.loads(line)["label"] for line in out.splitlines()] == ["fake", "real", "uncertain"]
    assert "written to" not in err


def test_whatever_happens_to_an_image_is_its_row(folder, model_path, monkeypatch):
    load = images.load

    def hostile(source, *more, **options):
        if "dark" in str(source):
            raise ZeroDivisionError("1 x 4 pixels")
        return load(source, *more, **options)

    monkeypatch.setattr(images, "load", hostile)
    code, out, err = faceauth("detect", folder, "--model", model_path, "--whole-image")
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 3
    assert [r["label"] for r in found] == ["fake", None, "uncertain"]
    assert "ZeroDivisionError: 1 x 4 pixels" in found[1]["error"]
    assert "Traceback" not in err


@pytest.mark.slow
def test_an_image_that_hangs_is_a_row(folder, model_path, monkeypatch):
    judge = Detector.judge

    def slow(self, source):
        if "dark" in str(source):
            import threading

            threading.Event().wait(20)
        return judge(self, source)

    monkeypatch.setattr(Detector, "judge", slow)
    code, out, _ = faceauth("detect", folder, "--model", model_path, "--whole-image", "--timeout", "5")
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 3
    assert [r["label"] for r in found] == ["fake", None, "uncertain"]
    assert "more than 5 s" in found[1]["error"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_model_that_answers_no_number_gives_json(folder, tmp_path, workers):
    import numpy as np

    path = write_model(tmp_path / "nan.onnx", make_card(), np.full((32, 32), np.nan))
    code, out, _ = faceauth("detect", folder, "--model", path, "--whole-image", "--workers", workers)

    def refuse(name):
        raise ValueError(name)

    found = [json.loads(line, parse_constant=refuse) for line in out.splitlines()]
    assert code in {0, 3}
    assert len(found) == 3
    assert all(r["score"] is None and r["error"] for r in found)


def test_an_unexpected_error_is_one_line(folder, model_path, monkeypatch):
    def fault(*arguments, **options):
        raise RuntimeError("who knows\x1b[31m")

    monkeypatch.setattr(inputs, "expand", fault)
    code, out, err = faceauth("detect", folder, "--model", model_path)
    assert (code, out) == (1, "")
    assert "error: RuntimeError: who knows" in err
    assert "--debug" in err
    assert "\x1b" not in err
    assert "Traceback" not in err


def test_control_characters_of_a_model_file_do_not_reach_the_terminal(tmp_path):
    card = make_card(name="evil\x1b[31m", licence="a\rb", notes={"note": "\x9b2J\u202e"})
    code, out, _ = faceauth("model", "info", write_model(tmp_path / "m.onnx", card))
    assert code == 0
    assert "evil\\x1b[31m" in out
    assert not {"\x1b", "\r", "\x9b", "\u202e"} & set(out)


def test_neither_are_those_of_an_argument(tmp_path):
    code, out, err = faceauth("detect", tmp_path, "--\x1b[31mred")
    assert code == 2
    assert "\x1b" not in out + err


def test_progress_is_for_terminals_only(folder, model_path):
    err = faceauth("detect", folder, "--model", model_path)[2]
    assert len(err.splitlines()) == 2
    assert "images/s" not in err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal")
def test_a_terminal_sees_the_rate_and_the_time_left(tmp_path, model_path):
    import pty

    for i in range(20):
        picture((i, i, i)).save(tmp_path / f"{i}.png")
    ours, theirs = pty.openpty()
    arguments = command("detect", tmp_path, "--model", model_path, "-o", tmp_path / "o.jsonl")
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:
                break
            if not data:
                break
            shown += data
        assert process.wait() == 0
    os.close(ours)
    assert b"/20" in shown
    assert b"images/s" in shown
    assert b"left" in shown


def test_an_interruption_while_it_starts_is_one_line(monkeypatch):
    class Slow(types.ModuleType):
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "faceauth.cli", Slow("faceauth.cli"))
    assert faceauth("sources") == (130, "", "interrupted before anything was read\n")


def test_an_interrupted_import_of_a_compiled_module_is_no_fault(capsys):
    def numpy(**_):
        raise ImportError("initialization failed")  # what numpy makes of a KeyboardInterrupt

    assert console._code(numpy, [2]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert console._code(numpy, []) == 1


def test_a_file_taken_for_a_command_or_an_option_is_met_with_what_to_write(tmp_path):
    for name in ("my photo.jpg", "-x.jpg"):
        picture().save(tmp_path / name)
    code, out, err = faceauth("my photo.jpg", cwd=tmp_path)
    assert (code, out, err.splitlines()[-1]) == (2, "", "hint: faceauth detect 'my photo.jpg'")
    assert faceauth("detect", "-x.jpg", cwd=tmp_path)[2].splitlines()[-1].endswith(": ./-x.jpg")
    assert "hint" not in faceauth("detect", "-y.jpg", cwd=tmp_path)[2] + faceauth("none.jpg", cwd=tmp_path)[2]


@pytest.mark.parametrize("name", ["x.png", "."])
def test_a_working_folder_that_is_gone_is_one_line(tmp_path, model_path, name):
    (tmp_path / "gone").mkdir()
    words = " ".join(command("detect", name, "--model", model_path))
    line = f"cd {tmp_path}/gone && rmdir ../gone && {words}"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0] == "error: the current folder is not there any more"


def test_a_list_on_standard_input_may_be_called_a_list(folder, model_path):
    code, out, _ = faceauth("detect", "@-", "--model", model_path, stdin=str(folder / "dark.jpg").encode())
    assert (code, json.loads(out)["path"]) == (0, str(folder / "dark.jpg"))


def test_standard_input_given_twice_is_judged_once(model_path):
    code, out, err = faceauth("detect", "-", "-", "--model", model_path, stdin=encoded(picture()))
    assert (code, len(out.splitlines())) == (0, 1)
    assert "1 file given more than once" in err


def test_every_command_is_introduced_by_a_whole_sentence():
    _, out, _ = faceauth("--help")
    assert "faceauth detect photo.jpg" in out
    commands = out[out.index("Commands:") : out.index("Exit codes")].splitlines()[1:]
    assert [line for line in commands if line.strip() and not line.endswith(".")] == []
    assert "..." not in "".join(commands)
