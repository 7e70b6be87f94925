"""The Python interface beyond `detect`: rows, plain values, HTML for notebooks, classification, pickles, threads."""

import io
import json
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import faceauth
from conftest import PORTRAIT, encoded, picture
from faceauth.detector import Detector
from faceauth.output import FIELDS
from scenes import portrait


@pytest.fixture(scope="module")
def portraits(model_path):
    return Detector(model_path)


def test_rows_are_those_of_every_output(portraits, folder):
    verdicts = portraits.detect([str(PORTRAIT), folder / "dark.jpg"])
    found = faceauth.rows(verdicts)
    assert [tuple(row) for row in found] == [FIELDS, FIELDS]
    assert found == [row for verdict in verdicts for row in verdict.rows()]
    assert faceauth.rows(verdicts[0]) == verdicts[0].rows()
    assert faceauth.rows(iter(verdicts)) == found
    assert faceauth.rows([]) == []
    assert [row["label"] for row in found] == [verdicts[0].label, "no-face"]


def test_rows_become_a_data_frame(portraits, folder):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(faceauth.rows(portraits.detect([str(PORTRAIT), folder / "dark.jpg"])))
    assert table.columns.tolist() == list(FIELDS)
    assert table["score"].notna().tolist() == [True, False]


def test_a_verdict_is_plain_values_too(portraits, tmp_path):
    for source in (str(PORTRAIT), str(tmp_path / "missing.png"), picture(), np.asarray(portrait("astronaut"))):
        (verdict,) = portraits.detect([source])
        values = verdict.to_dict()
        assert json.loads(json.dumps(values, allow_nan=False)) == values
        assert (values["label"], values["path"], values["error"]) == (verdict.label, verdict.path, verdict.error)
        assert len(values["faces"]) == len(verdict.faces)
    face = portraits.detect(str(PORTRAIT))[0].to_dict()["faces"][0]
    assert face["box"] == [173, 123, 353, 337]
    assert isinstance(face["generators"], dict)


def test_a_notebook_shows_the_picture_its_boxes_and_words(portraits):
    (verdict,) = portraits.detect(str(PORTRAIT))
    page = verdict._repr_html_()
    assert "data:image/jpeg;base64," in page
    assert '<rect x="173" y="123" width="180" height="214"' in page
    assert f"face 1: {verdict.label}" in page
    assert len(page) < 40_000
    assert verdict.picture is None


@pytest.mark.parametrize("form", ["PIL", "array", "bytes"])
def test_a_notebook_shows_pixels_that_came_from_memory(portraits, form):
    image = portrait("grace-hopper")
    source = {"PIL": image, "array": np.asarray(image), "bytes": encoded(image)}[form]
    (verdict,) = portraits.detect([source])
    page = verdict._repr_html_()
    assert "data:image/jpeg;base64," in page
    assert "<rect" in page
    assert "picture" not in repr(verdict)


def test_a_notebook_shows_no_picture_that_is_not_the_one_judged(portraits, tmp_path):
    path = tmp_path / '<b onclick="x">.png'
    portrait("grace-hopper").save(path)
    (verdict,) = portraits.detect([path])
    assert "data:image" in verdict._repr_html_()
    assert "<b onclick" not in verdict._repr_html_()
    picture().save(path)
    assert "data:image" not in verdict._repr_html_()
    path.unlink()
    assert "data:image" not in verdict._repr_html_()
    (broken,) = portraits.detect([path])
    assert "no such file" in broken._repr_html_()


def test_classify_has_the_shape_of_transformers(portraits, folder):
    one = portraits.classify(str(PORTRAIT))
    assert {entry["label"] for entry in one} == {"fake", "real"}
    assert one[0]["score"] >= one[1]["score"]
    assert sum(entry["score"] for entry in one) == pytest.approx(1)
    score = next(entry["score"] for entry in one if entry["label"] == "fake")
    assert score == portraits.scores(str(PORTRAIT))[0]
    assert portraits.classify(portrait("grace-hopper"))[0]["score"] == pytest.approx(one[0]["score"], abs=1e-5)
    assert portraits.classify([str(PORTRAIT)]) == [one]
    data = PORTRAIT.read_bytes()
    for form in (data, io.BytesIO(data), memoryview(data), {"bytes": data, "path": None}, PORTRAIT):
        assert portraits.classify(form) == one
    assert portraits.classify(folder / "dark.jpg") == []
    assert portraits.classify(folder) == [[], [], []]


def test_a_detector_pickles(portraits, model_path):
    mine = Detector(model_path, threshold=0.3, recheck=False, whole_image=True)
    back = pickle.loads(pickle.dumps(mine))
    assert (back.fake_from, back.recheck, back.whole_image) == (0.3, False, True)
    image = portrait("astronaut")
    assert back.detect(image)[0].faces == mine.detect(image)[0].faces


def test_threads_may_share_a_detector(portraits):
    images = [portrait(name) for name in ("grace-hopper", "astronaut", "vae-04", "vae-12")] * 3
    alone = [portraits.judge(image).faces for image in images]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            together = [verdict.faces for verdict in pool.map(portraits.judge, images)]
    finally:
        sys.setswitchinterval(interval)
    assert together == alone


@pytest.mark.slow
def test_load_takes_the_name_of_a_model_of_the_package():
    assert faceauth.load("accurate").model.sha256 == faceauth.load().model.sha256
    with pytest.raises(faceauth.ModelError, match="there are .*accurate"):
        faceauth.load("no-such-model")


def test_small_pictures_have_small_thumbnails():
    from faceauth.images.thumbnails import SIDE, thumbnail

    for size in ((1, 1), (3000, 10), (30, 20)):
        import io

        with Image.open(io.BytesIO(thumbnail(Image.new("RGB", size)))) as small:
            assert small.size[0] <= SIDE
            assert small.size[1] <= SIDE


@pytest.mark.parametrize("one", [str(PORTRAIT), "missing.jpg", PORTRAIT.read_bytes(), picture(), None, 5])
def test_a_stream_of_one_image_says_that_it_wants_several(portraits, one):
    with pytest.raises(TypeError, match="give a list, or use detect"):
        next(portraits.stream(one))


def test_a_table_is_refused_and_its_column_judged(portraits):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"path": [str(PORTRAIT)]})
    with pytest.raises(TypeError, match="give one of its columns"):
        portraits.detect(table)
    assert [v.path for v in portraits.detect(table["path"])] == [str(PORTRAIT)]


@pytest.mark.parametrize(("option", "told"), [
    ({"model": 3}, "model cannot be of type int"), ({"learned": 3}, "learned cannot be of type int"),
    ({"limits": 5}, "limits cannot be of type int"),
])  # fmt: skip
def test_an_argument_of_another_type_is_refused_in_one_line(model_path, option, told):
    for opened in (faceauth.load, Detector):
        with pytest.raises(faceauth.UsageError, match=told) as found:
            opened(**{"model": model_path} | option)
        assert found.value.hint and "\n" not in str(found.value)


@pytest.mark.parametrize("option", [{"threshold": "0.5"}, {"false_alarms": "1%"}])
def test_a_number_given_as_text_is_refused_in_words(model_path, option):
    with pytest.raises(faceauth.UsageError, match="give a number"):
        Detector(model_path, **option)
