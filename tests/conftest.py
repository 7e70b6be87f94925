"""What the tests share: pictures made in code, and a model file whose score is known beforehand."""

import importlib.util
import io
import os
import signal
from pathlib import Path
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")  # on networks this small, threads only wait for each other

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from faceauth.detector import Detector
from faceauth.model_file import METADATA_KEY, Calibration, ModelCard, Thresholds
from faceauth.preprocess import PreprocessSpec

pytest_plugins = ["browser"]
ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "samples"
PORTRAIT = SAMPLES / "grace-hopper.jpg"


def picture(color=(200, 30, 30), size=(96, 96)):
    """A picture of one colour."""
    return Image.new("RGB", size, color)


def encoded(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def make_card(**changes):
    curve = tuple((t / 10, 1 - t / 10) for t in range(11))
    values = dict(
        name="brightness", version="1", sources=("camera", "bulb"), labels=("real", "fake"),
        preprocess=PreprocessSpec(size=32), calibration=Calibration(), thresholds=Thresholds(0.9, 0.1, curve, "test"),
        licence="none", trained_on="nothing", data_sha256="0" * 64,
    )  # fmt: skip
    return ModelCard(**(values | changes))


def write_model(path, card, pattern=None, colour=False, sources=None, more=None, parts=0):
    """A network of few nodes: logit = 4 * mean of the normalised pixels, so bright is fake and dark is real.

    With a pattern (size, size) the pixels are multiplied by it first. The source logits are -logit and logit in turn,
    as many as the card has sources, or `sources`. The embedding is the source logits, or with `colour` the mean of each channel; `more` are
    further metadata. With `parts` there is an output of that name and so many columns, all of them the logit.
    """
    size = card.preprocess.size
    sources = len(card.sources) if sources is None else sources
    pattern = np.ones((size, size)) if pattern is None else pattern
    embedding = helper.make_node("Identity", ["source_logits"], ["embedding"])
    if colour:
        embedding = helper.make_node("ReduceMean", ["pixels", "sides"], ["embedding"], keepdims=0)
    nodes = [
        helper.make_node("Mul", ["pixels", "pattern"], ["weighed"]),
        helper.make_node("ReduceMean", ["weighed", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "four"], ["logit"]),
        helper.make_node("Unsqueeze", ["logit", "one"], ["column"]),
        helper.make_node("Neg", ["column"], ["negative"]),
        helper.make_node("Concat", (["negative", "column"] * sources)[:sources], ["source_logits"], axis=1),
        embedding,
    ]
    widths = {"source_logits": sources, "embedding": 3 if colour else sources}
    if parts:
        nodes.append(helper.make_node("Concat", ["column"] * parts, ["parts"], axis=1))
        widths["parts"] = parts
    outputs = [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n"])] + [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name, width in widths.items()
    ]
    graph = helper.make_graph(
        nodes, "brightness",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, size, size])], outputs,
        [
            helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
            helper.make_tensor("pattern", TensorProto.FLOAT, [size, size], pattern.ravel().tolist()),
            helper.make_tensor("four", TensorProto.FLOAT, [], [4.0]),
            helper.make_tensor("one", TensorProto.INT64, [1], [1]),
            helper.make_tensor("sides", TensorProto.INT64, [2], [2, 3]),
        ],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    for key, text in {METADATA_KEY: card.to_json(), **(more or {})}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, text
    onnx.save(model, path)
    return path


def needing(module, *values):
    """A set of parameters that is skipped where a library of an extra is not installed."""
    missing = importlib.util.find_spec(module) is None
    return pytest.param(*values, marks=pytest.mark.skipif(missing, reason=f"{module} is not installed"))


def pytest_configure():
    """A shell's background job ignores Ctrl-C, and so would every process that the tests start and interrupt."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before pytest looks at -m
def pytest_collection_modifyitems(items):
    """The light suite, -m 'not torch', leaves slow tests out."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker("torch")


@pytest.fixture(scope="session", autouse=True)
def no_learned_file_of_the_user(tmp_path_factory):
    """What somebody has taught their own faceauth is none of the tests' business."""
    with mock.patch.dict(os.environ, {"FACEAUTH_HOME": str(tmp_path_factory.mktemp("home"))}):
        yield


@pytest.fixture(scope="session")
def model_path(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "brightness.onnx", make_card())


@pytest.fixture
def detector(model_path):
    return Detector(model_path, whole_image=True)


@pytest.fixture
def folder(tmp_path):
    """bright.png, dark.jpg and below/grey.webp: fake, real and uncertain to the brightness model; no faces."""
    (tmp_path / "below").mkdir()
    picture((255, 255, 255)).save(tmp_path / "bright.png")
    picture((0, 0, 0)).save(tmp_path / "dark.jpg")
    picture((128, 128, 128)).save(tmp_path / "below" / "grey.webp", lossless=True)
    return tmp_path


def noise(size=(64, 64), seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8))
