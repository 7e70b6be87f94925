"""A data set for frozen encoders, made in code: portraits in seven shades, an encoder of means and a config."""

import csv
import hashlib

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image, ImageEnhance

from conftest import PORTRAIT

SIZE = 32
SOURCES = {  # name: label, family, how its pictures look
    "lake": ("real", "real", 0.7), "wood": ("real", "real", 0.75), "hill": ("real", "real", 0.8),
    "bulb": ("fake", "gan", 1.25), "lamp": ("fake", "diffusion", 1.3), "torch": ("fake", "gan", 1.35),
    "paste": ("fake", "swap", 1.0),
}  # fmt: skip


def write_encoder(path):
    """Mean and standard deviation of each channel: features (n, 6)."""
    nodes = [
        helper.make_node("ReduceMean", ["pixels", "sides"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["pixels", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "centred"], ["squares"]),
        helper.make_node("ReduceMean", ["squares", "sides"], ["spread"], keepdims=0),
        helper.make_node("ReduceMean", ["pixels", "sides"], ["embedding"], keepdims=0),  # a name that the head uses too
        helper.make_node("Concat", ["embedding", "spread"], ["features"], axis=1),
    ]
    graph = helper.make_graph(
        nodes, "encoder", [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor("sides", TensorProto.INT64, [2], [2, 3])],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def write_frozen(root, count=10, variants=("clean", "web", "hard", "avatar", "edited"), sources=None):
    """The data set, `count` pictures of each of `SOURCES` or `sources`, with encoder and config in a folder, returned."""
    portrait = Image.open(PORTRAIT).convert("RGB").resize((200, 234))
    rng = np.random.default_rng(0)
    (root / "data").mkdir()
    rows = []
    for source, (label, family, shade) in (sources or SOURCES).items():
        for i in range(count):
            image = Image.fromarray(rng.integers(60, 180, (9, 9, 3), np.uint8)).resize((330, 330))  # no near-duplicates
            image.paste(portrait, tuple(rng.integers(0, 96, 2).tolist()))
            image = ImageEnhance.Brightness(image).enhance(shade + rng.normal(0, 0.02))
            file = root / "data" / f"{source}-{i}.png"
            image.save(file)
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            rows.append([file.name, source, label, family, source, f"{source}-{i}", digest])
    with open(root / "data" / "images.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "source", "label", "family", "generator", "group", "sha256"], *rows])
    (root / "kinds.csv").write_text("source,kind\n")
    write_encoder(root / "encoder.onnx")
    (root / "config.toml").write_text(
        'name = "tiny"\nversion = "1"\ndata = "data"\nkinds = "kinds.csv"\nseeds = [0]\nfolds = 3\n'
        f'[encoders]\nmean = "encoder.onnx"\n[preprocess]\nsize = {SIZE}\n[views]\ntrain = ["clean", "web"]\n'
        "blend = ['blend-1']\n[views.variants]\n" + "".join(f"{name} = 10\n" for name in variants)
    )
    return root


def prepared(place):
    """The data set in a folder, ready to be fitted, and its examples."""
    from faceauth.lab.training import frozen  # with torch

    ready = frozen.prepare(frozen.read_config(place / "config.toml"), place / "cache", 1)
    return ready, frozen.examples(ready)
