import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from conftest import PORTRAIT, SAMPLES, noise, picture
from faceauth.errors import ModelError
from faceauth.faces import DlibFinder, YuNetFinder, finder, largest_first


@pytest.fixture(scope="module")
def find():
    return DlibFinder()


def test_a_portrait_has_one_face_where_it_is(find):
    (box,) = find(Image.open(PORTRAIT).convert("RGB"))
    assert box[0] < 260 < box[2]
    assert box[1] < 220 < box[3]


def test_cloth_is_no_face(find):
    assert len(find(Image.open(SAMPLES / "astronaut.jpg").convert("RGB"))) == 1


def test_every_face_of_a_scene_is_found_largest_first(find):
    portrait = Image.open(PORTRAIT).convert("RGB")
    scene = Image.new("RGB", (1500, 700), "grey")
    for i, height in enumerate((300, 500, 380)):
        scene.paste(portrait.resize((height * 512 // 600, height)), (i * 480 + 30, 60))
    boxes = find(scene)
    assert len(boxes) == 3
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in boxes]
    assert areas == sorted(areas, reverse=True)
    assert 480 < boxes[0][0] < 960


def test_a_small_face_beside_a_large_one_is_found_when_all_are_asked_for(find):
    portrait = Image.open(PORTRAIT).convert("RGB")
    scene = Image.new("RGB", (1400, 1200), "grey")
    scene.paste(portrait.resize((1024, 1200)))
    scene.paste(portrait.resize((256, 300)), (1100, 500))
    assert len(find(scene)) == 1
    assert len(DlibFinder(all_faces=True)(scene)) == 2


def test_a_face_that_grey_hides_is_found_in_colour(find):
    grey = np.asarray(Image.open(PORTRAIT).convert("L").resize((164, 192)), float) / 255
    one, other = np.array([250, 60, 60.0]), np.array([0, 139.0, 250])  # of one brightness in grey
    hidden = Image.fromarray((other + grey[..., None] * (one - other)).round().astype(np.uint8))
    assert find._look(hidden.convert("L"), 192, 0) == []
    (box,) = find(hidden)
    assert box[0] < 164 * 260 / 512 < box[2]


def test_the_first_look_is_the_last_again_in_colour(find, monkeypatch):
    looks = []
    monkeypatch.setattr(find, "_look", lambda image, *pass_: looks.append((image.mode, *pass_)) or [])
    assert find(picture()) == []
    assert looks == [("L", 192, 0), ("L", 384, 0), ("RGB", 384, 0), ("RGB", 800, 1), ("RGB", 192, 0)]


@pytest.mark.parametrize("image", [picture(), noise((300, 200)), picture(size=(1, 1)), picture(size=(2000, 3))])
def test_no_face_is_an_empty_list(find, image):
    assert find(image) == []


def test_boxes_are_clamped_and_empty_ones_dropped():
    assert largest_first([(-5, -5, 10, 10), (90, 0, 300, 50), (200, 0, 210, 9)], (100, 100)) == [
        (90, 0, 100, 50),
        (0, 0, 10, 10),
    ]


def write_yunet(path, cells):
    """A graph with YuNet's outputs whose confident cells are constant: {stride: {index: (dx, dy, log w, log h)}}."""
    outputs, nodes = [], []
    for stride in (8, 16, 32):
        count = (640 // stride) ** 2
        score, box = np.zeros((1, count, 1), np.float32), np.zeros((1, count, 4), np.float32)
        for index, values in cells.get(stride, {}).items():
            score[0, index], box[0, index] = 0.95, values
        for kind, value in (("cls", score), ("obj", score), ("bbox", box)):
            tensor = helper.make_tensor(
                f"v_{kind}_{stride}", TensorProto.FLOAT, value.shape, value.reshape(-1).tolist()
            )
            nodes.append(helper.make_node("Constant", [], [f"{kind}_{stride}"], value=tensor))
            outputs.append(helper.make_tensor_value_info(f"{kind}_{stride}", TensorProto.FLOAT, value.shape))
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 640, 640])]
    graph = helper.make_graph(nodes, "yunet", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_yunet_boxes_are_decoded_and_scaled_back(tmp_path):
    # Stride 32, row 5, column 10: centre (320 + 16, 160 + 16), size 32 * e^1; a second cell next to it overlaps.
    cell = (0.5, 0.5, 1.0, 1.0)
    find = YuNetFinder(write_yunet(tmp_path / "y.onnx", {32: {5 * 20 + 10: cell, 5 * 20 + 11: (-0.4, 0.5, 1.0, 1.0)}}))
    half = 32 * np.e / 2
    (box,) = find(picture(size=(1280, 640)))  # twice the network's input: boxes come back doubled
    assert box == pytest.approx([2 * (336 - half), 2 * (176 - half), 2 * (336 + half), 2 * (176 + half)], abs=1)


def test_what_is_not_yunet_is_refused(tmp_path, model_path):
    with pytest.raises(ModelError, match="not YuNet"):
        finder(model_path)
    (tmp_path / "text.onnx").write_text("no")
    with pytest.raises(ModelError, match="not an ONNX"):
        finder(tmp_path / "text.onnx")
