"""The reported cases of the kinds faces, numbers and orient: one line each, with what is right.

The ids are those of the collection of cases. The pictures are made here from the portraits in samples/. The cases of
EXIF orientation (O01) and of decoding are in cases_images.py.
"""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from PIL import Image

from command_line import faceauth
from conftest import PORTRAIT, SAMPLES, encoded, picture
from faceauth.detector import SMALLEST_FACE, Detector
from faceauth.faces import finder
from scenes import BOXES, backdrop, chart, group, head, matched, overlap, page, portrait, texture

GROUPS = {  # id: size, faces, side of a face in pixels, rows
    "F01-1600-96 12 faces of 96 px in 1600 x 1067": ((1600, 1067), 12, 96, 3),
    "F01-4000-200 12 faces of 200 px in 4000 x 2667": ((4000, 2667), 12, 200, 3),
    "F01-6000-250 12 faces of 250 px in 6000 x 4000": ((6000, 4000), 12, 250, 3),
    "F01-6000-160 12 faces of 160 px in 6000 x 4000": ((6000, 4000), 12, 160, 3),
    "F01-6000-120 40 faces of 120 px in 6000 x 4000": ((6000, 4000), 40, 120, 5),
    "F01 a panorama of 20 faces": ((6000, 1200), 20, 150, 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", GROUPS)
def test_every_face_of_a_group_is_found_and_nothing_else(case):
    image, boxes = group(*GROUPS[case])
    assert matched(finder()(image), boxes) == (len(boxes), 0)


@pytest.mark.slow
def test_f02_one_face_in_the_corner_of_12_megapixels():
    image = backdrop((4000, 3000))
    face, inside = head("grace-hopper", 130)
    place = 4000 - face.width, 3000 - face.height
    image.paste(face, place)
    assert matched(finder()(image), [[v + place[n % 2] for n, v in enumerate(inside)]]) == (1, 0)


@pytest.mark.parametrize("name", ["grace-hopper", "astronaut"])
@pytest.mark.parametrize("width", [300, 1500])
def test_f03_a_face_cut_by_all_four_edges(name, width):
    x0, y0, x1, y1 = BOXES[name]
    cut = (x1 - x0) // 10, (y1 - y0) // 10
    close = portrait(name).crop((x0 + cut[0], y0 + cut[1], x1 - cut[0], y1 - cut[1]))
    image = close.resize((width, round(width * close.height / close.width)), Image.Resampling.BICUBIC)
    (face,) = finder()(image)
    assert overlap(face.box, (0, 0, *image.size)) > 0.7


@pytest.mark.parametrize("side", [64, 100])
@pytest.mark.parametrize("name", ["grace-hopper", "astronaut"])
def test_f04_an_avatar_is_too_small_to_judge_and_never_fake(model_path, name, side):
    image = portrait(name)
    avatar = image.resize((side, round(side * image.height / image.width)), Image.Resampling.LANCZOS)
    (verdict,) = Detector(model_path, threshold=0.0).detect(avatar)
    assert verdict.label in {"uncertain", "no-face"}
    for face in verdict.faces:
        assert (face.score, face.reason) == (None, "too small")
        assert f"{SMALLEST_FACE} needed" in face.error


FACELESS = {
    "F05-20 20 x 20": lambda: picture(size=(20, 20)),
    "F06 white": lambda: picture((255, 255, 255), (512, 512)), "F06 black": lambda: picture((0, 0, 0), (512, 512)),
    "F06 grey": lambda: picture((128, 128, 128), (512, 512)), "F08 bar chart": chart, "X31 page of text": page,
    **{f"X31 {k}": lambda k=k: texture(k, (640, 480), 3) for k in ("noise", "clouds", "bricks", "checks", "stripes", "rings")},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", FACELESS)
def test_without_a_face_there_is_no_verdict(model_path, case):
    (verdict,) = Detector(model_path, threshold=0.0).detect(FACELESS[case]())
    assert verdict.faces == ()
    assert verdict.label == "no-face" or (verdict.label is None and "pixel" in verdict.error)


def test_f05_1_pixel_is_a_row_with_an_error(model_path):
    (verdict,) = Detector(model_path, threshold=0.0).detect(picture(size=(1, 1)))
    assert (verdict.label, verdict.faces) == (None, ())
    assert "pixels a side" in verdict.error


@pytest.mark.slow
def test_x31_without_a_face_nothing_fails_on_fake(model_path, tmp_path):
    for case in ("F06 white", "F08 bar chart", "X31 page of text"):
        FACELESS[case]().save(tmp_path / f"{case}.png")
    code, out, err = faceauth("detect", tmp_path, "--model", model_path, "--threshold", "0", "--fail-on", "fake")
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(r["label"], r["score"], r["false_alarm_rate"]) for r in rows] == [("no-face", None, None)] * 3
    assert "3 without a face, not judged" in err


@pytest.mark.slow
@pytest.mark.parametrize("degrees", [90, 180, 270, 30, 20, 15])
@pytest.mark.parametrize("name", ["grace-hopper", "astronaut"])
def test_o03_a_photo_turned_without_exif(name, degrees):
    image = portrait(name).rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    (face,) = finder()(image)
    assert face.turns == {90: 3, 180: 2, 270: 1}.get(degrees, 0)


@cache
@cache
def shipped(model=None):
    return Detector(model)


@pytest.mark.slow
@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("name", ["grace-hopper", "astronaut"])
def test_x30_a_turned_photo_gets_the_verdict_of_the_upright_one(name, degrees):
    image = portrait(name)
    (before,), (after,) = (shipped().detect(i) for i in (image, image.rotate(degrees, expand=True)))
    assert after.label in {before.label, "uncertain"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["astronaut", "grace-hopper"])
def test_n01_the_four_kinds_of_input_have_one_score(name):
    path = SAMPLES / f"{name}.jpg"
    image = Image.open(path).convert("RGB")
    scores = shipped().scores([path, path.read_bytes(), image, np.asarray(image)])
    assert len(set(scores.tolist())) == 1


ARRAYS = {
    "N03-float01": lambda a: a / np.float32(255), "N03-chw": lambda a: a.transpose(2, 0, 1),
    "N03-rgba": lambda a: np.dstack([a, np.full(a.shape[:2], 255, np.uint8)]), "N03-uint16": lambda a: a.astype(np.uint16) * 257,
}  # fmt: skip


@pytest.mark.parametrize("case", ARRAYS)
def test_other_arrays_are_judged_or_told_what_to_give(model_path, case):
    detector = Detector(model_path)
    array = np.asarray(portrait("grace-hopper"))
    (plain,), (verdict,) = detector.detect([array]), detector.detect([ARRAYS[case](array)])
    if verdict.error is None:
        assert verdict.faces[0].score == pytest.approx(plain.faces[0].score, abs=0.01)
    else:
        assert "array" in verdict.error
        assert "uint8" in verdict.error


@pytest.mark.slow
def test_n07_the_score_is_steady_when_edges_are_cut_off(model_path):
    detector, image = Detector(model_path), portrait("astronaut")
    left, top, right, bottom = BOXES["astronaut"]
    scores = []
    for n in range(9):
        (verdict,) = detector.detect(image.crop((n, n, *image.size)))
        (face,) = verdict.faces
        assert overlap(face.box, (left - n, top - n, right - n, bottom - n)) > 0.85
        scores.append(face.score)
    assert max(scores) - min(scores) < 0.05


@pytest.mark.slow
def test_n02_one_score_whatever_the_way(tmp_path):
    """Path, bytes, PIL and array, command line and library, one worker and two, batched and alone."""
    image, _ = group((900, 600), 3, 140, 1)
    path = tmp_path / "group.png"
    image.save(path)
    detector = shipped("fast")
    (verdict,) = detector.detect(path)
    wanted = [face.score for face in verdict.faces]
    assert len(wanted) == 3
    found = {
        kind: [f.score for f in detector.detect([source])[0].faces]
        for kind, source in {"bytes": path.read_bytes(), "PIL": image, "array": np.asarray(image)}.items()
    }
    faces = detector.find_faces(image)
    found["alone"] = [float(detector._score(detector.run_faces(image, [face]))[0]) for face in faces]
    found["batched"] = detector._score(detector.run_faces(image, [*faces, *faces]))[:3].tolist()
    rows = [json.loads(line) for line in faceauth("detect", path, "--workers", 1, "--model", "fast")[1].splitlines()]
    found["command line"] = [r["score"] for r in rows]
    one, two = (list(detector.stream([str(path), str(PORTRAIT)], workers=n)) for n in (1, 2))
    assert [replace(v, ms=None) for v in one] == [replace(v, ms=None) for v in two]
    found |= {"one worker": [f.score for f in one[0].faces], "two workers": [f.score for f in two[0].faces]}
    for way, scores in found.items():
        assert scores == pytest.approx(wanted, abs=1e-5), way
    assert detector.scores(path)[0] == pytest.approx(wanted[0], abs=1e-5)
    likelier = detector.classify(encoded(image))[0]["score"]
    assert likelier == pytest.approx(max(wanted[0], 1 - wanted[0]), abs=1e-5)
