"""Evaluation from the command line: tables of scores, and runs on a prepared data set."""

import builtins
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pandas")
pytest.importorskip("sklearn")
import pandas as pd
from PIL import Image
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from conftest import make_card, write_model
from faceauth.errors import DataError, UsageError
from faceauth.lab.cli import app
from faceauth.lab.data.dataset import read_dataset
from faceauth.lab.evaluation import metrics, score_sets, score_table
from faceauth.lab.evaluation.candidates import manifest_of, open_candidates
from faceauth.lab.evaluation.evaluate import evaluate, evaluate_files, study_row
from faceauth.lab.evaluation.ledger import open_dev, read_ledger
from faceauth.lab.evaluation.pages import text
from faceauth.lab.evaluation.prepared import score_prepared
from faceauth.lab.evaluation.scoring import fingerprint
from faceauth.lab.evaluation.tables import markdown, to_csv
from faceauth.model_file import ModelFile
from faceauth.preprocess import PreprocessSpec
from lab_prepared import write_run, write_set
from score_tables import METADATA, fold_rows, image_row, row

KINDS = ("camera0", "camera1", "gan0", "sd1", "swapper0", "brush1")
RESAVED = list(score_sets.RESAVED)


def table(folder, **more):
    """A table of a detector and both controls in two variants; returns its path."""
    rows = fold_rows(KINDS, per_kind=24, variants=("clean", "web"), **more)
    for control, gap in (("file-facts", 0.2), ("thumbnail", 1.9)):
        rows += fold_rows(KINDS, per_kind=24, variants=("clean", "web"), model=control, gap=gap)
    score_table.write(
        folder / "scores.parquet", rows, METADATA | {"controls": {"file-facts": RESAVED, "thumbnail": RESAVED}}
    )
    return folder / "scores.parquet"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    table(folder)
    done = CliRunner().invoke(app, ["evaluate", str(folder / "scores.parquet"), "-o", str(folder / "report")])
    assert done.exit_code == 0, done.output
    return folder, done.stdout


def test_every_table_is_printed_and_written_with_how_it_was_made(written):
    folder, out = written
    said = [
        "data set dddddddddddddddd",
        "seeds 0, 1",
        "command: faceauth",
        "0.1 net01",
        "bootstrap seed 0",
        f"commit {'c' * 12}",
    ]
    files = [folder / "report" / name for name in ("evaluation.json", "evaluation.md", "report.html")]
    assert all(f.is_file() for f in files)
    found = json.loads(files[0].read_text())
    csvs = sorted((folder / "report").glob("*.csv"))
    assert {f.stem for f in csvs} == {k for k, rows in found["tables"].items() if rows}
    for page in (out, *(f.read_text() for f in (*files[1:], *csvs))):
        for words in said:
            assert words in page, words
    for title in (
        "Headline",
        "What pictures are called",
        "What fake is worth",
        "Seen beside unseen",
        "Controls",
        "Swaps, restored",
    ):
        assert f"## {title}" in out, title
    read = pd.read_csv(folder / "report" / "headline.csv", comment="#")
    assert {"AUROC", "AUROC low", "AUROC high", "AUROC, worst fold", "AUROC, pooled", "ECE, raw"} <= set(read.columns)
    assert "<script" not in files[2].read_text()
    assert files[2].read_text().count("data:image/png") == 4


def test_figures_are_those_of_the_rows(written):
    tables = json.loads((written[0] / "report" / "evaluation.json").read_text())["tables"]
    rows = fold_rows(KINDS, per_kind=24, variants=("clean", "web"))
    areas = []
    for seed in (0, 1):
        for fold in (0, 1):
            own = [r for r in rows if (r["seed"], r["fold"], r["variant"]) == (seed, fold, "web") and r["held_out"]]
            own = [r for r in own if r["family"] in {"real", "gan", "diffusion"}]
            areas.append(roc_auc_score([r["label"] == "fake" for r in own], [r["logit"] for r in own]))
    [found] = [r for r in tables["headline"] if (r["set"], r["variant"]) == ("unseen kind", "web")]
    assert found["AUROC"]["value"] == pytest.approx(np.mean(areas))
    assert found["AUROC, worst fold"] == pytest.approx(min(areas))
    assert found["AUROC, spread of seeds"] == pytest.approx(abs(np.mean(areas[:2]) - np.mean(areas[2:])))
    assert (found["real"], found["fake"], found["folds"]) == (48, 48, 4)
    assert {r["images"] for r in tables["special"]} == {"swap", "edited"}
    assert {r["pictures"] for r in tables["plain"]} == {"real", "GAN", "diffusion", "swapped", "edited"}
    for shares in tables["plain"]:
        assert shares["called real"] + shares["uncertain"] + shares["called fake"] == pytest.approx(1)
    [clean] = [r for r in tables["controls"] if (r["set"], r["variant"]) == ("unseen kind", "clean")]
    assert "within 0.05 of the model: thumbnail" in clean["note"]
    worth = tables["worth"][0]
    assert worth["one in 2"] > worth["one in 10"] > worth["one in 100"]


def test_evaluating_a_table_needs_no_torch(tmp_path):
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'onnx', 'transformers'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        f"sys.argv = ['faceauth', 'lab', 'evaluate', {str(table(tmp_path))!r}, '-o', {str(tmp_path / 'r')!r}]\n"
        "from faceauth.__main__ import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r" / "report.html").is_file()


def test_one_model_is_chosen_and_an_unknown_one_is_named(tmp_path):
    rows = fold_rows(KINDS, per_kind=6) + fold_rows(KINDS, per_kind=6, model="other")
    given = score_table.ScoreTable(score_table.to_arrow(rows).to_pandas(), METADATA)
    found = evaluate(given, ["other"], draws=10)
    assert {r["model"] for r in found["tables"]["headline"]} == {"other"}
    with pytest.raises(DataError, match="no scores of a model 'third'"):
        evaluate(given, ["third"])


def test_images_without_an_answer_are_counted_and_left_out_of_every_column():
    rows = fold_rows(KINDS, per_kind=6, variants=("clean", "web"))
    lost = next(r for r in rows if r["variant"] == "web" and r["held_out"] and r["kind"] == "gan0")
    lost |= {"face": False, "logit": None}
    found = evaluate(score_table.ScoreTable(score_table.to_arrow(rows).to_pandas(), METADATA), draws=10)["tables"]
    [web] = [r for r in found["counts"] if r["variant"] == "web"]
    assert web["without a face"] == 1
    folds = [
        r
        for r in found["folds"]
        if r["set"] == "unseen kind" and (r["seed"], r["fold"]) == (lost["seed"], lost["fold"])
    ]
    assert {r["fake"] for r in folds} == {5}


def test_the_dev_set_is_opened_once_and_its_thresholds_come_from_test(tmp_path):
    rows = fold_rows(KINDS, per_kind=12, splits=("test", "dev"))
    opening = open_dev(tmp_path / "dev_ledger.jsonl", METADATA["dataset_sha256"], {}, "score")
    score_table.write(tmp_path / "scores.parquet", rows, METADATA, opening)
    test = CliRunner().invoke(app, ["evaluate", str(tmp_path / "scores.parquet"), "-o", str(tmp_path / "t")])
    assert test.exit_code == 0, test.output
    assert len(read_ledger(tmp_path / "dev_ledger.jsonl")) == 1
    command = ["evaluate", str(tmp_path / "scores.parquet"), "-o", str(tmp_path / "d"), "--open-dev"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert "split dev" in done.stdout
    assert [line["purpose"] for line in read_ledger(tmp_path / "dev_ledger.jsonl")] == ["score", "evaluate"]
    of_test, of_dev = (json.loads((tmp_path / n / "evaluation.json").read_text()) for n in ("t", "d"))
    assert of_test["tables"]["calibration"] == of_dev["tables"]["calibration"]
    assert of_dev["tables"]["headline"][0]["real"] == 12
    assert of_dev["tables"]["headline"] != of_test["tables"]["headline"]
    assert len(of_dev["made"]["dev_openings"]) == 2


def test_dev_rows_may_lie_in_a_file_of_their_own_and_lack_a_class_in_a_fold(tmp_path):
    """As lab train --folds --open-dev writes them: thresholds come from the one file, figures from the other."""
    rows = fold_rows(KINDS, per_kind=12, splits=("test", "dev"))
    test, dev = ([r for r in rows if r["split"] == split] for split in ("test", "dev"))
    dev = [r for r in dev if r["label"] == "real" or not r["held_out"] or r["fold"] == 1]
    opening = open_dev(tmp_path / "dev_ledger.jsonl", METADATA["dataset_sha256"], {}, "score")
    score_table.write(tmp_path / "scores.parquet", test, METADATA)
    score_table.write(tmp_path / "scores-dev.parquet", dev, METADATA, opening)
    both = ["evaluate", str(tmp_path / "scores.parquet"), str(tmp_path / "scores-dev.parquet"), "--open-dev"]
    done = CliRunner().invoke(app, [*both, "-o", str(tmp_path / "d")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    tables = json.loads((tmp_path / "d" / "evaluation.json").read_text())["tables"]
    [unseen] = [r for r in tables["headline"] if r["set"] == "unseen kind"]
    assert unseen["folds"] == 2  # fold 1 of both seeds; fold 0 has no generated image
    for alone in ("scores.parquet", "scores-dev.parquet"):
        lone = CliRunner().invoke(app, ["evaluate", str(tmp_path / alone), "--open-dev"])
        assert lone.exit_code == 1 and "no rows" in str(lone.exception)


def test_a_kind_in_two_folds_and_a_table_of_controls_alone_are_refused():
    rows = fold_rows(("camera0", "camera1", "gan0", "gan1"), per_kind=4)
    other = fold_rows(("camera0", "camera1", "gan0", "gan1"), per_kind=4, model="other")
    for r in other:
        r["fold"] = 1 - r["fold"]
        r["model_sha256"] = f"other{r['seed']}{r['fold']}".ljust(64, "0")
    given = score_table.ScoreTable(score_table.to_arrow(rows + other).to_pandas(), METADATA)
    with pytest.raises(DataError, match="held out by two folds of seed 0"):
        evaluate(given)
    alone = score_table.to_arrow(fold_rows(KINDS, per_kind=4, model="thumbnail")).to_pandas()
    with pytest.raises(DataError, match="controls alone"):
        evaluate(score_table.ScoreTable(alone, METADATA | {"controls": {"thumbnail": RESAVED}}))


def test_a_model_file_is_calibrated_from_a_table_and_no_weight_moves(tmp_path):
    pytest.importorskip("torch")
    model = write_model(tmp_path / "m.onnx", make_card())
    before = ModelFile(model)
    x = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    done = CliRunner().invoke(app, ["calibrate", str(model), "--scores", str(table(tmp_path)), "--name", "net"])
    assert done.exit_code == 0, done.output
    after = ModelFile(model)
    assert "2 real kinds, scored by fold models" in after.card.thresholds.measured_on
    assert after.card.calibration.scale > 0
    assert np.array_equal(after.run(x).logit, before.run(x).logit)


def test_the_study_counts_real_as_positive():
    # 10 real, of which 9 are called real; 4 fake, of which 1 is called real.
    logits = np.array([-1.0] * 9 + [1.0] + [1.0] * 3 + [-1.0])
    fake = np.array([False] * 10 + [True] * 4)
    found = study_row(logits, ~fake)
    assert found["Accuracy"] == pytest.approx(12 / 14)
    assert found["Precision"] == pytest.approx(9 / 10)  # were fake the positive class: 3/4
    assert found["Recall"] == pytest.approx(9 / 10)  # 3/4
    assert found["F1"] == pytest.approx(9 / 10)
    assert found["balanced accuracy"] == pytest.approx((9 / 10 + 3 / 4) / 2)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_the_study_takes_auroc_from_scores(seed):
    rng = np.random.default_rng(seed)
    logits, fake = rng.normal(size=30).round(1), np.arange(30) % 3 == 0
    assert study_row(logits, ~fake)["AUROC"] == pytest.approx(roc_auc_score(fake, logits))


def test_precision_is_not_defined_where_nothing_is_called_real():
    found = study_row(np.array([1.0, 2.0]), np.array([True, False]))
    assert found["Precision"] is None
    assert "| – |" in markdown([found])


def test_the_studys_printed_auroc_is_its_balanced_accuracy():
    """Accuracy, precision and recall fix the share of positives and the specificity; half their sum is printed."""
    accuracy, precision, recall, printed = 0.836, 0.829, 0.877, 0.83243
    false_positives = recall * (1 / precision - 1)  # a positive image
    share = (1 - accuracy) / (1 - recall + false_positives)  # the errors are (1 - recall + false_positives) * share
    specificity = 1 - false_positives * share / (1 - share)
    assert share == pytest.approx(0.54, abs=0.005)
    assert (recall + specificity) / 2 == pytest.approx(printed, abs=0.001)
    # Rebuilt image by image, our own table gives the same figures, and an AUROC from hard 0/1 answers is that number.
    real = round(20_000 * share)
    called = np.r_[np.arange(real) < recall * real, np.arange(20_000 - real) >= specificity * (20_000 - real)]
    fake = np.arange(20_000) >= real
    found = study_row(np.where(called, -1.0, 1.0), ~fake)
    assert [found["Accuracy"], found["Precision"], found["Recall"]] == pytest.approx(
        [accuracy, precision, recall], abs=0.001
    )
    assert found["AUROC"] == found["balanced accuracy"] == pytest.approx(printed, abs=0.001)


def given_sets(*sources, known=("camera0", "gan0")):
    rows = [row(image_row(i, k), 0.0 + i, held_out=k not in known) for k in sources for i in range(4)]
    return score_sets.score_rows(score_table.ScoreTable(score_table.to_arrow(rows).to_pandas(), METADATA))


def names(*sources):
    from faceauth.lab.evaluation.protocol import columns

    return {name: sorted(set(part["kind"])) for name, part in columns(given_sets(*sources))}


def test_columns_go_by_the_kinds_that_a_model_knows():
    assert names("camera0", "gan0", "camera1", "gan1") == {
        "unseen kind": ["camera1", "gan1"],
        "seen": ["camera0", "gan0"],
    }
    assert names("camera0", "gan0", "gan1")["unseen generated, seen real"] == ["camera0", "gan1"]
    assert names("camera0", "gan0", "camera1")["unseen real, seen generated"] == ["camera1", "gan0"]
    assert set(names("camera0", "gan1")) == {"unseen generated, seen real"}
    assert set(names("camera0", "gan0")) == {"seen"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("prepared")
    write_set(place)
    write_run(place / "runs", place / "set" / "manifest.parquet")
    # The second crops tighter, so that it sees other pixels; and it knows one fake source only.
    write_run(place / "runs", place / "set" / "manifest.parquet", "tight", ("cam-a", "cam-b", "gan-a"),
              preprocess=PreprocessSpec(size=32, crop=0.6))  # fmt: skip
    return place


def evaluated(runs, manifest, folder, opening=None, **more):
    """Runs scored on a prepared data set and evaluated."""
    candidates = open_candidates(runs)
    score_prepared(
        candidates, read_dataset(manifest), folder / "scores.parquet", folder / "cache", opening=opening, **more
    )
    return evaluate_files([folder / "scores.parquet"], opening=opening, draws=20)


@pytest.fixture(scope="module")
def both(place):
    return evaluated([place / "runs" / "bright", place / "runs" / "tight"], place / "set" / "manifest.parquet", place)


def test_both_models_stand_in_every_table(both):
    tables = both["tables"]
    sets = {name: {r["set"] for r in tables["headline"] if r["model"] == name} for name in ("bright", "tight")}
    assert sets == {"bright": {"seen"}, "tight": {"seen", "unseen generated, seen real"}}
    assert [r["variant"] for r in tables["headline"] if r["model"] == "bright"] == ["clean", "web", "hard", "avatar"]
    assert [r["model"] for r in tables["study"]] == ["bright", "tight"]
    [unknown] = [r for r in tables["fake_sources"] if r["source"] == "gan-b" and r["model"] == "tight"]
    assert unknown["set"] == "unseen kind"
    beside = [r for r in tables["controls"] if r["variant"] == "web"]
    assert {r["model"] for r in beside} == {"bright", "tight"}
    assert all(r["file-facts"] is not None and r["thumbnail"] is not None for r in beside if r["set"] == "seen")
    assert any("not scored in edited, matched" in said for said in both["remarks"])
    json.dumps(both)


def test_the_page_carries_hashes_commit_seed_and_command(both, place):
    page = text(both)
    sha = ModelFile(place / "runs" / "bright" / "detector.onnx").sha256
    for said in (both["made"]["dataset_sha256"][:16], sha[:16], "bootstrap seed 0", "commit ", "command: faceauth",
                 "equals its balanced accuracy"):  # fmt: skip
        assert said in page, said


def test_one_pass_for_several_gives_what_one_at_a_time_gives(both, place, tmp_path):
    alone = evaluated([place / "runs" / "tight"], place / "set" / "manifest.parquet", tmp_path)["tables"]
    for key in ("headline", "study", "controls"):
        assert alone[key] == [r for r in both["tables"][key] if r["model"] == "tight"]
    one, other = (next(r for r in both["tables"]["headline"] if r["model"] == n) for n in ("bright", "tight"))
    assert one["Brier"] != other["Brier"]


def test_the_scores_are_those_of_the_detector(both, place):
    from faceauth.detector import Detector

    manifest = read_dataset(place / "set" / "manifest.parquet")
    rows = [r for r in manifest.rows if r.split == "test"]
    scores = Detector(place / "runs" / "bright" / "detector.onnx", whole_image=True).scores([r.original for r in rows])
    found = score_table.read(place / "scores.parquet").rows
    found = found[(found["model"] == "bright") & (found["variant"] == "clean")].set_index("image")["logit"]
    card = ModelFile(place / "runs" / "bright" / "detector.onnx").card
    ours = card.calibration(found.loc[[r.path for r in rows]].to_numpy())
    fake = np.array([r.target == 0 for r in rows])
    assert metrics.auroc(ours, fake) == pytest.approx(metrics.auroc(np.array(scores), fake))


def test_dev_stays_sealed_until_it_is_opened(tmp_path, monkeypatch):
    manifest = write_set(tmp_path, counts={"train": 2, "test": 4, "dev": 3})
    run = write_run(tmp_path / "runs", manifest)
    for kind in ("set", "originals"):
        for file in (tmp_path / kind).rglob("dev-*"):
            file.write_bytes(b"not to be opened")
    opened = []
    for module in (builtins, io):
        real = module.open
        monkeypatch.setattr(module, "open", lambda f, *a, real=real, **k: opened.append(str(f)) or real(f, *a, **k))
    evaluated([run], manifest, tmp_path)
    assert any("test-" in f for f in opened)
    assert not any("dev-" in f for f in opened)
    opening = open_dev(tmp_path / "ledger.jsonl", read_dataset(manifest).sha256, {}, "score and evaluate")
    with pytest.raises(DataError, match="dev-"):  # the seal is what kept it from the broken files
        evaluated([run], manifest, tmp_path, opening)
    assert len(read_ledger(tmp_path / "ledger.jsonl")) == 1


def test_each_opening_of_dev_is_a_line_in_the_ledger(place):
    pytest.importorskip("torch")
    run = place / "runs" / "bright"
    for count in (1, 2):
        command = ["evaluate", str(run), "--open-dev", "--cache", str(place / "cache"), "-o", str(place / "dev")]
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        assert "split dev" in done.stdout
        lines = read_ledger(place / "set" / "dev_ledger.jsonl")
        assert [line["number"] for line in lines] == list(range(1, count + 1))
    assert lines[-1]["models"] == {"bright": ModelFile(run / "detector.onnx").sha256}
    written = json.loads((place / "dev" / "evaluation.json").read_text())
    assert written["made"]["dev_openings"] == lines
    assert written["tables"]["headline"][0]["real"] == 10


def test_what_cannot_be_evaluated_is_refused_in_one_line(place, tmp_path):
    unfinished = tmp_path / "unfinished"
    shutil.copytree(place / "runs" / "bright", unfinished)
    (unfinished / "model.safetensors").unlink()
    (tmp_path / "text.onnx").write_text("no model")
    runner = place / "runs" / "bright"
    for paths, says in [
        ([unfinished], "no finished run"), ([tmp_path], "no run"), ([tmp_path / "none"], "no run or model file"),
        ([runner, runner], "twice"),
    ]:  # fmt: skip
        with pytest.raises(UsageError, match=says):
            open_candidates(paths)
    with pytest.raises(Exception, match="not an ONNX model"):
        open_candidates([tmp_path / "text.onnx"])
    with pytest.raises(UsageError, match="--manifest"):
        manifest_of(open_candidates([runner / "detector.onnx"]))
    mixed = CliRunner().invoke(app, ["evaluate", str(runner), str(place / "scores.parquet")])
    assert isinstance(mixed.exception, UsageError)


def test_a_split_without_a_class_is_refused(place, tmp_path):
    manifest = write_set(tmp_path, {"cam-a": 1}, {"test": 2})
    with pytest.raises(DataError, match="test split has no fake images"):
        evaluated([place / "runs" / "bright"], manifest, tmp_path)


def test_a_run_is_not_scored_on_what_it_was_trained_on(tmp_path):
    manifest = write_set(tmp_path / "a")
    run = write_run(tmp_path / "runs", manifest)
    other = write_set(tmp_path / "b", counts={"test": 8})  # drawn alike, so its images are the first's train images
    with pytest.raises(DataError, match="was trained on"):
        evaluated([run], other, tmp_path)


def test_a_manifest_that_changed_after_training_says_nothing_of_it(tmp_path):
    """As it is now it may lack the very images that the run was trained on."""
    manifest = write_set(tmp_path / "a")
    run = write_run(tmp_path / "runs", manifest)
    other = write_set(tmp_path / "b", counts={"train": 2, "test": 8})
    kept = pd.read_parquet(manifest)
    kept[kept["split"] != "train"].to_parquet(manifest, index=False)
    found = evaluated([run], other, tmp_path)
    assert any("is not known" in said for said in found["remarks"])


def test_a_file_that_was_replaced_is_scored_anew_or_refused(tmp_path):
    manifest = write_set(tmp_path, counts={"train": 2, "test": 3})
    model = write_model(tmp_path / "m.onnx", make_card(name="m"))
    before = evaluated([model], manifest, tmp_path)["tables"]["study"]
    for file in (tmp_path / "set").glob("*/test-*.png"):
        Image.new("RGB", (64, 64), "white" if "cam" in str(file) else "black").save(file)
    assert evaluated([model], manifest, tmp_path)["tables"]["study"] != before
    [*_, file] = sorted((tmp_path / "originals").glob("*/test-*.png"))
    Image.new("RGB", (96, 96)).save(file)
    with pytest.raises(DataError, match=rf"{file.name}: its bytes are not those"):
        evaluated([model], manifest, tmp_path)


def test_without_originals_the_prepared_files_are_scored_and_said_so(tmp_path):
    manifest = write_set(tmp_path, counts={"train": 2, "test": 3}, originals=False)
    model = write_model(
        tmp_path / "m.onnx",
        make_card(name="m", sources=("cam-a", "cam-b", "gan-a", "gan-b"), labels=("real", "real", "fake", "fake")),
    )
    found = evaluated([model], manifest, tmp_path, per_source=2)
    assert "the prepared files are scored: 8 originals lie elsewhere" in found["remarks"]
    assert (found["tables"]["headline"][0]["real"], found["tables"]["headline"][0]["fake"]) == (4, 4)
    assert any("not known" in said for said in found["remarks"])


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_originals_in_an_archive_are_scored_where_they_are(tmp_path, kind):
    manifest = write_set(tmp_path, counts={"train": 2, "test": 3})
    model = write_model(tmp_path / "m.onnx", make_card(name="m"))
    loose = evaluated([model], manifest, tmp_path / "loose")
    shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path / "originals")
    shutil.rmtree(tmp_path / "originals")
    table = pd.read_parquet(manifest)
    table["image_path"] = f"{tmp_path}/packed.{kind}!/" + table["destination_path"]
    table.to_parquet(manifest, index=False)
    packed = evaluated([model], manifest, tmp_path / "packed-out")
    assert not any("lie elsewhere" in said for said in packed["remarks"])
    for part in ("study", "headline", "fake_sources", "real_sources"):
        assert packed["tables"][part] == loose["tables"][part]


def test_tables_are_harmless_and_complete():
    rows = [{"source": "a|<script>", "AUROC": {"value": 0.5, "low": 0.25, "high": 0.75}, "n": 3}]
    assert markdown(rows).splitlines()[2] == "| a\\|&lt;script&gt; | 0.500 (0.250-0.750) | 3 |"
    assert to_csv(rows) == "source,AUROC,AUROC low,AUROC high,n\na|<script>,0.5,0.25,0.75,3\n"


def test_models_of_one_name_are_told_apart(place, tmp_path):
    copy = tmp_path / "bright"
    shutil.copytree(place / "runs" / "bright", copy)
    both = open_candidates([place / "runs" / "bright", copy])
    assert [s.name for s in both] == [os.fspath(place / "runs" / "bright"), os.fspath(copy)]


def test_models_that_differ_in_their_sources_alone_share_no_outputs(tmp_path):
    two, three = (
        ModelFile(
            write_model(
                tmp_path / f"{n}.onnx",
                make_card(sources=("camera", "bulb", "lamp")[:n], labels=("real", "fake", "fake")[:n]),
                colour=True,
            )
        )
        for n in (2, 3)
    )
    again = ModelFile(write_model(tmp_path / "again.onnx", make_card(name="another"), colour=True, sources=2))
    assert fingerprint(two) == fingerprint(again)
    assert fingerprint(two) != fingerprint(three)


def test_a_calibrated_model_file_is_used_as_it_is(tmp_path):
    pytest.importorskip("torch")
    manifest = write_set(tmp_path, sources={"cam-a": 1, "gan-a": 0}, counts={"train": 2, "test": 12, "dev": 4})
    run = write_run(tmp_path / "runs", manifest, sources=("cam-a", "gan-a"))
    before = evaluated([run], manifest, tmp_path)["tables"]["calibration"]
    assert {r["fitted on"] for r in before} == {"the other half of the images"}
    result = CliRunner().invoke(app, ["calibrate", str(run), "--cache", str(tmp_path / "cache")])
    assert result.exit_code == 0, result.output
    card = ModelFile(run / "detector.onnx").card
    assert "trained on" in card.thresholds.measured_on
    [after] = evaluated([run], manifest, tmp_path)["tables"]["calibration"]
    assert (after["part"], after["scale"]) == ("shipped", pytest.approx(card.calibration.scale))
    assert after["fake from"] == card.thresholds.fake
