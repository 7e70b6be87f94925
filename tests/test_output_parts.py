"""-o FOLDER/: Parquet parts that are finished while the run goes on."""

import os
import subprocess
import sys

import pytest

from command_line import faceauth, wait_for
from conftest import picture
from faceauth.errors import FaceAuthError, UsageError
from faceauth.output import FIELDS, PartsOutput, parts
from faceauth.output.parts import check_folder, is_folder
from faceauth.verdict import Face, Verdict

pq = pytest.importorskip("pyarrow.parquet")


def verdict(number, faces=1):
    found = tuple(Face(i, (1, 2, 30, 40), "fake", 0.75, "stylegan2", 0.6, 0.05) for i in range(faces))
    return Verdict(f"{number}.png", found, "m", "f" * 64, "e" * 64, 96, 96, 3.5)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(parts, "PART_ROWS", 3)


def paths(folder):
    """The column `path` of each part, in the order of the parts."""
    return [pq.read_table(file)["path"].to_pylist() for file in sorted(folder.iterdir())]


def test_parts_are_finished_as_rows_come(tmp_path, small):
    with PartsOutput(tmp_path / "o") as output:
        for number in range(4):
            output.write(verdict(number))
        assert paths(tmp_path / "o") == [["0.png", "1.png", "2.png"]]
    assert paths(tmp_path / "o") == [["0.png", "1.png", "2.png"], ["3.png"]]
    assert pq.read_table(tmp_path / "o").column_names == list(FIELDS)
    assert output.tally["images"] == 4
    assert list(tmp_path.iterdir()) == [tmp_path / "o"]


def test_the_rows_of_an_image_are_in_one_part(tmp_path, small):
    with PartsOutput(tmp_path / "o") as output:
        for number in range(3):
            output.write(verdict(number, faces=2))
    assert paths(tmp_path / "o") == [["0.png"] * 2 + ["1.png"] * 2, ["2.png"] * 2]


def test_a_run_that_fails_keeps_what_was_judged(tmp_path, small):
    with pytest.raises(RuntimeError), PartsOutput(tmp_path / "o") as output:
        for number in range(4):
            output.write(verdict(number))
        raise RuntimeError
    assert pq.read_table(tmp_path / "o")["path"].to_pylist() == [f"{n}.png" for n in range(4)]
    assert "4 images" in output.where()


def test_no_image_is_a_part_without_rows(tmp_path):
    with PartsOutput(tmp_path / "o"):
        pass
    assert paths(tmp_path / "o") == [[]]


def test_parts_are_replaced_only_when_asked_and_not_before_there_are_new_ones(tmp_path, small):
    folder = tmp_path / "o"
    with PartsOutput(folder) as output:
        for number in range(7):
            output.write(verdict(number))
    with pytest.raises(UsageError, match="--overwrite"):
        PartsOutput(folder)
    with pytest.raises(RuntimeError), PartsOutput(folder, overwrite=True):
        raise RuntimeError
    assert len(paths(folder)) == 3
    with PartsOutput(folder, overwrite=True) as output:
        output.write(verdict(9))
    assert paths(folder) == [["9.png"]]


def test_earlier_parts_go_only_after_the_first_new_one_is_in_place(tmp_path, small, monkeypatch):
    folder = tmp_path / "o"
    with PartsOutput(folder) as output:
        for number in range(7):
            output.write(verdict(number))
    forget = PartsOutput._forget_earlier

    def looked(self):
        assert paths(folder) == [["9.png"], ["3.png", "4.png", "5.png"], ["6.png"]]
        forget(self)

    monkeypatch.setattr(PartsOutput, "_forget_earlier", looked)
    with PartsOutput(folder, overwrite=True) as output:
        output.write(verdict(9))
    assert paths(folder) == [["9.png"]]


def test_other_files_are_never_touched(tmp_path):
    (tmp_path / "part-1.parquet").write_text("precious")
    with pytest.raises(UsageError, match="other files"):
        PartsOutput(tmp_path, overwrite=True)
    assert (tmp_path / "part-1.parquet").read_text() == "precious"


@pytest.mark.parametrize(("name", "options"), [("o", {"resume": True, "overwrite": True}), ("no/o", {}), ("file", {})])
def test_impossible_folders_are_refused_at_once(tmp_path, name, options):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(UsageError):
        check_folder(tmp_path / name, **({"resume": False, "overwrite": True} | options))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_with_another_writer_is_refused(tmp_path):
    with PartsOutput(tmp_path / "o"), pytest.raises(UsageError, match="another faceauth is writing"):
        PartsOutput(tmp_path / "o", overwrite=True)


def test_a_part_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, small):
    class Full(parts.ParquetWriter):
        def close(self):
            super().close()
            raise OSError(28, "No space left on device")

    with pytest.raises(FaceAuthError, match="No space left") as caught, PartsOutput(tmp_path / "o") as output:
        for number in range(3):
            output.write(verdict(number))
        monkeypatch.setattr(parts, "ParquetWriter", Full)
        for number in range(3, 6):
            output.write(verdict(number))
    assert "3 images" in caught.value.hint
    assert paths(tmp_path / "o") == [["0.png", "1.png", "2.png"]]
    with pytest.raises(FaceAuthError, match="No space left"), PartsOutput(tmp_path / "o", overwrite=True) as output:
        for number in range(5, 8):
            output.write(verdict(number))
    assert paths(tmp_path / "o") == [["0.png", "1.png", "2.png"]]  # the earlier run stands


KILLED = """
import sys, time
sys.path.insert(0, "tests")
from pathlib import Path
from test_output_parts import parts, verdict
parts.PART_ROWS = 3
with parts.PartsOutput(Path(sys.argv[1])) as output:
    for number in range(8):
        output.write(verdict(number))
    time.sleep(600)
"""


def test_a_killed_run_loses_at_most_one_part(tmp_path):
    folder = tmp_path / "o"
    root = os.path.dirname(os.path.dirname(__file__))
    process = subprocess.Popen([sys.executable, "-c", KILLED, folder], cwd=root)
    try:
        wait_for(lambda: (folder / "part-00001.parquet").exists(), 60)
    finally:
        process.kill()
        process.wait()
    assert pq.read_table(folder)["path"].to_pylist() == [f"{n}.png" for n in range(6)]
    with PartsOutput(folder, overwrite=True) as output:  # the lock went with the process
        output.write(verdict(9))
    assert pq.read_table(folder)["path"].to_pylist() == ["9.png"]


def test_a_slash_at_the_end_asks_for_parts(folder, model_path, tmp_path):
    arguments = ["detect", folder, "--whole-image", "--model", model_path]
    code, _, err = faceauth(*arguments, "-o", f"{tmp_path / 'out.parquet'}/")
    assert code == 0, err
    assert faceauth(*arguments, "-o", tmp_path / "one.parquet")[0] == 0
    told = [n for n in FIELDS if n not in {"ms", "judged_at"}]
    one, many = (pq.read_table(tmp_path / n).select(told).to_pylist() for n in ("one.parquet", "out.parquet"))
    assert many == one
    assert len(many) == 3


@pytest.fixture
def judged(folder, model_path, tmp_path_factory, monkeypatch):
    """A folder of pictures, the parts of two rows made of it, and the command that made them and goes on with them."""
    monkeypatch.setattr(parts, "PART_ROWS", 2)
    target = tmp_path_factory.mktemp("judged") / "o"

    def go(*more):
        return faceauth("detect", folder, "--whole-image", "--model", model_path, "-o", f"{target}/", *more)

    assert go()[0] == 0
    return folder, target, go


def names(target):
    return [[os.path.basename(path) for path in part] for part in paths(target)]


def test_what_is_new_goes_into_parts_of_its_own(judged):
    folder, target, go = judged
    picture((3, 3, 3)).save(folder / "new.png")
    code, _, err = go("--resume", "--fail-on", "fake")
    assert "3 of 4 images are in the output already" in err
    assert "4 images" in err
    assert code == 4  # a fake of the earlier run
    assert names(target) == [["bright.png", "dark.jpg"], ["grey.webp"], ["new.png"]]


def test_what_was_changed_or_could_not_be_read_is_judged_again_and_is_there_once(judged):
    folder, target, go = judged
    (folder / "broken.png").write_bytes(b"half copied")
    assert go("--resume")[0] == 3
    picture((255, 255, 255)).save(folder / "dark.jpg")
    picture((255, 255, 255)).save(folder / "broken.png")
    code, _, err = go("--resume")
    assert code == 0
    assert "judged again: 1 that changed since, 1 that could not be read" in err
    assert "4 images" in err
    assert names(target) == [["bright.png"], ["grey.webp"], [], ["broken.png", "dark.jpg"]]
    table = pq.read_table(target).to_pylist()
    assert {os.path.basename(row["path"]): row["label"] for row in table}["dark.jpg"] == "fake"
    assert go("--resume")[2].count("4 of 4 images") == 1


def test_a_killed_run_is_gone_on_with(judged):
    _, target, go = judged
    (target / "part-00001.parquet").unlink()
    assert "2 of 3 images" in go("--resume")[2]
    assert names(target) == [["bright.png", "dark.jpg"], ["grey.webp"]]


def test_parts_of_other_settings_or_another_making_are_not_gone_on_with(judged):
    _, target, go = judged
    code, _, err = go("--resume", "--threshold", "0.5")
    assert code == 2
    assert "threshold 0.5" in err
    assert go("--resume", "--overwrite")[0] == 2
    pa = pytest.importorskip("pyarrow")
    for content in (pa.table({"path": ["a"]}), None):
        if content is None:
            (target / "part-00000.parquet").write_bytes(b"PAR1 but torn")
        else:
            pq.write_table(content, target / "part-00000.parquet")
        code, _, err = go("--resume")
        assert code == 2
        assert "is not an output of faceauth detect" in err

    assert not is_folder("out.parquet")
