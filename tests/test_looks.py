import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from conftest import noise
from faceauth.looks import LARGEST, LOOKS, Look, combined, further, labels

score = st.floats(0, 1)


@settings(deadline=None)
@given(score, score, score, score)
def test_a_second_look_only_ever_takes_fakes_away(first, mean, one, other):
    real_to, fake_from = sorted((one, other))
    looks = np.array([first]), np.array([mean])
    (alone,), (word,) = labels(looks[0], looks[0], fake_from, real_to), labels(*looks, fake_from, real_to)
    (counts,) = combined(*looks, fake_from)
    assert (word == "fake") == (counts >= fake_from)
    if alone == "fake":
        assert counts == mean
        assert word == ("fake" if mean >= fake_from else "uncertain")
    else:
        assert (counts, word) == (first, alone)


def test_looks_are_what_they_say_and_draw_nothing_by_chance():
    image = noise((80, 60))
    crops = list(further(image, (10.4, 5, 50.4, 45), 32))
    assert [crop.size for crop in crops] == [(round(40 * look.scale),) * 2 for look in LOOKS]
    assert all(crop.mode == "RGB" for crop in crops)
    again = [np.asarray(crop) for crop in further(image, (10.4, 5, 50.4, 45), 32)]
    assert all((np.asarray(a) == b).all() for a, b in zip(crops, again, strict=True))
    plain = np.asarray(image.crop((10, 5, 50, 45)).resize((32, 32)))
    assert all((np.asarray(crop.resize((32, 32))) != plain).any() for crop in crops)


def test_a_large_crop_is_reduced_before_it_is_saved():
    crops = list(further(Image.new("RGB", (500, 400)), (0, 0, 400, 400), 16))
    assert [crop.width for crop in crops] == [round(LARGEST * 16 * look.scale) for look in LOOKS]


@pytest.mark.parametrize("side", [1, 2, 9])
def test_the_smallest_crops_can_be_looked_at(side):
    assert all(min(crop.size) > 0 for crop in further(noise((side, side)), (0, 0, side, side), 32))
    assert Look(scale=0.5)(noise((side, side))).width == 8
