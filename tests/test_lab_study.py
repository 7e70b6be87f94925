import json
import shlex

import pytest
from typer.testing import CliRunner

from conftest import ROOT
from lab_corpus import write_corpus

pytest.importorskip("torch")
from faceauth.errors import ConfigError, DataError
from faceauth.lab import study as study_
from faceauth.lab.cli import app
from faceauth.lab.data.prepare import PrepareConfig
from faceauth.lab.study import Step, StudyPlan, run_study, stages
from faceauth.lab.training.config import read_table

pytestmark = pytest.mark.torch
RUN = study_._run

PLAN = """
output = "{place}/out"
models = ["{place}/tiny.toml"]
only = {{ a = ["gan-a"] }}
open_dev = {open_dev}
[prepare]
count = 120
fractions = [0.1, 0.8, 0.1]
data = {{ corpus = "{place}/corpus" }}
"""
MODEL = """
name = "tiny"
width = 4
size = 32
images = 64
batch = 16
bf16 = false
[data]
manifest = "set/by/the/study.parquet"
"""


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN.format(place=tmp_path, open_dev="true"))
    (tmp_path / "tiny.toml").write_text(MODEL)
    return tmp_path / "plan.toml"


def test_every_step_is_a_command_that_could_be_given_by_hand(plan, tmp_path):
    shown = CliRunner().invoke(app, ["study", str(plan), "--dry-run"], catch_exceptions=False).output.splitlines()
    words = [shlex.split(line)[2:] for line in shown]
    assert [w[0] for w in words] == [
        "prepare",
        "train",
        "train",
        "export",
        "export",
        "evaluate",
        "tsne",
        "tsne",
        "spectrum",
        "report",
    ]
    assert 'data.fake=["gan-a"]' in words[2]
    assert "--open-dev" in words[5]
    for each in words:  # the command line knows every option
        known = CliRunner().invoke(app, [each[0], "--help"]).output
        assert all(word in known for word in each if word.startswith("--"))
    assert not (tmp_path / "out").exists()


def test_the_table_of_what_is_prepared_becomes_the_commands_options(tmp_path):
    table = PrepareConfig(
        data={"a": "x:real", "b": "y:fake"},
        download=["wiki"],
        leave_out=["c"],
        count=8,
        strict=True,
        mode="link",
        seed=3,
    )
    words = list(study_._options(table))
    assert words == [
        "--data", "a=x:real", "--data", "b=y:fake", "--download", "wiki", "--leave-out", "c", "--count", "8",
        "--fractions", "0.8", "0.1", "0.1", "--seed", "3", "--strict", "--link",
    ]  # fmt: skip


def run_here(step, logs, one_thread):
    """A step without the seconds that a process of its own takes to import torch; the first has one all the same."""
    if step.name == "prepare":
        return RUN(step, logs, one_thread)
    CliRunner().invoke(app, step.arguments, catch_exceptions=False)
    assert step.result.exists()
    return 0.0


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_the_whole_chain_and_again(plan, tmp_path, monkeypatch):
    """Both classes of a corpus made in code, one small network twice; the second call finds everything done."""
    write_corpus(tmp_path / "corpus", count=30)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study_, "_run", run_here)
    plan.write_text(f"jobs = 1\n{plan.read_text()}")  # standard output is that of one step at a time
    report = run_study(read_table(plan, StudyPlan), lambda _: None)
    assert {p.name for p in tmp_path.iterdir()} == {"plan.toml", "tiny.toml", "corpus", "out"}
    assert report.read_text().startswith("<!doctype html>")
    rows = [json.loads(line) for line in (tmp_path / "out" / "times.jsonl").read_text().splitlines()]
    assert rows[0]["step"] == "prepare"
    assert len(rows) == 10
    found = json.loads((tmp_path / "out" / "evaluation" / "evaluation.json").read_text())
    assert [row["model"] for row in found["tables"]["study"]] == ["tiny", "tiny-a"]
    assert {r["set"] for r in found["tables"]["headline"] if r["model"] == "tiny-a"} >= {"unseen generated, seen real"}
    assert found["made"]["split"] == "dev"
    assert [o["purpose"] for o in found["made"]["dev_openings"]] == ["score and evaluate"]
    assert (tmp_path / "out" / "prepared" / "dev_ledger.jsonl").is_file()
    again = []
    assert run_study(read_table(plan, StudyPlan), again.append) == report
    assert len(again) == 1 and again[0].startswith("done")


def test_a_step_that_fails_names_its_reason_and_its_log(plan, tmp_path):
    with pytest.raises(DataError, match="prepare: no folder .* for corpus") as caught:
        run_study(read_table(plan, StudyPlan), lambda _: None)
    assert "prepare.log" in str(caught.value.hint)
    assert (tmp_path / "out" / "logs" / "prepare.log").read_text()


def test_what_was_done_is_not_done_again_and_the_rest_is(plan, monkeypatch):
    ran = []

    def finishes(step, *_):
        ran.append(step.name)
        step.result.parent.mkdir(parents=True, exist_ok=True)
        step.result.touch()
        return 0.0

    def is_killed(step, *_):
        if step.name == "train tiny-a":
            raise DataError("killed")
        return finishes(step)

    read = read_table(plan, StudyPlan)
    monkeypatch.setattr(study_, "_run", is_killed)
    with pytest.raises(DataError, match="killed"):
        run_study(read, lambda _: None)
    assert sorted(ran) == ["prepare", "train tiny"]
    ran.clear()
    monkeypatch.setattr(study_, "_run", finishes)
    run_study(read, lambda _: None)
    assert ran[0] == "train tiny-a"
    assert ran[-1] == "report"
    assert "train tiny" not in ran
    ran.clear()
    run_study(read, lambda _: None)
    assert ran == []


@pytest.mark.parametrize(("file", "old", "new", "step"), [
    ("plan.toml", "count = 120", "count = 60", "prepare"), ("tiny.toml", "images = 64", "images = 640", "train tiny"),
    ("plan.toml", "open_dev = true", "open_dev = false", "evaluate"),
])  # fmt: skip
def test_a_result_of_another_plan_is_not_taken(plan, tmp_path, monkeypatch, file, old, new, step):
    def finishes(step, *_):
        step.result.parent.mkdir(parents=True, exist_ok=True)
        step.result.touch()
        return 0.0

    monkeypatch.setattr(study_, "_run", finishes)
    run_study(read_table(plan, StudyPlan), lambda _: None)
    plan.write_text(f"jobs = 1\n{plan.read_text()}")  # changes no result
    run_study(read_table(plan, StudyPlan), lambda _: None)
    changed = tmp_path / file
    changed.write_text(changed.read_text().replace(old, new))
    with pytest.raises(DataError, match=f"{step}: .* other settings") as caught:
        run_study(read_table(plan, StudyPlan), lambda _: None)
    assert "another output" in str(caught.value.hint)


@pytest.mark.parametrize(("old", "new", "says"), [
    ("[prepare]", "[preprae]", "did you mean 'prepare'"), ("count = 120", "cuont = 120", "did you mean 'count'"),
    ("models = [", "models = [] #", "models"), ("only =", "only", "not TOML"),
])  # fmt: skip
def test_a_bad_plan_is_one_line(plan, old, new, says):
    plan.write_text(plan.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=says):
        read_table(plan, StudyPlan)


def test_the_small_study_is_all_of_it(monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = read_table(ROOT / "configs" / "small" / "study.toml", StudyPlan)
    assert {p.stem for p in plan.models} == {"deit", "vit", "densenet", "pyramid"}
    assert plan.only
    names = [step.name for stage in stages(plan) for step in stage if isinstance(step, Step)]
    assert len([n for n in names if n.startswith("train ")]) == 8
