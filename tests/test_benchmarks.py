import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from conftest import ROOT
from lab_corpus import CONFIG, write_corpus


def test_the_speed_benchmark_prints_ratios():
    command = [sys.executable, str(ROOT / "benchmarks" / "speed.py"), "--photos", "4", "--rounds", "1", "--memory", "5"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ratios = [float(v) for v in re.findall(r"\| ([\d.]+) \|\n", out)]
    assert "| decode only (Pillow) |" in out
    assert "| end to end, 2 workers |" in out
    assert ratios[0] == 1.0
    whole, filling = (
        float(re.search(rf"\| {n} \|.* ([\d.]+) \|\n", out)[1]) for n in ("end to end, 1 worker", "the same.*")
    )
    said = re.search(r"Target.*: (\w+) for faces.*, (\w+) for both", out).groups()
    assert said == tuple("reached" if ratio <= 2 else "missed" for ratio in (filling, whole))
    assert int(re.search(r"\| 5 \| (\d+) \|", out)[1]) > 30


@pytest.mark.torch
def test_the_prepare_benchmark_prints_its_tables():
    pytest.importorskip("python_calamine")
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "prepare.py"),
        "--images",
        "6",
        "--rows",
        "50",
        "--workers",
        "1",
    ]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    numbers = re.search(r"\| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| (\d+) \| (\d+) \|", out).groups()
    images, seconds, rate, _, memory, _ = numbers
    assert int(images) == 6
    assert float(rate) == pytest.approx(6 / float(seconds), rel=0.2)
    assert 30 < int(memory) < 2000
    assert "| manifest of 50 rows |" in out
    assert "| read and check .parquet |" in out


@pytest.fixture
def beside():
    """benchmarks/beside.py as a module."""
    pytest.importorskip("torch")
    spec = spec_from_file_location("beside", ROOT / "benchmarks" / "beside.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_beside_trains_what_is_missing_and_nothing_twice(beside, tmp_path, monkeypatch, capsys):
    from typer.testing import CliRunner

    from faceauth.lab import study
    from faceauth.lab.cli import app

    given, stop = [], "train tiny-fold3"

    def here(step, logs, one_thread):
        given.append(step.name)
        if step.name == stop:
            raise study.DataError("killed")
        CliRunner().invoke(app, list(step.arguments), catch_exceptions=False)
        assert step.result.exists()
        return 1.0

    monkeypatch.setattr(study, "_run", here)
    write_corpus(tmp_path / "corpus", 20)
    (tmp_path / "configs").mkdir()
    text = CONFIG.format(images=32, root=tmp_path / "corpus", cache=tmp_path / "cache")
    folds = 'fake = ["gan-a", "gan-b"]\nfolds = [["cam-a", "gan-a"], ["cam-b"], ["gan-b"]]\n'
    text = re.sub("folds = .*\n", folds, text)
    (tmp_path / "configs" / "tiny.toml").write_text(text)
    (tmp_path / "configs" / "other.toml").write_text(text.replace('"tiny"', '"other"'))
    words = ["beside.py", "--configs", str(tmp_path / "configs"), "--output", str(tmp_path / "out"), "--only"]
    monkeypatch.setattr(sys, "argv", [*words, "tiny"])
    with pytest.raises(SystemExit, match="killed"):
        beside.main()
    stop, given[:] = "", []
    beside.main()
    assert given == ["train tiny-fold3", "export tiny", "export tiny-fold1", "export tiny-fold3"]
    given.clear()
    beside.main()
    assert given == []
    assert capsys.readouterr().out.splitlines()[-1].startswith("3 models of tiny")
    monkeypatch.setattr(sys, "argv", [*words, "tinny"])
    with pytest.raises(SystemExit, match="did you mean 'tiny'"):
        beside.main()


@pytest.mark.torch
def test_pairs_are_ranked_by_what_the_shortcuts_make_of_them(tmp_path):
    pytest.importorskip("torch")
    root = write_corpus(tmp_path / "corpus")
    (tmp_path / "tiny.toml").write_text(CONFIG.format(images=8, root=root, cache=tmp_path / "cache"))
    command = [
        sys.executable, str(ROOT / "benchmarks" / "pairs.py"), "--config", str(tmp_path / "tiny.toml"),
        "--cache", str(tmp_path / "cache"), "--workers", "1",
    ]  # fmt: skip
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.strip("| ").split(" | ") for line in out.splitlines() if "cam-a + " in line]
    assert sorted(row[-1] for row in rows) == ["cam-a + gan-a, cam-b + gan-b", "cam-a + gan-b, cam-b + gan-a"]
    worst = [max(float(cell) for cell in row[1:-1]) for row in rows]
    assert worst == sorted(worst)
    assert [row[-1] for row in rows if "(the config)" in row[0]] == ["cam-a + gan-a, cam-b + gan-b"]
