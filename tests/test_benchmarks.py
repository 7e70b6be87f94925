import re
import subprocess
import sys

from conftest import ROOT


def test_the_speed_benchmark_prints_ratios():
    command = [sys.executable, str(ROOT / "benchmarks" / "speed.py"), "--photos", "4", "--rounds", "1", "--memory", "5"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ratios = [float(v) for v in re.findall(r"\| ([\d.]+) \|\n", out)]
    assert "| decode only (Pillow) |" in out
    assert "| end to end, 2 workers |" in out
    assert ratios[0] == 1.0
    assert int(re.search(r"\| 5 \| (\d+) \|", out)[1]) > 30
