"""Training and export, on a corpus made in code."""

import json
import math
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import onnx
import pytest

from lab_corpus import CONFIG, write_corpus

torch = pytest.importorskip("torch")
from faceauth.errors import ConfigError, DataError, UsageError
from faceauth.files import locked
from faceauth.lab.training.batches import TrainingSet
from faceauth.lab.training.config import read_config
from faceauth.lab.training.export import export, load_run, parity
from faceauth.lab.training.laplacian_net import LaplacianNet
from faceauth.lab.training.loop import train
from faceauth.lab.training.quantize import AGREEMENT, quantize
from faceauth.model_file import ModelFile

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("lab")
    write_corpus(place / "corpus")
    text = CONFIG.format(images=320, root=place / "corpus", cache=place / "cache")
    (place / "tiny.toml").write_text(text)
    return place


@pytest.fixture(scope="module")
def runs(place):
    """Three runs, on all kinds and with either fold held out, exported."""
    config = read_config(place / "tiny.toml")
    for fold in (None, 1, 2):
        run = train(config, place / "runs", fold)
        assert export(run, run / "detector.onnx") < 1e-4
    return [place / "runs" / name / "detector.onnx" for name in ("tiny", "tiny-fold1", "tiny-fold2")]


def test_a_run_says_what_it_is_made_of(runs):
    facts = json.loads((runs[0].parent / "run.json").read_text())
    assert facts["config"]["images"] == 320
    assert facts["sources"] == ["cam-a", "cam-b", "gan-a", "gan-b"]
    assert len(facts["data_sha256"]) == 64
    assert facts["environment"]["torch"] == torch.__version__
    steps = [json.loads(line) for line in (runs[0].parent / "log.jsonl").read_text().splitlines()]
    assert steps[-1]["step"] == 20
    assert steps[-1]["loss"] < steps[0]["loss"]


def test_a_fold_never_sees_what_it_holds_out(runs):
    assert json.loads((runs[1].parent / "run.json").read_text())["held_out"] == ["cam-a", "gan-a"]
    assert ModelFile(runs[1]).card.sources == ("cam-b", "gan-b")


def test_a_run_is_never_overwritten(place, runs):
    before = runs[0].read_bytes()
    for resume in (False, True):
        with pytest.raises(UsageError, match="exists"):
            train(read_config(place / "tiny.toml"), place / "runs", resume=resume)
    assert runs[0].read_bytes() == before


def test_a_run_cannot_be_resumed_as_another(place):
    (place / "runs" / "other").mkdir(parents=True, exist_ok=True)
    config = read_config(place / "tiny.toml", ["name=other"])
    shutil.copy(place / "runs" / "tiny" / "run.json", place / "runs" / "other")
    with pytest.raises(UsageError, match="another config"):
        train(config, place / "runs", resume=True)


def test_no_such_fold(place):
    with pytest.raises(UsageError, match="no fold 3"):
        train(read_config(place / "tiny.toml"), place / "runs", 3)


def test_two_processes_do_not_train_one_run(place, tmp_path):
    with locked(tmp_path / "tiny"), pytest.raises(UsageError, match="another faceauth is writing"):
        train(read_config(place / "tiny.toml"), tmp_path, resume=True)
    assert not (tmp_path / "tiny" / "log.jsonl").exists()


def test_killed_and_resumed_gives_the_same_weights(place, runs):
    command = [
        sys.executable,
        "-m",
        "faceauth",
        "lab",
        "train",
        str(place / "tiny.toml"),
        "--runs",
        str(place / "killed"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    run = place / "killed" / "tiny"
    deadline = time.monotonic() + 90
    while not (run / "checkpoint.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (run / "model.safetensors").exists(), "it finished before it could be killed"
    again = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    resumed, unbroken = load_run(run)[0].state_dict(), load_run(runs[0].parent)[0].state_dict()
    for name, value in unbroken.items():
        assert torch.allclose(resumed[name].float(), value.float(), atol=1e-5), name


def test_the_batch_is_half_real_half_fake(place, runs):
    from concurrent.futures import ThreadPoolExecutor

    from faceauth.lab.training.batches import TrainingSet

    config = read_config(place / "tiny.toml")
    examples = config.data.open()
    data = TrainingSet(config, examples, ())
    assert data.chances.sum() == pytest.approx(1)
    fake = np.array([label == "fake" for label in data.labels])
    assert data.chances[fake].sum() == pytest.approx(0.5)
    assert "hand" not in data.sources
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(3) as three:
        (a, x, _), (b, y, _) = data.batch(5, one), data.batch(5, three)
    assert np.array_equal(a, b)
    assert torch.equal(x, y)
    with pytest.raises(DataError):
        TrainingSet(config, examples, ("cam-a", "cam-b"))


def test_onnx_agrees_with_torch_on_64_images(runs):
    network, _, _ = load_run(runs[0].parent)
    assert parity(network, ModelFile(runs[0])) < 1e-4
    with torch.no_grad():
        network.head.bias += 0.01
    assert parity(network, ModelFile(runs[0])) > 1e-4


def test_eight_bits_say_nearly_the_same(runs, tmp_path):
    run, plain, small = runs[0].parent, ModelFile(runs[0]), tmp_path / "small.onnx"
    shutil.copy(runs[0], small)
    assert 0 < quantize(run, small) < AGREEMENT
    eight = ModelFile(small)
    assert eight.card == plain.card
    assert {"QuantizeLinear", "DequantizeLinear"} <= {n.op_type for n in onnx.load(small).graph.node}
    pixels = plain.card.preprocess.normalize(np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), np.uint8))
    one, many = eight.run(pixels[:1]), eight.run(pixels)
    assert many.embedding.shape == plain.run(pixels).embedding.shape
    assert np.allclose(one.logit, many.logit[:1], atol=1e-5)


def test_eight_bits_that_say_something_else_are_refused(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("faceauth.lab.training.quantize.AGREEMENT", 1e-6)
    copy = tmp_path / "copy.onnx"
    shutil.copy(runs[0], copy)
    with pytest.raises(DataError, match="of their spread"):
        quantize(runs[0].parent, copy)
    assert copy.read_bytes() == runs[0].read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["copy.onnx"]


def test_an_unfinished_run_is_not_exported(tmp_path):
    with pytest.raises(UsageError, match="no finished run"):
        export(tmp_path, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_bands_do_not_depend_on_contrast_or_brightness():
    network = LaplacianNet(2, 4, size=32).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        plain, other = network(x), network(0.5 * x + 0.3)
    assert torch.allclose(plain.embedding, other.embedding, atol=5e-2, rtol=1e-2)
    assert torch.allclose(plain.logit, other.logit, atol=5e-2)
    octaves = network.octaves(x)
    assert [tuple(o.shape[2:]) for o in octaves] == [(32, 32), (16, 16), (8, 8)]
    for octave in octaves:
        assert float(octave.square().mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("size", "octaves"), [(32, 3), (160, 3), (192, 4), (256, 4), (512, 5)])
def test_the_body_works_on_a_grid_of_about_32_whatever_the_size(size, octaves):
    network = LaplacianNet(2, 4, size=size).eval()
    grids = []
    network.body[0].register_forward_hook(lambda _, inputs, __: grids.append(inputs[0].shape[2]))
    with torch.no_grad():
        embedding = network(torch.randn(1, 3, size, size)).embedding
    assert embedding.shape == (1, 56)
    assert len(network.octaves(torch.randn(1, 3, size, size))) == octaves
    assert size < 128 or 24 <= grids[0] <= 40


@pytest.mark.parametrize(("override", "says"), [
    ("learning_rate=1", "unknown key"), ("widht=8", "did you mean 'width'"), ("augment.blurr=1", "did you mean 'blur'"),
    ("lr=-1", "lr: Input should be greater"), ("seed=-1", "seed: Input should be greater"),
    ("data.fractions=[0.9,0.9,0.9]", "data.fractions: shares"), ("data.fractions=[-1,1,1]", "data.fractions: shares"),
    ("data.fractions=[nan,0.5,0.5]", "data.fractions: shares"), ("name=../x", "name"), ("nothing", "key=value"), ("lr.x=1", "lr is no table"),
])  # fmt: skip
def test_config_errors_are_one_line(place, override, says):
    with pytest.raises(ConfigError, match=says):
        read_config(place / "tiny.toml", [override])


def test_a_train_only_source_that_is_not_there_is_named(place):
    with pytest.raises(ConfigError, match="data.train_only: no source 'gan-z'") as caught:
        read_config(place / "tiny.toml", ["data.train_only=['gan-z']"]).data.open()
    assert "did you mean 'gan-" in caught.value.hint


def test_config_overrides(place):
    assert read_config(place / "tiny.toml", ["lr=0.5", "augment.blur=0.7"]).augment.blur == 0.7
    (place / "bad.toml").write_text("name = ")
    with pytest.raises(ConfigError, match="not TOML"):
        read_config(place / "bad.toml")


def test_the_generator_makes_faces_that_are_no_copies(place, tmp_path):
    from faceauth.lab.data import synthesize

    first = synthesize.synthesize(place / "corpus", place / "cache", tmp_path / "first", 1, images=64)
    loss = synthesize.synthesize(place / "corpus", place / "cache", tmp_path / "faces", 3, images=64 * 25)
    assert loss < first
    files = sorted(p.name for p in (tmp_path / "faces").iterdir())
    assert files == ["images.csv", "recipe.json", "vae-00.png", "vae-01.png", "vae-02.png"]
    with pytest.raises(UsageError, match="not empty"):
        synthesize.synthesize(place / "corpus", place / "cache", tmp_path / "faces", 3, images=640)


def test_a_fraction_of_each_source_is_trained_on_and_a_larger_one_holds_the_smaller(place):
    members = []
    for fraction in (0.1, 0.5, 1.0):
        config = read_config(place / "tiny.toml", [f"data.train_fraction={fraction}"])
        members.append(TrainingSet(config, config.data.open(), ()).members)
    few, half, whole = members
    for source, chosen in whole.items():
        assert len(few[source]) == math.ceil(0.1 * len(chosen))
        assert len(half[source]) == math.ceil(0.5 * len(chosen))
        assert set(few[source]) <= set(half[source]) <= set(chosen)


def test_extra_sources_are_trained_on_and_never_evaluated(place, tmp_path):
    from faceauth.lab.data.synthesize import synthesize

    extra = tmp_path / "extra"
    synthesize(place / "corpus", place / "cache", extra, 3, images=64)
    config = read_config(place / "tiny.toml", ["images=48", f"data.extra_sources=['{extra}']"])
    examples = config.data.open()
    assert examples.splits[-3:] == ("train",) * 3
    assert len(examples.faces) == len(examples.records)
    assert np.asarray(examples.faces[len(examples.faces) - 1][0]).std() > 0
    assert "vae" in TrainingSet(config, examples, ()).sources
    assert config.data.held_out(examples, 1) == ["cam-a", "gan-a"]
    run = train(config, tmp_path / "runs", 1)
    export(run, run / "detector.onnx")
    card = ModelFile(run / "detector.onnx").card
    assert card.sources == ("cam-b", "gan-b", "vae")
    assert card.notes["extra sources"] == f"vae {examples.extra['vae'][:16]}"
    twice = read_config(place / "tiny.toml", [f"data.extra_sources=['{extra}', '{extra}']"])
    with pytest.raises(DataError, match="'vae' that is there already"):
        twice.data.open()
    with pytest.raises(DataError, match="no folder") as caught:
        read_config(place / "tiny.toml", [f"data.extra_sources=['{tmp_path / 'none'}']"]).data.open()
    assert "lab synthesize" in str(caught.value.hint)


def test_photographs_blended_into_themselves_are_a_source_of_fakes(place, tmp_path):
    config = read_config(place / "tiny.toml", ["images=48", "data.fake=['gan-a', 'blended']"])
    examples = config.data.open()
    held_out = config.data.held_out(examples, 1)
    assert held_out == ["cam-a", "gan-a", "gan-b"]
    data = TrainingSet(config, examples, held_out)
    assert (data.sources, data.labels) == (("cam-b", "blended"), ["real", "fake"])
    assert sorted(data.members["blended"]) == sorted(data.members["cam-b"])  # never of a photograph held out
    for label, name, meant in (("real", "blended", "cam-a"), ("fake", "blend", "blended")):
        wrong = read_config(place / "tiny.toml", [f"data.{label}=['{name}']"])
        with pytest.raises(ConfigError, match=f"no {label} source '{name}'") as caught:
            wrong.data.held_out(examples, None)
        assert meant in str(caught.value.hint)
    index = data.members["cam-b"][0]
    plain, blended, again = (data.plain((index, source, np.random.default_rng(3))) for source in (0, 1, 1))
    assert np.array_equal(blended, again)
    assert not np.array_equal(plain, blended)
    shares = TrainingSet(config, examples, ())
    count = {s: len(shares.members[s]) for s in ("cam-a", "cam-b")}
    both = np.isin(shares.members["blended"], shares.members["cam-a"]).sum(), len(shares.members["blended"])
    tempered = {s: n**config.data.sampling_power for s, n in count.items()}
    assert both[1] == sum(count.values())
    assert both[0] == round(both[1] * tempered["cam-a"] / sum(tempered.values()))

    run = train(config, tmp_path / "runs", 1)
    _, _, facts = load_run(run)
    assert facts["sources"] == ["cam-b", "blended"]
    export(run, run / "detector.onnx")
    assert ModelFile(run / "detector.onnx").card.sources == ("cam-b", "blended")

    records = tuple(replace(r, source="blended") if r.source == "gan-a" else r for r in examples.records)
    with pytest.raises(DataError, match="a source is named 'blended'"):
        TrainingSet(config, replace(examples, records=records), ())
