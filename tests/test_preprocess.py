import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import noise
from faceauth.errors import ModelError
from faceauth.faces import FoundFace
from faceauth.preprocess import PreprocessSpec


@given(
    width=st.integers(1, 3000), height=st.integers(1, 3000), x=st.floats(-500, 3500), y=st.floats(-500, 3500),
    side=st.floats(1, 4000), crop=st.floats(0.5, 3),
)  # fmt: skip
def test_the_region_is_a_square_inside_the_image(width, height, x, y, side, crop):
    left, top, right, bottom = PreprocessSpec(crop=crop).region((x, y, x + side, y + side), width, height)
    assert right - left == pytest.approx(bottom - top, abs=1e-6)
    assert left >= -1e-9
    assert top >= -1e-9
    assert right <= width + 1e-6
    assert bottom <= height + 1e-6


def test_the_region_is_centred_on_the_face_where_there_is_room():
    assert PreprocessSpec(crop=1.5).region((40, 40, 60, 60), 100, 100) == (35, 35, 65, 65)
    assert PreprocessSpec(crop=1.5).region((0, 0, 20, 20), 100, 100) == (0, 0, 30, 30)


def test_without_a_face_it_is_the_central_square():
    assert PreprocessSpec().region(None, 100, 60) == (20, 0, 80, 60)


def test_normalize_is_channels_first_and_scaled():
    spec = PreprocessSpec(size=8, mean=(0.5, 0.25, 0), std=(0.5, 1, 1))
    pixels = np.full((2, 8, 8, 3), 255, np.uint8)
    out = spec.normalize(pixels)
    assert out.shape == (2, 3, 8, 8)
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    assert out[0, :, 0, 0].tolist() == pytest.approx([1, 0.75, 1])


def test_resize_cuts_the_region():
    image = Image.new("RGB", (100, 100), "black")
    image.paste("white", (50, 0, 100, 100))
    assert PreprocessSpec(size=16).resize(image, (60, 0, 100, 40)).min() == 255
    assert PreprocessSpec(size=16).resize(noise(), (0, 0, 64, 64)).shape == (16, 16, 3)


@pytest.mark.parametrize("turns", range(4))
def test_a_turned_face_is_cut_upright(turns):
    image = noise((60, 60))
    spec = PreprocessSpec(size=20, crop=1.0)
    turned = image.rotate(-90 * turns, expand=True)  # clockwise, so that as many counter-clockwise turns undo it
    upright = spec.cut(image, FoundFace((20, 20, 40, 40)))
    assert (spec.cut(turned, FoundFace((20, 20, 40, 40), turns=turns)) == upright).all()
    assert (spec.cut(image, None) == spec.resize(image, (0, 0, 60, 60))).all()


@settings(deadline=None)
@given(side=st.floats(90, 1000), left=st.floats(0, 24), top=st.floats(0, 24))
@pytest.mark.slow
def test_a_large_region_is_cut_where_a_small_one_would_be(side, left, top):
    image = noise((16, 16)).resize((1024, 1024), Image.Resampling.BICUBIC)  # smooth: any filter gives the same
    box = (left, top, left + side, top + side)
    once = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC, box=box), int)
    assert np.abs(PreprocessSpec(size=32).resize(image, box) - once).mean() <= 2  # 20 where half a pixel is lost


@pytest.mark.parametrize("bad", [{"size": 4}, {"crop": 0}, {"interpolation": "magic"}, {"std": (1, 1, 0)}])
def test_impossible_specs_are_refused(bad):
    with pytest.raises(ModelError):
        PreprocessSpec(**bad)
