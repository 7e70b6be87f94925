"""`python tests/fuzz.py` runs, and finds a fault that is planted."""

import os
import subprocess
import sys

import pytest

from conftest import ROOT

pytest.importorskip("atheris")
pytestmark = pytest.mark.slow
PLANTED = """
from faceauth import lists

def paths(data, origin, beside=""):
    return iter(["a"]) if b"b" not in data else 1 / 0

lists.paths = paths
"""


@pytest.mark.parametrize("planted", ["", PLANTED], ids=["as it is", "planted"])
def test_what_is_planted_is_found_and_nothing_else(tmp_path, planted):
    (tmp_path / "sitecustomize.py").write_text(planted)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [
        sys.executable,
        ROOT / "tests" / "fuzz.py",
        "paths",
        "--seconds",
        "2",
        "--findings",
        tmp_path / "findings",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": path})
    kept = list((tmp_path / "findings").iterdir())
    if planted:
        assert (done.returncode, len(kept)) == (1, 1)
        assert "ZeroDivisionError" in done.stderr and "| yes, below |" in done.stdout
        assert b"b" in kept[0].read_bytes()
    else:
        assert (done.returncode, kept) == (0, []), done.stderr
        assert "| nothing |" in done.stdout
