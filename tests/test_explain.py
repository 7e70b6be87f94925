"""Explanations: what they hold, that they are the same twice, and that what they say follows from the picture."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from attributed import write_colour_model
from block_models import block_card, write_block_model, write_reference
from conftest import PORTRAIT, encoded, make_card, noise, picture, write_model
from faceauth import images
from faceauth.detector import Detector
from faceauth.errors import ImageError, ModelError
from faceauth.explain import explain, reference, words
from faceauth.explain.stability import EDITS, edited_scores, stability
from faceauth.faces import FoundFace
from faceauth.model_file import ModelFile, Thresholds
from faceauth.verdict import Face, Verdict


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = write_block_model(tmp_path_factory.mktemp("explain") / "blocks.onnx")
    write_reference(path, ModelFile(path).sha256)
    return path


@pytest.fixture(scope="module")
def portrait(model):
    return explain(Detector(model), PORTRAIT)


def without_times(values):
    values = json.loads(json.dumps(values))
    (
        values.pop("ms"),
        values["verdict"].pop("ms"),
        values["verdict"].pop("judged_at"),
        values["custody"].pop("created_at"),
    )
    return json.dumps(values)


def test_an_explanation_is_plain_values_and_the_same_twice(model, portrait):
    values = portrait.to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert without_times(values) == without_times(explain(Detector(model), PORTRAIT).to_dict())


def test_a_face_is_explained_in_full(portrait):
    [face] = portrait.faces
    assert portrait.sentence == f"The one face found is called {portrait.verdict.label}."
    assert face.heat_map.method == "patches" and face.heat_map.region == face.region
    left, top, right, bottom = portrait.verdict.faces[0].box
    assert face.region[0] < left < right < face.region[2] and face.region[1] < top < bottom < face.region[3]
    assert [e.edit for e in face.stability.edits] == ["as it is", *(name for name, _ in EDITS)]
    assert face.spectrum.frequency[-1] <= 0.5 and len(face.spectrum.decibels) == len(face.spectrum.real.decibels)
    assert portrait.provenance.sha256 == portrait.custody.image_sha256 == portrait.verdict.image_sha256
    assert portrait.custody.image_bytes == PORTRAIT.stat().st_size


def test_scores_of_edits_follow_the_picture(model):
    detector = Detector(model, whole_image=True)
    image = Image.fromarray(np.dstack([np.full((64, 64), v, np.uint8) for v in (230, 20, 20)]))
    score = detector.detect(image)[0].faces[0].score
    found = {e.edit: e for e in stability(detector, score, edited_scores(detector, image, None)).edits}
    assert found["mirrored"].score == pytest.approx(score, abs=1e-5)
    assert found["grey"].score == pytest.approx(detector.scores(image.convert("L"))[0], abs=1e-5) != score


def test_an_explanation_takes_thirteen_passes_of_the_network(tmp_path, monkeypatch):
    passes = []
    for name in ("run", "inside"):
        whole = getattr(ModelFile, name)
        monkeypatch.setattr(ModelFile, name, lambda self, x, whole=whole: passes.append(len(x)) or whole(self, x))
    detector = Detector(write_block_model(tmp_path / "b.onnx"), whole_image=True)
    passes.clear()
    found = explain(detector, picture((255, 0, 0), (64, 64)))
    assert found.verdict.label == "fake" and found.faces[0].heat_map.method == "patches"
    assert sum(passes) == 2 + 2 + len(EDITS) == 13
    assert found.verdict.faces == detector.detect(picture((255, 0, 0), (64, 64)))[0].faces


def test_changes_of_label_are_counted_against_the_picture_as_it_is(tmp_path, monkeypatch):
    card = block_card(thresholds=Thresholds(0.6, 0.4, ((0.0, 1.0), (1.0, 0.0)), "test"))
    detector = Detector(write_block_model(tmp_path / "b.onnx", of_mean=(1.5, 0.0, 0.0), card=card), whole_image=True)
    image = picture((255, 0, 0), (64, 64))
    score = detector.detect(image)[0].faces[0].score
    edits = dict(EDITS)
    monkeypatch.setattr(
        "faceauth.explain.stability.EDITS", tuple((n, edits[n]) for n in ("grey", "mirrored", "JPEG 95"))
    )
    found = stability(detector, score, edited_scores(detector, image, None))
    assert [e.label for e in found.edits] == ["fake", "real", "fake", "fake"]
    assert found.changes == 1 and found.lowest == found.edits[1].score and found.highest >= found.edits[0].score


def test_a_heat_map_lies_on_the_face_in_the_pixels_of_the_picture(tmp_path):
    detector = Detector(write_block_model(tmp_path / "b.onnx"), whole_image=True)
    image = picture((0, 0, 0), (320, 160))
    image.paste((255, 0, 0), (80, 0, 120, 40))  # in the upper left corner of the central square
    heat = explain(detector, image).faces[0].heat_map
    assert heat.region == (80, 0, 240, 160)
    assert heat.values[0][0] == max(map(max, heat.values))


def test_what_a_word_is_worth_comes_from_the_measured_rates(model):
    face = Face(0, (0, 0, 9, 9), "fake", 0.95, None, 0.9, 0.1)
    detector = Detector(model)
    rates = reference.read(detector.model).rates
    found = words.worth(detector, face, rates)
    assert found.score_rate == pytest.approx(0.05)
    assert dict(found.fake_is_right) == {0.5: 0.75, 0.1: 0.25, 0.01: 0.0294}
    assert found.sentences[0].startswith("5 of 100 real photographs")
    assert "10 of 100 photographs and 30 of 100 generated faces are called fake" in found.sentences[1]
    assert "75 of 100 cases where one picture in two" in found.sentences[2]


@pytest.mark.parametrize("options", [{"threshold": 0.8}, {"recheck": False}])
def test_rates_of_other_settings_are_not_told(model, options):
    detector = Detector(model, **options)
    found = words.worth(
        detector, Face(0, (0, 0, 9, 9), "fake", 0.95, None, 0.8, 0.1), reference.read(detector.model).rates
    )
    assert found.fake_is_right == () and found.fake_called_fake is None
    assert "not measured" in found.sentences[-1]


def test_nothing_measured_is_nothing_told(tmp_path):
    card = make_card(thresholds=Thresholds(0.9, 0.1, ((0.0, 1.0), (1.0, 1.0)), "nothing: raw logits"))
    detector = Detector(write_model(tmp_path / "raw.onnx", card))
    found = words.worth(detector, Face(0, (0, 0, 9, 9), "fake", 0.95, None, 0.9, 0.1), None)
    assert found.score_rate is None and found.sentences == (
        "How many real photographs score this high was not measured.",
    )


def test_a_whole_image_and_no_face_are_told(model):
    assert explain(Detector(model), noise()).sentence == "No face was found, and nothing was judged."
    whole = explain(Detector(model, whole_image=True), noise())
    assert "nothing was measured" in whole.sentence and whole.faces[0].worth.score_rate is None
    assert whole.provenance is None and whole.custody.image_sha256 is None


def test_the_first_sentence_says_that_a_part_of_the_file_was_judged(model, tmp_path):
    frames = [picture((200, 30, 30)), picture((30, 200, 30))]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    found = explain(Detector(model), tmp_path / "two.gif")
    assert found.sentence == "No face was found, and nothing was judged. An animation: its first frame was judged."


def test_a_face_too_small_has_a_reason_and_no_evidence(model):
    small = Image.open(PORTRAIT).convert("RGB")
    small.thumbnail((80, 80))
    room = Image.new("RGB", (640, 480), (120, 120, 120))
    room.paste(small, (280, 200))
    [face] = explain(Detector(model), room).faces
    assert face.reason.startswith("The face spans less than 48") and face.heat_map is None and face.stability is None
    assert face.sentence.startswith("Face 1 was not judged")
    assert explain(Detector(model), room).sentence == "The one face found was not judged."


def test_the_headline_counts_what_was_not_judged():
    def verdict(*scores):
        faces = (Face(i, (0, 0, 9, 9), "uncertain", score, None, 0.9, 0.1) for i, score in enumerate(scores))
        return Verdict(None, tuple(faces), "m", "")

    assert words.headline(verdict(0.5, None, None)) == "3 faces were found: 1 called uncertain, 2 not judged."
    whole = replace(verdict(None), faces=(Face(None, None, "uncertain", None, None, 0.9, None),))
    assert words.headline(whole).startswith("No face was found; the whole image was not judged")


def test_a_face_beyond_those_explained_in_full_says_why(model, monkeypatch):
    monkeypatch.setattr("faceauth.explain.explaining.MOST_FACES", 1)
    one = Image.open(PORTRAIT).convert("RGB")
    two = Image.new("RGB", (2 * one.width, one.height))
    two.paste(one, (0, 0))
    two.paste(one, (one.width, 0))
    first, second = explain(Detector(model), two).faces
    assert "in full" not in first.sentence and second.heat_map is None
    assert second.sentence.endswith(" Only the 1 largest faces are explained in full.")


def test_each_face_has_its_own_evidence_where_one_too_small_lies_between(model):
    detector = Detector(model)
    boxes = [(0, 0, 100, 100), (110, 0, 157, 47), (170, 0, 207, 51)]
    detector.find_faces = lambda _: [FoundFace(box) for box in boxes]
    found = explain(detector, noise((220, 110)))
    assert [(f.index, f.number) for f in found.faces] == [(0, 1), (1, 2), (2, 3)]
    assert [f.sentence.split(":")[0][:10] for f in found.faces] == ["Face 1 is ", "Face 2 was", "Face 3 is "]
    assert found.faces[1].region is None and found.faces[2].region[0] < 170 < 207 < found.faces[2].region[2]


def test_the_nearest_sources_are_those_whose_means_lie_nearest(tmp_path):
    detector = Detector(write_colour_model(tmp_path / "c.onnx"), whole_image=True)
    face = explain(detector, picture((250, 10, 10))).faces[0]
    distances = [n.distance for n in face.nearest]
    assert distances == sorted(distances) and len(face.nearest) > 1
    prototypes = detector.attributor.prototypes
    point = prototypes.place(detector.embed(picture((250, 10, 10))))
    nearest = int(np.linalg.norm(prototypes.means - point, axis=1).argmin())
    assert face.nearest[0].source == prototypes.kinds[nearest].name


def test_the_spectrum_of_noise_lies_above_that_of_a_smooth_picture(model):
    detector = Detector(model, whole_image=True)
    rough, smooth = (explain(detector, image).faces[0].spectrum for image in (noise((32, 32)), picture(size=(32, 32))))
    assert min(rough.decibels) > max(smooth.decibels) + 20


@pytest.mark.parametrize("data", ["", "[]", "{}", '{"format": 1}', '{"format": 2}', "[" * 100_000])  # fmt: skip
def test_a_damaged_reference_is_refused(tmp_path, data):
    path = write_block_model(tmp_path / "b.onnx")
    (tmp_path / "b.reference.json").write_text(data)
    with pytest.raises(ModelError, match=r"b\.reference\.json"):
        explain(Detector(path, whole_image=True), noise())


@pytest.mark.parametrize("change", [{"low": [1.0]}, {"low": [float("nan")]}, {"rates": {"real": {}}}, {"profiles": []}])
def test_a_reference_of_impossible_values_is_refused(tmp_path, change):
    path = write_block_model(tmp_path / "b.onnx")
    beside = write_reference(path, ModelFile(path).sha256)
    beside.write_text(json.dumps(json.loads(beside.read_text()) | change))
    with pytest.raises(ModelError):
        reference.read(ModelFile(path))


def test_a_reference_of_another_model_takes_no_part(tmp_path):
    path = write_block_model(tmp_path / "b.onnx")
    write_reference(path, "0" * 64)
    assert reference.read(ModelFile(path)) is None


def test_a_reference_is_read_as_it_was_written(model):
    found = reference.read(ModelFile(model))
    other = replace(found, rates=None)
    path = reference.path_of(model)
    before = path.read_text()
    try:
        path.write_text(other.to_json(ModelFile(model).sha256))
        assert reference.read(ModelFile(model)) == other
        path.write_text(found.to_json(ModelFile(model).sha256))
        assert reference.read(ModelFile(model)) == found
    finally:
        path.write_text(before)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["accurate", "fast"])
def test_the_shipped_reference_fits_the_shipped_model_and_its_card(name):
    model = ModelFile(name)
    found = reference.read(model)
    assert len(found.low) == len(reference.frequencies(model.card.preprocess.size)) and len(found.generators) > 20
    shares = " | ".join(f"{found.rates.real[label]:.3f}" for label in ("real", "uncertain", "fake"))
    assert f"| {name} | unseen kind | clean | real | 280 | {shares} |" in model.path.with_suffix(".md").read_text()
    assert reference.path_of(model.path).stat().st_size < 20_000


def test_a_picture_that_cannot_be_read_is_an_error(model):
    with pytest.raises(ImageError):
        explain(Detector(model), b"no image")


def test_an_image_that_was_read_already_is_not_read_again(model):
    loaded = images.load(encoded(noise((64, 64))))
    assert explain(Detector(model), loaded).custody.image_sha256 == loaded.sha256
