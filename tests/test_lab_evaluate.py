"""Judging on a prepared data set: the study's table, the columns, and what is refused."""

import builtins
import io
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
import pandas as pd
from faceauth.lab.evaluation.subjects import manifest_of, open_subjects
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from conftest import make_card, write_model
from faceauth.__main__ import app
from faceauth.errors import DataError, UsageError
from faceauth.lab.data.dataset import ImageRow, read_dataset
from faceauth.lab.evaluation import metrics
from faceauth.lab.evaluation.evaluate import _calibrated, _shortcuts, columns_of, evaluate, study_row
from faceauth.lab.evaluation.protocol import Column
from faceauth.lab.evaluation.report import text
from faceauth.lab.evaluation.scoring import VARIANTS, fingerprint
from faceauth.lab.evaluation.tables import markdown, to_csv
from faceauth.model_file import Calibration, ModelFile, Thresholds
from faceauth.preprocess import PreprocessSpec
from lab_prepared import write_run, write_set

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("judging")
    write_set(place)
    write_run(place / "runs", place / "set" / "manifest.parquet")
    # The second crops tighter, so that it sees other pixels; and it knows one fake source only.
    write_run(place / "runs", place / "set" / "manifest.parquet", "tight", ("cam-a", "cam-b", "gan-a"),
              preprocess=PreprocessSpec(size=32, crop=0.6))  # fmt: skip
    return place


@pytest.fixture(scope="module")
def judged(place):
    subjects = open_subjects([place / "runs" / "bright", place / "runs" / "tight"])
    return evaluate(subjects, manifest_of(subjects), cache=place / "cache")


def test_the_study_counts_real_as_positive():
    # 10 real, of which 9 are called real; 4 fake, of which 1 is called real.
    logits = np.array([-1.0] * 9 + [1.0] + [1.0] * 3 + [-1.0])
    fake = np.array([False] * 10 + [True] * 4)
    row = study_row(logits, fake)
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
    assert study_row(logits, fake)["AUROC"] == pytest.approx(roc_auc_score(fake, logits))


def test_precision_is_not_defined_where_nothing_is_called_real():
    row = study_row(np.array([1.0, 2.0]), np.array([False, True]))
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
    row = study_row(np.where(called, -1.0, 1.0), fake)
    assert [row["Accuracy"], row["Precision"], row["Recall"]] == pytest.approx([accuracy, precision, recall], abs=0.001)
    assert row["AUROC"] == row["balanced accuracy"] == pytest.approx(printed, abs=0.001)


def column_of(**counts):
    records = []
    for source, n in counts.items():
        label = "real" if source.startswith("cam") else "fake"
        records += [
            ImageRow(f"{source}{i}", source, label, label, source, "", source, f"{source}{i}") for i in range(n)
        ]
    return Column(tuple(records), np.zeros((len(records), 4)), np.zeros(len(records), np.int64))


def names(card, **counts):
    kept, left_out = columns_of(card, column_of(**counts))
    return {name: sorted(set(c.sources.tolist())) for name, c in kept.items()}, left_out


def test_columns_go_by_the_sources_that_a_model_knows():
    card = make_card(sources=("cam_a", "gan_a"))
    kept, left_out = names(card, cam_a=2, gan_a=2, cam_b=2, gan_b=2)
    assert kept == {"seen": ["cam_a", "gan_a"], "unseen": ["cam_b", "gan_b"],
                    "all together": ["cam_a", "cam_b", "gan_a", "gan_b"]}  # fmt: skip
    assert left_out == []
    kept, _ = names(card, cam_a=2, gan_a=2, gan_b=2)
    assert kept["unseen fakes, seen reals"] == ["cam_a", "gan_b"]
    kept, _ = names(card, cam_a=2, gan_a=2, cam_b=2)
    assert kept["unseen reals, seen fakes"] == ["cam_b", "gan_a"]


def test_a_column_that_lacks_a_class_is_left_out_and_said_so():
    kept, left_out = names(make_card(sources=("cam_a", "gan_a")), cam_a=2, gan_b=2)
    assert set(kept) == {"unseen fakes, seen reals", "all together"}
    assert left_out == ["the column 'seen' is left out: it has no fake images"]
    kept, left_out = names(make_card(sources=("cam_a", "gan_a")), cam_a=2, gan_a=2)
    assert left_out == ["the column 'unseen' is left out: it has no images"]


def test_both_models_stand_in_every_table(judged):
    bright, tight = judged["models"]
    assert {r["column"] for r in bright["protocol"]} == {"seen", "all together"}
    assert {r["column"] for r in tight["protocol"]} == {"seen", "unseen fakes, seen reals", "all together"}
    assert [r["images"] for r in bright["protocol"]] == list(VARIANTS) * 2
    assert {r["in training"] for r in tight["by_source"] if r["source"] == "gan-b"} == {"unseen"}
    for row in bright["protocol"]:
        assert row["AUROC"]["low"] <= row["AUROC"]["value"] <= row["AUROC"]["high"]
    assert {r["baseline"] for r in bright["audit"]} == {"file facts", "16 px thumbnail"}
    assert list(bright["confusion"][0]) == ["true source", "cam-a", "cam-b", "gan-a", "gan-b"]
    assert sum(v for k, v in bright["confusion"][0].items() if k != "true source") == 6
    json.dumps(judged)


def test_the_page_carries_hashes_commit_seed_and_command(judged, place):
    page = text(judged)
    for said in (judged["made"]["manifest_sha256"][:16], judged["models"][0]["model_sha256"][:16], "seed 0", "commit ",
                 "command: faceauth", "fitted on test images of sources it was trained on; these are the images judged here",
                 "| bright | seen | hard |", "| tight | file facts |", "equals balanced accuracy"):  # fmt: skip
        assert said in page, said
    assert judged["made"]["files"] == "the original files"


def test_one_pass_for_several_gives_what_one_at_a_time_gives(judged, place, tmp_path):
    for name, together in zip(("bright", "tight"), judged["models"], strict=True):
        subjects = open_subjects([place / "runs" / name])
        [alone] = evaluate(subjects, manifest_of(subjects), cache=tmp_path / name)["models"]
        assert alone["protocol"] == together["protocol"]
        assert alone["study"] == together["study"]
    assert judged["models"][0]["protocol"][0] != judged["models"][1]["protocol"][0] | {"model": "bright"}


def test_the_scores_are_those_of_the_detector(judged, place):
    from faceauth.detector import Detector

    manifest = read_dataset(place / "set" / "manifest.parquet")
    rows = [r for r in manifest.rows if r.split == "test"]
    scores = Detector(place / "runs" / "bright" / "detector.onnx").scores(r.original for r in rows)
    fake = np.array([r.target == 0 for r in rows])
    [clean] = [r for r in judged["models"][0]["protocol"] if (r["column"], r["images"]) == ("all together", "clean")]
    assert clean["AUROC"]["value"] == pytest.approx(metrics.auroc(scores, fake))


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
    subjects = open_subjects([run])
    found = evaluate(subjects, manifest, cache=tmp_path / "cache")
    assert found["models"][0]["dev_openings"] == []
    assert any("test-" in f for f in opened)
    assert not any("dev-" in f for f in opened)
    assert not (run / "dev_ledger.jsonl").exists()
    with pytest.raises(DataError, match="dev-"):  # the seal is what kept it from the broken files
        evaluate(subjects, manifest, "dev", cache=tmp_path / "cache")


def test_each_opening_of_dev_is_a_line_in_the_ledger(place):
    run = place / "runs" / "bright"
    for count in (1, 2):
        command = ["lab", "evaluate", str(run), "--open-dev", "--cache", str(place / "cache"), "-o", str(place / "dev")]
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        assert "split dev: 10 real and 10 fake images" in done.stdout
        assert "these are the images judged here" not in done.stdout
        lines = [json.loads(line) for line in (run / "dev_ledger.jsonl").read_text().splitlines()]
        assert len(lines) == count
    assert lines[-1]["model_sha256"] == ModelFile(run / "detector.onnx").sha256
    assert {"opened", "manifest_sha256", "commit", "command"} <= set(lines[-1])
    written = json.loads((place / "dev" / "evaluation.json").read_text())
    assert written["models"][0]["dev_openings"] == lines
    assert (place / "dev" / "protocol.csv").read_text().startswith("model,column,images,real,fake,AUROC,AUROC low,")
    assert (place / "dev" / "study.csv").read_text().splitlines()[1].startswith("bright,")


def test_dev_does_not_open_for_a_file_without_a_run(place):
    file = place / "runs" / "bright" / "detector.onnx"
    with pytest.raises(UsageError, match="without a run"):
        evaluate(open_subjects([file]), place / "set" / "manifest.parquet", "dev", cache=place / "cache")


def test_what_cannot_be_judged_is_refused_in_one_line(place, tmp_path):
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
            open_subjects(paths)
    with pytest.raises(Exception, match="not an ONNX model"):
        open_subjects([tmp_path / "text.onnx"])
    with pytest.raises(UsageError, match="--manifest"):
        manifest_of(open_subjects([runner / "detector.onnx"]))
    with pytest.raises(DataError, match="no data set"):
        evaluate(open_subjects([runner]), tmp_path / "none.parquet", cache=tmp_path)


def test_a_split_without_a_class_is_refused(place, tmp_path):
    manifest = write_set(tmp_path, {"cam-a": 1}, {"test": 2})
    with pytest.raises(DataError, match="test split has no fake images"):
        evaluate(open_subjects([place / "runs" / "bright"]), manifest, cache=tmp_path)


def test_a_run_is_not_judged_on_what_it_was_trained_on(tmp_path):
    manifest = write_set(tmp_path / "a")
    run = write_run(tmp_path / "runs", manifest)
    other = write_set(tmp_path / "b", counts={"test": 8})  # drawn alike, so its images are the first's train images
    with pytest.raises(DataError, match="was trained on"):
        evaluate(open_subjects([run]), other, cache=tmp_path)


def test_without_originals_the_prepared_files_are_judged_and_said_so(tmp_path):
    manifest = write_set(tmp_path, counts={"train": 2, "test": 3}, originals=False)
    model = write_model(tmp_path / "m.onnx", make_card(name="m"))
    found = evaluate(open_subjects([model]), manifest, cache=tmp_path / "cache", per_source=2)
    assert found["made"]["files"].startswith("the prepared files (8 originals")
    assert found["made"]["real"] == found["made"]["fake"] == 4
    assert "not known" in found["models"][0]["notes"][0]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_originals_in_an_archive_are_judged_where_they_are(tmp_path, kind):
    manifest = write_set(tmp_path, counts={"train": 2, "test": 3})
    model = write_model(tmp_path / "m.onnx", make_card(name="m"))
    loose = evaluate(open_subjects([model]), manifest, cache=tmp_path / "cache")
    shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path / "originals")
    shutil.rmtree(tmp_path / "originals")
    table = pd.read_parquet(manifest)
    table["image_path"] = f"{tmp_path}/packed.{kind}!/" + table["destination_path"]
    table.to_parquet(manifest, index=False)
    packed = evaluate(open_subjects([model]), manifest, cache=tmp_path / "cache")
    assert packed["made"]["files"] == loose["made"]["files"] == "the original files"
    for part in ("study", "protocol", "by_source"):
        assert packed["models"][0][part] == loose["models"][0][part]


def test_a_calibrated_model_file_is_used_as_it_is(tmp_path):
    manifest = write_set(tmp_path, sources={"cam-a": 1, "gan-a": 0}, counts={"train": 2, "test": 12, "dev": 4})
    unset = {"calibration": Calibration(), "thresholds": Thresholds(1, 0, ((0, 1), (1, 0)), "nothing: not calibrated")}
    run = write_run(tmp_path / "runs", manifest, sources=("cam-a", "gan-a"), **unset)
    evaluated = evaluate(open_subjects([run]), manifest, "dev", cache=tmp_path / "cache")["models"][0]
    result = CliRunner().invoke(app, ["lab", "calibrate", str(run), "--cache", str(tmp_path / "cache")])
    assert result.exit_code == 0, result.output
    card = ModelFile(run / "detector.onnx").card
    assert "trained on" in card.thresholds.measured_on
    assert card.calibration.scale == pytest.approx(evaluated["calibration"]["scale"])
    again = evaluate(open_subjects([run]), manifest, "dev", cache=tmp_path / "cache")["models"][0]
    assert again["fake_from"] == evaluated["fake_from"] == card.thresholds.fake
    refused = CliRunner().invoke(app, ["lab", "calibrate", str(run), "--fold", "x.onnx"])
    assert isinstance(refused.exception, UsageError)


def test_a_model_at_odds_with_the_labels_is_judged_and_not_calibrated():
    column = column_of(cam_a=20, gan_a=20)
    against = Column(column.records, np.where(column.fake, -1.0, 1.0)[:, None] * np.ones(4), column.fold)
    untrained = make_card(sources=("cam_a", "gan_a"), thresholds=Thresholds(1, 0, ((0, 1), (1, 0)), "nothing"))
    card, note = _calibrated(untrained, against, "test")
    assert note.startswith("not calibrated: the logits do not rise")
    assert card.calibration == untrained.calibration
    assert (card.calibration(np.array([1.0])) >= card.thresholds.fake).sum() == 0  # 5 % false alarms are kept still
    kept, note = _calibrated(replace(card, calibration=Calibration(2, 1, "another set")), against, "test")
    assert (kept.calibration.scale, note) == (2, None)


def test_a_baseline_that_does_as_well_is_named(judged):
    audit = [{"baseline": b, "column": c, "clean": v} for b, c, v in
             [("file facts", "seen", 0.9), ("file facts", "unseen", 0.5), ("16 px thumbnail", "seen", 0.6)]]  # fmt: skip
    said = list(_shortcuts(audit, {"seen": 0.92, "unseen": 0.7}))
    assert said == [
        "a classifier of file facts alone does as well, clean: seen 0.900 against 0.920; AUROC there says nothing of faces"
    ]


def test_the_worst_mistakes_are_on_the_wrong_side(judged):
    for model in judged["models"]:
        for row in model["worst"]:
            assert (row["score"] > 0.5) == (row["label"] == "real")


def test_tables_are_harmless_and_complete():
    rows = [{"source": "a|<script>", "AUROC": {"value": 0.5, "low": 0.25, "high": 0.75}, "n": 3}]
    assert markdown(rows).splitlines()[2] == "| a\\|&lt;script&gt; | 0.500 (0.250-0.750) | 3 |"
    assert to_csv(rows) == "source,AUROC,AUROC low,AUROC high,n\na|<script>,0.5,0.25,0.75,3\n"


def test_models_of_one_name_are_told_apart(place, tmp_path):
    copy = tmp_path / "bright"
    shutil.copytree(place / "runs" / "bright", copy)
    both = open_subjects([place / "runs" / "bright", copy])
    assert [s.name for s in both] == [os.fspath(place / "runs" / "bright"), os.fspath(copy)]


def test_models_that_differ_in_their_sources_alone_share_no_outputs(tmp_path):
    two, three = (ModelFile(write_model(tmp_path / f"{n}.onnx", make_card(), colour=True, sources=n)) for n in (2, 3))
    again = ModelFile(write_model(tmp_path / "again.onnx", make_card(name="another"), colour=True, sources=2))
    assert fingerprint(two) == fingerprint(again)
    assert fingerprint(two) != fingerprint(three)
