"""The table of planted faults is true to the code: `python tests/faults.py` plants them."""

import ast
from pathlib import Path

import pytest

from faults import FAULTS, ROOT


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.what)
def test_a_planted_fault_names_a_line_and_a_test(fault):
    text = (ROOT / "src" / "faceauth" / "lab" / fault.file).read_text(encoding="utf-8")
    assert text.count(fault.old) == 1
    ast.parse(text.replace(fault.old, fault.new))
    file, name = fault.test.split("::")
    tree = ast.parse((Path(__file__).parent / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
