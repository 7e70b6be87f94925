"""What a release consists of: pinned and hashed requirements, a list of parts, a wheel that is the same to the byte."""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

from conftest import ROOT
from faceauth import shipped

TEXT = (ROOT / "release" / "requirements-hashed.txt").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(text):
    return {
        name.lower().replace("_", "-"): version
        for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE)
    }


def names(requirements):
    return {re.match(r"[\w.-]+", r)[0].lower() for r in requirements}


def test_every_requirement_is_pinned_as_in_constraints_and_hashed():
    pinned, constraints = pins(TEXT), pins((ROOT / "constraints.txt").read_text())
    assert {n: v for n, v in pinned.items() if constraints.get(n, v) != v} == {}
    assert pinned.keys() - constraints.keys() <= {"colorama"}  # for Windows alone
    blocks = re.split(r"^(?=[\w.-]+==)", TEXT, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pinned)
    assert [b for b in blocks if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", b)] == []


def test_all_that_the_package_needs_is_there():
    extras = PROJECT["optional-dependencies"]
    wanted = names([*PROJECT["dependencies"], *extras["heic"], *extras["c2pa"], *extras["parquet"]])
    assert wanted - pins(TEXT).keys() == set()


def test_the_list_of_parts_has_every_requirement_and_model():
    done = subprocess.run([sys.executable, ROOT / "release" / "sbom.py"], capture_output=True, text=True, check=True)
    bom = json.loads(done.stdout)
    assert (bom["bomFormat"], bom["specVersion"]) == ("CycloneDX", "1.6")
    libraries = {c["name"]: c["version"] for c in bom["components"] if c["type"] == "library"}
    assert libraries == pins(TEXT)
    models = {c["name"]: c["hashes"][0]["content"] for c in bom["components"] if c["type"] != "library"}
    assert models == {f"{name}.onnx": sha256 for name, sha256 in shipped.SHA256.items()}
    refs = {c["bom-ref"] for c in bom["components"]}
    needs = {d["ref"]: d["dependsOn"] for d in bom["dependencies"]}
    assert set().union(*needs.values()) == refs  # nothing is there that nothing needs
    own = needs[bom["metadata"]["component"]["bom-ref"]]
    direct = names(PROJECT["dependencies"])
    assert direct <= {re.match(r"pkg:pypi/([^@]+)", ref)[1] for ref in own if ref.startswith("pkg:")}


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("hatchling"), reason="hatchling is not installed")
def test_a_wheel_is_the_same_to_the_byte_wherever_it_is_built(tmp_path):
    found = []
    for place, epoch in (("one", 1), ("another/and deeper", 2_000_000_000)):
        copy = tmp_path / place
        shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("*.onnx", "__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
            shutil.copyfile(ROOT / name, copy / name)
        for path in copy.rglob("*"):
            os.utime(path, (epoch, epoch))  # when a checkout was made is no part of the wheel
            path.chmod(0o755 if path.is_dir() else 0o664 if place == "one" else 0o600)
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
        environment = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
        subprocess.run(command, cwd=copy, env=environment, check=True, capture_output=True)
        (wheel,) = (copy / "dist").glob("*.whl")
        found.append(hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert found[0] == found[1]
