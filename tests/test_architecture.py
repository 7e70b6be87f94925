"""The direction of imports, held: errors < files, verdict, ... < images < inputs, ... < detector < learning < console < cli."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "faceauth"
HALL = {
    "errors": 0, "cpus": 0, "files": 1, "shipped": 1, "verdict": 1, "faces": 2, "preprocess": 3, "spectra": 1, "workers": 1,
    "tta": 4, "images": 2, "lists": 3, "inputs": 4, "model_graph": 1, "model_file": 4, "output": 3, "notebook": 4,
    "provenance": 3, "attribution": 5, "learned": 6, "detector": 7, "duplicates": 8, "learning": 8, "explain": 8, "console": 9, "cli_options": 9, "cli": 11, "cli_provenance": 10, "cli_explain": 10, "cli_embed": 10, "cli_learn": 10,
    "video": 8, "cli_video": 10,
    "mcp_server": 9, "cli_mcp": 10,
}  # fmt: skip
SHOWN_BY = {("verdict", "output"), ("verdict", "notebook")}  # a verdict that shows itself imports them when it does
LAB = {"progress": 0, "parallel": 0, "run_info": 0, "data": 1, "training": 2, "evaluation": 3, "study": 4, "cli": 5}
WINGS_ONLY = {
    "torch",
    "prometheus_client",
    "python_multipart",
    "starlette",
    "transformers",
    "uvicorn",
    "sklearn",
    "pandas",
    "matplotlib",
    "scipy",
    "openTSNE",
    "jinja2",
    "fastapi",
    "ray",
    "onnx",
    "pydantic",
    "safetensors",
    "mcp",
}
OPTIONAL = {"mcp_server": {"mcp"}}  # what a module of the core imports where it is called, from its own extra
MODULES = sorted(SOURCE.rglob("*.py"))


@cache
def parsed(path):
    return ast.parse(path.read_text())


def imports(path, top_level_only=False):
    tree = parsed(path)
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "faceauth" else None


def part(path):
    """The name of the core's module or package that a file belongs to; None for others."""
    first = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    return first if first in HALL else None


@pytest.mark.parametrize("path", [p for p in MODULES if part(p)], ids=lambda p: "-".join(p.relative_to(SOURCE).parts))
def test_the_hall_imports_downwards_and_knows_no_wing(path):
    for name in imports(path):
        target = room(name)
        assert target not in {"lab", "server", "scale"}, f"{path.stem} imports the wing {name}"
        if target in HALL and target != part(path) and (path.stem, target) not in SHOWN_BY:
            assert HALL[target] < HALL[part(path)], f"{path.stem} imports {target}"
    for name in imports(path, top_level_only=True):
        assert (path.stem, room(name)) not in SHOWN_BY, f"{path.stem} imports {name} at once"


def test_every_room_of_the_hall_is_in_the_drawing():
    packages = {p.parent.name for p in SOURCE.glob("*/__init__.py")} - {"lab", "server", "scale"}
    assert ({p.stem for p in SOURCE.glob("*.py")} | packages) - {"__init__", "__main__"} == set(HALL)


@pytest.mark.parametrize(
    "path",
    [p for p in MODULES if "lab" in p.relative_to(SOURCE).parts and p != SOURCE / "lab" / "__init__.py"],
    ids=lambda p: f"{p.parent.name}-{p.stem}",
)
def test_the_laboratory_imports_downwards(path):
    room = path.relative_to(SOURCE / "lab").parts[0].removesuffix(".py")
    for name in imports(path):
        parts = name.split(".")
        if parts[:2] == ["faceauth", "lab"] and len(parts) > 2:
            assert LAB[parts[2]] <= LAB[room], f"{path} imports {name}"


@pytest.mark.parametrize(
    "path", [p for p in MODULES if "lab" in p.relative_to(SOURCE).parts], ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_the_laboratory_gives_jobs_to_ray_in_one_way(path):
    assert not {room(name) for name in imports(path) if name} & {"server"}
    used = {name for name in imports(path) if name and room(name) == "scale"}
    assert all(name.startswith("faceauth.scale.cluster") for name in used)
    assert not used or path in {SOURCE / "lab" / "parallel.py", SOURCE / "lab" / "cli" / "common.py"}


SERVICE = [p for p in MODULES if "server" in p.relative_to(SOURCE).parts]


@pytest.mark.parametrize("path", SERVICE, ids=lambda p: p.stem)
def test_the_service_knows_the_core_alone(path):
    assert not {room(name) for name in imports(path) if name} & {"lab", "scale", "cli", "cli_provenance", "cli_explain"}


@pytest.mark.parametrize("path", [p for p in MODULES if p.parent.name == "scale"], ids=lambda p: p.stem)
def test_scale_knows_the_core_alone_and_loads_ray_late(path):
    assert not {room(name) for name in imports(path) if name} & {"lab", "server", "cli"}
    assert not {name.split(".")[0] for name in imports(path, top_level_only=True)} & {"ray", "pyarrow"}


@pytest.mark.parametrize(
    "path",
    [p for p in MODULES if not {"lab", "server", "scale"} & set(p.relative_to(SOURCE).parts)],
    ids=lambda p: p.stem,
)
def test_the_hall_imports_nothing_heavy(path):
    heavy = {name.split(".")[0] for name in imports(path) if name} & WINGS_ONLY
    assert heavy <= OPTIONAL.get(path.stem, set())
    assert not {name.split(".")[0] for name in imports(path, top_level_only=True)} & WINGS_ONLY


@pytest.mark.parametrize("path", MODULES, ids=lambda p: "-".join(p.relative_to(SOURCE).parts))
def test_no_tricks(path):
    text = path.read_text()
    assert "sys.path" not in text
    assert text.count("\n") <= 500
    assert ast.get_docstring(parsed(path)), f"{path} has no docstring"


def test_the_front_door_loads_no_third_party_module():
    code = "import sys; before = set(sys.modules); import faceauth; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    foreign = {m.split(".")[0] for m in loaded} - {"faceauth"} - set(sys.stdlib_module_names)
    assert foreign == set()


def test_help_loads_no_network_code():
    code = (
        "import sys; sys.argv = ['faceauth', '--help']\nfrom faceauth.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print('LOADED', *{'numpy', 'PIL', 'onnxruntime', 'torch'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1].split() == ["LOADED"]


@pytest.mark.slow
def test_detection_uses_no_network(model_path, tmp_path):
    """Every socket is refused, and a verdict still comes."""
    from conftest import picture

    picture().save(tmp_path / "a.png")
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise RuntimeError('network')\n"
        "socket.socket = socket.create_connection = socket.getaddrinfo = refuse\n"
        "import faceauth\n"
        f"print(faceauth.load({str(model_path)!r}).detect({str(tmp_path / 'a.png')!r})[0].label)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split()[-1] in {"real", "fake", "uncertain", "no-face"}
