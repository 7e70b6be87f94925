import importlib.util
import re
import subprocess

import pytest

from conftest import ROOT

README = (ROOT / "README.md").read_text()
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("samples/*.md"),
    *ROOT.glob("src/faceauth/assets/*.md"),
]


def test_the_two_commands_stand_there():
    assert "pip install -c constraints.txt . && faceauth detect samples/" in README
    assert "pip install -c constraints.txt '.[dev]' && pytest" in README
    assert "pip install --quiet -c constraints.txt '.[dev]'" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


@pytest.mark.slow
def test_the_cli_page_is_what_help_says():
    spec = importlib.util.spec_from_file_location("make", ROOT / "docs" / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    assert make.cli_page() == (ROOT / "docs" / "cli.md").read_text(), "run: python docs/make.py"


def test_the_cli_page_has_every_command():
    from typer.main import get_command

    from faceauth.cli import app
    from faceauth.cli_provenance import provenance
    from faceauth.lab.cli import app as lab
    from faceauth.server.cli import serve

    def commands(group, *before):
        for name, one in group.commands.items():
            yield from commands(one, *before, name) if hasattr(one, "commands") else [" ".join([*before, name])]

    wanted = [*commands(get_command(app)), provenance.__name__, serve.__name__, *commands(get_command(lab), "lab")]
    page = (ROOT / "docs" / "cli.md").read_text()
    assert [name for name in wanted if f"## faceauth {name}\n" not in page] == []


def test_the_picture_of_the_output_fetches_nothing():
    svg = (ROOT / "docs" / "detect.svg").read_text()
    assert "grace-hopper.jpg" in svg
    assert "@font-face" not in svg
    assert not re.findall(r"(?:href|url\()[\"']?https?:", svg)


def test_every_sample_has_its_source_named():
    sources = (ROOT / "samples" / "SOURCES.md").read_text()
    for path in (ROOT / "samples").iterdir():
        assert path.name in sources or path.name == "SOURCES.md"


def test_constraints_pin_everything_exactly():
    lines = (ROOT / "constraints.txt").read_text().split()
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line) for line in lines)
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [d for extra in project["optional-dependencies"].values() for d in extra]
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    for requirement in wanted:
        name = re.split(r"[\[<>=]", requirement)[0]
        assert name in pinned or name == "faceauth", name


def test_no_path_of_a_machine_is_committed():
    done = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=False)
    for name in done.stdout.split():
        if (ROOT / name).suffix in {".md", ".toml", ".txt", ".jsonl", ".svg", ".cff", ".json"}:
            assert not re.search(r"/(root|home|work|Users)/", (ROOT / name).read_text()), name
