"""Training, export and judging, on a corpus made in code."""

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
from faceauth.detector import Detector
from faceauth.errors import ConfigError, DataError, UsageError
from faceauth.lab.evaluation.baselines import audit
from faceauth.lab.evaluation.facts import file_facts, thumbnail
from faceauth.lab.evaluation.protocol import calibrate, judge, with_calibration
from faceauth.lab.evaluation.scoring import VARIANTS, Resave
from faceauth.lab.training.batches import TrainingSet
from faceauth.lab.training.config import read_config
from faceauth.lab.training.export import HEADS_SEE, calibrated, export, fit_thresholds, load_run, parity
from faceauth.lab.training.loop import train
from faceauth.lab.training.pyramid import LAGS, STATISTICS, PyramidNet, statistics
from faceauth.lab.training.quantize import AGREEMENT, quantize
from faceauth.lab.training.traces import LIMIT, REACH
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
    """The whole chain: three runs, exported and calibrated."""
    config = read_config(place / "tiny.toml")
    for fold in (None, 1, 2):
        run = train(config, place / "runs", fold)
        assert export(run, run / "detector.onnx") < 1e-4
    models = [place / "runs" / name / "detector.onnx" for name in ("tiny", "tiny-fold1", "tiny-fold2")]
    calibrate(models[0], place / "corpus", (), place / "cache")
    return models


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
    assert parity(network, ModelFile(runs[0]), 64) < 1e-4
    with torch.no_grad():
        network.head.bias += 0.01
    assert parity(network, ModelFile(runs[0]), 64) > 1e-4


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


def test_octaves_do_not_see_contrast_or_brightness():
    network = PyramidNet(2, 4, size=32).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        plain, other = network(x), network(0.5 * x + 0.3)
    assert torch.allclose(plain.embedding[:, :56], other.embedding[:, :56], atol=5e-2, rtol=1e-2)  # log-variances too
    assert torch.allclose(plain.logit, other.logit, atol=5e-2)
    octaves = network.octaves(x)
    assert [tuple(o.unit.shape[2:]) for o in octaves] == [(32, 32), (16, 16), (8, 8)]
    known_by = torch.cat([statistics(o.pixels, o.detail) for o in octaves], 1)
    assert torch.allclose(
        plain.embedding[:, 56:], torch.cat([known_by, network.traces.numbers(x, octaves[0].detail)], 1), atol=1e-4
    )
    for octave in octaves:
        assert float(octave.unit.square().mean()) == pytest.approx(1, abs=0.02)


def test_traces_and_odds_speak_in_use_and_are_silent_in_training():
    network, x = PyramidNet(2, 4, size=32), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = network.eval()(x)
        network.traces.bias.fill_(1.0)
        network.odds.fake.fill_(1.5)
        after = network(x)
        said = 3 * math.exp(-1 / (2 * REACH**2)) + LIMIT * math.tanh(1.5 / LIMIT)  # three discriminants, and the odds
        assert torch.allclose(after.logit, before.logit + said)
        assert torch.equal(after.source_logits, before.source_logits)
        assert network.train()(x).embedding.shape == (2, 56)


def test_statistics_are_energies_correlations_and_periods():
    rng = torch.Generator().manual_seed(0)
    grey = torch.randn(1, 1, 64, 64, generator=rng).expand(-1, 3, -1, -1)
    three = torch.randn(1, 3, 64, 64, generator=rng)
    stripes = grey + 5 * (torch.arange(64) % 4 < 2).float()  # a period of four pixels across
    of_grey, of_three, of_stripes = (statistics(x, x)[0] for x in (grey, three, stripes))
    assert of_grey.shape == (STATISTICS,)
    assert torch.allclose(of_grey[:3], torch.tensor(float(grey[0, 0].square().mean())).log().expand(3), atol=1e-3)
    assert torch.allclose(of_grey[3:6], torch.ones(3), atol=1e-3)
    assert float(of_three[3:6].abs().max()) < 0.1
    across = {lag: float(of_stripes[7 + i]) for i, lag in enumerate(LAGS)}
    assert across[0, 4] > 0.5 > -0.3 > across[0, 2]
    assert abs(float(of_grey[7 + LAGS.index((0, 4))])) < 0.1
    assert not statistics(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)).isnan().any()


@pytest.mark.parametrize(("size", "octaves"), [(32, 3), (160, 3), (192, 4), (256, 4), (512, 5)])
def test_the_body_works_on_a_grid_of_about_32_whatever_the_size(size, octaves):
    network = PyramidNet(2, 4, size=size).eval()
    grids = []
    network.body[0].register_forward_hook(lambda _, inputs, __: grids.append(inputs[0].shape[2]))
    with torch.no_grad():
        embedding = network(torch.randn(1, 3, size, size)).embedding
    assert embedding.shape == (1, 56 + STATISTICS * octaves + sum(network.traces.groups))
    assert len(network.octaves(torch.randn(1, 3, size, size))) == octaves
    assert size < 128 or 24 <= grids[0] <= 40


@pytest.mark.parametrize(("override", "says"), [
    ("learning_rate=1", "unknown key"), ("widht=8", "did you mean 'width'"), ("augment.blurr=1", "did you mean 'blur'"),
    ("lr=-1", "lr: Input should be greater"), ("name=../x", "name"), ("nothing", "key=value"), ("lr.x=1", "lr is no table"),
])  # fmt: skip
def test_config_errors_are_one_line(place, override, says):
    with pytest.raises(ConfigError, match=says):
        read_config(place / "tiny.toml", [override])


def test_config_overrides(place):
    assert read_config(place / "tiny.toml", ["lr=0.5", "augment.blur=0.7"]).augment.blur == 0.7
    (place / "bad.toml").write_text("name = ")
    with pytest.raises(ConfigError, match="not TOML"):
        read_config(place / "bad.toml")


def test_thresholds_keep_their_promises():
    rng = np.random.default_rng(0)
    fake = np.arange(20_000) % 2 == 0
    scores = np.clip(rng.normal(0.35 + 0.3 * fake, 0.15), 0, 1)
    found = fit_thresholds(scores, fake, np.ones(len(fake)), 0.05, 0.02, "a test")
    assert 0.04 < (scores[~fake] >= found.fake).mean() <= 0.05
    assert 0.01 < (scores[fake] <= found.real).mean() <= 0.02
    assert found.false_alarm_rate(found.fake) <= 0.05


def test_every_source_weighs_the_same_in_the_promise():
    # A thousand easy photos of one camera must not hide ten hard ones of another.
    logits = np.concatenate([np.full(1000, -5.0), np.full(10, 1.0), np.full(100, 3.0)])
    fake = np.array([False] * 1010 + [True] * 100)
    sources = ["easy"] * 1000 + ["hard"] * 10 + ["gan"] * 100
    from conftest import make_card

    card = calibrated(make_card(), logits, fake, sources, "x")
    assert card.thresholds.fake > card.calibration(np.array([1.0]))[0]


def test_the_protocol_scores_seen_and_unseen(place, runs):
    judged = judge(runs[0], runs[1:], place / "corpus", place / "cache", "test")
    assert judged.seen.logits.shape[1] == len(VARIANTS) == 4
    assert len(judged.unseen.records) == len(judged.seen.records)
    for record, fold in zip(judged.unseen.records, judged.unseen.fold, strict=True):
        assert record.source in judged.folds[fold - 1]
    assert {r.label for r in judged.edited.records} <= {"edited"}
    scores = with_calibration(judged.card, judged.seen, "clean")
    again = Detector(runs[0]).scores(place / "corpus" / r.path for r in judged.seen.records)
    assert scores == pytest.approx(again, abs=1e-5)
    dev = judge(runs[0], (), place / "corpus", place / "cache", "dev")
    assert not {r.path for r in dev.seen.records} & {r.path for r in judged.seen.records}


def test_folds_must_cover_every_source_once(place, runs):
    with pytest.raises(DataError, match="exactly once"):
        judge(runs[0], runs[1:2], place / "corpus", place / "cache", "test")
    with pytest.raises(UsageError, match="holds no source out"):
        judge(runs[0], runs[:1], place / "corpus", place / "cache", "test")


def test_a_model_of_another_corpus_is_not_judged(place, runs, tmp_path):
    other = write_corpus(tmp_path / "other", count=6, seed=9)
    with pytest.raises(UsageError, match="another corpus"):
        judge(runs[0], (), other, tmp_path / "cache", "test")


def test_calibration_is_written_into_the_file_and_moves_no_weight(place, runs, tmp_path):
    copy = tmp_path / "copy.onnx"
    shutil.copy(runs[0], copy)
    card = calibrate(copy, place / "corpus", runs[1:], place / "cache")
    assert ModelFile(copy).card == card
    assert "not seen" in card.thresholds.measured_on
    x = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    assert np.array_equal(ModelFile(copy).run(x).logit, ModelFile(runs[0]).run(x).logit)


def test_resave_reduces_and_never_enlarges():
    from conftest import noise
    from faceauth.images import decode

    assert decode(Resave("x", 64, 50)(noise((100, 50)))).size == (64, 32)
    assert decode(Resave("x", 500, 50)(noise((100, 50)))).size == (100, 50)


def test_the_audit_sees_a_format_leak_and_no_face(place, runs):
    folds = [["cam-a", "gan-a"], ["cam-b", "gan-b"]]
    found = audit(ModelFile(runs[0]).card, folds, place / "corpus", place / "cache", "test")
    seen, unseen = found["file facts"]
    assert seen.logits.shape[1] == 4
    assert len(unseen.records) == len(seen.records)
    from conftest import encoded, picture

    assert file_facts(encoded(picture()))[:3] == [0, 1, 0]
    assert file_facts(encoded(picture(), "JPEG", quality=50))[7] > file_facts(encoded(picture(), "JPEG", quality=95))[7]
    assert len(thumbnail(picture())) == 768


def test_the_generator_makes_faces_that_are_no_copies(place, tmp_path):
    from faceauth.lab.data import synthesize

    first = synthesize.synthesize(place / "corpus", place / "cache", tmp_path / "first", 1, images=64)
    loss = synthesize.synthesize(place / "corpus", place / "cache", tmp_path / "faces", 3, images=64 * 25)
    assert loss < first
    files = sorted(p.name for p in (tmp_path / "faces").iterdir())
    assert files == ["images.csv", "recipe.json", "vae-00.png", "vae-01.png", "vae-02.png"]
    with pytest.raises(UsageError, match="not empty"):
        synthesize.synthesize(place / "corpus", place / "cache", tmp_path / "faces", 3, images=640)


def test_a_share_of_each_source_is_trained_on_and_a_larger_one_holds_the_smaller(place):
    members = []
    for share in (0.1, 0.5, 1.0):
        config = read_config(place / "tiny.toml", [f"data.share={share}"])
        members.append(TrainingSet(config, config.data.open(), ()).members)
    few, half, whole = members
    for source, chosen in whole.items():
        assert len(few[source]) == math.ceil(0.1 * len(chosen))
        assert len(half[source]) == math.ceil(0.5 * len(chosen))
        assert set(few[source]) <= set(half[source]) <= set(chosen)


def test_faces_of_our_own_are_trained_on_and_never_judged(place, tmp_path):
    from faceauth.lab.data.synthesize import synthesize

    own = tmp_path / "own"
    synthesize(place / "corpus", place / "cache", own, 3, images=64)
    config = read_config(place / "tiny.toml", ["images=48", f"data.own=['{own}']"])
    examples = config.data.open()
    assert examples.splits[-3:] == ("train",) * 3
    assert len(examples.faces) == len(examples.records)
    assert np.asarray(examples.faces[len(examples.faces) - 1][0]).std() > 0
    drawn = TrainingSet(config, examples, ())
    views = [None, config.augment, None]
    lined, known = (
        [(drawn.sources[source], len(pixels)) for source, pixels in drawn.of_each(2, views, without)]
        for without in (drawn.own, ())
    )
    assert lined == [("cam-a", 6), ("cam-b", 6), ("gan-a", 6), ("gan-b", 6)]  # lines are not drawn through our own
    assert known == [*lined, ("vae", 6)]
    models = []
    for fold in (None, 1, 2):
        run = train(config, tmp_path / "runs", fold)
        models.append(run / "detector.onnx")
        export(run, models[-1])
        assert "vae" in ModelFile(models[-1]).card.sources
        notes = ModelFile(models[-1]).card.notes
        assert notes["own"] == f"vae {examples.own['vae'][:16]}"
        assert notes[HEADS_SEE] == 14 * config.width  # what follows is written out
    judged = judge(models[0], models[1:], place / "corpus", place / "cache", "test")
    assert set(judged.unseen.sources) == set(judged.seen.sources) == {"cam-a", "cam-b", "gan-a", "gan-b"}
    twice = read_config(place / "tiny.toml", [f"data.own=['{own}', '{own}']"])
    with pytest.raises(DataError, match="'vae' that is there already"):
        twice.data.open()
    with pytest.raises(DataError, match="no folder") as caught:
        read_config(place / "tiny.toml", [f"data.own=['{tmp_path / 'none'}']"]).data.open()
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
    tempered = {s: n**config.data.temper for s, n in count.items()}
    assert both[1] == sum(count.values())
    assert both[0] == round(both[1] * tempered["cam-a"] / sum(tempered.values()))

    run = train(config, tmp_path / "runs", 1)
    network, _, facts = load_run(run)
    assert facts["sources"] == ["cam-b", "blended"]
    assert network.traces.weight.abs().sum() > 0  # a line leads from photographs to blended ones
    assert not network.odds.weight.any()  # but blended ones are no source of their own
    export(run, run / "detector.onnx")
    assert ModelFile(run / "detector.onnx").card.sources == ("cam-b", "blended")

    records = tuple(replace(r, source="blended") if r.source == "gan-a" else r for r in examples.records)
    with pytest.raises(DataError, match="a source is named 'blended'"):
        TrainingSet(config, replace(examples, records=records), ())


def test_the_quality_benchmark_prints_the_protocol(place, runs):
    from conftest import ROOT

    command = [sys.executable, str(ROOT / "benchmarks" / "quality.py"), "--model", str(runs[0]), "--workers", "1"]
    command += [f"--fold={model}" for model in runs[1:]]
    command += ["--corpus", str(place / "corpus"), "--cache", str(place / "cache"), "--beside", str(place / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for row in ("| seen | clean |", "| unseen | hard |", "| all together | avatar |", "| file facts | unseen |",
                "| 16 px thumbnail | seen |", "| cam-a, gan-a |", "| **mean of the folds** |", "| gan-b | fake |"):  # fmt: skip
        assert row in done.stdout, row
    beside = done.stdout.split("Side by side")[1]
    cells = {line.split(" | ")[0]: line.split(" | ")[1:] for line in beside.splitlines() if line.startswith("| ")}
    assert list(cells) == [
        "| detector",
        "| **tiny 0**",
        "| tiny",
        "| spectrum + SVM",
        "| file facts",
        "| 16 px thumbnail",
    ]
    assert cells["| tiny"] == cells["| **tiny 0**"]  # the same models, by both ways of scoring
    assert all(0 <= float(cell) <= 1 for row in list(cells.values())[1:] for cell in row[:6])
    assert cells["| tiny"][7] == "320 |"
    assert "Not in the table" not in beside
    promised, changed = done.stdout.split("real sources left out")[1].split("Verdicts that change")
    assert all(f"| {rate} |" in promised for rate in ("1%", "5%"))
    assert all(f"| unseen | {variant} | " in changed for variant in ("web", "hard"))
    assert "nan" not in done.stdout.split("shortcut audit")[0].split("swaps")[0]
    broken = subprocess.run([*command[:4], "--corpus", str(place / "no")], capture_output=True, text=True, check=False)
    assert broken.returncode == 1
    assert broken.stderr.startswith("error: ")
