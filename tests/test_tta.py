import numpy as np
import pytest
from PIL import Image

from conftest import noise
from faceauth.tta import LARGEST, VIEWS, View, views


def test_views_are_what_they_say_and_draw_nothing_by_chance():
    image = noise((80, 60))
    crops = list(views(image, (10.4, 5, 50.4, 45), 32))
    assert [crop.size for crop in crops] == [(round(40 * view.scale),) * 2 for view in VIEWS]
    assert all(crop.mode == "RGB" for crop in crops)
    again = [np.asarray(crop) for crop in views(image, (10.4, 5, 50.4, 45), 32)]
    assert all((np.asarray(a) == b).all() for a, b in zip(crops, again, strict=True))
    plain = np.asarray(image.crop((10, 5, 50, 45)).resize((32, 32)))
    assert all((np.asarray(crop.resize((32, 32))) != plain).any() for crop in crops)


def test_a_large_crop_is_reduced_before_it_is_saved():
    crops = list(views(Image.new("RGB", (500, 400)), (0, 0, 400, 400), 16))
    assert [crop.width for crop in crops] == [round(LARGEST * 16 * view.scale) for view in VIEWS]


@pytest.mark.parametrize("side", [1, 2, 9])
def test_the_smallest_crops_have_views(side):
    assert all(min(crop.size) > 0 for crop in views(noise((side, side)), (0, 0, side, side), 32))
    assert View(scale=0.5)(noise((side, side))).width == 8


def test_a_view_without_a_quality_is_only_reduced():
    image = noise((40, 40))
    assert (np.asarray(View()(image)) == np.asarray(image)).all()
    assert View(scale=0.5)(image).size == (20, 20)
