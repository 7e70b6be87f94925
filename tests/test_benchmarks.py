import re
import subprocess
import sys

import pytest

from conftest import ROOT

WITHOUT_TORCH = """
import importlib.util, runpy, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "torch" else found(name, *more)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_the_speed_benchmark_prints_ratios_and_what_is_not_installed(model_path):
    program = [sys.executable, "-c", WITHOUT_TORCH, str(ROOT / "benchmarks" / "speed.py"), "--quick"]
    command = [*program, "--formats", "jpeg-512", "--models", str(model_path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    steps = {name: cells for line in out.splitlines() if line.count("|") == 7 for name, *cells in [_cells(line)]}
    alone, whole = steps["decode only (Pillow)"], steps[f"{model_path}: end to end"]
    assert alone[2:] == ["1", "-", "-"]
    assert float(whole[2]) == pytest.approx(float(whole[0]) / float(alone[0]), rel=0.02)
    assert sum(cells[0].startswith("not installed") for cells in steps.values()) == 2
    (target,) = (_cells(line) for line in out.splitlines() if line.startswith(f"| jpeg-512 | {model_path} |"))
    one, two, times = map(float, target[3:])
    assert target[2] == whole[2]
    assert times == pytest.approx(two / one, rel=0.06 / min(one, two) + 0.02)  # of rates with one decimal
    assert 0.1 < float(re.search(r"\| faceauth detect .* \| ([\d.]+) \| 1.00 \|", out)[1]) < 60


def _cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


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
@pytest.mark.skipif(sys.platform == "win32", reason="getrusage")
def test_the_memory_benchmark_judges_every_file_and_keeps_its_rows(model_path):
    program = [sys.executable, str(ROOT / "benchmarks" / "memory.py"), "--rows", "20", "--workers", "1"]
    out = subprocess.run([*program, "--model", str(model_path)], capture_output=True, text=True, check=True).stdout
    runs = [_cells(line) for line in out.splitlines()[-2:]]
    assert [run[:2] for run in runs] == [["20", "all"], ["20", "--resume, all kept"]]
    assert all(30 < int(run[3]) < 1000 for run in runs)


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


SMALL = """
import sys
import scale
scale.START = 1
scale.MOST = dict.fromkeys(scale.MOST, 2)
del scale.CLASSIFIERS[scale.VIT]  # takes half a minute
scale.main()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_the_scale_benchmark_prints_ratios(model_path):
    pytest.importorskip("ray")
    pytest.importorskip("torch")
    sizes = ["--workers", "1", "--images", "3", "--longest", "256"]
    command = [sys.executable, "-c", SMALL, "--model", str(model_path), *sizes]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT / "benchmarks").stdout
    plain, ray = map(float, re.search(r"plain ([\d.]+) s, Ray ([\d.]+) s", out).groups())
    assert 0 < plain < ray  # which starts a cluster first
    pool = _cells(next(line for line in out.splitlines() if line.startswith("| 3 |")))
    [(_, images, *_, memory, ratio)] = [_cells(line) for line in out.splitlines() if line.startswith("| NPR")]
    assert images == "2" and float(memory) > 100
    least, most = (float(memory) / (float(pool[4]) + half) for half in (0.5, -0.5))  # megabytes are printed whole
    assert 0.97 * least < float(ratio) < 1.03 * most
