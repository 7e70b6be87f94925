import re
import subprocess
import sys

import pytest

from conftest import ROOT


@pytest.mark.slow
def test_the_speed_benchmark_prints_ratios(model_path):
    program = [sys.executable, str(ROOT / "benchmarks" / "speed.py"), "--model", str(model_path)]
    command = [*program, "--photos", "4", "--rounds", "1", "--memory", "5"]
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


@pytest.mark.slow
def test_the_resume_benchmark_prints_its_table():
    program = [sys.executable, str(ROOT / "benchmarks" / "resume.py"), "--rows", "2000"]
    out = subprocess.run(program, capture_output=True, text=True, check=True).stdout
    images, megabytes, _, memory, _, more = (float(c.replace(",", "")) for c in out.splitlines()[-1].split("|")[1:-1])
    assert (images, megabytes) == (2000, 1)
    assert memory < 50 and more < 50


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_service_benchmark_counts_every_request(model_path):
    pytest.importorskip("fastapi")
    program = [sys.executable, str(ROOT / "benchmarks" / "service.py"), "--model", str(model_path)]
    done = subprocess.run([*program, "--seconds", "1", "--workers", "1"], capture_output=True, text=True, check=True)
    lost, others = re.findall(r"\| (?:requests without|statuses other).* \| (\S+) \| \S+ \|", done.stdout)
    assert (lost, others) == ("0", "none")
    judged, asked = map(int, re.search(r"judged \| (\d+) of (\d+)", done.stdout).groups())
    refused = int(re.search(r"429 \| (\d+)", done.stdout)[1])
    assert judged + refused == asked > 0
    assert float(re.search(r"times of the library \| ([\d.]+)", done.stdout)[1]) > 0
