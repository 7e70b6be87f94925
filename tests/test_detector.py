import numpy as np
import pytest
from PIL import Image

import faceauth
from conftest import PORTRAIT, encoded, make_card, noise, picture, write_model
from faceauth import images
from faceauth.detector import SMALLEST_FACE, Detector
from faceauth.errors import ImageError, UsageError
from faceauth.faces import FoundFace
from faceauth.images import Limits
from faceauth.model_file import Calibration, Thresholds
from faceauth.tta import VIEWS


def test_labels_follow_the_thresholds(detector, folder):
    verdicts = detector.detect(folder)
    assert [v.label for v in verdicts] == ["fake", "real", "uncertain"]
    assert [v.faces[0].source for v in verdicts][:2] == ["bulb", "camera"]
    assert verdicts[0].faces[0].score > 0.99


@pytest.mark.parametrize("source", [picture(), picture((255, 255, 255)), picture(size=(8, 8)), noise((300, 200))])
def test_without_a_face_nothing_is_judged(model_path, source):
    (verdict,) = Detector(model_path).detect(source)
    assert (verdict.label, verdict.faces, verdict.error) == ("no-face", (), None)
    assert np.isnan(Detector(model_path).scores(source)).all()


def test_the_whole_image_is_judged_where_that_is_asked_for_and_says_so(detector):
    (verdict,) = detector.detect(picture())
    (face,) = verdict.faces
    assert face.index is None
    assert face.box is None
    assert face.score is not None
    assert face.false_alarm_rate is None


def test_a_face_is_found_and_cut_out(detector):
    (verdict,) = detector.detect(str(PORTRAIT))
    (face,) = verdict.faces
    assert face.index == 0
    assert face.box is not None
    assert verdict.image_sha256 is not None
    assert (verdict.width, verdict.height) == (512, 600)
    assert verdict.ms > 0


def test_a_face_too_small_is_not_judged(detector):
    small = Image.open(PORTRAIT).convert("RGB").resize((76, 90))
    scene = Image.new("RGB", (400, 300), "grey")
    scene.paste(small, (150, 100))
    (verdict,) = detector.detect(scene)
    (face,) = verdict.faces
    assert face.score is None
    assert (face.label, face.reason) == ("uncertain", "too small")
    assert f"{SMALLEST_FACE} needed" in face.error
    assert np.isnan(detector.scores(scene)).all() and detector.classify(scene) == []  # with `whole_image` too
    assert detector.embed(scene).shape == (1, 2)


def test_faces_come_by_size_where_one_too_small_is_larger_than_one_that_is_judged(detector):
    boxes = [(0, 0, 100, 100), (110, 0, 157, 47), (170, 0, 207, 51)]
    detector.find_faces = lambda _: [FoundFace(box) for box in boxes]
    faces = detector.detect(noise((220, 110)))[0].faces
    assert [(f.index, f.box) for f in faces] == list(enumerate(boxes))
    assert [f.reason == "too small" for f in faces] == [f.score is None for f in faces] == [False, True, False]


def test_unreadable_images_get_a_verdict_and_the_rest_goes_on(detector, folder):
    (folder / "broken.png").write_bytes(encoded(noise())[:300])
    verdicts = detector.detect(folder)
    assert [v.error is None for v in verdicts] == [True, False, True, True]
    assert verdicts[1].faces == ()
    assert verdicts[1].path.endswith("broken.png")


def test_threshold_moves_the_label_and_the_rate(model_path):
    strict = Detector(model_path, threshold=1.0, whole_image=True)
    assert strict.detect(picture((255, 255, 255)))[0].label == "uncertain"
    loose = Detector(model_path, threshold=0.05, whole_image=True)
    assert loose.detect(picture((120, 120, 120)))[0].label == "fake"
    assert loose.false_alarm_rate == pytest.approx(0.95)
    for bad in (-0.1, 1.1):
        with pytest.raises(UsageError):
            Detector(model_path, threshold=bad)


def test_a_rate_of_false_alarms_sets_the_threshold(model_path):
    detector = Detector(model_path, false_alarms=0.15, whole_image=True)
    assert detector.fake_from == pytest.approx(0.9)
    assert detector.false_alarm_rate <= 0.15
    assert detector.detect(picture((255, 255, 255)))[0].faces[0].threshold == detector.fake_from
    with pytest.raises(UsageError, match="exclude"):
        Detector(model_path, false_alarms=0.1, threshold=0.5)
    with pytest.raises(UsageError, match=r"no threshold is known for .* 1%"):
        Detector(model_path, false_alarms=0.01)
    for bad in (0, 1, -0.1, 5, float("nan")):
        with pytest.raises(UsageError, match="between 0 and 1"):
            Detector(model_path, false_alarms=bad)


@pytest.fixture
def counted(detector, monkeypatch):
    """The detector, and how many faces the network was asked about in each call."""
    asked = []
    run = detector.model.run
    monkeypatch.setattr(detector.model, "run", lambda pixels: asked.append(len(pixels)) or run(pixels))
    return detector, asked


def test_what_reaches_the_threshold_is_tried_again_in_every_view(counted):
    detector, asked = counted
    (face,) = detector.detect(picture((255, 255, 255)))[0].faces
    assert asked == [1, len(VIEWS)]
    assert (face.label, face.stability) == ("fake", 1.0)


@pytest.mark.parametrize(("grey", "label"), [(0, "real"), (128, "uncertain")])
def test_other_faces_are_tried_once(counted, grey, label):
    detector, asked = counted
    (face,) = detector.detect(picture((grey, grey, grey)))[0].faces
    assert asked == [1]
    assert (face.label, face.stability) == (label, None)


CHECKS = np.indices((32, 32)).sum(0) % 2 * 2.0 - 1


@pytest.fixture
def fragile(tmp_path):
    """A model that sees a fine pattern, and a picture whose faint pattern does not survive saving again."""
    path = write_model(tmp_path / "fragile.onnx", make_card(), 25 * CHECKS)
    return path, Image.fromarray(np.uint8(128 + 3 * CHECKS)).convert("RGB")


def test_a_verdict_that_does_not_survive_saving_again_is_uncertain(fragile):
    path, image = fragile
    (alone,) = Detector(path, recheck=False, whole_image=True).detect(image)[0].faces
    assert (alone.label, alone.stability, alone.reason) == ("fake", None, None)
    detector = Detector(path, whole_image=True)
    (face,) = detector.detect(image)[0].faces
    assert (face.label, face.stability) == ("uncertain", pytest.approx(1 / (1 + len(VIEWS))))
    assert face.reason == "changes when re-saved"
    assert face.score == alone.score >= face.threshold
    assert detector.scores(image) == [face.score]
    assert detector.detect(image)[0].faces == (face,)
    assert list(detector.stream([image] * 2, workers=2))[1].faces == (face,)


def test_the_score_does_not_depend_on_the_threshold(model_path, fragile):
    path, image = fragile
    scores = {Detector(path, threshold=t, whole_image=True).detect(image)[0].faces[0].score for t in (0.05, 0.5, 1.0)}
    assert len(scores) == 1


@pytest.mark.parametrize(("grey", "reason"), [(20, "blurred or dark"), (160, "blurred or dark")])
def test_uncertain_has_a_reason(tmp_path, grey, reason):
    model = write_model(tmp_path / "m.onnx", make_card(thresholds=Thresholds(1.0, 0.0, ((0.0, 1.0), (1.0, 0.0)), "x")))
    detector = Detector(model, whole_image=True)
    assert detector.detect(picture((grey,) * 3))[0].faces[0].reason == reason
    assert detector.detect(noise())[0].faces[0].reason == "between thresholds"


@pytest.mark.parametrize("cover", [(0, 0, 0.5, 1), (0, 0.55, 1, 1), (0, 0.28, 1, 0.48)])  # a slab, a mask, a bar
def test_a_face_with_something_laid_over_it_is_called_covered(tmp_path, cover):
    model = write_model(tmp_path / "m.onnx", make_card(thresholds=Thresholds(1.0, 0.0, ((0.0, 1.0), (1.0, 0.0)), "x")))
    detector = Detector(model)
    portrait = Image.open(PORTRAIT).convert("RGB")
    (found,) = detector.find_faces(portrait)
    (verdict,) = detector.detect(portrait)
    assert verdict.faces[0].reason == "between thresholds"
    corner, size = np.array(found.box[:2] * 2), np.array([found.box[i % 2 + 2] - found.box[i % 2] for i in range(4)])
    place = np.round(corner + size * cover).astype(int).tolist()
    portrait.paste((25, 30, 40), place)
    covered = detector.judge_loaded(images.load(portrait), found=[found])
    assert covered.faces[0].reason == "covered"


def test_kinds_of_input_agree(detector, folder):
    path = folder / "bright.png"
    image = Image.open(path).convert("RGB")
    inputs = [str(path), path, path.read_bytes(), image, np.asarray(image)]
    scores = [detector.detect(i)[0].faces[0].score for i in inputs]
    assert scores == pytest.approx([scores[0]] * 5)
    assert detector.scores(inputs) == pytest.approx(scores)


def test_scores_and_embeddings_have_the_stated_shapes(detector, folder):
    assert detector.scores(folder).shape == (3,)
    assert detector.scores(folder).dtype == np.float64
    assert detector.embed(folder).shape == (3, 2)
    assert detector.scores([]).shape == (0,)
    assert detector.embed([]).shape == (0, 2)
    with pytest.raises(ImageError, match="missing.jpg"):
        detector.scores("missing.jpg")


@pytest.mark.slow
def test_workers_give_the_same_verdicts_in_order(detector, folder):
    for i in range(20):
        picture((i * 12, 0, 0)).save(folder / f"{i:02}.png")
    paths = sorted(str(p) for p in folder.glob("*.png"))
    alone = [(v.path, v.faces) for v in detector.stream(paths)]
    together = [(v.path, v.faces) for v in detector.stream(paths, workers=2)]
    assert alone == together


def test_limits_reach_the_decoder(model_path):
    detector = Detector(model_path, limits=Limits(max_pixels=10))
    assert "limit" in detector.detect(picture())[0].error


@pytest.mark.slow
def test_load_takes_the_embedded_model(model_path):
    assert faceauth.load().model.card.name == "accurate"
    assert faceauth.load(str(model_path)).model.card.name == "brightness"


def test_calibration_reaches_the_scores(tmp_path, model_path):
    moved = write_model(tmp_path / "m.onnx", make_card(calibration=Calibration(1.0, 5.0)))
    after, before = (Detector(file, whole_image=True).scores(noise()) for file in (moved, model_path))
    assert after > before


def test_the_source_never_contradicts_the_score(tmp_path):
    # The network says bulb (fake) for a bright picture; a calibration that calls it real must name a real source.
    moved = Detector(write_model(tmp_path / "m.onnx", make_card(calibration=Calibration(1.0, -20.0))), whole_image=True)
    (face,) = moved.detect(picture((255, 255, 255)))[0].faces
    assert face.score < 0.5
    assert face.source == "camera"
