import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from faceauth.errors import ModelError, UsageError
from faceauth.lab.training.face_finder import convert


def write_source(path, outputs=4):
    """A network of CenterFace's shape: weights among its inputs, one fixed size, arrays that nothing reads."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(8, 3, 4, 4)).astype(np.float32)
    stored = [
        numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.ones(8, np.float32), "b"),
        numpy_helper.from_array(rng.normal(size=1000).astype(np.float32), "unused"),
    ]  # fmt: skip
    nodes = [helper.make_node("Conv", ["input.1", "w", "b"], ["x"], strides=[4, 4])]
    nodes += [helper.make_node("Identity", ["x"], [str(537 + i)]) for i in range(outputs)]
    inputs = [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [10, 3, 32, 32])]
    inputs += [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, list(t.dims)) for t in stored]
    made = [helper.make_tensor_value_info(str(537 + i), TensorProto.FLOAT, [10, 8, 8, 8]) for i in range(outputs)]
    graph = helper.make_graph(nodes, "faces", inputs, made, stored)
    graph.value_info.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [10, 8, 8, 8]))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return weight


def test_it_takes_any_size_and_computes_the_same(tmp_path):
    import onnxruntime as ort

    weight = write_source(tmp_path / "source.onnx")
    size = convert(tmp_path / "source.onnx", tmp_path / "faces.onnx")
    session = ort.InferenceSession(tmp_path / "faces.onnx", providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["pixels"]
    assert [o.name for o in session.get_outputs()] == ["537", "538", "539", "540"]
    for height, width in ((32, 32), (64, 96)):
        pixels = np.random.default_rng(1).random((1, 3, height, width), np.float32)
        (given, *_) = session.run(None, {"pixels": pixels})
        patches = pixels.reshape(1, 3, height // 4, 4, width // 4, 4)
        wanted = np.einsum("nchiwj,ocij->nohw", patches, weight) + 1
        assert given == pytest.approx(wanted, abs=0.02)
    stored = {t.name: t for t in onnx.load(tmp_path / "faces.onnx").graph.initializer}
    assert set(stored) == {"w_half", "b"}
    assert stored["w_half"].data_type == TensorProto.FLOAT16
    assert size == (tmp_path / "faces.onnx").stat().st_size < (tmp_path / "source.onnx").stat().st_size / 2


def test_the_same_source_gives_the_same_bytes(tmp_path):
    write_source(tmp_path / "source.onnx")
    convert(tmp_path / "source.onnx", tmp_path / "a.onnx")
    convert(tmp_path / "source.onnx", tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_what_is_not_centerface_is_refused_and_nothing_is_written(tmp_path):
    (tmp_path / "text.onnx").write_text("no")
    write_source(tmp_path / "three.onnx", outputs=3)
    for name, says in (("text.onnx", "not an ONNX"), ("missing.onnx", "not an ONNX"), ("three.onnx", "not CenterFace")):
        with pytest.raises(ModelError, match=says):
            convert(tmp_path / name, tmp_path / "out.onnx")
    write_source(tmp_path / "source.onnx")
    with pytest.raises(UsageError, match="cannot write"):
        convert(tmp_path / "source.onnx", tmp_path / "no" / "out.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source.onnx", "text.onnx", "three.onnx"]
