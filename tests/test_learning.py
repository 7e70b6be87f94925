import json
import os
import resource
import signal
import subprocess
import sys
import threading
from unittest import mock

import filelock
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from attributed import BLUE, COLOURS, GREEN, RED, coloured, write_colour_model, write_pictures
from command_line import faceauth
from conftest import PORTRAIT, ROOT, encoded
from faceauth import images, learned, learning
from faceauth.attribution import Kind, Taught, pack
from faceauth.detector import Detector
from faceauth.errors import UsageError
from faceauth.learning import forget


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_colour_model(tmp_path_factory.mktemp("colour") / "colour.onnx")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "home" / "learned.json"


@pytest.fixture
def red(tmp_path):
    return write_pictures(tmp_path / "red", RED, 20)


def learn(name, folder, model, file, *more):
    return faceauth("learn", name, folder, "--model", model, "--learned", file, "--whole-image", *more)


def named(model, file, colour, count=10):
    verdicts = Detector(model, learned=file, whole_image=True).detect([coloured(colour, 900 + i) for i in range(count)])
    return [v.faces[0].generator for v in verdicts]


@pytest.mark.slow
def test_learn_names_new_pictures_and_forget_undoes_it(model, file, red):
    before = named(model, False, RED)
    assert "rust" not in before
    code, out, _ = learn("rust", red, model, file, "--family", "gan")
    assert code == 0
    assert "learned from 20 pictures" in out
    assert named(model, file, RED).count("rust") >= 9
    assert "rust" not in named(model, file, COLOURS["lamp"]) + named(model, file, COLOURS["night"])
    listed = faceauth("model", "info", model, "--learned", file)[1]
    assert "rust (fake, gan)" in listed
    assert "20 pictures" in listed
    assert "recognised when left out" in listed
    assert faceauth("forget", "rust", "--learned", file)[0] == 0
    assert named(model, file, RED) == before


def test_only_a_mean_is_kept(model, file, red):
    learn("rust", red, model, file)
    (entry,) = json.loads(file.read_text())["learned"]
    assert len(entry["mean"]) == len(pack(np.zeros(3)))
    assert str(red) not in file.read_text()


def test_learn_then_forget_leaves_the_file_as_it_was(model, file, red, tmp_path):
    learn("rust", red, model, file)
    before = file.read_bytes()
    assert learn("sea", write_pictures(tmp_path / "blue", BLUE, 12), model, file)[0] == 0
    assert file.read_bytes() != before
    assert faceauth("forget", "sea", "--learned", file)[0] == 0
    assert file.read_bytes() == before


@pytest.mark.slow
def test_photos_of_a_taught_camera_are_no_longer_called_fake(model, file, tmp_path):
    sky = (140, 190, 255)  # bright, so fake to this network
    folder = write_pictures(tmp_path / "sky", sky, 20)
    pictures = [coloured(sky, 900 + i) for i in range(10)]
    assert Detector(model, learned=False, whole_image=True).scores(pictures).min() > 0.5
    assert learn("sky", folder, model, file, "--real")[0] == 0
    assert Detector(model, learned=file, whole_image=True).scores(pictures).max() < 0.5
    bulbs = [coloured(COLOURS["bulb-a"], 900 + i) for i in range(5)]
    alone, beside = (Detector(model, learned=which, whole_image=True).scores(bulbs) for which in (False, file))
    assert beside == pytest.approx(alone, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("label", "colour"), [("real", (140, 190, 255)), ("fake", RED)])
def test_the_recheck_is_decided_with_what_was_taught(model, file, tmp_path, label, colour):
    real = ["--real"] if label == "real" else []
    assert learn("new", write_pictures(tmp_path / "new", colour, 20), model, file, *real)[0] == 0
    image = coloured(colour, 900)
    plain, detector = (Detector(model, threshold=0.7, learned=which, whole_image=True) for which in (False, file))
    outputs = plain.run_faces(image, [None])
    part = detector.attributor.parts(outputs.embedding)[0, 0]
    first = float(plain.model.card.calibration(outputs.logit)[0])
    (before,), (after,) = (d.detect(image)[0].faces for d in (plain, detector))
    assert before.score == pytest.approx(first)
    if label == "real":  # what would have reached the threshold no longer does, and no view is tried
        assert (before.label, before.stability) == ("fake", 1.0)
        assert (after.stability, after.score) == (None, pytest.approx(first * (1 - part)))
    else:  # what now reaches the threshold is tried again, and what was taught takes the same part of each view
        assert (before.stability, after.label, after.stability) == (None, "fake", 1.0)
        assert after.score == pytest.approx(first * (1 - part) + part)
    assert detector.scores(image) == [after.score]
    shares = dict(after.generators)
    assert shares["camera"] + (shares["new"] if label == "real" else 0) == pytest.approx(1 - after.score, abs=1e-6)


def test_pictures_without_a_face_are_left_out_and_named(model, file, red):
    code, out, err = faceauth("learn", "rust", red, "--model", model, "--learned", file)
    assert (code, out) == (1, "")
    assert "0 pictures are too few" in err
    assert "no face was found in 20" in err
    assert not file.exists()


def test_of_many_left_out_the_first_are_named():
    many = tuple(f"{n}.png" for n in range(12))
    lesson = learning.Lesson(mock.Mock(), many, many[:2], many, 0, 0, ())
    assert list(lesson.lines()) == [
        *(f"not used: {n}.png" for n in range(10)), "not used: 2 more",
        *(f"left out, shows the same as another: {n}.png" for n in range(2)),
        *(f"left out, no face found: {n}.png" for n in range(10)), "left out, no face found: 2 more",
    ]  # fmt: skip


def test_pictures_that_are_taken_whole_are_counted(model, file, red):
    assert "no face found in 20: taken whole" in learn("rust", red, model, file)[2]


def test_detect_says_what_it_used(model, file, red, tmp_path):
    learn("rust", red, model, file)
    _, out, err = faceauth("detect", red / "000.png", "--model", model, "--learned", file, "--whole-image")
    row = json.loads(out)
    assert row["generator"] == "rust"
    assert sum(row["generators"].values()) == pytest.approx(1, abs=0.001)
    assert "with what was learned: rust" in err
    _, out, err = faceauth(
        "detect", red / "000.png", "--model", model, "--learned", file, "--no-learned", "--whole-image"
    )
    assert "rust" not in out + err
    other = write_colour_model(tmp_path / "other.onnx", temperature=2.0)
    _, out, err = faceauth("detect", red / "000.png", "--model", other, "--learned", file, "--whole-image")
    assert json.loads(out)["generator"] != "rust"
    assert "not used, learned with another model file: rust" in err


def test_the_users_own_file_is_found_without_being_named(model, red, tmp_path):
    with mock.patch.dict(os.environ, {"FACEAUTH_HOME": str(tmp_path / "own")}):
        assert faceauth("learn", "rust", red, "--model", model, "--whole-image")[0] == 0
        assert (
            json.loads(faceauth("detect", red / "001.png", "--model", model, "--whole-image")[1])["generator"] == "rust"
        )
    assert (tmp_path / "own" / "learned.json").is_file()


def refused(*arguments, code, says):
    status, out, err = learn(*arguments)
    assert status == code
    assert out == ""
    assert "Traceback" not in err
    assert says in err


@pytest.mark.slow
def test_what_cannot_be_learned_is_refused_and_the_file_stays(model, file, red, tmp_path):
    learn("rust", red, model, file)
    before = file.read_bytes()
    (tmp_path / "empty").mkdir()
    refused("a", tmp_path / "empty", model, file, code=2, says="no images")
    refused("a", tmp_path / "missing", model, file, code=2, says="no folder")
    refused("a", "", model, file, code=2, says="a folder is empty")  # and not the working folder
    refused("a", write_pictures(tmp_path / "few", GREEN, 9), model, file, code=1, says="9 pictures are too few")
    for name in ("rust", "lamp", "gan", "unknown", "camera", "night"):
        refused(name, red, model, file, code=2, says="in use")
    for name in ("", " a", "a\nb", "x" * 61):
        refused(name, red, model, file, code=2, says="is no name")
    refused("a", red, model, file, "--family", "difusion", code=2, says="did you mean 'diffusion'")
    refused("a", red, model, file, "--real", "--family", "gan", code=2, says="--family")
    assert file.read_bytes() == before
    assert sorted(p.name for p in file.parent.iterdir()) == ["learned.json"]


@pytest.mark.slow
def test_the_same_picture_again_counts_once(model, file, tmp_path):
    folder = write_pictures(tmp_path / "same", GREEN, 6)
    for i in range(20):
        (folder / f"copy{i}.png").write_bytes((folder / "000.png").read_bytes())
        coloured(GREEN, 1).save(folder / f"saved-again{i}.png", compress_level=i % 9)
    refused("green", folder, model, file, code=1, says="6 pictures are too few")
    assert not file.exists()


def test_different_pictures_with_one_hash_are_not_one(model, tmp_path):
    """About one portrait in 500 shares its hash with a stranger, so a hash alone does not make a copy."""
    pictures = []
    for i in range(12):
        right = Image.new("RGB", (32, 64), (200, 20 + 12 * i, 30))
        picture = Image.new("RGB", (64, 64))
        picture.paste(right, (32, 0))
        picture.save(tmp_path / f"{i}.png")
        pictures.append(picture)
    assert len({images.dhash(picture) for picture in pictures}) == 1
    seen = learning._embed(Detector(model, whole_image=True), sorted(map(str, tmp_path.glob("*.png"))))
    assert len(seen.embeddings) == 12
    assert not seen.duplicates


def test_a_portrait_saved_again_is_the_same_picture():
    portrait = images.load(PORTRAIT).image
    small = portrait.resize((256, 300))
    again = images.load(encoded(small, "JPEG", quality=60)).image
    assert (images.dhash(portrait) ^ images.dhash(again)).bit_count() <= images.NEAR
    assert (images.dhash(portrait) ^ images.dhash(portrait.transpose(0))).bit_count() > images.NEAR


def test_a_mixed_folder_is_refused(model, file, tmp_path):
    folder = write_pictures(tmp_path / "mixed", COLOURS["lamp"], 8)
    write_pictures(folder, COLOURS["night"], 8, first=50)
    refused("mixed", folder, model, file, code=1, says="cannot be told apart")
    assert not file.exists()


def test_pictures_of_a_generator_that_is_known_are_refused(model, file, tmp_path):
    folder = write_pictures(tmp_path / "lamp", COLOURS["lamp"], 20, first=40)
    refused("lamp-2", folder, model, file, code=1, says="pictures would be recognised; of the others")
    says = "would come off the pictures' scores, and 10% is the least; of 20 pictures 20 like lamp to this model"
    refused("lamp-2", folder, model, file, "--real", code=1, says=says)


def test_pictures_of_a_class_that_was_learned_are_like_that_class(model, file, red):
    assert learn("rust", red, model, file)[0] == 0
    refused("copper", red, model, file, code=1, says="of the others 20 like rust to this model")


def test_unreadable_files_are_named_and_passed_over(model, file, red):
    (red / "broken.png").write_bytes(b"\x89PNG nothing")
    code, _, err = learn("rust", red, model, file)
    assert code == 0
    assert "not used:" in err
    assert "broken.png" in err


@pytest.mark.parametrize("count", [8, 20])  # too few, and of a generator that is known
def test_a_refusal_names_what_was_left_out(model, file, tmp_path, count):
    folder = write_pictures(tmp_path / "lamp", COLOURS["lamp"], count, first=40)
    (folder / "broken.png").write_bytes(b"\x89PNG nothing")
    (folder / "same.png").write_bytes((folder / "040.png").read_bytes())
    code, out, err = learn("lamp-2", folder, model, file)
    assert (code, out) == (1, "")
    assert f"not used: {folder / 'broken.png'}: " in err
    assert f"left out, shows the same as another: {folder / 'same.png'}\n" in err
    assert f"no face found in {count}: taken whole" in err
    assert "no face found: " in faceauth("learn", "a", folder, "--model", model, "--learned", file)[2]


@pytest.mark.slow
def test_at_most_fifty_are_taken(model, file, tmp_path):
    code, out, err = learn("rust", write_pictures(tmp_path / "many", RED, 55), model, file)
    assert code == 0
    assert "from 50 pictures" in out
    assert "5 more" in err


def test_a_model_without_prototypes_says_what_is_missing(model_path, file, red):
    refused("rust", red, model_path, file, code=1, says="faceauth lab prototypes")
    assert "holds no prototypes" in faceauth("model", "info", model_path)[1]
    assert Detector(model_path, whole_image=True).detect(red)[0].faces[0].generator is None


def test_forget_says_when_there_is_nothing(model, file, red):
    learn("rust", red, model, file)
    code, _, err = faceauth("forget", "rsut", "--learned", file)
    assert code == 2
    assert "did you mean 'rust'" in err


@pytest.mark.slow
def test_a_full_disk_leaves_the_file_as_it_was(model, file, red, tmp_path):
    """A real limit on what a process may write, in a process of its own."""
    learn("rust", red, model, file)
    before = file.read_bytes()
    blue = write_pictures(tmp_path / "blue", BLUE, 12)

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50,) * 2)

    command = [
        sys.executable,
        "-m",
        "faceauth",
        "learn",
        "sea",
        blue,
        "--model",
        model,
        "--learned",
        file,
        "--whole-image",
    ]
    done = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, check=False, preexec_fn=limit, cwd=ROOT
    )
    assert done.returncode == 2
    assert "is the disk full" in done.stderr
    assert "Traceback" not in done.stderr
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir()] == ["learned.json"]


def test_a_failing_fsync_or_replace_leaves_the_file_as_it_was(file):
    taught = entry("a")
    learned.write(file, [taught])
    before = file.read_bytes()
    for broken in ("fsync", "replace"):
        with (
            mock.patch.object(os, broken, side_effect=OSError(28, "No space left on device")),
            pytest.raises(UsageError),
        ):
            learned.write(file, [taught, entry("b")])
        assert file.read_bytes() == before
        assert [p.name for p in file.parent.iterdir()] == ["learned.json"]


def entry(name, **changes):
    values = dict(kind=Kind(name, "fake", "gan", name), mean=[0.5, 1.0, -2.0], count=12, model_sha256="f" * 64,
                  date="2026-01-31", log_weight=-0.5, recall=0.75, taken=0.0125)  # fmt: skip
    return Taught(**(values | changes))


ADD = """
import sys
from pathlib import Path
sys.path.insert(0, "tests")
from faceauth import learned
from test_learning import entry
print("ready", flush=True)
sys.stdin.readline()
for i in range(5):
    with learned.changing(Path(sys.argv[1])):
        learned.write(Path(sys.argv[1]), [*learned.read(Path(sys.argv[1])), entry(f"{sys.argv[2]}-{i}")])
"""
HOLD = """
import sys, time
from pathlib import Path
from faceauth import learned
with learned.changing(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def started(code, *arguments):
    """A process that has said that it stands where the test wants it."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout.readline()
    return process


@pytest.mark.slow
def test_processes_that_change_the_file_at_once_lose_nothing(file):
    processes = [started(ADD, file, name) for name in "abcdef"]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert {t.kind.name for t in learned.read(file)} == {f"{name}-{i}" for name in "abcdef" for i in range(5)}
    assert [p.name for p in file.parent.iterdir()] == ["learned.json"]


@pytest.mark.slow
def test_a_process_that_holds_the_file_is_waited_for_and_one_that_was_killed_is_not(file, monkeypatch):
    learned.write(file, [entry("a")])
    holder = started(HOLD, file)
    try:
        monkeypatch.setattr(learned, "PATIENCE", 0.3)
        with pytest.raises(UsageError, match="another faceauth is writing") as found:
            forget("a", file)
        assert "wait until it is done" in found.value.hint
        assert [t.kind.name for t in learned.read(file)] == ["a"]
        monkeypatch.setattr(learned, "PATIENCE", 30.0)
        threading.Timer(0.3, holder.kill).start()
        assert forget("a", file) == 1
    finally:
        holder.kill()
        holder.communicate()
    assert [p.name for p in file.parent.iterdir()] == ["learned.json"]


@pytest.mark.slow
def test_learn_does_not_write_what_another_process_holds(model, file, red, monkeypatch):
    monkeypatch.setattr(learned, "PATIENCE", 0.3)
    learned.write(file, [entry("a")])
    before = file.read_bytes()
    holder = started(HOLD, file)
    try:
        code, _, err = learn("rust", red, model, file)
    finally:
        holder.kill()
        holder.communicate()
    assert code == 2
    assert "another faceauth is writing" in err
    assert file.read_bytes() == before
    assert learn("rust", red, model, file)[0] == 0
    assert [t.kind.name for t in learned.read(file)] == ["a", "rust"]


def test_a_name_that_another_process_learns_meanwhile_is_not_replaced(model, file, red, monkeypatch):
    own, estimate = Detector(model).model.sha256, learning.estimate

    def overtaken(*arguments):
        learned.write(file, [entry("rust", model_sha256=theirs)])
        return estimate(*arguments)

    monkeypatch.setattr(learning, "estimate", overtaken)
    theirs = own
    refused("rust", red, model, file, code=2, says="the name 'rust' is in use")
    assert [t.count for t in learned.read(file)] == [12]
    forget("rust", file)
    theirs = "f" * 64  # of another model: both stay
    assert learn("rust", red, model, file)[0] == 0
    assert [t.model_sha256 for t in learned.read(file)] == [theirs, own]


def test_a_file_that_cannot_be_locked_is_one_clear_line(file, monkeypatch):
    monkeypatch.setattr(filelock.FileLock, "acquire", mock.Mock(side_effect=OSError(13, "Permission denied")))
    with pytest.raises(UsageError, match="Permission denied"), learned.changing(file):
        pytest.fail("it was not locked")


NAMES = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=20)
FREE_NAMES = NAMES.filter(lambda name: name not in learned.RESERVED)
ROWS = st.tuples(FREE_NAMES, st.sampled_from(["real", "fake"]), st.integers(10, 50), st.floats(-9, 0))


@given(st.lists(ROWS, unique_by=lambda row: row[0]))
@settings(max_examples=30, deadline=None)
def test_the_file_gives_back_what_was_written(tmp_path_factory, rows):
    file = tmp_path_factory.mktemp("learned") / "learned.json"
    written = [
        entry("", kind=Kind(n, label, "real" if label == "real" else "gan", n), count=count, log_weight=weight)
        for n, label, count, weight in rows
    ]
    learned.write(file, written)
    back = learned.read(file)
    assert [(t.kind, t.count, t.log_weight, t.date) for t in back] == [
        (t.kind, t.count, t.log_weight, t.date) for t in written
    ]
    assert all(t.mean.tolist() == [0.5, 1.0, -2.0] for t in back)


def good():
    return {"format": 1, "learned": [learned._record(entry("a"))]}


@pytest.mark.parametrize("text", [
    "", "{", "[]", "null", '"x"', '{"format": 2, "learned": []}', '{"format": 1}', '{"format": 1, "learned": [1]}',
    '{"format": 1, "learned": {"a": 1}}', "[" * 100_000, "\udcff",
    *(json.dumps(good() | {"learned": [good()["learned"][0] | change]}) for change in (
        {"mean": "????"}, {"mean": 7}, {"mean": "AADAfw=="}, {"label": "edited"}, {"name": ""}, {"name": "\x1b[31m"},
        {"name": "x" * 1000}, {"images": 0}, {"images": "many"}, {"recall": 2}, {"log_weight": float("nan")},
        {"taken": None}, {"family": "a\nb"}, {"name": "camera"}, {"name": "unknown"}, {"name": "gan"}, {"name": 7},
        {"log_weight": 0.1}, {"log_weight": -61}, {"log_weight": True}, {"images": 12.0}, {"images": 10**30},
        {"images": float("inf")}, {"family": "real"}, {"label": "real"}, {"model": "x"}, {"date": "yesterday"},
        {"date": "\x1b[31m"}, {"mean": ""} | {"recall": float("nan")},
    )),
    json.dumps(good() | {"learned": good()["learned"] * 2}), json.dumps(good()).replace('"images": 12', '"images": 1e400'),
    '{"format": 1, "learned": ' * 100_000,
])  # fmt: skip
def test_a_hostile_file_is_one_clear_line(model, file, text):
    file.parent.mkdir(parents=True)
    file.write_text(text, errors="surrogateescape")
    with pytest.raises(UsageError, match="not a file of what faceauth has learned") as found:
        Detector(model, learned=file)
    assert "detect --no-learned" in found.value.hint  # learn and forget have no such option
    assert str(file) in found.value.message
    assert len(str(found.value)) < 500


def test_a_file_that_is_named_has_to_be_there(model, red, tmp_path):
    typo = tmp_path / "typo.json"
    with pytest.raises(UsageError, match=r"no file of learned classes .*typo\.json"):
        Detector(model, learned=typo)
    for arguments in (["detect", red / "000.png", "--model", model], ["model", "info", model], ["forget", "rust"]):
        code, out, err = faceauth(*arguments, "--learned", typo)
        assert (code, out) == (2, "")
        assert "typo.json" in err
    assert Detector(model).attributor.taught == ()
    assert not typo.exists()


def test_rows_say_what_was_learned(model, file, red):
    learn("rust", red, model, file)
    with_it, without = (Detector(model, learned=which, whole_image=True) for which in (file, False))
    (row,), (plain,) = (d.detect(red / "000.png")[0].rows() for d in (with_it, without))
    assert row["learned"] == ["rust"]
    assert row["learned_sha256"] == learned.digest(learned.read(file))
    assert (plain["learned"], plain["learned_sha256"]) == ([], None)


def test_the_digest_depends_on_what_was_learned_and_not_on_the_order():
    one, other = entry("a"), entry("b")
    assert learned.digest([one, other]) == learned.digest([other, one])
    assert len({learned.digest(t) for t in ([], [one], [other], [one, other], [entry("a", count=13)])}) == 5


def test_a_huge_file_is_not_read(model, file):
    file.parent.mkdir(parents=True)
    with open(file, "wb") as stream:
        stream.truncate(learned.LARGEST + 1)
    with pytest.raises(UsageError, match="more than"):
        Detector(model, learned=file)


def test_a_folder_in_the_place_of_the_file(model, tmp_path):
    with pytest.raises(UsageError):
        Detector(model, learned=tmp_path)


def test_an_entry_of_another_width_is_refused(model, file):
    own = Detector(model, learned=False).model.sha256
    learned.write(file, [entry("a", mean=[1.0, 2.0], model_sha256=own)])
    with pytest.raises(UsageError, match="2 values, not 3"):
        Detector(model, learned=file)
