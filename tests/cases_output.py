"""Inputs and uses that reports of this field's users describe, with what is right for each: output, resume, exit codes.

The names of the cases are those of the list that they were collected in.
"""

import csv
import json
import ntpath
import os
import re
import subprocess
import sys
import zipfile

import pytest

from command_line import command, faceauth, lasting, read_rows
from conftest import encoded, needing, picture
from faceauth.output.gallery import link

NAMES = [
    "Zoe\u0308.png", "图 [1] # 100%.png", "😀.png", 'a"b\'c.png', "a\nb.png", "a\u202egnp.exe.png", "é" * 118 + ".png",
    os.fsdecode(b"M\xfcller.png"),
]  # fmt: skip


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """Eight pictures with names that have broken programs."""
    folder = tmp_path_factory.mktemp("named")
    for i, name in enumerate(NAMES):
        picture((i * 30,) * 3).save(folder / "x.png")
        try:
            os.rename(folder / "x.png", folder / name)
        except (OSError, ValueError):
            os.remove(folder / "x.png")  # a file system that has no such names
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "xlsx", needing("pyarrow", "parquet"), "html"])
def test_p01_names_of_all_kinds(named, model_path, tmp_path, suffix):
    target = tmp_path / f"o.{suffix}"
    code, _, err = faceauth("detect", named, "--model", model_path, "-o", target)
    assert (code, "Traceback" in err) == (0, False)
    assert f"{len(os.listdir(named))} images" in err
    assert target.stat().st_size > 500
    if suffix == "jsonl":
        assert sorted(os.path.basename(r["path"]) for r in read_rows(target)) == sorted(os.listdir(named))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a locale of POSIX")
@pytest.mark.parametrize(
    "environment", [{"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "cp1252"}], ids=["I11", "I12"]
)
def test_i11_i12_other_encodings(named, model_path, environment):
    done = subprocess.run(
        command("detect", named, "--model", model_path), capture_output=True, env=os.environ | environment, check=False
    )
    assert done.returncode == 0
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == len(os.listdir(named))
    assert b"Traceback" not in done.stderr


def test_p02_csv_opens_in_excel(tmp_path, model_path):
    picture().save(tmp_path / "Zoë.png")
    faceauth("detect", tmp_path / "Zoë.png", "--model", model_path, "-o", tmp_path / "v.csv")
    assert (tmp_path / "v.csv").read_bytes()[:3] == b"\xef\xbb\xbf"
    with open(tmp_path / "v.csv", encoding="utf-8-sig", newline="") as file:
        assert next(csv.DictReader(file))["path"].endswith("Zoë.png")


@pytest.mark.parametrize(("case", "picture_", "folder", "url"), [
    ("P03", "D:\\photos\\a b.jpg", "C:\\reports", "file:///D:/photos/a%20b.jpg"),
    ("P04", "C:\\photos\\a b.jpg", "C:\\reports", "../photos/a%20b.jpg"),
])  # fmt: skip
def test_p03_p04_links_on_windows(case, picture_, folder, url):
    assert link(picture_, folder, ntpath) == url


@pytest.mark.parametrize(("case", "name", "code", "told"), [
    ("P06", "V.CSV", 0, ""), ("P07", "v.json", 0, ""), ("P08", "v.tsv", 2, ".csv"), ("P09", "v.pdf", 2, ".html"),
])  # fmt: skip
def test_p06_to_p09_formats(folder, model_path, case, name, code, told):
    found, _, err = faceauth("detect", folder, "--model", model_path, "-o", folder / name)
    assert found == code
    assert told in err
    assert (folder / name).exists() is (code == 0)


def test_p10_parquet_without_pyarrow_names_the_extra(folder, model_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = faceauth("detect", folder, "--model", model_path, "-o", folder / "v.parquet")
    assert code == 1
    assert "pip install 'faceauth[parquet]'" in err


def test_p11_p12_every_row_says_by_what_when_and_of_what(folder, model_path):
    import hashlib

    import faceauth as package

    out = faceauth("detect", folder, "--model", model_path)[1]
    for row in map(json.loads, out.splitlines()):
        assert row["version"] == package.__version__
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["judged_at"])
        with open(row["path"], "rb") as file:
            assert row["image_sha256"] == hashlib.sha256(file.read()).hexdigest()


@pytest.mark.parametrize("data", [b"\0\1no picture", b"\xff\xd8\xff" + bytes(90), encoded(picture(size=(4, 4)))])
def test_p12_a_row_of_what_cannot_be_decoded_has_its_hash(tmp_path, model_path, data):
    import hashlib

    (tmp_path / "a.jpg").write_bytes(data)
    for given, stdin in ((tmp_path / "a.jpg", b""), ("-", data)):
        code, out, _ = faceauth("detect", given, "--model", model_path, stdin=stdin)
        assert (code, json.loads(out)["image_sha256"]) == (3, hashlib.sha256(data).hexdigest())
    assert json.loads(faceauth("detect", tmp_path / "gone.jpg", "--model", model_path)[1])["image_sha256"] is None


def test_r01_r02_an_unreadable_picture_is_tried_again(folder, model_path):
    (folder / "b.jpg").write_bytes((folder / "dark.jpg").read_bytes()[:100])
    arguments = ["detect", folder, "--whole-image", "--model", model_path, "-o", folder / "o.jsonl"]
    assert faceauth(*arguments)[0] == 3
    assert faceauth(*arguments, "--resume")[0] == 3
    (folder / "b.jpg").write_bytes((folder / "dark.jpg").read_bytes())
    assert faceauth(*arguments, "--resume")[0] == 0
    assert len(read_rows(folder / "o.jsonl")) == 4


def test_r03_a_replaced_picture_is_judged_again(folder, model_path):
    arguments = ["detect", folder, "--whole-image", "--model", model_path, "-o", folder / "o.jsonl"]
    faceauth(*arguments)
    before = {r["path"]: r["image_sha256"] for r in read_rows(folder / "o.jsonl")}
    picture((9, 9, 9)).save(folder / "bright.png")
    faceauth(*arguments, "--resume")
    after = {r["path"]: r["image_sha256"] for r in read_rows(folder / "o.jsonl")}
    assert [os.path.basename(p) for p in before if before[p] != after[p]] == ["bright.png"]


def test_r04_another_threshold_is_refused(folder, model_path):
    arguments = ["detect", folder, "--whole-image", "--model", model_path, "-o", folder / "o.jsonl"]
    faceauth(*arguments)
    code, _, err = faceauth(*arguments, "--resume", "--threshold", "0.3")
    assert code == 2
    assert "0.9" in err
    assert "0.3" in err


def test_r06_fail_on_holds_for_the_whole_output(tmp_path, model_path):
    picture((255, 255, 255)).save(tmp_path / "a_fake.png")
    picture((128, 128, 128)).save(tmp_path / "z_uncertain.png")
    arguments = ["detect", tmp_path, "--whole-image", "--model", model_path, "-o", tmp_path / "o.jsonl"]
    arguments += ["--fail-on", "fake"]
    assert faceauth(*arguments)[0] == 4
    assert faceauth(*arguments, "--resume")[0] == 4


def test_e01_one_good_one_missing(folder, model_path):
    code, out, _ = faceauth("detect", folder / "dark.jpg", folder / "gone.png", "--whole-image", "--model", model_path)
    assert code == 3
    assert [bool(json.loads(line)["error"]) for line in out.splitlines()] == [False, True]


def test_e02_a_missing_file_with_brackets(tmp_path, model_path):
    code, out, err = faceauth("detect", tmp_path / "IMG [1].png", "--model", model_path)
    assert code in {2, 3}
    assert "IMG [1].png" in out + err


def test_e03_fail_on_uncertain_is_not_met_by_a_fake(folder, model_path):
    arguments = ["detect", folder / "bright.png", "--whole-image", "--model", model_path]
    assert faceauth(*arguments, "--fail-on", "uncertain")[0] == 0
    assert faceauth(*arguments, "--fail-on", "fake")[0] == 4


@pytest.mark.slow
def test_t01_the_time_zone_changes_nothing(folder, model_path):
    found = []
    for zone in ("UTC", "Pacific/Kiritimati"):
        words = command("detect", folder, "--whole-image", "--model", model_path)
        environment = os.environ | {"TZ": zone}
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=True)
        found.append([json.loads(line) for line in done.stdout.splitlines()])
    assert lasting(found[0]) == lasting(found[1])
    assert {r["judged_at"][:10] for r in found[0]} == {r["judged_at"][:10] for r in found[1]}


@pytest.mark.slow
def test_n02_one_worker_and_two(folder, model_path):
    found = []
    for workers in (1, 2):
        out = faceauth("detect", folder, "--whole-image", "--model", model_path, "--workers", workers)[1]
        found.append([json.loads(line) for line in out.splitlines()])
    for one, other in zip(*found, strict=True):
        assert {k: v for k, v in one.items() if k not in {"ms", "judged_at"}} == {
            k: v for k, v in other.items() if k not in {"ms", "judged_at"}
        }


def test_xlsx_is_a_workbook(folder, model_path):
    faceauth("detect", folder, "--model", model_path, "-o", folder / "v.xlsx")
    assert zipfile.is_zipfile(folder / "v.xlsx")
