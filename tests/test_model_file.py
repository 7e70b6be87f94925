import dataclasses
import json

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_card, write_model
from faceauth.errors import ModelError, UsageError
from faceauth.model_file import Calibration, ModelCard, ModelFile, Thresholds, embedded_path


def test_a_card_survives_the_round_trip():
    card = make_card(notes={"held out": "nothing"}, calibration=Calibration(0.5, -1, "a test"))
    assert ModelCard.from_json(card.to_json()) == card


@pytest.mark.parametrize("damage", [
    lambda d: d.pop("sources"), lambda d: d.update(format=99), lambda d: d.update(labels=["real"]),
    lambda d: d["preprocess"].update(size="many"), lambda d: d["thresholds"].update(fake=3),
    lambda d: d["preprocess"].update(surprise=1),
])  # fmt: skip
def test_damaged_metadata_are_an_error_of_ours(damage):
    data = json.loads(make_card().to_json())
    damage(data)
    with pytest.raises(ModelError):
        ModelCard.from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '"x"'])
def test_metadata_that_are_no_card(text):
    with pytest.raises(ModelError):
        ModelCard.from_json(text)


def test_files_that_are_no_models(tmp_path, model_path):
    with pytest.raises(ModelError, match="cannot read"):
        ModelFile(tmp_path / "missing.onnx")
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(ModelError, match="not an ONNX"):
        ModelFile(tmp_path / "junk.onnx")
    proto = onnx.load(model_path)
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / "foreign.onnx")
    with pytest.raises(ModelError, match="not a faceauth model"):
        ModelFile(tmp_path / "foreign.onnx")


def test_external_weights_are_not_read(tmp_path, model_path):
    proto = onnx.load(model_path)
    weight = next(tensor for tensor in proto.graph.initializer if tensor.name == "four")
    weight.ClearField("float_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "secret"
    (tmp_path / "secret").write_bytes(b"\0" * 16)
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError):
        ModelFile(tmp_path / "model.onnx")


def test_run_gives_named_outputs(model_path):
    out = ModelFile(model_path).run(np.ones((3, 3, 32, 32), np.float32))
    assert out.logit.tolist() == [4, 4, 4]
    assert out.source_logits.shape == out.embedding.shape == (3, 2)


def test_calibration_is_platts_sigmoid():
    calibration = Calibration(2.0, 1.0)
    assert calibration(np.array([0.0, -0.5]))[1] == pytest.approx(0.5)
    assert calibration(np.array([1e30, -1e30])).tolist() == pytest.approx([1, 0])


def test_false_alarm_rate_is_read_off_the_curve():
    thresholds = Thresholds(0.5, 0.2, ((0.0, 1.0), (0.5, 0.1), (1.0, 0.0)), "test")
    assert thresholds.false_alarm_rate(0.75) == pytest.approx(0.05)
    with pytest.raises(ModelError):
        dataclasses.replace(thresholds, real=0.6)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_a_lower_rate_never_lowers_the_threshold(shares, one, other):
    shares = sorted(shares, reverse=True)
    curve = tuple((i / len(shares), share) for i, share in enumerate(shares))
    thresholds = Thresholds(0.5, 0.2, curve, "test")
    found = []
    for rate in sorted((one, other)):
        try:
            found.append(thresholds.threshold_at_fpr(rate))
        except UsageError:
            assert not any(0 < share <= rate for share in shares)
            found.append(1.0)
        else:
            assert thresholds.false_alarm_rate(found[-1]) <= rate
    assert found[0] >= found[1]


def test_a_rate_that_was_not_measured_has_no_threshold():
    thresholds = Thresholds(0.5, 0.2, ((0.0, 1.0), (0.5, 0.1), (0.9, 0.012), (0.95, 0.0), (1.0, 0.0)), "test")
    assert thresholds.threshold_at_fpr(0.05) == 0.9
    with pytest.raises(UsageError, match=r"for a false-alarm rate of 1%: the least is 1.20%"):
        thresholds.threshold_at_fpr(0.01)
    with pytest.raises(UsageError, match="not calibrated"):
        Thresholds(1, 0, ((0.0, 1.0), (1.0, 0.0)), "nothing: not calibrated").threshold_at_fpr(0.05)


def test_the_embedded_model_knows_thresholds_for_five_and_one_in_a_hundred():
    thresholds = ModelFile().card.thresholds
    assert thresholds.threshold_at_fpr(0.05) == pytest.approx(thresholds.fake, abs=0.01)
    assert thresholds.fake < thresholds.threshold_at_fpr(0.01) < 1


def test_the_embedded_model_says_what_it_is():
    model = ModelFile()
    assert model.size < 10_000_000
    assert model.card.commit != "unknown"
    assert "dirty" not in model.card.commit
    assert len(model.card.sources) > 10
    assert model.card.thresholds.false_alarm_rate(model.card.thresholds.fake) <= 0.05
    assert "not seen" in model.card.calibration.fitted_on
    assert str(embedded_path().parent) not in model.card.to_json()


def test_model_bytes_name_no_path_of_the_machine_that_made_them():
    data = embedded_path().read_bytes()
    for trace in (b"/root", b"/home", b"site-packages", b"/work"):
        assert trace not in data


def test_write_model_is_deterministic(tmp_path):
    assert (
        write_model(tmp_path / "a", make_card()).read_bytes() == write_model(tmp_path / "b", make_card()).read_bytes()
    )
