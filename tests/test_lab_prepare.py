import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import lab_trees
from lab_corpus import write_corpus

pytest.importorskip("pydantic")
from faceauth.errors import ConfigError, DataError, UsageError
from faceauth.images import dhash
from faceauth.lab.cli import app
from faceauth.lab.data import storing
from faceauth.lab.data.dataset import read_dataset
from faceauth.lab.data.examples import from_manifest
from faceauth.lab.data.journal import Journal
from faceauth.lab.data.prepare import PrepareConfig, prepare, prepare_config

pytestmark = pytest.mark.torch  # need_lab asks for torch


def silent(_):
    return None


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Seven sources in small, as they come: folders, a zip, a tar, and a table of scores."""
    root = tmp_path_factory.mktemp("study")
    lab_trees.celebahq(root / "celebahq256_imgs", 24)
    lab_trees.wiki(root / "wiki", 30, faceless={0}, several={3})
    names = lab_trees.wiki_names(12)
    lab_trees.as_zip(
        root / "text2img.zip", {f"text2img/{n}": lab_trees.picture(300 + i, True) for i, n in enumerate(names)}
    )
    for k, kind in enumerate(("inpainting", "insight")):
        for i, name in enumerate(names):
            lab_trees.put(root / kind, name, lab_trees.picture(400 + 50 * k + i, True))
    lab_trees.as_tar(root / "1m_faces_00.tar", lab_trees.faces_of(14, 500, "1m_faces_00/"))
    lab_trees.plain(root / "iFakeFaceDB", 10, 600, True, "jpg")
    return root


def study_config(root, **options):
    kinds = ("celebahq256_imgs", "wiki", "text2img", "inpainting", "insight", "lm_faces_00", "iFakeFaceDB")
    return PrepareConfig(data=dict.fromkeys(kinds, str(root)), **options)


def two(tmp_path, real=6, fake=6, **options):
    """The smallest data set: one real and one fake folder."""
    lab_trees.plain(tmp_path / "real", real, 0)
    lab_trees.plain(tmp_path / "fake", fake, 1000, True)
    return PrepareConfig(data={"cam": f"{tmp_path / 'real'}:real", "gan": f"{tmp_path / 'fake'}:fake"}, **options)


@pytest.fixture(scope="module")
def prepared(study, tmp_path_factory):
    lines = []
    output = tmp_path_factory.mktemp("out") / "set"
    return prepare(study_config(study, count=40), output, 1, lines.append), lines


def test_the_study_in_small(prepared):
    manifest, lines = prepared
    counts = Counter(r.source for r in manifest.rows)
    assert counts == {
        "celebahq256_imgs": 10, "wiki": 10, "text2img": 4, "inpainting": 4, "insight": 4, "1m_faces_00": 4, "iFakeFaceDB": 4,
    }  # fmt: skip
    assert {(r.source, r.family) for r in manifest.rows if not r.target} == {
        ("text2img", "diffusion"), ("inpainting", "diffusion"), ("insight", "swap"), ("1m_faces_00", "gan"), ("iFakeFaceDB", "laundered"),
    }  # fmt: skip
    assert "wiki (real): 28 images; left out 1 with several faces, 1 without a face" in lines
    sides = {}
    for row in manifest.rows:
        assert sides.setdefault(row.group or row.sha256, row.split) == row.split
    assert manifest.rows == read_dataset(manifest.root / "manifest.xlsx").rows


def test_crops_are_squares_of_one_codec(prepared):
    manifest, _ = prepared
    assert {r.split for r in manifest.rows} == {"train", "test", "dev"}
    heads = set()
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=95)
    quality_95 = Image.open(file).quantization
    for row in manifest.rows:
        with Image.open(manifest.file(row)) as image:
            assert (image.size, image.format, image.mode) == ((256, 256), "JPEG", "RGB")
            assert image.quantization == quality_95
            assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3, "4:4:4"
            heads.add(str(image.info.keys()))
            assert (row.width, row.height) == (96, 96)
    assert len(heads) == 1, "nothing in the file's head tells the class"
    files = {p.relative_to(manifest.root).as_posix() for p in manifest.root.rglob("*") if p.is_file()}
    assert files == {r.path for r in manifest.rows} | {"manifest.xlsx", "manifest.parquet", "prepare.json"}


def test_a_face_box_is_in_pixels_of_the_stored_crop(tmp_path):
    portrait = Path(__file__).parent.parent / "samples" / "grace-hopper.jpg"
    config = two(tmp_path, 0, 1)
    lab_trees.put(tmp_path / "real", "a.jpg", portrait.read_bytes())
    manifest = prepare(config, tmp_path / "out", 1, silent)
    (real,) = (r for r in manifest.rows if r.target)
    left, top, right, bottom = real.face
    assert max(right - left, bottom - top) == pytest.approx(256 / 1.3, rel=0.02), "the face fills its crop as SPEC says"
    assert 0 <= left < right <= 256 and 0 <= top < bottom <= 256
    image, face = from_manifest(manifest).faces[[r.target for r in manifest.rows].index(1)]
    assert image.size == (256, 256) and face == real.face


def test_the_result_is_a_function_of_seed_and_files(study, prepared, tmp_path):
    manifest, _ = prepared
    again = prepare(study_config(study, count=40), tmp_path / "again", 2, silent)
    assert again.sha256 == manifest.sha256, "two workers, another folder"
    for row in again.rows:
        assert again.file(row).read_bytes() == manifest.file(row).read_bytes()
    backwards = study_config(study, count=40)
    backwards = PrepareConfig(data=dict(reversed(backwards.data.items())), count=40)
    assert prepare(backwards, tmp_path / "backwards", 1, silent).sha256 == manifest.sha256
    other = prepare(study_config(study, count=40, seed=1), tmp_path / "other", 1, silent)
    assert {r.original for r in other.rows} != {r.original for r in manifest.rows}


def test_a_corpus_is_prepared_without_what_is_left_out(tmp_path):
    config = PrepareConfig(data={"corpus": str(write_corpus(tmp_path / "c", count=8))}, leave_out=["gan-b"])
    manifest = prepare(config, tmp_path / "out", 1, silent)
    assert Counter(r.source for r in manifest.rows) == {"cam-a": 4, "cam-b": 4, "gan-a": 8}
    assert len(from_manifest(manifest).records) == 16
    with pytest.raises(UsageError, match="cannot leave out gan-c"):
        prepare(PrepareConfig(data=config.data, leave_out=["gan-c"]), tmp_path / "no", 1, silent)


def test_a_small_source_is_reported_or_refused(tmp_path):
    config = two(tmp_path, 6, 4, count=12)
    lines = []
    manifest = prepare(config, tmp_path / "out", 1, lines.append)
    assert Counter(r.target for r in manifest.rows) == {0: 4, 1: 4}
    assert any("gan has 4 of 6" in line and "8 images in all" in line for line in lines)
    with pytest.raises(DataError, match="gan has 4 of 6"):
        prepare(config.model_copy(update={"strict": True}), tmp_path / "strict", 1, silent)
    assert not (tmp_path / "strict").exists()


def test_an_unreadable_image_is_replaced(tmp_path):
    config = two(tmp_path, 6, 8, count=10)
    for name in ("000.png", "001.png", "002.png"):
        path = tmp_path / "fake" / name
        path.write_bytes(path.read_bytes()[:300])
    lines = []
    manifest = prepare(config, tmp_path / "out", 1, lines.append)
    assert Counter(r.target for r in manifest.rows) == {0: 5, 1: 5}
    assert {Path(r.original).name for r in manifest.rows if not r.target} == {f"00{i}.png" for i in range(3, 8)}
    assert any(line.startswith("gan:") and "cannot be used" in line and "broken or truncated" in line for line in lines)


def test_too_many_unreadable_images_shrink_the_whole_balance(tmp_path):
    config = two(tmp_path, 6, 6)
    for i in range(4):
        (tmp_path / "fake" / f"00{i}.png").write_bytes(b"")
    manifest = prepare(config, tmp_path / "out", 1, silent)
    assert Counter(r.target for r in manifest.rows) == {0: 2, 1: 2}
    stored = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out" / "images").rglob("*.jpg")}
    assert stored == {r.path for r in manifest.rows}, "what was cut in vain is gone"


def test_nothing_but_unreadable_images_is_an_error(tmp_path):
    config = two(tmp_path, 3, 3)
    for path in (tmp_path / "fake").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="no image of gan can be used"):
        prepare(config, tmp_path / "out", 1, silent)


def test_one_file_under_both_labels_names_both(tmp_path):
    config = two(tmp_path, 3, 3)
    shutil.copy(tmp_path / "real" / "001.png", tmp_path / "fake" / "same.png")
    (tmp_path / "fake" / "000.png").unlink()
    with pytest.raises(DataError, match=r"same\.png") as caught:
        prepare(config, tmp_path / "out", 1, silent)
    assert "001.png" in caught.value.message and "is real" in caught.value.message
    (tmp_path / "fake" / "same.png").unlink()
    manifest = prepare(config, tmp_path / "out", 1, silent)
    stored = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out" / "images").rglob("*.jpg")}
    assert stored == {r.path for r in manifest.rows}, "the removed file's crop is gone too"


def test_one_file_twice_counts_once(tmp_path):
    config = two(tmp_path, 4, 5)
    shutil.copy(tmp_path / "fake" / "001.png", tmp_path / "fake" / "copy.png")
    manifest = prepare(config, tmp_path / "out", 1, silent)
    assert len({r.sha256 for r in manifest.rows}) == len(manifest.rows) == 8


def test_near_duplicates_stay_together(tmp_path):
    config = two(tmp_path, 12, 12, fractions=(0.5, 0.25, 0.25))
    for i in range(6):  # the same picture saved again: other bytes, same dHash
        with Image.open(tmp_path / "real" / f"00{i}.png") as image:
            image.save(tmp_path / "fake" / f"00{i}.png", compress_level=1)
    manifest = prepare(config, tmp_path / "out", 1, silent)
    split_of = {}
    tied = 0
    for row in manifest.rows:
        key = dhash(Image.open(row.original))
        tied += key in split_of
        assert split_of.setdefault(key, row.split) == row.split
    assert tied == 6


@pytest.mark.parametrize("mode", ["copy", "link", "move"])
def test_files_are_taken_as_they_are(tmp_path, mode):
    config = two(tmp_path, 4, 3, mode=mode)
    before = {str(p): p.read_bytes() for p in tmp_path.rglob("*.png")}
    manifest = prepare(config, tmp_path / "out", 1, silent)
    assert len(manifest.rows) == 6
    for row in manifest.rows:
        assert manifest.file(row).read_bytes() == before[row.original]
        assert os.path.exists(row.original) == (mode != "move")
        assert mode != "link" or os.path.samefile(row.original, manifest.file(row))
    assert len(list((tmp_path / "real").iterdir())) == (1 if mode == "move" else 4), "what is not chosen stays"
    assert prepare(config, tmp_path / "out", 1, silent).sha256 == manifest.sha256, "once more changes nothing"


@pytest.mark.parametrize("mode", ["link", "move"])
def test_an_archive_cannot_be_linked_or_moved(study, tmp_path, mode):
    with pytest.raises(UsageError, match="lies in an archive"):
        prepare(study_config(study, mode=mode), tmp_path / "out", 1, silent)
    assert not (tmp_path / "out").exists()


def test_members_are_copied_out_of_archives(study, tmp_path):
    config = PrepareConfig(data={"lm_faces_00": str(study), "celebahq256_imgs": str(study)}, mode="copy", count=6)
    manifest = prepare(config, tmp_path / "out", 1, silent)
    for row in manifest.rows:
        assert hashlib.sha256(manifest.file(row).read_bytes()).hexdigest() == row.sha256
    assert any("1m_faces_00.tar!/1m_faces_00/" in r.original for r in manifest.rows)


# -- OUT ---------------------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    config = two(tmp_path, 2, 2)
    lab_trees.put(tmp_path, "out/thesis.txt", b"mine")
    with pytest.raises(UsageError, match="holds something else"):
        prepare(config, tmp_path / "out", 1, silent)
    with pytest.raises(UsageError, match="is a file"):
        prepare(config, tmp_path / "out" / "thesis.txt", 1, silent)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_another_command_does_not_go_on_in_a_folder(tmp_path):
    config = two(tmp_path, 3, 3)
    prepare(config, tmp_path / "out", 1, silent)
    with pytest.raises(UsageError, match="started with another seed"):
        prepare(config.model_copy(update={"seed": 4}), tmp_path / "out", 1, silent)


def test_a_folder_within_a_source_is_refused(tmp_path):
    with pytest.raises(UsageError, match="lies inside the source"):
        prepare(two(tmp_path, 2, 2), tmp_path / "real" / "out", 1, silent)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    config = two(tmp_path, 2, 2)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="cannot write"):
        prepare(config, tmp_path / "file" / "out", 1, silent)


def test_a_full_disk_is_no_unreadable_image(tmp_path, monkeypatch):
    config = two(tmp_path, 2, 2)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DataError, match="No space left"):
        patch.setattr(storing.os, "replace", full)
        patch.setattr("faceauth.lab.data.prepare.write_state", lambda *_: None)
        prepare(config, tmp_path / "out", 1, silent)


# -- going on after a kill ---------------------------------------------------------------------------------------------


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch):
    config, out = two(tmp_path, 8, 8), tmp_path / "out"
    done = []
    original = storing.store

    def dies(job):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(job.item.name)
        return original(job)

    monkeypatch.setattr("faceauth.lab.data.prepare.store", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare(config, out, 1, silent)
    assert not (out / "manifest.xlsx").exists()
    next((out / "images").rglob("*.jpg")).unlink()  # by somebody else
    again = []
    monkeypatch.setattr("faceauth.lab.data.prepare.store", lambda job: again.append(job) or original(job))
    manifest = prepare(config, out, 1, silent)
    assert len(again) == 16 - 5 + 1
    assert manifest.sha256 == prepare(config, tmp_path / "whole", 1, silent).sha256
    assert not list(out.glob("journal*"))


def test_a_damaged_journal_is_started_anew(tmp_path, monkeypatch):
    config, out = two(tmp_path, 4, 4), tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("faceauth.lab.data.prepare.write_manifest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        prepare(config, out, 1, silent)
    journal = out / "journal.sqlite"
    journal.write_bytes(journal.read_bytes()[:5000])
    assert prepare(config, out, 1, silent).sha256 == prepare(config, tmp_path / "whole", 1, silent).sha256


def test_two_runs_at_once_do_not_meet(tmp_path, monkeypatch):
    config, out, refused = two(tmp_path, 3, 3), tmp_path / "out", []
    original = storing.store

    def meets(job):
        with pytest.raises(UsageError, match="another faceauth is writing"):
            prepare(config, out, 1, silent)
        refused.append(job)
        return original(job)

    monkeypatch.setattr("faceauth.lab.data.prepare.store", meets)
    prepare(config, out, 1, silent)
    assert len(refused) == 6
    assert sorted(p.name for p in tmp_path.iterdir() if "out" in p.name) == ["out"]


CROPPER = """
import multiprocessing, os, signal
from pathlib import Path
from faceauth.lab.data import prepare as module

if __name__ == "__main__":
    root = Path(__file__).parent
    add = module.Journal.add

    def dies_at_the_ninth(journal, folder, name, outcome):
        add(journal, folder, name, outcome)
        if len(journal.outcomes) == 9:
            (root / "workers").write_text(" ".join(str(p.pid) for p in multiprocessing.active_children()))
            os.kill(os.getpid(), signal.SIGKILL)

    module.Journal.add = dies_at_the_ninth
    data = {"cam": f"{root}/real:real", "gan": f"{root}/fake:fake"}
    module.prepare(module.PrepareConfig(data=data), root / "out", 2, lambda _: None)
"""


def alive(process):
    """Whether it runs still; one that ended and was not yet asked after does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_run_with_workers_goes_on_and_leaves_none_behind(tmp_path):
    config, script = two(tmp_path, 24, 24), tmp_path / "run.py"
    script.write_text(CROPPER)
    silence = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # a pipe would wait for the workers
    assert subprocess.run([sys.executable, script], **silence).returncode == -signal.SIGKILL
    workers = (tmp_path / "workers").read_text().split()
    assert len(workers) == 2
    deadline = time.monotonic() + 30
    while any(map(alive, workers)):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.02)
    with Journal(tmp_path / "out") as journal:
        assert len(journal.outcomes) == 9
    manifest = prepare(config, tmp_path / "out", 1, silent)
    assert manifest.sha256 == prepare(config, tmp_path / "whole", 1, silent).sha256
    assert not list((tmp_path / "out").rglob("*.part"))


# -- configuration and command line ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("values", "says"), [
    ({"cuont": 3}, "did you mean 'count'"), ({"count": 1}, "greater than or equal to 2"), ({"fractions": [0.5, 0.1, 0.1]}, "sum to 1"),
    ({"fractions": [float("nan"), 0.5, 0.5]}, "sum to 1"), ({"seed": -1}, "prepare: seed"), ({"mode": "steal"}, "prepare: mode"), ({"data": ["a=b"]}, "prepare: data"),
])  # fmt: skip
def test_a_bad_table_is_one_line(values, says):
    with pytest.raises(ConfigError, match=says):
        prepare_config(values)


def test_no_data_and_two_of_a_name_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no data is named"):
        prepare(PrepareConfig(), tmp_path / "out", 1, silent)
    root = write_corpus(tmp_path / "c", count=2)
    with pytest.raises(UsageError, match="two sources are called gan-a"):
        prepare(PrepareConfig(data={"c": str(root), "gan-a": f"{root / 'gan-a'}:fake"}), tmp_path / "out", 1, silent)


def test_the_command(tmp_path):
    two(tmp_path, 3, 3)
    words = [
        "prepare",
        str(tmp_path / "out"),
        "--data",
        f"cam={tmp_path / 'real'}:real",
        "--data",
        f"gan={tmp_path / 'fake'}:fake",
    ]
    done = CliRunner().invoke(app, [*words, "--workers", "1", "--fractions", "0.34", "0.33", "0.33"])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(tmp_path / "out" / "manifest.xlsx")
    assert "cam (real): 3 images" in done.stderr
    assert Counter(r.split for r in read_dataset(tmp_path / "out" / "manifest.parquet").rows) == {
        "train": 2,
        "test": 2,
        "dev": 2,
    }


@pytest.mark.parametrize(
    "words",
    [["--copy", "--move"], ["--data", "x"], ["--data", "wiki=a", "--data", "wiki=b"], ["--fractions", "1", "1", "1"]],
)
def test_what_makes_no_sense_is_refused(tmp_path, words):
    done = CliRunner().invoke(app, ["prepare", str(tmp_path / "out"), *words])
    assert isinstance(done.exception, UsageError)


@pytest.mark.parametrize("command", ["prepare", "synthesize", "launder", "embed", "spectrum", "report", "evaluate"])
def test_a_negative_seed_is_refused(command):
    done = CliRunner().invoke(app, [command, "x", "--seed", "-1"])
    assert done.exit_code == 2
    assert "--seed" in done.output


def test_sources_are_listed_with_licence_and_home():
    done = CliRunner().invoke(app, ["sources"])
    for word in (
        "celebahq256_imgs",
        "iFakeFaceDB",
        "CC BY-NC 4.0",
        "https://archive.org/details/1mFakeFaces",
        "--download insight",
    ):
        assert word in done.stdout


def test_a_download_takes_its_place_among_the_data(study, tmp_path, monkeypatch):
    monkeypatch.setattr("faceauth.lab.data.importers.download", lambda name: study / f"{name}.zip")
    config = PrepareConfig(data={"celebahq256_imgs": str(study)}, download=["text2img"], count=4)
    manifest = prepare(config, tmp_path / "out", 1, silent)
    assert {r.source for r in manifest.rows} == {"celebahq256_imgs", "text2img"}
