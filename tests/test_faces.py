import itertools

import numpy as np
import pytest
from PIL import Image

from conftest import PORTRAIT, SAMPLES, picture
from faceauth import faces
from faceauth.errors import ModelError
from faceauth.faces import CenterFaceFinder, FoundFace, finder, suppress, upright
from scenes import BOXES, chart, group, head, matched, page, portrait, texture


@pytest.mark.parametrize(("name", "box"), [("astronaut", (184, 63, 268, 174)), ("grace-hopper", (173, 123, 353, 337))])
def test_the_boxes_of_portraits_are_those_that_models_were_trained_with(name, box):
    """A change here changes what every shipped model sees: raise REVISION, and fit the models again."""
    (face,) = finder()(Image.open(SAMPLES / f"{name}.jpg").convert("RGB"))
    assert face.box == box
    assert face.turns == 0
    assert faces.REVISION == 3


def test_landmarks_lie_where_they_are():
    (face,) = finder()(Image.open(PORTRAIT).convert("RGB"))
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


@pytest.mark.slow
@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("name", ["grace-hopper", "astronaut", "vae-04"])
def test_a_turned_portrait_is_found_and_set_upright(name, turns):
    image = upright(portrait(name), turns)  # so many quarter turns counter-clockwise
    (face,) = finder()(image)
    assert face.turns == -turns % 4
    (straight,) = finder()(portrait(name))
    assert upright(image.crop(face.box), face.turns).tobytes() == portrait(name).crop(straight.box).tobytes()
    back = upright(image.crop(face.box), face.turns)
    assert back.size[0] < back.size[1]  # a face is higher than wide
    eyes, mouth = np.mean(face.landmarks[:2], axis=0), np.mean(face.landmarks[3:], axis=0)
    down = {0: (0, 1), 1: (-1, 0), 2: (0, -1), 3: (1, 0)}[face.turns]
    assert np.dot(mouth - eyes, down) > 0


@pytest.mark.slow
def test_faces_are_given_largest_first():
    image, boxes = group((1500, 700), 3, 150, 1)
    small, inside = head("grace-hopper", 90)
    image.paste(small, (0, 0))
    found = finder()(image)
    assert matched(found, [*boxes, inside]) == (4, 0)
    areas = [(f.box[2] - f.box[0]) * (f.box[3] - f.box[1]) for f in found]
    assert areas == sorted(areas, reverse=True)


def test_a_small_face_beside_a_large_one_is_found():
    image = portrait("grace-hopper").resize((1024, 1200))
    scene = Image.new("RGB", (1500, 1200), "grey")
    scene.paste(image)
    small, inside = head("astronaut", 150)
    scene.paste(small, (1150, 500))
    large = [v * 2 for v in BOXES["grace-hopper"]]
    assert matched(finder()(scene), [large, [v + (1150, 500)[n % 2] for n, v in enumerate(inside)]]) == (2, 0)


WITHOUT = {
    "chart": chart, "page": page, "white": lambda: picture((255, 255, 255), (512, 512)),
    "black": lambda: picture((0, 0, 0), (1200, 900)), "grey": lambda: picture((128, 128, 128), (512, 512)),
    "1 pixel": lambda: picture(size=(1, 1)), "20 pixels": lambda: picture(size=(20, 20)),
    "a strip": lambda: picture(size=(2000, 3)), "a pole": lambda: picture(size=(1, 4000)),
    "small noise": lambda: texture("noise", (90, 60)),
    **{kind: lambda kind=kind: texture(kind) for kind in ("noise", "clouds", "bricks", "checks", "stripes", "rings")},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", WITHOUT)
def test_where_there_is_no_face_none_is_found(name):
    assert finder()(WITHOUT[name]()) == []


def test_tiles_cover_a_copy_and_overlap():
    for length in (1, 1280, 1281, 2400, 2560, 9000):
        starts = faces._starts(length)
        covered = np.zeros(length, int)
        for start in starts:
            assert 0 <= start <= max(0, length - faces.TILE)
            covered[start : start + faces.TILE] += 1
        assert covered.min() >= 1
        for one, other in itertools.pairwise(starts):
            assert one + faces.TILE - other >= faces.TILE // 10


def test_a_face_across_two_tiles_is_one_face(monkeypatch):
    monkeypatch.setattr(faces, "TILE", 320)
    image, boxes = group((800, 300), 3, 90, 1)
    find = finder()
    assert matched(find._search(image, 1.0), boxes) == (3, 0)


def test_overlapping_boxes_are_one_and_the_surest_stays():
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30], [8, 0, 18, 10]], float)
    assert suppress(boxes, np.array([0.6, 0.9, 0.7, 0.8])) == [1, 3, 2]
    assert suppress(np.zeros((0, 4)), np.zeros(0)) == []


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_what_is_found_in_a_turned_copy_is_turned_back(turns):
    image = Image.new("RGB", (50, 30))
    image.putpixel((40, 5), (255, 255, 255))
    turned = upright(image, turns)
    y, x = np.argwhere(np.asarray(turned)[..., 0])[0].tolist()
    face = faces._turn_back(FoundFace((x, y, x + 1, y + 1), 1.0, ((x + 0.5, y + 0.5),)), turns, image.size)
    assert face.box == (40, 5, 41, 6)
    assert face.landmarks == ((40.5, 5.5),)
    assert face.turns == turns


def test_boxes_are_clamped_to_the_picture():
    face = faces._face(np.array([-5.0, -5, 10, 500]), 0.9, np.zeros((5, 2)), (2.0, 1.0), (100, 100))
    assert face.box == (0, 0, 20, 100)
    assert faces._face(np.array([200.0, 0, 210, 9]), 0.9, np.zeros((5, 2)), (1.0, 1.0), (100, 100)) is None


def test_a_file_that_is_no_finder_is_an_error_of_ours(tmp_path):
    (tmp_path / "text.onnx").write_text("no")
    with pytest.raises(ModelError, match="cannot open the face finder"):
        CenterFaceFinder(tmp_path / "text.onnx")
    with pytest.raises(ModelError, match="cannot open the face finder"):
        CenterFaceFinder(tmp_path / "missing.onnx")


def test_the_finder_is_opened_once():
    assert finder() is finder()
