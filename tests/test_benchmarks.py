import re
import subprocess
import sys

import pytest

from conftest import ROOT


@pytest.mark.slow
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
