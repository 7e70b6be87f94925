"""Faults around a run of `detect`: signals, full disks, closed streams, places that cannot be written."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from command_line import command, faceauth, lasting, read_rows, start, wait_for
from conftest import needing, picture
from test_workers import alive

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals and devices of POSIX"),
]
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of 40 small pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(40):
        picture((i * 6,) * 3).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def undisturbed(pictures, model_path):
    """The rows of a run that nothing happened to."""
    target = pictures.parent / "undisturbed.jsonl"
    assert faceauth("detect", pictures, "--model", model_path, "-o", target, "--workers", "1")[0] == 0
    return lasting(read_rows(target))


def children(pid):
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


@linux
@pytest.mark.parametrize("rows", [1, 20])
def test_a_killed_run_leaves_no_process_and_is_gone_on_with(pictures, model_path, undisturbed, tmp_path, rows):
    target = tmp_path / "o.jsonl"
    arguments = ["detect", pictures, "--model", model_path, "-o", target]
    with start(*arguments, "--workers", "2") as run:
        wait_for(lambda: target.exists() and target.read_bytes().count(b"\n") >= rows)
        workers = children(run.pid)
        assert len(workers) >= 2
        run.kill()
        run.communicate()  # ends when nobody holds the pipes any more
        wait_for(lambda: not any(alive(pid) for pid in workers), 30)
    assert faceauth(*arguments, "--resume")[0] == 0
    assert lasting(read_rows(target)) == undisturbed


@linux
@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 2), (signal.SIGTERM, 2), (signal.SIGINT, 0)])
def test_a_signal_ends_a_run_soon_with_one_line(pictures, model_path, tmp_path, number, workers):
    target = tmp_path / "o.jsonl"
    names = [pictures] * (20 if workers else 1)  # more than can be judged before the signal comes
    with start("detect", *names, "--model", model_path, "-o", target, "--workers", workers) as run:
        wait_for(lambda: target.exists() and target.read_bytes().count(b"\n") >= 2)
        begin = time.monotonic()
        os.kill(run.pid, number)
        out, err = run.communicate()
        assert time.monotonic() - begin < 30  # under 2 s where nothing else runs
    assert run.returncode == 128 + number
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("interrupted; ")
    assert "--resume" in err
    assert all(r["error"] is None for r in read_rows(target))


@linux
def test_an_interrupted_table_keeps_its_rows(pictures, model_path, tmp_path):
    target = tmp_path / "o.xlsx"
    kept = tmp_path / "o.xlsx.rows.jsonl"
    with start("detect", *[pictures] * 20, "--model", model_path, "-o", target, "--workers", "1") as run:
        wait_for(lambda: kept.exists() and kept.read_bytes().count(b"\n") >= 2)
        run.send_signal(signal.SIGINT)
        err = run.communicate()[1]
    assert run.returncode == 130
    assert str(kept) in err and "--previous" in err
    assert len(read_rows(kept)) >= 2
    assert not target.exists()
    code, _, err = faceauth("detect", *[pictures] * 20, "--model", model_path, "-o", target, "--previous", kept)
    assert code == 0 and target.exists() and list(tmp_path.glob("*.rows.jsonl")) == [kept]
    assert f"{kept} holds the rows of a run that was broken off: take them with --previous, or delete it" in err


def limited(size):
    def limit():
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def test_a_full_disk_keeps_whole_rows_and_can_be_gone_on_with(pictures, model_path, undisturbed, tmp_path):
    target = tmp_path / "o.jsonl"
    arguments = ["detect", pictures, "--model", model_path, "-o", target]
    run = start(*arguments, "--workers", "1", preexec_fn=limited(5000))
    err = run.communicate()[1]
    assert run.returncode == 1
    assert "cannot write" in err
    assert "go on with --resume" in err
    assert 0 < len(read_rows(target)) < 40
    assert faceauth(*arguments, "--resume")[0] == 0
    assert lasting(read_rows(target)) == undisturbed


@pytest.mark.parametrize("suffix", ["xlsx", "csv", needing("pyarrow", "parquet"), "html", "json"])
def test_a_disk_that_is_full_at_the_end_keeps_the_rows(tmp_path, suffix):
    target = tmp_path / f"o.{suffix}"
    code = f"""
import resource, sys
from pathlib import Path
from faceauth.output import FileOutput
from faceauth.verdict import Face, Verdict
with FileOutput(Path({str(target)!r})) as output:
    for i in range(3):
        output.write(Verdict(f"{{i}}.png", (Face(0, None, "fake", 0.9, "a", 0.6, 0.05),), "m", "f" * 64))
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    kept = tmp_path / f"o.{suffix}.rows.jsonl"
    assert "FaceAuthError: cannot write" in done.stderr
    assert f"the rows of 3 images are in {kept}" in done.stderr
    assert len(read_rows(kept)) == 3
    assert list(tmp_path.iterdir()) == [kept]


@linux
@pytest.mark.parametrize("suffix", ["jsonl", "xlsx", needing("pyarrow", "parquet")])
@pytest.mark.parametrize("place", ["/proc/o", "/sys/o", "/no/such/folder/o", "NAME"])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    pictures, model_path, tmp_path, place, suffix, monkeypatch
):
    from faceauth.detector import Detector

    monkeypatch.setattr(Detector, "judge", lambda *_: pytest.fail("it was judged"))
    target = tmp_path / ("x" * 300) if place == "NAME" else place
    code, out, err = faceauth("detect", pictures, "--model", model_path, "-o", f"{target}.{suffix}")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 2
    assert "Traceback" not in err


def test_a_name_of_300_characters_among_the_inputs_is_a_row(model_path):
    code, out, err = faceauth("detect", "x" * 300 + ".png", "--model", model_path)
    assert code == 3
    assert "too long" in out or "no such file" in out
    assert "Traceback" not in err


@linux
@pytest.mark.parametrize(
    "arguments", [["detect", "PICTURES", "--model", "MODEL"], ["model", "info"], ["--version"], ["--help"]]
)
def test_a_full_device_as_standard_output_is_one_line(pictures, model_path, arguments):
    words = [str({"PICTURES": pictures, "MODEL": model_path}.get(a, a)) for a in arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command(*words), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if "hint" not in line] == [
        "error: cannot write standard output: No space left on device"
    ]


@pytest.mark.parametrize(("closing", "code", "told"), [
    ("<&-", 2, "standard input is closed"), (">&-", 2, "standard output is closed"), ("2>&-", 0, ""),
])  # fmt: skip
def test_closed_streams(pictures, model_path, closing, code, told):
    source = "-" if closing == "<&-" else pictures / "00.png"
    words = " ".join(map(str, command("detect", source, "--model", model_path)))
    done = subprocess.run(f"{words} {closing}", shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    if closing == "2>&-":
        assert len(done.stdout.splitlines()) == 1  # the row, and no notice among the data


def test_closed_streams_do_not_keep_a_file_from_being_written(pictures, model_path, tmp_path):
    words = " ".join(map(str, command("detect", pictures, "--model", model_path, "-o", tmp_path / "o.xlsx")))
    done = subprocess.run(f"{words} <&- >&- 2>&-", shell=True, check=False)
    assert done.returncode == 0
    assert zipfile.is_zipfile(tmp_path / "o.xlsx")


def test_a_reader_that_leaves_is_no_error_worth_a_word(pictures, model_path):
    words = " ".join(map(str, command("detect", pictures, "--model", model_path)))
    done = subprocess.run(f"{words} | head -1", shell=True, capture_output=True, text=True, check=False)
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert "error" not in done.stderr


def test_a_second_run_with_the_same_output_is_refused(pictures, model_path, undisturbed, tmp_path):
    target = tmp_path / "o.jsonl"
    arguments = ["detect", pictures, "--model", model_path, "-o", target]
    with start(*arguments, "--workers", "1") as first:
        wait_for(lambda: target.exists())
        code, _, err = faceauth(*arguments, "--resume")
        assert code == 2
        assert "another faceauth is writing" in err
        assert len(err.splitlines()) == 2
        first.communicate()
    assert first.returncode == 0
    assert lasting(read_rows(target)) == undisturbed
    assert list(tmp_path.iterdir()) == [target]


def test_a_picture_that_vanishes_while_it_is_read_is_a_row(tmp_path, model_path, monkeypatch):
    from faceauth import detector

    for name in ("a.png", "b.png"):
        picture().save(tmp_path / name)
    claims = detector.claims

    def late(source):
        if "a.png" in str(source):
            os.remove(source)
        return claims(source)

    monkeypatch.setattr(detector, "claims", late)
    code, out, err = faceauth("detect", tmp_path, "--model", model_path)
    assert code in {0, 3}
    assert len(out.splitlines()) == 2
    assert "Traceback" not in err


def test_folders_1000_deep(tmp_path, model_path):
    place = tmp_path
    picture().save(tmp_path / "top.png")
    before = os.getcwd()
    try:
        os.chdir(place)
        for _ in range(1000):
            os.mkdir("deeper")
            os.chdir("deeper")
        picture().save("bottom.png")
    finally:
        os.chdir(before)
    try:
        code, out, err = faceauth("detect", tmp_path, "--model", model_path)
    finally:  # pytest would recurse into it, fail, and leave it for every later run to fail at
        subprocess.run(["rm", "-r", tmp_path / "deeper"], check=True)
    assert code in {0, 1, 2, 3}
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 2
    assert "top.png" in out
