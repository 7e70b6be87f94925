import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_card, write_model
from faceauth.detector import Detector
from faceauth.errors import ModelError, UsageError
from faceauth.model_file import (
    Calibration,
    ModelCard,
    ModelFile,
    Thresholds,
    embedded_path,
    packaged,
    resolve,
)
from faceauth.preprocess import PreprocessSpec


def test_a_card_survives_the_round_trip():
    card = make_card(notes={"held out": "nothing"}, calibration=Calibration(0.5, -1, "a test"))
    assert ModelCard.from_json(card.to_json()) == card


@pytest.mark.parametrize("damage", [
    lambda d: d.pop("sources"), lambda d: d.update(format=99), lambda d: d.update(labels=["real"]),
    lambda d: d["preprocess"].update(size="many"), lambda d: d["thresholds"].update(fake=3),
    lambda d: d["preprocess"].update(surprise=1), lambda d: d["preprocess"].update(size=32.5),
    lambda d: d["preprocess"].update(mean=[0, 0, float("nan")]), lambda d: d["preprocess"].update(size=True),
    lambda d: d["calibration"].update(scale=float("nan")), lambda d: d["calibration"].update(shift=float("inf")),
    lambda d: d["calibration"].update(scale="2"), lambda d: d["calibration"].update(scale=10**400),
    lambda d: d["thresholds"].update(real=float("nan")), lambda d: d["thresholds"].update(false_alarms=[]),
    lambda d: d["thresholds"].update(false_alarms=[0.5, 0.1]), lambda d: d["thresholds"].update(false_alarms={"0": 1}),
    lambda d: d["thresholds"].update(false_alarms=[[0, 1, 2]]), lambda d: d["thresholds"].update(false_alarms=[[0, 2]]),
    lambda d: d["thresholds"].update(false_alarms=[[0, float("nan")]]),
    lambda d: d["thresholds"].update(false_alarms=[[0.5, 1], [0.2, 0.5]]),
    lambda d: d.update(sources=["a"], labels=["fake"]), lambda d: d.update(sources=["a", "a"]),
    lambda d: d.update(labels=["fake", "fake"]), lambda d: d.update(sources="ab", labels="ab"),
    lambda d: d.update(sources=[1, 2]), lambda d: d.update(name=None), lambda d: d.update(notes=3),
    lambda d: d.update(seed=float("inf")), lambda d: d.update(parameters="many"), lambda d: d.update(calibration=[]),
])  # fmt: skip
def test_damaged_metadata_are_an_error_of_ours(damage):
    data = json.loads(make_card().to_json())
    damage(data)
    with pytest.raises(ModelError) as found:
        ModelCard.from_json(json.dumps(data))
    assert found.value.message
    assert found.value.hint


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", '"x"', "[" * 100_000, '{"format":' * 100_000, "1e400", "\x00"]
)
def test_metadata_that_are_no_card(text):
    with pytest.raises(ModelError):
        ModelCard.from_json(text)


@pytest.mark.parametrize("make", [
    lambda value: Calibration(value), lambda value: Thresholds(value, 0.1, ((0.0, 1.0), (1.0, 0.0)), "test"),
    lambda value: PreprocessSpec(size=value), lambda value: PreprocessSpec(interpolation=value[0]),
    lambda value: ModelCard.from_json(json.dumps({"format": value})),
])  # fmt: skip
def test_a_huge_value_in_a_card_is_shown_short(make):
    with pytest.raises(ModelError) as refused:
        make(["x" * 9000] * 9)
    assert len(str(refused.value)) < 300


def test_files_that_are_no_models(tmp_path, model_path):
    with pytest.raises(ModelError, match="cannot read"):
        ModelFile(tmp_path / "missing.onnx")
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(ModelError, match="not an ONNX"):
        ModelFile(tmp_path / "junk.onnx")
    for place in (tmp_path, "/dev/zero"):  # which would never end
        with pytest.raises(ModelError, match="no regular file"):
            ModelFile(place)
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


def refused(path, says):
    """The error names the file and the reason."""
    with pytest.raises(ModelError, match=says) as found:
        ModelFile(path)
    assert path.name in found.value.message


def test_metadata_are_refused_with_the_files_name(tmp_path, model_path):
    proto = onnx.load(model_path)
    proto.metadata_props[0].value = "[" * 100_000
    onnx.save(proto, tmp_path / "deep.onnx")
    refused(tmp_path / "deep.onnx", "nested too deeply")


def edited(model_path, target, change):
    proto = onnx.load(model_path)
    change(proto.graph)
    onnx.save(proto, target)
    return target


def renamed(graph, old, new):
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = new if name == old else name
    for value in (*graph.input, *graph.output):
        value.name = new if value.name == old else value.name


def test_a_graph_of_other_inputs_is_refused(tmp_path, model_path):
    refused(edited(model_path, tmp_path / "a.onnx", lambda g: renamed(g, "pixels", "image")), "inputs are 'image'")
    card = make_card()
    bytes_of_48 = write_model(tmp_path / "b.onnx", dataclasses.replace(card, preprocess=PreprocessSpec(size=48)))
    proto = onnx.load(bytes_of_48)
    proto.metadata_props[0].value = card.to_json()
    onnx.save(proto, tmp_path / "b.onnx")
    refused(tmp_path / "b.onnx", r"not float \(n, 3, 32, 32\)")

    def batch_of_two(graph):
        graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2

    refused(edited(model_path, tmp_path / "d.onnx", batch_of_two), "batches of 2 only")


def test_a_graph_of_other_outputs_is_refused(tmp_path, model_path):
    refused(
        edited(model_path, tmp_path / "a.onnx", lambda g: renamed(g, "embedding", "features")), "no output 'embedding'"
    )
    refused(write_model(tmp_path / "b.onnx", make_card(), sources=3), "source_logits.* for 2 sources")
    refused(write_model(tmp_path / "c.onnx", make_card(), parts=3), r"'parts' .*not float \(n, 2\)")


def test_widths_that_the_graph_does_not_say_are_measured(tmp_path, model_path):
    def unsaid(graph):
        for value in graph.output:
            value.type.tensor_type.ClearField("shape")
        for node in graph.node:
            node.doc_string = ""

    assert ModelFile(edited(model_path, tmp_path / "a.onnx", unsaid)).embedding_size == 2
    wide = write_model(tmp_path / "wide.onnx", make_card(), sources=3)
    refused(edited(wide, tmp_path / "b.onnx", unsaid), "source_logits.* for 2 sources")


def test_parts_are_an_output_that_a_model_may_have(tmp_path, model_path):
    pixels = np.ones((3, 3, 32, 32), np.float32)
    assert ModelFile(model_path).run(pixels).parts is None
    model = ModelFile(write_model(tmp_path / "parts.onnx", make_card(), parts=2))
    assert model.has_parts
    assert model.run(pixels).parts.tolist() == [[4, 4]] * 3
    assert Detector(tmp_path / "parts.onnx").run_nothing().parts.shape == (0, 2)


def test_models_of_the_package_have_names(tmp_path, monkeypatch):
    assert "accurate" in packaged()
    assert "centerface" not in packaged()
    assert resolve("accurate") == resolve(None) == embedded_path()
    with pytest.raises(ModelError, match="no model is called 'detectro': there are .*accurate") as found:
        resolve("detectro")
    assert "path" in found.value.hint
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_bytes(b"x")
    assert resolve("mine") == Path("mine")
    assert resolve("mine.onnx") == Path("mine.onnx")
    assert resolve(tmp_path / "accurate") == tmp_path / "accurate"


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


@pytest.mark.slow
def test_the_embedded_model_knows_thresholds_for_five_and_one_in_a_hundred():
    thresholds = ModelFile().card.thresholds
    assert thresholds.threshold_at_fpr(0.05) == pytest.approx(thresholds.fake, abs=0.01)
    assert thresholds.fake < thresholds.threshold_at_fpr(0.01) < 1


@pytest.mark.slow
def test_the_embedded_model_says_what_it_is():
    model = ModelFile()
    assert model.size < 90_000_000
    assert model.card.commit != "unknown"
    assert "dirty" not in model.card.commit
    assert len(model.card.sources) > 10
    assert model.card.thresholds.false_alarm_rate(model.card.thresholds.fake) <= 0.05
    assert "without its kind" in model.card.calibration.fitted_on
    assert str(embedded_path().parent) not in model.card.to_json()


def test_model_bytes_name_no_path_of_the_machine_that_made_them():
    data = embedded_path().read_bytes()
    for trace in (b"/root", b"/home", b"site-packages", b"/work"):
        assert trace not in data


def test_write_model_is_deterministic(tmp_path):
    assert (
        write_model(tmp_path / "a", make_card()).read_bytes() == write_model(tmp_path / "b", make_card()).read_bytes()
    )
