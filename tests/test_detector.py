import numpy as np
import pytest
from PIL import Image

import faceauth
from conftest import PORTRAIT, encoded, make_card, noise, picture, write_model
from faceauth.detector import SMALLEST_FACE, Detector
from faceauth.errors import ImageError, UsageError
from faceauth.images import Limits
from faceauth.looks import LOOKS


def test_labels_follow_the_thresholds(detector, folder):
    verdicts = detector.detect(folder)
    assert [v.label for v in verdicts] == ["fake", "real", "uncertain"]
    assert [v.faces[0].source for v in verdicts][:2] == ["bulb", "camera"]
    assert verdicts[0].faces[0].score > 0.99


def test_no_face_means_the_whole_image_and_says_so(detector):
    (verdict,) = detector.detect(picture())
    (face,) = verdict.faces
    assert face.index is None
    assert face.box is None
    assert face.score is not None


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
    assert face.label == "uncertain"
    assert f"{SMALLEST_FACE} needed" in face.error


def test_unreadable_images_get_a_verdict_and_the_rest_goes_on(detector, folder):
    (folder / "broken.png").write_bytes(encoded(noise())[:300])
    verdicts = detector.detect(folder)
    assert [v.error is None for v in verdicts] == [True, False, True, True]
    assert verdicts[1].faces == ()
    assert verdicts[1].path.endswith("broken.png")


def test_threshold_moves_the_label_and_the_rate(model_path):
    strict = Detector(model_path, threshold=1.0)
    assert strict.detect(picture((255, 255, 255)))[0].label == "uncertain"
    loose = Detector(model_path, threshold=0.05)
    assert loose.detect(picture((120, 120, 120)))[0].label == "fake"
    assert loose.false_alarm_rate == pytest.approx(0.95)
    for bad in (-0.1, 1.1):
        with pytest.raises(UsageError):
            Detector(model_path, threshold=bad)


def test_a_promised_rate_sets_the_threshold(model_path):
    detector = Detector(model_path, false_alarms=0.15)
    assert detector.fake_from == pytest.approx(0.9)
    assert detector.false_alarm_rate <= 0.15
    assert detector.detect(picture((255, 255, 255)))[0].faces[0].threshold == detector.fake_from
    with pytest.raises(UsageError, match="exclude"):
        Detector(model_path, false_alarms=0.1, threshold=0.5)
    with pytest.raises(UsageError, match=r"cannot promise .* 1%"):
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


def test_what_the_first_look_calls_fake_is_looked_at_again(counted):
    detector, asked = counted
    (face,) = detector.detect(picture((255, 255, 255)))[0].faces
    assert asked == [1, len(LOOKS)]
    assert (face.label, face.stability) == ("fake", 1.0)


@pytest.mark.parametrize(("grey", "label"), [(0, "real"), (128, "uncertain")])
def test_other_faces_take_one_look(counted, grey, label):
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
    (alone,) = Detector(path, second_look=False).detect(image)[0].faces
    assert (alone.label, alone.stability) == ("fake", None)
    detector = Detector(path)
    (face,) = detector.detect(image)[0].faces
    assert (face.label, face.stability) == ("uncertain", 1 / (1 + len(LOOKS)))
    assert face.score < face.threshold
    assert detector.scores(image) == [face.score]
    assert detector.detect(image)[0].faces == (face,)
    assert list(Detector(path).stream([image] * 2, workers=2))[1].faces == (face,)


def test_kinds_of_input_agree(detector, folder):
    path = folder / "bright.png"
    image = Image.open(path).convert("RGB")
    inputs = [str(path), path, path.read_bytes(), image, np.asarray(image)]
    scores = [detector.detect(i)[0].faces[0].score for i in inputs]
    assert scores == pytest.approx([scores[0]] * 5)
    assert detector.scores(inputs) == pytest.approx(scores)


def test_scores_and_embeddings_have_the_promised_shapes(detector, folder):
    assert detector.scores(folder).shape == (3,)
    assert detector.scores(folder).dtype == np.float64
    assert detector.embed(folder).shape == (3, 2)
    assert detector.scores([]).shape == (0,)
    assert detector.embed([]).shape == (0, 2)
    with pytest.raises(ImageError, match="missing.jpg"):
        detector.scores("missing.jpg")


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


def test_load_takes_the_embedded_model(model_path):
    assert faceauth.load().model.card.name == "embedded"
    assert faceauth.load(str(model_path)).model.card.name == "brightness"


def test_calibration_reaches_the_scores(tmp_path, model_path):
    from faceauth.model_file import Calibration

    moved = write_model(tmp_path / "m.onnx", make_card(calibration=Calibration(1.0, 5.0)))
    assert Detector(moved).scores(noise()) > Detector(model_path).scores(noise())


def test_the_source_never_contradicts_the_score(tmp_path):
    from faceauth.model_file import Calibration

    # The network says bulb (fake) for a bright picture; a calibration that calls it real must name a real source.
    moved = Detector(write_model(tmp_path / "m.onnx", make_card(calibration=Calibration(1.0, -20.0))))
    (face,) = moved.detect(picture((255, 255, 255)))[0].faces
    assert face.score < 0.5
    assert face.source == "camera"
