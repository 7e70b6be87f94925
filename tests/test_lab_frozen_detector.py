"""A detector on a frozen encoder, from a folder of pictures to a model file, with an encoder of one node."""

import shutil
import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from command_line import faceauth
from lab_frozen_data import SIZE, SOURCES, write_frozen

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
from onnx import TensorProto, helper, numpy_helper

from faceauth import images
from faceauth.detector import Detector
from faceauth.errors import ConfigError, DataError
from faceauth.lab.data.splits import may_fit
from faceauth.lab.evaluation import score_models, score_table
from faceauth.lab.evaluation.ship import train_and_ship
from faceauth.lab.run_info import run_info
from faceauth.lab.training import features, frozen, linear
from faceauth.lab.training.assemble import SwapRule
from faceauth.lab.training.encoders import compress
from faceauth.model_file import ModelFile


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data set of portraits in seven shades, an encoder and a config."""
    return write_frozen(tmp_path_factory.mktemp("frozen"))


@pytest.fixture(scope="module")
def run(place):
    config = frozen.read_config(place / "config.toml")
    return train_and_ship(config, place / "runs", place / "cache", 1, False)


def prepared(place):
    return frozen.prepare(frozen.read_config(place / "config.toml"), place / "cache", 1)


def test_the_model_file_says_what_the_lines_say(place, run):
    ready = prepared(place)
    found = frozen.examples(ready)
    model = ModelFile(run / "detector.onnx")
    heads = frozen.mean_heads([frozen.load_heads(p) for p in sorted(run.glob("heads-*-kind-*.npz"))])
    pixels = np.random.default_rng(5).normal(0, 1, (4, 3, SIZE, SIZE)).astype(np.float32)
    values = np.concatenate([pixels.mean((2, 3)), pixels.var((2, 3))], axis=1)
    rule = SwapRule(model.card.notes["swap offset"], model.card.notes["swap limit"])
    expected = rule(heads.generated(values), heads.swapped(values))
    np.testing.assert_allclose(model.run(pixels).logit, expected, atol=1e-3)
    assert found.features.shape[1] == 6
    assert set(model.card.sources) == set(SOURCES)


def test_bright_fakes_are_told_from_dark_photographs_of_kinds_never_seen(run):
    rows = score_table.read(run / "scores.parquet").rows
    judged = rows[rows["held_out"] & (rows["variant"] == "clean") & (rows["family"] != "swap")]
    fake = judged["label"] == "fake"
    assert judged["logit"][fake].min() > judged["logit"][~fake].max()


def test_no_fold_is_fitted_to_what_it_holds_out(place, monkeypatch):
    ready = prepared(place)
    found = frozen.examples(ready)
    seen = []
    monkeypatch.setattr(
        frozen,
        "fit_heads",
        lambda p, f, allowed: (
            seen.append(allowed) or frozen.Heads(*[linear.LinearHead(np.zeros(6, np.float32), 0.0)] * 2)
        ),
    )
    folder = place / "planted"
    folder.mkdir()
    frozen.fit_folds(ready, found, folder)
    assert len(seen) == 6
    keys = [(deal, fold) for deal in ("kind", "source") for fold in range(3)]
    for (deal, fold), allowed in zip(keys, seen, strict=True):
        folds = ready.folds[deal, 0]
        held = np.array(folds) == fold
        assert held.any()
        assert not (allowed & held).any()
        assert not (allowed & np.array([r.split != "train" for r in ready.rows])).any()
        assert (allowed <= np.array(may_fit(ready.components, folds, fold))).all()


def test_given_splits_are_kept_and_are_another_state(place, tmp_path):
    table = place / "data" / "images.csv"
    config = frozen.read_config(place / "config.toml")
    head, *rows = table.read_text().splitlines()
    shutil.copytree(place / "data", tmp_path / "data")
    split = ["dev" if n % 3 else "train" for n in range(len(rows))]
    lines = [f"{row},{of}" for row, of in zip(rows, split, strict=True)]
    (tmp_path / "data" / "images.csv").write_text("\n".join([f"{head},split", *lines]))
    ready = frozen.prepare(config, place / "cache", 1)
    given = frozen.deal_rows(config.model_copy(update={"data": tmp_path / "data"}), place / "cache")
    assert given.column("split").tolist() == split
    as_given = replace(ready, data=replace(ready.data, rows=given.data.rows))
    assert frozen.state_digest(as_given) != frozen.state_digest(ready)


def test_an_image_of_other_bytes_or_without_a_hash_is_refused(place, tmp_path):
    config = frozen.read_config(place / "config.toml")
    shutil.copytree(place / "data", tmp_path / "data")
    table, moved = tmp_path / "data" / "images.csv", config.model_copy(update={"data": tmp_path / "data"})
    shutil.copy(tmp_path / "data" / "lake-0.png", tmp_path / "data" / "lake-1.png")
    with pytest.raises(DataError, match=r"lake-1\.png: its bytes are not those"):
        frozen.deal_rows(moved, tmp_path / "cache")
    row = next(r for r in frozen.read_dataset(table).rows if r.path == "lake-1.png")
    task = features.Task(str(tmp_path / "data" / row.path), row.sha256, ("clean",))
    with pytest.raises(DataError, match=r"lake-1\.png: its bytes are not those"):
        list(features.pictures(task, lambda image: []))
    table.write_text(table.read_text().replace(row.sha256, ""))
    with pytest.raises(DataError, match="1 rows have no sha256, the first 'lake-1.png'"):
        frozen.deal_rows(moved, tmp_path / "cache")


def test_heads_that_are_there_are_not_fitted_again(place, run, monkeypatch):
    monkeypatch.setattr(frozen, "fit_heads", lambda *_: pytest.fail("fitted again"))
    frozen.fit_folds(prepared(place), frozen.examples(prepared(place)), run)


def test_a_changed_config_is_another_state(place):
    ready = prepared(place)
    head = ready.config.head.model_copy(update={"l2": 7.0})
    other = frozen.Prepared(
        ready.data, ready.rows, ready.components, ready.folds, ready.config.model_copy(update={"head": head}),
        ready.store, ready.encoders,
    )  # fmt: skip
    assert frozen.state_digest(ready) != frozen.state_digest(other)


def test_features_are_computed_once_and_read_by_encoder_and_view(place, run, monkeypatch):
    monkeypatch.setattr(features, "pictures", lambda *_: pytest.fail("computed again"))
    ready = prepared(place)
    with pytest.raises(KeyError):
        ready.store.read("another encoder", [(ready.rows[0].sha256, "clean")])
    with pytest.raises(KeyError):
        ready.store.read(ready.encoders[0], [(ready.rows[0].sha256, "matched")])
    assert (
        ready.store.path.name
        != features.FeatureStore(place / "cache", ready.config.preprocess.__class__(size=64)).path.name
    )


def test_a_store_that_was_cut_off_goes_on(place, run, tmp_path):
    ready = prepared(place)
    store = features.FeatureStore(tmp_path, ready.config.preprocess)
    store.put([("e", "a", "clean", 50, np.ones(3, np.float16).tobytes())])
    with sqlite3.connect(store.path) as file:
        assert file.execute("select count(*) from features").fetchone() == (1,)
    again = features.FeatureStore(tmp_path, ready.config.preprocess)
    assert again.faces("e") == {("a", "clean"): 50}
    assert again.read("e", [("a", "clean")]).tolist() == [[1, 1, 1]]


def test_dev_is_not_scored_unless_the_ledger_says_so(place, run):
    assert "dev" not in set(score_table.read(run / "scores.parquet").rows["split"])
    assert not (run / "scores-dev.parquet").exists()
    train_and_ship(frozen.read_config(place / "config.toml"), place / "runs", place / "cache", 1, True)
    assert (place / "runs" / "dev_ledger.jsonl").read_text().count("\n") == 1
    assert (run / "scores-dev.parquet").exists()


def test_classes_and_groups_weigh_the_same():
    groups = np.array(["a"] * 6 + ["b"] * 2 + ["c"] * 4)
    fake = np.array([True] * 8 + [False] * 4)
    weight = linear.weights(groups, fake, 0.0)
    assert weight[fake].sum() == pytest.approx(0.5)
    assert weight[:6].sum() == pytest.approx(weight[6:8].sum())
    assert linear.weights(groups, fake, 1.0)[:8] == pytest.approx(0.5 / 8)


def test_the_line_is_that_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (200, 5)).astype(np.float16)
    fake = (x[:, 0].astype(float) + rng.normal(0, 1, 200)) > 3
    weight = np.full(200, 1 / 200, np.float32)
    line = linear.fit(x, fake, weight, l2=0.01, steps=200)
    z = (x.astype(np.float32) - x.mean(0, dtype=np.float32)) / (x.std(0, dtype=np.float32) + 1e-3)
    other = LogisticRegression(C=1 / (0.01 * 200), tol=1e-8, max_iter=1000).fit(z, fake)
    np.testing.assert_allclose(line(x), other.decision_function(z), atol=1e-2)


def test_weights_in_eight_bits_are_exact_or_left():
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.1, 2, (1, 128)).astype(np.float32)
    exact = rng.integers(-127, 128, (128, 128)).astype(np.float32)
    exact[0] = 127
    arrays = {
        "exact": exact * scale,
        "half": np.float32(np.float16(rng.normal(0, 1, (4, 64, 64)))),
        "odd": rng.normal(0, 1, (128, 128)).astype(np.float32),
    }
    nodes = [helper.make_node("Identity", [n], [f"{n}_out"]) for n in arrays]
    outputs = [helper.make_tensor_value_info(f"{n}_out", TensorProto.FLOAT, a.shape) for n, a in arrays.items()]
    graph = helper.make_graph(nodes, "g", [], outputs, [numpy_helper.from_array(a, n) for n, a in arrays.items()])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    before = proto.ByteSize()
    compress(proto)
    assert proto.ByteSize() < 0.7 * before
    import onnxruntime as ort

    found = ort.InferenceSession(proto.SerializeToString()).run(None, {})
    for array, given in zip(arrays.values(), found, strict=True):
        np.testing.assert_allclose(given, array, atol=1e-6)
    types = {t.name: t.data_type for t in proto.graph.initializer}
    assert (types["exact_bits"], types["half_bits"], types["odd"]) == (
        TensorProto.INT8,
        TensorProto.FLOAT16,
        TensorProto.FLOAT,
    )


@pytest.mark.parametrize(("old", "new", "said"), [
    ("folds = 3", "flods = 3", "did you mean 'folds'"), ("folds = 3", "folds = 1", "folds"),
    ("seeds = [0]", "seeds = []", "seeds"), ("seeds = [0]", "seeds = [-1]", "seeds"),
    ("folds = 3", 'folds = 3\ndeals = ["source"]', "'kind' must be among"), ('"tiny"', '"../out"', "name"),
    ('"tiny"', '""', "name"), ('mean = "encoder.onnx"', "", "encoders"), ('["clean", "web"]', "[]", "train"),
    ('["clean", "web"]', '["cleen"]', "train"), ("[views.variants]", "[views.variants]\ncleen = 3", "variants"),
    ("[views]", "[head]\nl2 = inf\n[views]", "l2"),
])  # fmt: skip
def test_a_wrong_config_names_the_key(place, tmp_path, old, new, said):
    text = (place / "config.toml").read_text()
    assert old in text
    (tmp_path / "c.toml").write_text(text.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        frozen.read_config(tmp_path / "c.toml")
    assert said in f"{caught.value} {caught.value.hint}"


def test_a_missing_encoder_says_how_it_is_made(place, tmp_path):
    config = frozen.read_config(place / "config.toml").model_copy(update={"encoders": {"clip": tmp_path / "none.onnx"}})
    with pytest.raises(DataError, match="lab encoder"):
        frozen.prepare(config, tmp_path, 1)


def test_model_files_and_controls_are_scored_as_a_user_would_ask_them(place, run, monkeypatch):
    ready = prepared(place)
    rows = tuple(r for r in ready.rows if r.split != "dev")
    chosen = tuple(
        t
        for t in frozen.tasks(ready.config, ready.data, ready.rows, training=False)
        if t.sha256 in {r.sha256 for r in rows}
    )
    store = score_models.ScoreStore(place / "cache")
    table, fitted_on = score_models.score(ready.config, ready, [run / "detector.onnx"], store, 1)
    score_table.write(place / "scored.parquet", table, {**run_info("0" * 64), "controls": fitted_on})
    own = table[(table["model"] == "tiny") & (table["variant"] == "clean")].set_index("image")["logit"]
    detector = Detector(run / "detector.onnx", learned=False)
    for row in rows[:5]:
        image = images.load(str(ready.data.file(row))).image
        expected = detector.run_faces(image, detector.find_faces(image)[:1]).logit[0]
        assert own[row.path] == pytest.approx(float(expected), abs=1e-5)
    assert {"file-facts", "thumbnail"} <= set(table["model"])
    assert "dev" in {r.split for r in ready.rows} and "dev" not in set(table["split"])
    controls = table[table["model"] == "thumbnail"]
    assert set(controls.loc[controls["held_out"], "variant"]) == {"clean", "web", "hard", "avatar", "edited"}
    assert set(fitted_on["thumbnail"]) >= {"web", "hard"}
    monkeypatch.setattr(score_models, "pictures", lambda *_: pytest.fail("scored again"))
    again, _ = score_models.score(ready.config, ready, [run / "detector.onnx"], store, 1)
    assert len(again) == len(table)
    clean = tuple(replace(task, views=("clean",)) for task in chosen)
    found = score_models.answers(clean, [run / "detector.onnx"], store, 1)
    assert [{view for _, view in known} for known in found.values()] == [{"clean"}] * 2, "more than was asked for"


def test_another_file_under_a_models_name_is_scored_anew(place, run):
    store = score_models.ScoreStore(place / "cache")
    store.put([("hash of a model", "image", "clean", {"logit": 1.0, "swap_logit": None})])
    assert store.known("hash of another") == {}
    assert store.known("hash of a model")["image", "clean"]["logit"] == 1.0


def test_the_swap_output_decides_from_its_own_threshold_on_alone():
    rule = SwapRule(offset=1.0, limit=2.0)
    generated, swapped = np.array([-3.0, -3.0, 5.0, 0.0]), np.array([0.9, 1.5, 2.0, 0.99])
    assert rule(generated, swapped).tolist() == [-3.0, 2.5, 5.0, 0.0]


def test_how_well_generators_are_named_is_printed_of_a_run(place, run):
    given = ("--runs", place / "runs", "--cache", place / "cache")
    code, out, err = faceauth("lab", "attribution", place / "config.toml", *given)
    assert code == 0, err
    known, _, rest = out.partition("## Unknown generators, means")
    assert "| clean |" in known
    assert "| web |" in known
    assert "## Taught sources, means" in rest


def test_naming_before_training_says_what_to_run(place, tmp_path):
    given = ("--runs", tmp_path, "--cache", place / "cache")
    code, _, err = faceauth("lab", "attribution", place / "config.toml", *given)
    assert code == 1
    assert "faceauth lab train" in err
