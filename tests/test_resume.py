"""--resume: the output is what an undisturbed run gives, and the exit code is that of the whole output."""

import json
import os
import time
import tracemalloc

import pytest

from command_line import faceauth, lasting, read_rows
from conftest import make_card, picture, write_model
from faceauth.errors import UsageError
from faceauth.output import FileOutput, Settings, rows
from faceauth.output.resume import Kept
from faceauth.verdict import Face, Verdict


@pytest.fixture
def judged(folder, model_path):
    """A folder, its output, and the command that made it and goes on with it."""
    target = folder / "o.jsonl"

    def go(*more, model=model_path, what=folder):
        return faceauth("detect", what, "--whole-image", "--model", model, "-o", target, *more)

    assert go()[0] == 0
    return folder, target, go


def test_what_is_new_is_judged_and_nothing_twice(judged):
    folder, target, go = judged
    picture((3, 3, 3)).save(folder / "new.png")
    code, _, err = go("--resume")
    assert code == 0
    assert "2 of 4 images are in the output already" in err  # the last one may have been broken off
    assert "4 images" in err
    assert sorted(os.path.basename(r["path"]) for r in read_rows(target)) == [
        "bright.png",
        "dark.jpg",
        "grey.webp",
        "new.png",
    ]


@pytest.mark.parametrize(("fail_on", "code"), [("fake", 4), ("uncertain", 4), ("real", 4)])
def test_the_exit_code_is_that_of_all_rows(judged, fail_on, code):
    _, _, go = judged
    assert go("--resume", "--fail-on", fail_on)[0] == code
    assert go("--resume", "--fail-on", fail_on)[0] == code


def test_a_row_with_an_error_is_tried_again_and_counts_until_it_is_none(folder, model_path):
    (folder / "a.png").write_bytes(b"half copied")
    arguments = ["detect", folder, "--model", model_path, "-o", folder / "o.jsonl"]
    assert faceauth(*arguments)[0] == 3
    code, _, err = faceauth(*arguments, "--resume")
    assert code == 3
    assert "1 that could not be read" in err
    assert len(read_rows(folder / "o.jsonl")) == 4
    picture((255, 255, 255)).save(folder / "a.png")
    assert faceauth(*arguments, "--resume")[0] == 0
    found = read_rows(folder / "o.jsonl")
    assert len(found) == 4
    assert not any(r["error"] for r in found)


def test_an_error_outside_this_run_stays_in_the_output_and_in_the_exit_code(folder, model_path):
    (folder / "a.png").write_bytes(b"half copied")
    arguments = ["--model", model_path, "-o", folder / "o.jsonl"]
    assert faceauth("detect", folder, *arguments)[0] == 3
    assert faceauth("detect", folder / "dark.jpg", *arguments, "--resume")[0] == 3
    assert len(read_rows(folder / "o.jsonl")) == 4


def test_a_replaced_picture_is_judged_again(judged):
    folder, target, go = judged
    before = {r["path"]: r for r in read_rows(target)}
    picture((0, 0, 0)).save(folder / "bright.png")
    _, _, err = go("--resume")
    after = {r["path"]: r for r in read_rows(target)}
    name = str(folder / "bright.png")
    assert "1 that changed since" in err
    assert len(after) == len(read_rows(target)) == 3
    assert (before[name]["label"], after[name]["label"]) == ("fake", "real")
    assert before[name]["image_sha256"] != after[name]["image_sha256"]


def test_a_vanished_picture_is_a_row_with_an_error(judged):
    folder, target, go = judged
    os.remove(folder / "bright.png")
    assert go("--resume", what=folder / "bright.png")[0] == 3
    assert [bool(r["error"]) for r in read_rows(target)].count(True) == 1


@pytest.mark.parametrize("spelling", ["relative", "dots", "elsewhere", "moved"])
def test_another_spelling_of_a_path_is_the_same_picture(folder, model_path, tmp_path_factory, spelling):
    out = tmp_path_factory.mktemp("out") / "o.jsonl"
    arguments = ["--model", model_path, "-o", out]
    first = {"relative": folder, "dots": folder, "elsewhere": "below/..", "moved": "."}[spelling]
    assert faceauth("detect", first, *arguments, cwd=folder)[0] == 0
    again, place = {
        "relative": (".", folder),
        "dots": (f"{folder}/below/..", None),
        "elsewhere": (folder, out.parent),
        "moved": (".", None),
    }[spelling]
    if spelling == "moved":
        place = folder.rename(folder.parent / "moved")
    faceauth("detect", again, *arguments, "--resume", cwd=place)
    assert len(read_rows(out)) == 3


def test_pictures_of_other_folders_with_the_same_names_are_both_kept(tmp_path, model_path):
    for name, colour in (("one", 255), ("two", 0)):
        (tmp_path / name).mkdir()
        picture((colour,) * 3).save(tmp_path / name / "a.png")
    arguments = ["detect", "a.png", "--model", model_path, "-o", tmp_path / "o.jsonl", "--resume"]
    arguments.append("--whole-image")
    for name in ("one", "two", "one"):
        assert faceauth(*arguments, cwd=tmp_path / name)[0] == 0
    assert sorted(r["label"] for r in read_rows(tmp_path / "o.jsonl")) == ["fake", "real"]


def test_other_settings_are_refused_with_both_named(judged, tmp_path):
    _, target, go = judged
    before = target.read_bytes()
    other = write_model(tmp_path / "other.onnx", make_card(name="other"))
    for options, told in (
        ({"more": ["--threshold", "0.5"]}, ["threshold 0.9", "threshold 0.5"]),
        ({"more": ["--no-recheck"]}, ["a re-check of what", "no re-check of what"]),
        ({"more": [], "model": other}, ["model brightness", "model other"]),
    ):
        code, _, err = go("--resume", *options.pop("more"), **options)
        assert code == 2
        assert all(t in err for t in [*told, "--overwrite", "another name"])
        assert len(err.splitlines()) == 2
        assert target.read_bytes() == before


def test_images_without_a_face_go_on_too_but_not_with_another_word_on_them(folder, model_path):
    target = folder / "o.jsonl"
    arguments = ["detect", folder, "--model", model_path, "-o", target, "--resume"]
    assert faceauth(*arguments)[0] == 0
    before = lasting(read_rows(target))
    assert "2 of 3 images are in the output already" in faceauth(*arguments)[2]
    assert faceauth(*arguments, "--threshold", "0.5")[0] == 0  # it says nothing of what was not judged
    assert lasting(read_rows(target)) == before
    code, _, err = faceauth(*arguments, "--whole-image")
    assert code == 2
    assert "images without a face not judged" in err
    assert "images without a face judged whole" in err
    assert lasting(read_rows(target)) == before


def test_images_judged_whole_are_not_mixed_with_images_that_are_not(judged, model_path):
    folder, target, _ = judged
    code, _, err = faceauth("detect", folder, "--model", model_path, "-o", target, "--resume")
    assert code == 2
    assert "images without a face not judged" in err


@pytest.mark.parametrize("field", ["version", "learned_sha256"])
def test_so_are_another_version_and_other_learned_classes(judged, field):
    _, target, go = judged
    found = [r | {field: "0.0.1"} for r in read_rows(target)]
    target.write_text("".join(json.dumps(r) + "\n" for r in found))
    code, _, err = go("--resume")
    assert code == 2
    assert "0.0.1" in err
    assert "--overwrite" in err


def test_rows_of_before_the_version_was_recorded_are_refused(judged):
    _, target, go = judged
    found = [{k: v for k, v in r.items() if k != "version"} for r in read_rows(target)]
    target.write_text("".join(json.dumps(r) + "\n" for r in found))
    assert go("--resume")[0] == 2


@pytest.mark.parametrize("tear", [b'{"path": "torn', b"\0" * 100, b'{"pa'])
def test_a_torn_end_is_judged_again(judged, tear):
    _, target, go = judged
    before = lasting(read_rows(target))
    with open(target, "ab") as file:
        file.write(tear)
    assert go("--resume")[0] == 0
    assert lasting(read_rows(target)) == before


@pytest.mark.parametrize("content", ["not json\n", '{"other": 1}\n', "[1]\n", "not json", "[" * 100_000 + "\n"])
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "o.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError, match="not an output"):
        FileOutput(path, resume=True)
    assert path.read_text() == content


def test_a_picture_on_standard_input_is_known_by_its_content(tmp_path, model_path):
    from conftest import encoded

    arguments = ["detect", "-", "--whole-image", "--model", model_path, "-o", tmp_path / "o.jsonl", "--resume"]
    for colour in (0, 255, 0):
        assert faceauth(*arguments, stdin=encoded(picture((colour,) * 3)))[0] == 0
    assert sorted(r["label"] for r in read_rows(tmp_path / "o.jsonl")) == ["fake", "real"]


SETTINGS = Settings("0.1.0", "m", "f" * 64, 0.6, None, None)


def big(path, count):
    """An output of so many images, of two faces each; every thousandth could not be read."""
    faces = (
        Face(0, (1, 2, 30, 40), "fake", 0.75, "a", 0.6, 0.05, stability=1.0),
        Face(1, (5, 5, 9, 9), "real", 0.1, "b", 0.6, 0.05),
    )
    good = "".join(json.dumps(r) + "\n" for r in rows(Verdict("NAME", faces, "m", "f" * 64, "HASH", version="0.1.0")))
    bad = json.dumps(rows(Verdict("NAME", (), "m", "f" * 64, error="broken", version="0.1.0"))[0]) + "\n"
    ident = json.loads(bad)["path_id"]
    with open(path, "w") as file:
        for i in range(count):
            text = bad if i % 1000 == 500 else good
            file.write(text.replace("NAME", f"p/{i}.png").replace("HASH", f"{i:064x}").replace(ident, f"{i:016x}"))


@pytest.mark.slow
def test_memory_and_time_stay_small_for_many_rows(tmp_path):
    path = tmp_path / "o.jsonl"
    big(path, 5_000)
    tracemalloc.start()
    start = time.process_time()
    kept = Kept(path, SETTINGS)
    kept.split(["p/1.png"], 1000)
    seconds = time.process_time() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert kept.tally == {"images": 5_000, "faces": 9_990, "fake": 4_995, "real": 4_995, "unreadable": 5}
    assert peak < 1_500_000  # of a file of 8 MB; 40 bytes an image and the sorted digests
    assert seconds < 60  # under tracemalloc on a busy machine


def test_taking_images_out_leaves_the_others_byte_for_byte(tmp_path):
    path = tmp_path / "o.jsonl"
    big(path, 30)
    lines = path.read_bytes().splitlines(keepends=True)
    kept = Kept(path, SETTINGS)
    kept.forget({0, 3, 4, 29})
    gone = {0, 1, 6, 7, 8, 9, 58, 59}
    assert path.read_bytes() == b"".join(line for i, line in enumerate(lines) if i not in gone)
    assert kept.tally["images"] == 26
    kept = Kept(path, SETTINGS)
    size = os.stat(path).st_ino
    kept.forget({25, 24})
    assert len(path.read_bytes().splitlines()) == 48
    assert os.stat(path).st_ino == size  # the end is cut off, not the whole file written anew
