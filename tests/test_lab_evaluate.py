"""Evaluation of runs on a prepared data set: the study's table, the table of scores, and what is refused."""

import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
import pandas as pd
from PIL import Image
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from conftest import make_card, write_model
from faceauth.errors import DataError, UsageError
from faceauth.lab.cli import app
from faceauth.lab.data.dataset import read_dataset
from faceauth.lab.evaluation import score_table
from faceauth.lab.evaluation.candidates import manifest_of, open_candidates
from faceauth.lab.evaluation.evaluate import evaluate_files
from faceauth.lab.evaluation.ledger import read_ledger
from faceauth.lab.evaluation.pages import text
from faceauth.lab.evaluation.prepared import score_prepared
from faceauth.lab.evaluation.scoring import VARIANTS, fingerprint
from faceauth.lab.evaluation.study_table import study_row
from faceauth.lab.evaluation.tables import markdown, to_csv
from faceauth.model_file import Calibration, ModelFile, Thresholds
from faceauth.preprocess import PreprocessSpec
from lab_prepared import write_run, write_set

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("evaluation")
    write_set(place)
    write_run(place / "runs", place / "set" / "manifest.parquet")
    # The second crops tighter, so that it sees other pixels; and it knows one fake source only.
    write_run(place / "runs", place / "set" / "manifest.parquet", "tight", ("cam-a", "cam-b", "gan-a"),
              preprocess=PreprocessSpec(size=32, crop=0.6))  # fmt: skip
    return place


@pytest.fixture(scope="module")
def table(place):
    """The table of scores of both runs."""
    return scored([place / "runs" / "bright", place / "runs" / "tight"], place)


@pytest.fixture(scope="module")
def evaluation(place, table):
    return evaluate_files([place / "scores.parquet"])


def scored(models, folder, manifest=None, **how):
    """Score models on their prepared data set, or on `manifest`; the rows."""
    candidates = open_candidates(models)
    data = read_dataset(manifest or manifest_of(candidates))
    score_prepared(candidates, data, folder / "scores.parquet", folder / "cache", **how)
    return score_table.read(folder / "scores.parquet").rows


def test_the_study_counts_real_as_positive():
    # 10 real, of which 9 are called real; 4 fake, of which 1 is called real.
    logits = np.array([-1.0] * 9 + [1.0] + [1.0] * 3 + [-1.0])
    fake = np.array([False] * 10 + [True] * 4)
    row = study_row(logits, ~fake)
    assert row["Accuracy"] == pytest.approx(12 / 14)
    assert row["Precision"] == pytest.approx(9 / 10)  # were fake the positive class: 3/4
    assert row["Recall"] == pytest.approx(9 / 10)  # 3/4
    assert row["F1"] == pytest.approx(9 / 10)
    assert row["balanced accuracy"] == pytest.approx((9 / 10 + 3 / 4) / 2)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_the_study_takes_auroc_from_scores(seed):
    rng = np.random.default_rng(seed)
    logits, fake = rng.normal(size=30).round(1), np.arange(30) % 3 == 0
    assert study_row(logits, ~fake)["AUROC"] == pytest.approx(roc_auc_score(fake, logits))


def test_precision_is_not_defined_where_nothing_is_called_real():
    row = study_row(np.array([1.0, 2.0]), np.array([True, False]))
    assert row["Precision"] is None
    assert "| – |" in markdown([row])


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
    row = study_row(np.where(called, -1.0, 1.0), ~fake)
    assert [row["Accuracy"], row["Precision"], row["Recall"]] == pytest.approx([accuracy, precision, recall], abs=0.001)
    assert row["AUROC"] == row["balanced accuracy"] == pytest.approx(printed, abs=0.001)


def test_every_image_has_a_row_for_each_model_and_variant(table):
    counts = table[~table["model"].str.contains("/")].groupby(["model", "variant"])["image"].nunique()
    assert counts.to_dict() == {(m, v): 24 for m in ("bright", "tight") for v in (*VARIANTS, "prepared")}
    assert set(table["split"]) == {"test"}
    unknown = table[(table["model"] == "tight") & table["held_out"]]
    assert set(unknown["source"]) == {"gan-b"}
    assert not table[table["model"] == "bright"]["held_out"].any()


def test_the_scores_are_those_of_the_detector_and_of_the_prepared_faces(table, place):
    manifest = read_dataset(place / "set" / "manifest.parquet")
    model = ModelFile(place / "runs" / "tight" / "detector.onnx")
    rows = table[(table["model"] == "tight") & (table["variant"] == "prepared")].set_index("image")
    for image in [r for r in manifest.rows if r.split == "test"][::5]:
        with Image.open(manifest.file(image)) as opened:
            pixels = model.card.preprocess.resize(opened, model.card.preprocess.region(image.face, *opened.size))
        expected = model.run(model.card.preprocess.normalize(pixels[None])).logit[0]
        assert rows.loc[image.path, "logit"] == pytest.approx(expected, abs=1e-5)


def test_one_pass_for_several_gives_what_one_at_a_time_gives(table, place, tmp_path):
    alone = scored([place / "runs" / "tight"], tmp_path)
    together = table[table["model"].isin(alone["model"].unique())]
    key = ["model", "variant", "image"]
    pd.testing.assert_series_equal(
        alone.set_index(key)["logit"].sort_index(), together.set_index(key)["logit"].sort_index()
    )


def test_both_models_stand_in_every_table_with_their_controls(evaluation):
    tables = evaluation["tables"]
    assert [row["model"] for row in tables["study"]] == ["bright", "tight"]
    assert {(r["model"], r["set"]) for r in tables["headline"]} == {
        ("bright", "seen"), ("tight", "seen"), ("tight", "unseen generated, seen real"),
    }  # fmt: skip
    for row in tables["headline"]:
        assert row["AUROC"]["low"] <= row["AUROC"]["value"] <= row["AUROC"]["high"]
    assert {r["model"] for r in tables["controls"]} == {"bright", "tight"}
    for row in tables["worst"]:
        assert (row["score"] > 0.5) == (row["label"] == "real")
    json.dumps(evaluation)


def test_the_page_carries_hashes_commit_seed_and_command(evaluation):
    page = text(evaluation)
    made = evaluation["made"]
    for said in (made["dataset_sha256"][:16], made["models"][0]["sha256"][:16], "bootstrap seed 0", "commit ", "command: ",
                 "| bright | seen | hard |", "equals its balanced accuracy"):  # fmt: skip
        assert said in page, said


def test_dev_stays_sealed_until_it_is_opened(tmp_path):
    manifest = write_set(tmp_path, counts={"train": 2, "test": 4, "dev": 3})
    run = write_run(tmp_path / "runs", manifest)
    for kind in ("set", "originals"):
        for file in (tmp_path / kind).rglob("dev-*"):
            file.write_bytes(b"not to be opened")
    assert "dev" not in set(scored([run], tmp_path)["split"])
    assert not list(tmp_path.rglob("dev_ledger.jsonl"))
    # What kept it from the broken files is the seal alone; and the line is there although the scoring fails.
    opened = CliRunner().invoke(app, ["evaluate", str(run), "--open-dev", "--cache", str(tmp_path / "cache")])
    assert isinstance(opened.exception, DataError)
    assert "dev-" in str(opened.exception)
    assert len(read_ledger(manifest.parent / "dev_ledger.jsonl")) == 1


def test_each_opening_of_dev_is_a_line_in_the_ledger(tmp_path):
    manifest = write_set(tmp_path, counts={"train": 2, "test": 4, "dev": 3})
    run = write_run(tmp_path / "runs", manifest)
    for count in (1, 2):
        command = [
            "evaluate",
            str(run),
            "--open-dev",
            "--cache",
            str(tmp_path / "cache"),
            "-o",
            str(tmp_path / "dev"),
        ]
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        assert "split dev" in done.stdout
        lines = read_ledger(manifest.parent / "dev_ledger.jsonl")
        assert [line["number"] for line in lines] == list(range(1, count + 1))
    assert lines[-1]["models"] == {"bright": ModelFile(run / "detector.onnx").sha256}
    written = json.loads((tmp_path / "dev" / "evaluation.json").read_text())
    assert written["made"]["dev_openings"] == lines


def test_a_split_without_a_class_is_refused(place, tmp_path):
    manifest = write_set(tmp_path, {"cam-a": 1}, {"test": 2})
    with pytest.raises(DataError, match="test split has no fake images"):
        scored([place / "runs" / "bright"], tmp_path, manifest)


def test_a_run_is_not_evaluated_on_what_it_was_trained_on(tmp_path):
    manifest = write_set(tmp_path / "a")
    run = write_run(tmp_path / "runs", manifest)
    other = write_set(tmp_path / "b", counts={"test": 8})  # drawn alike, so its images are the first's train images
    with pytest.raises(DataError, match="was trained on"):
        scored([run], tmp_path, other)


def test_without_originals_the_prepared_files_are_scored_and_the_table_says_so(tmp_path):
    manifest = write_set(tmp_path, counts={"train": 2, "test": 3}, originals=False)
    model = write_model(tmp_path / "m.onnx", make_card(name="m"))
    rows = scored([model], tmp_path, manifest, per_source=2)
    assert rows[rows["model"] == "m"]["image"].nunique() == 8
    notes = score_table.read_metadata(tmp_path / "scores.parquet")["notes"]
    assert "not known" in notes[0]
    assert notes[1].startswith("the prepared files are scored: 8 originals")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_originals_in_an_archive_are_scored_where_they_are(tmp_path, kind):
    manifest = write_set(tmp_path, counts={"train": 2, "test": 3})
    model = write_model(tmp_path / "m.onnx", make_card(name="m"))
    loose = scored([model], tmp_path, manifest)
    shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path / "originals")
    shutil.rmtree(tmp_path / "originals")
    table = pd.read_parquet(manifest)
    table["image_path"] = f"{tmp_path}/packed.{kind}!/" + table["destination_path"]
    table.to_parquet(manifest, index=False)
    packed = scored([model], tmp_path, manifest)
    [note] = score_table.read_metadata(tmp_path / "scores.parquet")["notes"]
    assert "prepared files" not in note
    assert packed["logit"].tolist() == loose["logit"].tolist()


def test_a_calibrated_model_file_is_evaluated_as_it_is(tmp_path):
    manifest = write_set(tmp_path, sources={"cam-a": 1, "gan-a": 0}, counts={"train": 2, "test": 12, "dev": 4})
    unset = {"calibration": Calibration(), "thresholds": Thresholds(1, 0, ((0, 1), (1, 0)), "nothing: not calibrated")}
    run = write_run(tmp_path / "runs", manifest, sources=("cam-a", "gan-a"), **unset)
    result = CliRunner().invoke(app, ["calibrate", str(run), "--cache", str(tmp_path / "cache")])
    assert result.exit_code == 0, result.output
    card = ModelFile(run / "detector.onnx").card
    assert card.calibration.scale != 1
    scored([run], tmp_path)
    [used] = evaluate_files([tmp_path / "scores.parquet"])["tables"]["calibration"]
    assert (used["scale"], used["fake from"]) == (card.calibration.scale, card.thresholds.fake)


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


def test_tables_are_harmless_and_complete():
    rows = [{"source": "a|<script>", "AUROC": {"value": 0.5, "low": 0.25, "high": 0.75}, "n": 3}]
    assert markdown(rows).splitlines()[2] == "| a\\|&lt;script&gt; | 0.500 (0.250-0.750) | 3 |"
    assert to_csv(rows) == "source,AUROC,AUROC low,AUROC high,n\na|<script>,0.5,0.25,0.75,3\n"


def test_rows_of_a_table_may_have_other_columns():
    rows = [{"source": "camera", "called fake": 0.25}, {"source": "gan", "caught": 0.75}]
    assert markdown(rows).splitlines()[2:] == ["| camera | 0.250 | – |", "| gan | – | 0.750 |"]
    assert to_csv(rows).splitlines() == ["source,called fake,caught", "camera,0.25,", "gan,,0.75"]


def test_models_of_one_name_are_told_apart(place, tmp_path):
    copy = tmp_path / "bright"
    shutil.copytree(place / "runs" / "bright", copy)
    both = open_candidates([place / "runs" / "bright", copy])
    assert [s.name for s in both] == [os.fspath(place / "runs" / "bright"), os.fspath(copy)]


def test_models_that_differ_in_their_sources_alone_share_no_outputs(tmp_path):
    two, three = (ModelFile(write_model(tmp_path / f"{n}.onnx", make_card(), colour=True, sources=n)) for n in (2, 3))
    again = ModelFile(write_model(tmp_path / "again.onnx", make_card(name="another"), colour=True, sources=2))
    assert fingerprint(two) == fingerprint(again)
    assert fingerprint(two) != fingerprint(three)
