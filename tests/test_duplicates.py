"""--dedupe and --previous: what need not be judged again, and what has to be."""

import json
import tracemalloc
from array import array

import numpy as np
import pytest
from PIL import Image, ImageOps

from command_line import faceauth, lasting, read_rows
from conftest import PORTRAIT, SAMPLES, encoded, make_card, noise, picture, write_model
from faceauth import duplicates, images
from faceauth.cli import _settings
from faceauth.detector import Detector
from faceauth.duplicates import find, judged_once
from faceauth.images import Limits
from faceauth.output import Previous, picture_hash, rows, sentence
from faceauth.output.rows import verdict_of


@pytest.fixture(scope="module")
def portrait():
    return Image.open(PORTRAIT).convert("RGB")


@pytest.fixture
def copies(tmp_path, portrait):
    """The portrait, a stranger, and the portrait again: half the size, as PNG, and as the same file."""
    folder = tmp_path / "copies"
    folder.mkdir()
    data = PORTRAIT.read_bytes()
    (folder / "a.jpg").write_bytes(data)
    noise((300, 360)).save(folder / "b.png")
    portrait.resize((256, 300), Image.Resampling.LANCZOS).save(folder / "c.jpg", quality=75)
    portrait.save(folder / "d.png")
    (folder / "e.jpg").write_bytes(data)
    return folder


class Counted(Detector):
    """A detector that notes what it was asked to judge."""

    def judge(self, source):
        self.__dict__.setdefault("asked", []).append(str(source)[-5:])
        return super().judge(source)


def test_a_picture_in_several_files_is_judged_once(copies, model_path):
    detector = Counted(model_path)
    references = sorted(map(str, copies.iterdir()))
    verdicts = list(judged_once(detector, references))
    assert detector.asked == ["a.jpg", "b.png"]
    assert [v.path for v in verdicts] == references
    assert [v.duplicate_of for v in verdicts] == [None, None, *[references[0]] * 3]
    first, _, half, png, same = verdicts
    assert (half.width, half.height) == (256, 300)
    assert half.faces[0].score == first.faces[0].score
    assert all(abs(2 * mine - its) <= 1 for mine, its in zip(half.faces[0].box, first.faces[0].box, strict=True))
    assert png.faces == same.faces == first.faces
    assert same.image_sha256 == first.image_sha256 != png.image_sha256
    assert half.ms is None


def test_what_only_resembles_is_no_copy(portrait):
    def moved(box):
        other = portrait.copy()
        other.paste(ImageOps.mirror(portrait.crop(box)), box)
        return other

    width, height = portrait.size
    for other in (
        moved((180, 120, 340, 320)),  # another face in the same picture
        portrait.convert("L").convert("RGB"),
        ImageOps.mirror(portrait),
        portrait.crop((15, 15, width - 15, height - 15)),
    ):
        assert not images.alike(images.small_copy(portrait), images.small_copy(other))
    smaller = portrait.resize((width // 3, height // 3))
    assert images.alike(images.small_copy(portrait), images.small_copy(smaller))


def test_a_hash_alone_does_not_make_a_copy(tmp_path, portrait, monkeypatch):
    monkeypatch.setattr("faceauth.images.dhash", lambda image: 7)
    portrait.save(tmp_path / "a.png")
    noise((512, 600)).save(tmp_path / "b.png")
    portrait.save(tmp_path / "c.jpg", quality=90)
    found = find([str(tmp_path / n) for n in ("a.png", "b.png", "c.jpg")], Limits())
    assert {later: copy.of for later, copy in found.items()} == {2: 0}


def test_a_larger_copy_is_judged_itself(tmp_path, portrait):
    portrait.resize((128, 150)).save(tmp_path / "small.png")
    portrait.save(tmp_path / "large.png")
    assert not find([str(tmp_path / "small.png"), str(tmp_path / "large.png")], Limits())
    assert find([str(tmp_path / "large.png"), str(tmp_path / "small.png")], Limits())


def test_a_copy_has_its_own_note_and_no_verdict_on_a_face_too_small_in_it(tmp_path, portrait, model_path):
    """An animation, and its first frame as a file and reduced until the face spans less than 48 pixels."""
    portrait.save(tmp_path / "a.gif", save_all=True, append_images=[ImageOps.mirror(portrait)])
    with Image.open(tmp_path / "a.gif") as frame:
        whole = frame.convert("RGB")
    whole.save(tmp_path / "b.png")
    whole.resize((whole.width // 5, whole.height // 5), Image.Resampling.BICUBIC).save(tmp_path / "c.png")
    detector = Detector(model_path)
    first, same, small = judged_once(detector, [str(tmp_path / name) for name in ("a.gif", "b.png", "c.png")])
    assert "first frame" in first.note and first.faces[0].score is not None
    assert same.duplicate_of == small.duplicate_of == first.path and same.note is small.note is None
    assert same.faces == first.faces
    [face], [alone] = small.faces, detector.detect(str(tmp_path / "c.png"))[0].faces
    assert (face.label, face.reason, face.score) == ("uncertain", "too small", None)
    assert (alone.label, alone.reason, alone.score) == ("uncertain", "too small", None)


def test_hashes_are_tied_to_the_earliest_through_others():
    assert duplicates._firsts([0, 2**64 - 1, 0b111, 0b111111, 0]) == {2: 0, 3: 0, 4: 0}


@pytest.mark.slow
def test_hashes_are_compared_in_less_than_200_bytes_a_file():
    """Where every file has another near it; docs/scale.md says it."""
    peaks = []
    for count in (50_000, 150_000):
        hashes = np.random.default_rng(0).integers(0, 2**64, count // 100, np.uint64).repeat(100)
        places, values = array("Q", range(count)), array("Q", hashes.tobytes())
        tracemalloc.start()
        assert len(duplicates.near(places, values)) == count * 0.99
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert 20 < (peaks[1] - peaks[0]) / 100_000 < 200


def test_what_cannot_be_read_is_judged_like_any_other(tmp_path, model_path):
    (tmp_path / "broken.png").write_bytes(encoded(noise())[:300])
    references = [str(tmp_path / "broken.png"), str(tmp_path / "gone.png"), str(tmp_path / "broken.png")]
    verdicts = list(judged_once(Detector(model_path), references))
    assert [v.duplicate_of for v in verdicts] == [None] * 3
    assert all(v.error for v in verdicts)


@pytest.mark.slow
def test_two_processes_find_the_same_copies(copies):
    references = sorted(map(str, copies.iterdir()))
    assert find(references, Limits(), 2) == find(references, Limits()) == find(references, Limits(), timeout=60)


def test_the_command_says_what_was_judged_in_a_files_place(copies, model_path, tmp_path):
    code, _, err = faceauth("detect", copies, "--dedupe", "--model", model_path, "-o", tmp_path / "o.jsonl")
    found = read_rows(tmp_path / "o.jsonl")
    assert code == 0
    assert "5 images, 4 faces" in err
    assert [r["duplicate_of"] for r in found] == [None, None, *[str(copies / "a.jpg")] * 3]
    assert f"the same picture as {copies / 'a.jpg'}" in sentence(found[2])


# --- an earlier output as a cache ---


@pytest.fixture
def earlier(folder, model_path, tmp_path_factory):
    """An output of `folder`, whose pictures then got other names."""
    target = tmp_path_factory.mktemp("earlier") / "o.jsonl"
    assert faceauth("detect", folder, "--whole-image", "--model", model_path, "-o", target)[0] == 0
    (folder / "bright.png").rename(folder / "renamed.png")
    return target


def test_a_picture_of_an_earlier_output_is_not_judged_again(folder, earlier, model_path, monkeypatch, tmp_path_factory):
    picture((9, 9, 9)).save(folder / "new.png")
    asked = []
    judge = Detector.judge
    monkeypatch.setattr(Detector, "judge", lambda self, source: asked.append(source) or judge(self, source))
    target = tmp_path_factory.mktemp("later") / "o.jsonl"
    arguments = ["detect", folder, "--whole-image", "--model", model_path, "-o", target]
    code, _, err = faceauth(*arguments, "--previous", earlier)
    assert code == 0
    assert "3 of 4 images are taken from" in err
    assert asked == [str(folder / "new.png")]
    cached = lasting(read_rows(target))
    assert {json.loads(r)["path"] for r in cached} >= {str(folder / "renamed.png")}
    assert faceauth(*arguments, "--overwrite")[0] == 0
    assert lasting(read_rows(target)) == cached


def test_a_row_with_an_error_is_judged_again(tmp_path, model_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"half copied")
    arguments = ["detect", tmp_path / "in" / "a.png", "--model", model_path, "-o"]
    assert faceauth(*arguments, tmp_path / "o.jsonl")[0] == 3
    _, _, err = faceauth(*arguments, tmp_path / "p.jsonl", "--previous", tmp_path / "o.jsonl")
    assert "0 of 1 images are taken" in err


def test_an_output_of_other_settings_is_no_cache(folder, earlier, tmp_path, model_path):
    other = write_model(tmp_path / "other.onnx", make_card(name="other"))
    for more, told in ((["--model", other], "model other"), (["--model", model_path, "--no-recheck"], "re-check")):
        code, _, err = faceauth("detect", folder, "--whole-image", *more, "--previous", earlier)
        assert code == 2
        assert told in err
    for wrong in (tmp_path / "gone.jsonl", PORTRAIT):
        code, _, err = faceauth("detect", folder, "--model", model_path, "--previous", wrong)
        assert code == 2
        assert err.startswith("error: ") and ".jsonl" in err


@pytest.mark.parametrize("more", [["--overwrite"], ["--resume"]])
@pytest.mark.parametrize("name", ["o.jsonl", "link.jsonl", "link.csv"])
def test_an_output_is_not_written_over_while_it_is_the_cache(folder, earlier, model_path, name, more):
    for link in ("link.jsonl", "link.csv"):
        (earlier.parent / link).symlink_to(earlier)
    before = earlier.read_bytes()
    arguments = ["detect", folder, "--whole-image", "--model", model_path]
    same = [
        ["--previous", earlier, "-o", earlier.with_name(name)],
        ["--previous", earlier.with_name(name), "-o", earlier],
    ]
    for given in same:
        code, _, err = faceauth(*arguments, *given, *(["--overwrite"] if name == "link.csv" else more))
        assert (code, len(err.splitlines())) == (2, 2)
        assert "name the same file" in err
        assert earlier.read_bytes() == before


def test_pictures_of_an_earlier_output_are_no_copies_in_this_one(copies, model_path, tmp_path):
    arguments = ["detect", copies, "--dedupe", "--model", model_path, "-o"]
    assert faceauth(*arguments, tmp_path / "o.jsonl")[0] == 0
    _, _, err = faceauth(*arguments, tmp_path / "p.jsonl", "--previous", tmp_path / "o.jsonl")
    assert "5 of 5 images are taken" in err
    assert [r["duplicate_of"] for r in read_rows(tmp_path / "p.jsonl")] == [None] * 5
    assert [r["label"] for r in read_rows(tmp_path / "p.jsonl")] == [
        r["label"] for r in read_rows(tmp_path / "o.jsonl")
    ]
    find = Previous(tmp_path / "o.jsonl", _settings(Detector(model_path))).finder()  # what Ray's actors ask
    assert find(picture_hash(str(copies / "d.png"), 10**9)).duplicate_of is None
    faceauth(*arguments, tmp_path / "o.jsonl", "--resume")
    assert [bool(r["duplicate_of"]) for r in read_rows(tmp_path / "o.jsonl")][:4] == [False, False, True, True]


def test_rows_give_back_their_verdict(model_path):
    for verdict in Detector(model_path).detect(SAMPLES):
        assert rows(verdict_of(rows(verdict))) == rows(verdict)
