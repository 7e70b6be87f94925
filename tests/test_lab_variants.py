"""The protocol's variants and the views of training: functions of a picture and a key, the same for both classes."""

import io

import numpy as np
import pytest
from PIL import Image

from conftest import PORTRAIT
from faceauth.faces import FoundFace, finder

pytestmark = pytest.mark.torch
variants = pytest.importorskip("faceauth.lab.data.variants")
from faceauth.lab.data import edits


@pytest.fixture(scope="module")
def portrait():
    image = Image.open(PORTRAIT).convert("RGB")
    return image, finder()(image)[0]


def jpeg(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling=2)
    return np.asarray(Image.open(file).convert("RGB"))


@pytest.mark.parametrize(("name", "longest", "quality"), [("web", 768, 60), ("hard", 512, 40), ("avatar", 128, 75)])
def test_a_resaved_variant_has_the_protocols_size_and_quality(portrait, name, longest, quality):
    image, face = portrait
    made, found = variants.make(name, image, face, "key")
    assert found is None  # the face has to be found in what a user would have
    assert max(made.size) == min(longest, max(image.size))
    np.testing.assert_array_equal(np.asarray(made), jpeg(edits.reduced(image, longest), quality))


@pytest.mark.parametrize("name", [*variants.VARIANTS, "train-1", "blend-1"])
def test_the_same_key_gives_the_same_pixels(portrait, name):
    first, again = (variants.make(name, *portrait, "key")[0] for _ in range(2))
    assert first.tobytes() == again.tobytes()


@pytest.mark.parametrize("name", ["train-1", "blend-1"])
def test_another_key_or_number_gives_another_view(portrait, name):
    views = {variants.make(n, *portrait, key)[0].tobytes() for n in (name, name[:-1] + "2") for key in "ab"}
    assert len(views) == 4


def test_matched_brings_every_face_to_one_size_and_leaves_small_ones_out(portrait):
    image, face = portrait
    made, _ = variants.make("matched", image, face, "key")
    scale = (face.box[2] - face.box[0]) / 128
    assert made.width == made.height == pytest.approx(min(1.6 * face.side, *image.size) / scale, abs=1)
    small = FoundFace((10, 10, 130, 150))  # 120 pixels wide
    assert variants.make("matched", image, small, "key") is None


def test_each_change_for_robustness_does_what_its_name_says(portrait):
    image, face = portrait
    made = {name: variants.make(name, image, face, "key")[0] for name in variants.ROBUSTNESS}
    pixels = np.asarray(made["grey"])
    assert (pixels == pixels[..., :1]).all()
    assert max(made["resaved"].size) == min(768, max(image.size))
    assert made["crop"].size == tuple(v - 2 * round(0.04 * v) for v in image.size)
    assert max(made["laundered"].size) <= 224
    assert all(made[name].size == edits.reduced(image, 1024).size for name in ("noise", "blur"))

    def detail(picture):
        same = np.asarray(picture.convert("L").resize(image.size), float)
        return np.abs(np.diff(same, axis=1)).mean()

    assert made["half"].size == image.size
    assert detail(made["half"]) < detail(image) < detail(made["noise"])
    assert detail(made["blur"]) < detail(image)


def test_controls_paint_one_side_of_the_face_box(portrait):
    image, face = portrait
    inside = np.zeros((image.height, image.width), bool)
    inside[face.box[1] : face.box[3], face.box[0] : face.box[2]] = True
    pixels = np.asarray(image)
    hidden, kept = (np.asarray(variants.make(n, image, face, "k")[0]) for n in ("face-hidden", "face-only"))
    assert (kept[inside] == pixels[inside]).all()
    assert (kept[~inside] == variants.PAINT).all()
    assert (hidden[inside] == variants.PAINT).all()
    outside = ~inside
    outside[face.box[3], :] = outside[:, face.box[2]] = False  # the rectangle is drawn with its last row and column
    assert (hidden[outside] == pixels[outside]).all()
    assert variants.make("face-hidden", image, face, "k")[1] == face


def test_the_face_of_a_view_lies_where_its_box_says(portrait):
    found = 0
    for number in range(6):
        view, face = variants.make(f"train-{number}", *portrait, "key")
        boxes = [f.box for f in finder()(view)]
        center = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
        found += any(b[0] < center[0] < b[2] and b[1] < center[1] < b[3] for b in boxes)
    assert found >= 4  # some are too dark or covered to be found again


def test_a_blended_photograph_differs_inside_the_face_alone(portrait):
    image, face = portrait
    rng = np.random.default_rng(1)
    blended, _ = variants._blended(image, face, rng)
    cut, _ = variants._blended(image, FoundFace((0, 0, 2, 2)), np.random.default_rng(1))
    assert blended.size != cut.size or blended.tobytes() != cut.tobytes()


@pytest.mark.parametrize("edit", [e for _, e in variants.EDITS] + list(edits.PROTOCOL))
def test_every_edit_keeps_the_size_and_changes_pixels(portrait, edit):
    image = portrait[0].resize((200, 234))
    made = edit(image, np.random.default_rng(3))
    assert made.size == image.size
    assert made.mode == "RGB"
    assert made.tobytes() != image.tobytes()
