"""The two recipes, distillation, and what is left of a run that is stopped."""

import csv
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from conftest import ROOT
from faceauth.errors import ConfigError, DataError, UsageError
from faceauth.lab.cli.training import is_frozen
from faceauth.lab.training import devices, frozen
from faceauth.lab.training.batches import TrainingSet, ValidationSet, evenly
from faceauth.lab.training.config import DistillConfig, read_config
from faceauth.lab.training.devices import Place, place
from faceauth.lab.training.export import export, load_run
from faceauth.lab.training.loop import Trainer, teachers_loss, train
from faceauth.lab.training.optim import ModernRecipe, layer_groups
from faceauth.lab.training.zoo import build
from lab_networks import DENSE, TRANSFORMER, small, write_prepared

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")]
HERE = Place(torch.device("cpu"))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("prepared"))


def study(manifest, **changes):
    return small(manifest, **{"recipe": "study", "lr": 0.05, "study": {"epochs": 4}} | changes)


def logged(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def weights(run):
    return load_run(run)[0].state_dict()


def same(a, b, atol=1e-6):
    return all(torch.allclose(a[k].float(), b[k].float(), atol=atol) for k in b)


def after(config, steps):
    """A network after some steps, in this process."""
    data = TrainingSet(config, config.data.open(), ())
    trainer = Trainer(config, data, HERE)
    with ThreadPoolExecutor(1) as pool:
        for step in range(steps):
            trainer.advance(data.batch(step, pool))
    return trainer


def test_an_epoch_shows_every_image_once(manifest):
    config = study(manifest, batch=10)
    data = TrainingSet(config, config.data.open(), ())
    assert (data.epoch_steps, data.steps) == (8, 32)  # 72 images
    first = [i for step in range(8) for i, _, _ in data.draw(step)]
    second = [i for step in range(8, 16) for i, _, _ in data.draw(step)]
    assert sorted(first) == sorted(second) == sorted(i for members in data.members.values() for i in members)
    assert first != second
    assert first == [i for step in range(8) for i, _, _ in data.draw(step)]
    assert {len(data.draw(step)) for step in range(8)} == {9}


def test_one_source_only_has_as_many_reals_drawn_evenly(manifest):
    config = study(manifest, data={"manifest": str(manifest), "fake": ["gan-b"]})
    examples = config.data.open()
    held_out = config.data.held_out(examples, None)
    assert held_out == ["gan-a"]
    epoch = [(source, i) for step in range(3) for i, source, _ in TrainingSet(config, examples, held_out).draw(step)]
    data = TrainingSet(config, examples, held_out)
    counts = [sum(source == k for source, _ in epoch) for k in range(3)]
    assert (data.sources, counts) == (("cam-a", "cam-b", "gan-b"), [9, 9, 18])
    validation = ValidationSet(config, examples, held_out)
    assert len(validation.chosen) == 12
    assert {examples.splits[i] for i, _ in validation.chosen} == {"test"}


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6), st.data())
def test_evenly_takes_no_more_than_there_is(counts, data):
    total = data.draw(st.integers(0, sum(counts)))
    taken = evenly(np.array(counts), total)
    assert taken.sum() == total
    assert (taken <= counts).all()
    short = taken < counts
    assert not short.any() or taken[short].min() >= taken.max() - 1


def test_the_study_halves_stops_and_keeps_the_best(manifest, tmp_path, monkeypatch):
    kept, said = [], iter([0.5, 0.4, 0.6, 0.6, 0.6, 0.6])

    def test(self, batches):
        assert sum(len(b.sources) for b in batches) == 24
        kept.append({k: v.clone() for k, v in self.network.state_dict().items()})
        return next(said)

    monkeypatch.setattr(Trainer, "test", test)
    run = train(study(manifest, study={"epochs": 9, "patience": 1, "stop_after": 4}, log_every=99), tmp_path)
    rows = logged(run)
    assert [row["test_loss"] for row in rows] == [0.5, 0.4, 0.6, 0.6, 0.6, 0.6]
    assert [row["lr"] for row in rows] == [0.05, 0.05, 0.05, 0.05, 0.025, 0.025]
    assert same(weights(run), kept[1], 0)
    assert not same(weights(run), kept[2])
    assert sorted(p.name for p in run.iterdir()) == ["log.jsonl", "model.safetensors", "run.json", "summary_small.txt"]


def test_the_study_learns_and_says_its_losses(manifest, tmp_path):
    run = train(study(manifest, lr=0.02, study={"epochs": 6}, network="pyramid", architecture={}, width=8), tmp_path)
    rows = [row for row in logged(run) if "test_loss" in row]
    for loss in ("loss", "test_loss"):
        assert rows[-1][loss] < 0.8 * rows[0][loss]
    steps = [row["step"] for row in logged(run)]
    assert steps == sorted(set(steps))


def test_the_study_needs_a_test_split(tmp_path):
    config = study(write_prepared(tmp_path / "p", 5))
    with pytest.raises(DataError, match="test split"):
        train(config, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_killed_and_resumed_the_study_gives_the_same(manifest, tmp_path):
    (tmp_path / "study.toml").write_text(
        'name = "small"\nrecipe = "study"\nnetwork = "deit"\nsize = 32\nbatch = 16\nlr = 0.05\nbf16 = false\nlog_every = 3\n'
        "checkpoint_every = 7\n[study]\nepochs = 14\nstop_after = 14\n"
        f'[data]\nmanifest = "{manifest}"\n[architecture]\nhidden_size = 16\nnum_hidden_layers = 2\n'
        "num_attention_heads = 2\nintermediate_size = 32\npatch_size = 8\n"
    )
    command = [
        sys.executable,
        "-m",
        "faceauth",
        "lab",
        "train",
        str(tmp_path / "study.toml"),
        "--runs",
        str(tmp_path / "a"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    run, deadline = tmp_path / "a" / "small", time.monotonic() + 90
    while not (run / "checkpoint.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert (run / "checkpoint.pt").exists()
    assert not (run / "model.safetensors").exists(), "it finished before it could be killed"
    with open(run / "log.jsonl", "a") as log:
        log.write('{"step": 9999, "loss')  # what a kill in the middle of a line leaves
    config = read_config(tmp_path / "study.toml")
    train(config, tmp_path / "a", resume=True)
    whole = train(config, tmp_path / "b")
    assert same(weights(run), weights(whole), 1e-5)
    plain = [[{k: v for k, v in row.items() if k != "images_per_second"} for row in logged(r)] for r in (run, whole)]
    assert [row["step"] for row in plain[0]] == [row["step"] for row in plain[1]]
    for one, other in zip(*plain, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("recipe", ["modern", "study"])
def test_interrupted_it_keeps_a_checkpoint_of_that_step(manifest, tmp_path, monkeypatch, recipe):
    config = (small if recipe == "modern" else study)(manifest, checkpoint_every=1000)
    advance = Trainer.advance

    def interrupted(self, batch):
        if self.step == 6:
            signal.raise_signal(signal.SIGINT)
        advance(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "a")
    assert torch.load(tmp_path / "a" / "small" / "checkpoint.pt", weights_only=True)["step"] == 7
    resumed, whole = train(config, tmp_path / "a", resume=True), train(config, tmp_path / "b")
    assert same(weights(resumed), weights(whole))
    assert [row["loss"] for row in logged(resumed)] == pytest.approx([row["loss"] for row in logged(whole)])


def test_a_damaged_checkpoint_is_one_line(manifest, tmp_path):
    config = small(manifest)
    run = tmp_path / "small"
    run.mkdir()
    (run / "checkpoint.pt").write_bytes(b"half")
    with pytest.raises(DataError, match=r"checkpoint\.pt"):
        train(config, tmp_path, resume=True)


def test_accumulation_equals_the_large_batch(manifest):
    whole, parts = (after(study(manifest, accumulate=k), 4).network.state_dict() for k in (1, 3))
    assert same(parts, whole, 1e-5)
    assert not same(parts, after(study(manifest), 3).network.state_dict(), 1e-5)


def test_layers_near_the_pixels_learn_more_slowly(manifest):
    config = small(manifest, layer_decay=0.5, warmup=0)
    network = build(config, 4)
    share = {id(p): group["share"] for group in layer_groups(network, 0.5) for p in group["params"]}
    found = {name: share[id(p)] for name, p in network.named_parameters()}
    assert len(found) == len(share)
    assert found["model.deit.embeddings.cls_token"] == 0.125
    assert {v for k, v in found.items() if "layers.0." in k} == {0.25}
    assert {v for k, v in found.items() if "layers.1." in k} == {0.5}
    assert found["model.classifier.weight"] == found["source_head.weight"] == found["model.deit.layernorm.weight"] == 1
    groups = after(config, 1).recipe.optimizer.param_groups
    assert sorted(g["lr"] / groups[-1]["lr"] for g in groups) == [0.125, 0.25, 0.5, 1]


def test_the_modern_recipe_warms_up_falls_by_a_cosine_and_averages_the_weights(manifest):
    config = small(manifest, warmup=4, ema=0.9, weight_decay=0.0)
    network = build(config, 4)
    recipe = ModernRecipe(config, network, 10)
    head, rates = network.model.classifier, []
    mean = None
    for n in range(10):
        rates.append(recipe.rate / config.lr)
        for p in network.parameters():
            p.grad = torch.ones_like(p)
        recipe.step()
        keep = min(0.9, (2 + n) / (11 + n))
        mean = head.weight.clone() if mean is None else keep * mean + (1 - keep) * head.weight
        assert torch.allclose(recipe.evaluated.model.classifier.weight, mean, atol=1e-6)
    expected = [min(1, (n + 1) / 4) * (0.01 + 0.99 * (1 + np.cos(np.pi * n / 10)) / 2) for n in range(10)]
    assert rates == pytest.approx(expected)
    again = ModernRecipe(config, build(config, 4), 10)
    again.restore(recipe.state())
    assert again.rate == recipe.rate
    assert same(again.evaluated.state_dict(), recipe.evaluated.state_dict(), 0)


@pytest.mark.parametrize(
    ("processor", "wanted", "is_on"),
    [("AVX512", True, True), ("AVX512", False, False), ("AVX2", True, False), ("DEFAULT", True, False)],
)
def test_bf16_is_left_to_processors_that_are_quick_at_it(processor, wanted, is_on, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: processor)
    layer, pixels = torch.nn.Linear(4, 4), torch.ones(1, 4)
    with Place(torch.device("cpu")).autocast(wanted):
        assert layer(pixels).dtype == (torch.bfloat16 if is_on else torch.float32)


def test_bf16_trains_too(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "EMULATES_BF16", ())
    run = train(small(manifest, bf16=True, network="densenet", architecture=DENSE, images=160), tmp_path)
    rows = logged(run)
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_a_loss_that_is_no_number_stops_the_run(manifest, tmp_path):
    with pytest.raises(DataError, match="the loss is nan"):
        train(study(manifest, lr=1e25), tmp_path)
    assert not (tmp_path / "small" / "model.safetensors").exists()


def test_the_teachers_loss():
    student, teacher = torch.tensor([0.3, -1.2]), torch.tensor([2.0, 1.0])
    hard = teachers_loss(student, teacher, DistillConfig(teacher="t"))
    assert float(hard) == pytest.approx(float(-torch.log(torch.sigmoid(student)).mean()))
    soft = DistillConfig(teacher="t", kind="soft", temperature=2)
    p, q = torch.sigmoid(teacher / 2), torch.sigmoid(student / 2)
    expected = 4 * (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    assert float(teachers_loss(student, teacher, soft)) == pytest.approx(float(expected), rel=1e-5)
    assert float(teachers_loss(teacher, teacher, soft)) == pytest.approx(0, abs=1e-6)


@pytest.fixture(scope="module")
def teacher(manifest, tmp_path_factory):
    """A DenseNet of another size, mean and std than its students."""
    config = small(manifest, name="teacher", network="densenet", architecture=DENSE, size=48, images=640, lr=0.01)
    return train(config, tmp_path_factory.mktemp("teachers"))


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_a_teacher_moves_the_distillation_head(manifest, teacher, tmp_path, kind):
    distill = {"teacher": str(teacher), "kind": kind}
    fine = TRANSFORMER | {"patch_size": 4}
    run = train(small(manifest, distill=distill, images=960, lr=0.01, architecture=fine), tmp_path)
    losses = [row["loss"] for row in logged(run)]
    assert np.mean(losses[-4:]) < 0.97 * np.mean(losses[:3])
    network, config, facts = load_run(run)
    assert len(facts["teacher_sha256"]) == 64
    torch.manual_seed(config.seed)
    head = "model.distillation_classifier.weight"
    assert not torch.allclose(network.state_dict()[head], build(config, 4).state_dict()[head], atol=1e-3)
    pixels = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        apart = network.train()(pixels)
        assert torch.allclose(network.eval()(pixels).logit, (apart.logit + apart.distilled_logit) / 2, atol=1e-6)
    assert not torch.allclose(apart.logit, apart.distilled_logit, atol=1e-3)
    if kind == "soft":
        assert export(run, run / "detector.onnx") < 1e-4


def test_a_teacher_of_other_data_is_refused(manifest, teacher, tmp_path):
    distill = {"teacher": str(teacher)}
    with pytest.raises(UsageError, match="other data"):
        train(small(write_prepared(tmp_path / "p", 10, 1), distill=distill), tmp_path / "runs")
    with pytest.raises(UsageError, match="has seen gan-b"):
        train(small(manifest, distill=distill, data={"manifest": str(manifest), "fake": ["gan-a"]}), tmp_path / "runs")
    with pytest.raises(UsageError, match="no finished run"):
        train(small(manifest, distill={"teacher": str(tmp_path)}), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("data", "says"), [
    ({"fake": ["gan_a"]}, "did you mean 'gan-a'"), ({"fake": ["cam-a"]}, "no fake source 'cam-a'"),
    ({"real": ["cma-b"]}, "did you mean 'cam-b'"),
])  # fmt: skip
def test_unknown_sources_are_named(manifest, tmp_path, data, says):
    with pytest.raises(ConfigError, match=says):
        train(small(manifest, data={"manifest": str(manifest), **data}), tmp_path)


@pytest.mark.parametrize(("override", "says"), [
    ("ema=0.9", "ema is no part of the study"), ("images=100", "images is no part"), ("layer_decay=0.5", "layer_decay is no"),
    ("study.patiense=3", "did you mean 'patience'"), ("accumulate=999", "larger than the batch"),
    ('distill.teacher="runs/x"', "only network = 'deit'"), ("recipe=sgd", "'modern' or 'study'"),
])  # fmt: skip
def test_what_does_not_go_together_is_one_line(override, says):
    with pytest.raises(ConfigError, match=says):
        read_config(ROOT / "configs" / "report" / "vit.toml", [override])
    with pytest.raises(ConfigError, match="training budget"):
        read_config(ROOT / "configs" / "report" / "vit.toml", ["recipe=modern"])


NO_EXPERIMENT = "study.toml", "folds.toml"  # a list of experiments, and what the peers share
CONFIGS = sorted(p for p in (ROOT / "configs").rglob("*.toml") if p.name not in NO_EXPERIMENT)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_reads(path):
    read = frozen.read_config if is_frozen(path) else read_config
    assert read(path).name == path.stem


@pytest.mark.parametrize("name", ["npr", "safe", "deit_study"])
def test_the_peers_folds_hold_out_whole_kinds(name):
    with open(ROOT / "configs" / "kinds.csv", encoding="utf-8") as file:
        kinds = {row["source"]: row["kind"] for row in csv.DictReader(file)}
    folds = read_config(ROOT / "configs" / "peers" / f"{name}.toml").data.folds
    held = [source for fold in folds for source in fold]
    assert sorted(held) == sorted(set(kinds) - {"photoshop"})  # which is edited, and of no class
    of = [{kinds[source] for source in fold} for fold in folds]
    assert len(of) == 6
    assert sum(map(len, of)) == len(set.union(*of))


def test_the_report_has_every_network_on_every_source():
    for network in ("deit", "vit", "densenet"):
        for source in ("", "_iFakeFaceDB", "_gan", "_diffusion"):
            config = read_config(ROOT / "configs" / "report" / f"{network}{source}.toml")
            assert (config.network, config.recipe, config.init) == (network, "study", "pretrained")
            assert (config.study.factor, config.preprocess.size) == (0.5, 384 if network == "deit" else 224)
            assert bool(config.data.fake) == bool(source)


def test_an_unknown_device_is_one_line():
    for name in ("gpu", "cuda:99"):
        with pytest.raises(UsageError, match="no device"), place(name, 1):
            pass
