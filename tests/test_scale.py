"""detect --engine ray: the same rows as on one machine, whatever fails on the way."""

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

import lab_trees
from command_line import faceauth, wait_for
from conftest import PORTRAIT, encoded, noise, picture
from faceauth.detector import Detector
from faceauth.duplicates import judged_once
from faceauth.errors import DataError, FaceAuthError, UsageError
from faceauth.lab.parallel import OnRay, parallel
from faceauth.output import path_id
from faceauth.output.writers import ParquetWriter
from faceauth.scale import blocks, engine, storage
from faceauth.scale.copies import tasks
from faceauth.scale.judge import Job, Judge, Task
from lab_frozen_data import write_frozen
from object_store import serving

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'faceauth[scale]'")
pq = pytest.importorskip("pyarrow.parquet")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of ray's own
    pytest.mark.skipif(sys.platform != "linux", reason="tested on Linux alone"),
]


def rows(source, system=None):
    """Rows without what differs from run to run, by path."""
    told = pq.read_table(source, filesystem=system).to_pylist()
    return sorted(({k: v for k, v in r.items() if k not in {"ms", "judged_at"}} for r in told), key=lambda r: r["path"])


@pytest.fixture(scope="module")
def cluster():
    """A local Ray for most tests; its address."""
    from faceauth.scale import cluster

    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    cluster.needs_ray()
    with cluster.connected(None):
        yield ray.get_runtime_context().gcs_address


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(blocks, "IMAGES", 3)


@pytest.fixture
def photos(tmp_path):
    """Seven pictures of different grey, and one that is broken."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(7):
        picture((number * 36,) * 3).save(folder / f"{number}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    return folder


@pytest.fixture
def bucket(photos):
    """The pictures in an object store, which does not give out the last one before `gate` is set."""
    with serving() as server:
        server.files = {f"bucket/photos/{p.name}": p.read_bytes() for p in photos.iterdir()}
        server.slow = "bucket/photos/broken.jpg"
        yield server


def judge(model_path, *arguments, cwd=None):
    return faceauth("detect", *arguments, "--whole-image", "--model", model_path, cwd=cwd)


def with_ray(model_path, *arguments, cwd=None):
    return judge(model_path, *arguments, "--engine", "ray", "--workers", 1, cwd=cwd)


def in_bucket(rows):
    """Rows of local pictures as they are of those in the object store."""
    there = [r | {"path": f"s3://bucket/photos/{os.path.basename(r['path'])}"} for r in rows]
    return [r | {"path_id": path_id(os.sep + r["path"])} for r in there]


def test_rows_are_those_of_one_machine_and_a_finished_block_is_not_judged_again(
    cluster, photos, small, model_path, tmp_path
):
    given = [photos, tmp_path / "gone.png"]
    many = photos / "many"  # what it writes there are no inputs of the next run
    output = [*given, "-o", f"{many}/"]
    code, _, err = with_ray(model_path, *output)
    assert code == 3, err
    assert "9 images" in err and "2 unreadable" in err
    assert judge(model_path, *given, "-o", tmp_path / "one.parquet")[0] == 3
    assert rows(many) == rows(tmp_path / "one.parquet")
    parts = {p: p.stat().st_mtime_ns for p in many.iterdir()}
    assert len(parts) == 3
    lost = sorted(parts)[1]
    lost.unlink()
    code, _, err = with_ray(model_path, *output, "--resume")
    assert code == 3 and "2 of 3 parts" in err and "9 images" in err and "2 unreadable" in err, err
    assert rows(many) == rows(tmp_path / "one.parquet")
    again = {p: p.stat().st_mtime_ns for p in many.iterdir()}
    assert [p for p in parts if again[p] != parts[p]] == [lost]
    (photos / "broken.jpg").unlink()
    code, _, err = with_ray(model_path, photos, *output[2:], "--overwrite")
    assert code == 0 and "7 images" in err, err
    assert [r["path"] for r in rows(many)] == [str(photos / f"{n}.png") for n in range(7)]


def noted(parts):
    return [os.path.basename(row["path"]) for row in rows(parts) if row["note"]]


def test_pictures_of_an_earlier_output_are_taken_from_it(cluster, bucket, photos, small, model_path, tmp_path):
    bucket.gate.set()
    earlier = tmp_path / "earlier.jsonl"
    some = [photos / name for name in ("1.png", "2.png", "6.png", "broken.jpg")]
    assert judge(model_path, *some, "-o", earlier)[0] == 3
    earlier.write_text(earlier.read_text().replace('"note": null', '"note": "judged before"'))
    (photos / "2.png").rename(photos / "renamed.png")
    given = [photos, "--previous", earlier.name]
    output = ["-o", f"{tmp_path}/many/"]
    code, _, err = with_ray(model_path, *given, *output, cwd=tmp_path)
    assert code == 3 and "3 of 8 images are taken from earlier.jsonl" in err, err
    code, _, err = judge(model_path, *given, "-o", tmp_path / "one.parquet", cwd=tmp_path)
    assert code == 3 and "3 of 8 images are taken from" in err, err
    assert rows(tmp_path / "many") == rows(tmp_path / "one.parquet")
    assert noted(tmp_path / "many") == ["1.png", "6.png", "renamed.png"]
    min(tmp_path.glob("many/*")).unlink()
    code, _, err = with_ray(model_path, *given, *output, "--resume", cwd=tmp_path)
    assert code == 3 and "2 of 3 parts" in err and "8 images" in err, err
    assert rows(tmp_path / "many") == rows(tmp_path / "one.parquet")
    address = [f"s3://bucket/photos?{bucket.options}", "-o", f"{tmp_path}/stored/", "--previous", earlier]
    code, _, err = with_ray(model_path, *address)
    assert code == 3 and "3 of 8 images are taken" in err, err
    assert noted(tmp_path / "stored") == ["1.png", "2.png", "6.png"]
    assert "of other images or settings" in with_ray(model_path, photos, *output, "--resume")[2]
    os.utime(earlier)
    assert "of other images or settings" in with_ray(model_path, *given, *output, "--resume", cwd=tmp_path)[2]


@pytest.fixture
def copies(photos):
    """Beside the pictures of `photos` a portrait: smaller, as PNG, as the same file, and larger than the first."""
    portrait = Image.open(PORTRAIT).convert("RGB")
    portrait.save(photos / "a.jpg", quality=95)
    noise((300, 360)).save(photos / "b.png")
    portrait.resize((256, 300), Image.Resampling.LANCZOS).save(photos / "c.jpg", quality=75)
    portrait.save(photos / "x.png")
    noise((300, 360)).rotate(90).save(photos / "w.png")
    (photos / "y.jpg").write_bytes((photos / "a.jpg").read_bytes())
    portrait.resize((768, 900), Image.Resampling.LANCZOS).save(photos / "z.png")
    return photos


def doubles(parts):
    """Names of files, and of those judged in their place."""
    return {os.path.basename(r["path"]): os.path.basename(r["duplicate_of"]) for r in rows(parts) if r["duplicate_of"]}


def test_one_picture_in_several_files_is_judged_once(cluster, copies, small, model_path, tmp_path, monkeypatch):
    output = ["-o", f"{tmp_path}/many/", "--dedupe"]
    code, _, err = with_ray(model_path, copies.name, *output, cwd=copies.parent)
    assert code == 3 and "15 images" in err and "1 unreadable" in err, err
    assert judge(model_path, copies.name, "--dedupe", "-o", tmp_path / "one.parquet", cwd=copies.parent)[0] == 3
    assert rows(tmp_path / "many") == rows(tmp_path / "one.parquet")
    assert doubles(tmp_path / "many") == {"c.jpg": "a.jpg", "x.png": "a.jpg", "y.jpg": "a.jpg"}
    parts = {p: p.stat().st_mtime_ns for p in (tmp_path / "many").glob("part-*")}
    lost = next(p for p in parts if doubles(p))
    lost.unlink()
    assert (
        "of other images or settings"
        in with_ray(model_path, copies.name, *output[:2], "--resume", cwd=copies.parent)[2]
    )
    with monkeypatch.context() as patch:
        patch.delattr("faceauth.scale.copies.Hashes")  # a second look could find others
        code, _, err = with_ray(model_path, copies.name, *output, "--resume", cwd=copies.parent)
    assert code == 3 and f"{len(parts) - 1} of {len(parts)} parts" in err and "15 images" in err, err
    assert [p for p in parts if p.stat().st_mtime_ns != parts[p]] == [lost]
    assert rows(tmp_path / "many") == rows(tmp_path / "one.parquet")
    (copies / "zz.jpg").write_bytes((copies / "a.jpg").read_bytes())  # a block of its own, with rows in a finished part
    assert "of other images or settings" in with_ray(model_path, copies.name, *output, "--resume", cwd=copies.parent)[2]
    for part in (tmp_path / "many").glob(
        "part-*"
    ):  # of a run that was killed before the first, what it had found stays
        part.unlink()
    code, _, err = with_ray(model_path, copies.name, *output, cwd=copies.parent)
    assert code == 3 and "16 images" in err, err
    assert doubles(tmp_path / "many")["zz.jpg"] == "a.jpg"


def test_what_an_earlier_output_holds_is_no_copy(cluster, copies, small, model_path, tmp_path):
    earlier = tmp_path / "earlier.jsonl"
    assert judge(model_path, copies / "x.png", "-o", earlier)[0] == 0
    given = [copies, "--dedupe", "--previous", earlier]
    code, _, err = with_ray(model_path, *given, "-o", f"{tmp_path}/many/")
    assert code == 3 and "1 of 15 images are taken from" in err, err
    assert judge(model_path, *given, "-o", tmp_path / "one.parquet")[0] == 3
    assert rows(tmp_path / "many") == rows(tmp_path / "one.parquet")
    assert doubles(tmp_path / "many") == {"c.jpg": "a.jpg", "y.jpg": "a.jpg"}


def test_copies_in_other_shards_and_of_pictures_that_are_gone_since(copies, model_path, tmp_path, monkeypatch):
    monkeypatch.setitem(vars(sys.modules["__main__"]), "__file__", "kept for the tests that follow")
    for number, names in enumerate((["b.png", "a.jpg"], ["c.jpg", "0.png", "y.jpg"])):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            for name in names:
                archive.add(copies / name, name)
    detector = Detector(model_path, whole_image=True)
    work = engine.planned(detector, blocks.found([str(tmp_path / f"{n}.tar") for n in (0, 1)], 10**9)[0], True)
    model = detector.model.card.name, detector.model.sha256
    job = Job(detector.arguments, model, {}, 60.0, str(tmp_path / "out"), False, None)
    monkeypatch.setattr("faceauth.scale.copies.answers", lambda actor, job, jobs, *more: map(actor(job), jobs))
    first, other = given = tasks(job, work, 1, "")
    assert [[os.path.basename(c.path) for c, _ in task.copies.get(1, [])] for task in given] == [["c.jpg", "y.jpg"], []]
    judging = Judge(job)
    tally = judging(first) + judging(other)
    assert tally["images"] == 5
    assert doubles(tmp_path / "out") == {"c.jpg": "a.jpg", "y.jpg": "a.jpg"}
    alone = {os.path.basename(v.path): v for v in judged_once(detector, sorted(map(str, copies.glob("[abc].*"))))}
    told = {os.path.basename(row["path"]): row for row in rows(tmp_path / "out")}
    for name in ("a.jpg", "c.jpg"):
        assert tuple(told[name]["box"]) == alone[name].faces[0].box
        assert told[name]["path_id"] == path_id(told[name]["path"])
    (tmp_path / "0.tar").write_bytes((tmp_path / "0.tar").read_bytes()[:700])
    shutil.rmtree(tmp_path / "out")
    assert judging(first)["unreadable"] == 3
    errors = {os.path.basename(row["path"]): row["error"] for row in rows(tmp_path / "out")}
    assert errors["c.jpg"] == errors["y.jpg"] and "could be read before" in errors["c.jpg"]


def test_tar_shards_and_parquet_columns_are_inputs(cluster, model_path, tmp_path):
    import pyarrow as pa

    shards = tmp_path / "shards"
    shards.mkdir()
    data = [encoded(picture((shade,) * 3)) for shade in (0, 255)]
    with tarfile.open(shards / "a.tar", "w") as archive:
        for number, one in enumerate(data):
            info = tarfile.TarInfo(f"{number}.png")
            info.size = len(one)
            archive.addfile(info, io.BytesIO(one))
        archive.addfile(tarfile.TarInfo("0.txt"))
    (shards / "torn.tar").write_bytes((shards / "a.tar").read_bytes()[:560])
    pq.write_table(pa.table({"n": [1, 2], "image": [{"bytes": one} for one in data]}), shards / "b.parquet")
    pq.write_table(pa.table({"n": [1, 2]}), shards / "none.parquet")
    code, _, err = with_ray(model_path, shards, "-o", f"{tmp_path}/out/")
    assert code == 3 and "passed over" not in err, err
    found = {os.path.relpath(r["path"], shards): (r["label"], r["error"]) for r in rows(tmp_path / "out")}
    assert {n: e for n, e in found.items() if e[1] is None} == {
        "a.tar/0.png": ("real", None), "a.tar/1.png": ("fake", None),
        "b.parquet/0": ("real", None), "b.parquet/1": ("fake", None),
    }  # fmt: skip
    assert "no column of image bytes" in found["none.parquet"][1]
    assert "cannot be read on" in found["torn.tar"][1]


def test_answers_are_in_order(cluster):
    def start(seconds):
        return lambda number: number if number else (time.sleep(seconds), number)[1]

    assert list(engine.answers(start, 3, [0, 1, 2, 3], 2, "")) == [0, 1, 2, 3]


def actors():
    """The processes, started by this one, of the detector's actors."""
    told = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    table = [line.split(None, 2) for line in told.splitlines()[1:]]
    ours = {str(os.getpid())}
    while more := {pid for pid, parent, _ in table if parent in ours} - ours:
        ours |= more
    return [int(pid) for pid, _, name in table if pid in ours and name.startswith("ray::MapWorker(Map(Actor))")]


@pytest.mark.parametrize("more", [[], ["--dedupe"]])  # which hashes the pictures first
def test_a_killed_actor_loses_and_doubles_nothing(cluster, bucket, photos, small, model_path, tmp_path, more):
    output = tmp_path / "out"
    killed = []

    def kill():
        assert bucket.reached.wait(300)
        assert len(list(output.glob("part-*.parquet"))) == (0 if more else 2)
        killed.extend(actors())
        for process in killed:
            os.kill(process, signal.SIGKILL)
        bucket.gate.set()

    thread = threading.Thread(target=kill)
    thread.start()
    code, _, err = with_ray(model_path, f"s3://bucket/photos?{bucket.options}", "-o", f"{output}/", *more)
    thread.join()
    assert len(killed) == 1
    assert code == 3 and "8 images" in err, err
    assert judge(model_path, photos, "-o", tmp_path / "one.parquet")[0] == 3
    assert rows(output) == in_bucket(rows(tmp_path / "one.parquet"))


DRIVER = """
import sys
from faceauth.scale import blocks
blocks.IMAGES = 3
from faceauth.__main__ import main
main()
"""


def test_a_killed_driver_is_gone_on_with(cluster, bucket, photos, model_path, tmp_path):
    output = tmp_path / "out"
    images = f"s3://bucket/photos?{bucket.options}"
    words = ["detect", images, "-o", f"{output}/", "--engine", "ray", "--whole-image", "--model", str(model_path)]
    command = [sys.executable, "-c", DRIVER, *words, "--workers", "1"]
    driver = subprocess.Popen([*command, "--address", cluster], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: len(list(output.glob("part-*.parquet"))) == 2)
    finally:
        driver.kill()
        driver.wait()
    bucket.gate.set()
    kept = {p: p.stat().st_mtime_ns for p in output.iterdir()}
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert len(done.stderr.splitlines()) == 3 and "2 of 3 parts" in done.stderr and "8 images" in done.stderr
    assert all(p.stat().st_mtime_ns == changed for p, changed in kept.items())
    assert judge(model_path, photos, "-o", tmp_path / "one.parquet")[0] == 3
    assert rows(output) == in_bucket(rows(tmp_path / "one.parquet"))


def test_a_store_that_answers_503_for_a_while(cluster, bucket, photos, small, model_path, tmp_path):
    from pyarrow import fs

    bucket.gate.set()
    bucket.away = range(6, 30)
    code, _, err = with_ray(
        model_path, f"s3://bucket/photos?{bucket.options}", "-o", f"s3://bucket/out/?{bucket.options}"
    )
    assert code == 3, err
    assert bucket.count > 30
    assert judge(model_path, photos, "-o", tmp_path / "one.parquet")[0] == 3
    system, _ = fs.FileSystem.from_uri(f"s3://bucket/?{bucket.options}")
    assert rows("bucket/out", system) == in_bucket(rows(tmp_path / "one.parquet"))


def test_what_stands_against_an_actor_is_one_line(cluster, photos, model_path, tmp_path, monkeypatch):
    elsewhere = property(lambda self: self._arguments | {"model": "/nowhere/model.onnx"})
    monkeypatch.setattr(Detector, "arguments", elsewhere)
    code, _, err = with_ray(model_path, photos, "-o", f"{tmp_path}/o/")
    assert code == 1 and err.startswith("error: cannot read the model '/nowhere/model.onnx'"), err


def test_a_block_that_failed_leaves_nothing_to_the_next(photos, model_path, tmp_path, monkeypatch):
    monkeypatch.setitem(vars(sys.modules["__main__"]), "__file__", "kept for the tests that follow")
    detector = Detector(model_path, whole_image=True)
    full = [False, False, True]

    class Full(ParquetWriter):
        def write(self, row):
            if full and full.pop(0):
                raise OSError(28, "No space left on device")
            super().write(row)

    monkeypatch.setattr("faceauth.scale.judge.ParquetWriter", Full)
    judge = Judge(Job(detector.arguments, ("m", "f" * 64), {}, 60.0, str(tmp_path / "out"), False, None))

    def judged(*inputs):
        return judge(Task(blocks.Block(0, "part-0", inputs)))

    inputs = [blocks.Input(str(path), str(path)) for path in sorted(photos.glob("?.png"))]
    with pytest.raises(FaceAuthError, match="No space left"):
        judged(*inputs)
    tally = judged(*inputs[1:], inputs[0])
    assert tally["images"] == 7
    told = {row["path"]: row["image_sha256"] for row in rows(tmp_path / "out")}
    assert told == {one.path: hashlib.sha256(Path(one.path).read_bytes()).hexdigest() for one in inputs}


def test_a_store_is_asked_again_and_one_that_stays_away_or_refuses_is_one_line(monkeypatch):
    def fails(text):
        def work():
            raise OSError(text)

        return work

    answers = [fails("503"), fails("503"), lambda: "at last"]
    monkeypatch.setattr(storage, "FIRST", 0.01)
    assert storage.retried(lambda: answers.pop(0)()) == "at last"
    with pytest.raises(storage.Refused, match="refuses"):
        storage.retried(fails("AWS Error ACCESS_DENIED during GetObject"))
    monkeypatch.setattr(storage, "PATIENCE", 0.0)
    with pytest.raises(FaceAuthError, match="does not answer"):
        storage.retried(fails("AWS Error SLOW_DOWN (HTTP status 503)"))


def test_addresses_are_those_of_pyarrow_and_fsspec(photos, tmp_path):
    for address in (photos, f"file://{photos}", f"local://{photos}"):
        assert [os.path.basename(path) for path, _, _ in storage.Storage(str(address)).files()] == sorted(
            p.name for p in photos.iterdir()
        )
    with pytest.raises(UsageError, match="nothing"):
        storage.Storage("nothing://bucket")


@pytest.mark.parametrize(
    "more",
    [
        ["--engine", "ray"],
        ["--engine", "ray", "-o", "o.parquet"],
        ["--engine", "dask", "-o", "o/"],
        ["--engine", "ray", "-o", "o/", "--resume", "--overwrite"],
        ["--address", "x"],
    ],
)
def test_what_does_not_go_together_is_refused(photos, model_path, tmp_path, more):
    code, _, err = faceauth("detect", photos, "--model", model_path, *more, cwd=tmp_path)
    assert code == 2 and "hint" in err


def test_a_cluster_that_is_not_there_is_one_line(photos, model_path, tmp_path):
    code, _, err = with_ray(model_path, photos, "-o", f"{tmp_path}/o/", "--address", "127.0.0.1:9")
    assert code == 1 and "no Ray cluster at 127.0.0.1:9" in err


def test_parts_in_the_way_are_refused(photos, model_path, tmp_path):
    output = tmp_path / "o"
    output.mkdir()
    (output / "part-00000-0.parquet").write_text("x")
    given = [photos, "-o", f"{output}/"]
    assert "--resume" in with_ray(model_path, *given)[2]
    assert "of other images or settings" in with_ray(model_path, *given, "--resume")[2]
    (output / "precious").write_text("x")
    assert "other files" in with_ray(model_path, *given, "--overwrite")[2]
    assert len(list(output.iterdir())) == 2


def test_ray_is_named_where_it_is_not_installed(photos, model_path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = with_ray(model_path, photos, "-o", f"{tmp_path}/o/")
    assert code == 1 and "pip install 'faceauth[scale]'" in err, err


# --- the laboratory's jobs ---


@pytest.fixture
def lab():
    """The command, with Ray and without, in a folder whose files it names by relative paths."""
    pytest.importorskip("torch")

    def run(folder, command, ray=()):
        return faceauth("lab", *command.split(), *ray, cwd=folder)

    return run


RAY = ("--engine", "ray", "--workers", "1")


def test_a_data_set_prepared_on_ray_is_that_of_processes(cluster, lab, tmp_path):
    for name, first, fake in (("real", 0, False), ("fake", 1000, True)):
        lab_trees.plain(tmp_path / name, 12, first, fake)
    (tmp_path / "real" / "003.png").write_bytes(b"no picture")
    told = []
    for output, ray in (("plain", ()), ("many", RAY)):
        code, _, err = lab(tmp_path, f"prepare {output} --data cam=real:real --data gan=fake:fake --count 16", ray)
        assert code == 0, err
        told.append((err, {p.relative_to(tmp_path / output): p for p in (tmp_path / output).rglob("*") if p.is_file()}))
    (said, plain), (again, many) = told
    assert said == again and plain.keys() == many.keys() and len(plain) > 16
    assert all(plain[name].read_bytes() == many[name].read_bytes() for name in plain if name.suffix != ".xlsx")
    from faceauth.lab.data.dataset import read_dataset  # with pydantic

    one, other = (read_dataset(tmp_path / output / "manifest.xlsx") for output in ("plain", "many"))
    assert one.rows == other.rows


def test_scores_by_ray_are_those_of_processes(cluster, lab, model_path, tmp_path):
    pd = pytest.importorskip("pandas")
    write_frozen(tmp_path, 4, ("clean", "web"))
    for output, ray in (("plain", ()), ("many", RAY)):
        words = f"score config.toml {model_path} -o {output}.parquet --cache {output}"
        code, _, err = lab(tmp_path, words, ray)
        assert code == 0, err
    one, other = (pd.read_parquet(tmp_path / f"{output}.parquet") for output in ("plain", "many"))
    pd.testing.assert_frame_equal(one, other)
    assert one["logit"].notna().any() and one["model"].nunique() > 1
    broken = tmp_path / "data" / "lake-0.png"
    broken.write_bytes(broken.read_bytes()[:300])
    said = [lab(tmp_path, f"score config.toml -o x.parquet --cache new{len(ray)}", ray) for ray in ((), RAY)]
    assert said[0] == said[1] and said[0][0] == 1 and "lake-0.png" in said[0][2]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--engine", "dask"), "'dask' is not known"),
        (("--address", "x"), "--address is that of a Ray cluster"),
        (("--engine", "ray", "--address", "127.0.0.1:9"), "no Ray cluster at 127.0.0.1:9"),
    ],
)
def test_the_laboratory_says_what_is_wrong_with_an_engine(lab, tmp_path, more, said):
    code, _, err = lab(tmp_path, "prepare o --data cam=real:real", more)
    assert code in {1, 2} and err.startswith("error: ") and said in err and "hint: " in err


def test_a_machine_without_the_folder_is_one_line(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("os.getcwd", lambda: "/nowhere")
    with pytest.raises(DataError, match="no folder '/nowhere' on"):
        list(parallel(os.path.basename, None, [1, 2], OnRay(1), "test"))
