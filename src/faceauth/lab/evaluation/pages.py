"""An evaluation as files: JSON, Markdown, CSV, and one HTML page that needs nothing else.

Every name in a page may come from a hostile file, so the template escapes all of them. No figure is computed here.
"""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faceauth.files import write_bytes
from faceauth.lab.evaluation import figures
from faceauth.lab.evaluation.score_sets import is_control
from faceauth.lab.evaluation.tables import TITLES, Table, cell, heads, markdown, to_csv

PRINTED = (
    "headline", "plain", "worth", "seen_unseen", "controls", "special", "robustness", "false_alarms", "left_out",
    "study",
)  # fmt: skip


@dataclass(slots=True)
class Section:
    """A part of a page: tables, figures as (name, what it shows, PNG), pictures."""

    title: str
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[tuple[str, str, bytes]] = field(default_factory=list)
    pictures: list[dict[str, Any]] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)


def tables_of(evaluation: dict[str, Any], keys: Iterable[str] = TITLES) -> list[Table]:
    """The tables that have rows, in order."""
    tables = evaluation["tables"]
    return [Table(key, *TITLES[key], tables[key]) for key in keys if tables[key]]


def header(evaluation: dict[str, Any]) -> list[str]:
    """What every table carries: the hashes of data set and models, commits, seeds, commands."""
    made = evaluation["made"]
    lines = [
        f"split {made['split']}, data set {made['dataset_sha256'][:16]}, seeds {', '.join(map(str, made['seeds']))}, "
        f"bootstrap seed {made['bootstrap_seed']}, {made['created']}",
        f"command: {made['command']}, commit {made['commit'][:12]}",
    ]
    lines += dict.fromkeys(
        f"scores: {of['command']}, commit {of['commit'][:12]}, version {of['code_version']}, {of['created']}"
        for of in made["scores"]
    )
    for name in dict.fromkeys(m["model"] for m in made["models"]):
        hashes = [
            m["sha256"][:16] if m["seed"] < 0 else f"{m['deal']} {m['seed']}.{m['fold']} {m['sha256'][:12]}"
            for m in made["models"] if m["model"] == name
        ]  # fmt: skip
        lines.append(f"{'control' if is_control(name) else 'model'} {name}: {', '.join(dict.fromkeys(hashes))}")
    return lines


def text(evaluation: dict[str, Any], keys: Iterable[str] = PRINTED) -> str:
    """An evaluation as Markdown."""
    parts = [_list(header(evaluation))]
    if evaluation["remarks"]:
        parts += ["## Remarks", _list(evaluation["remarks"])]
    for table in tables_of(evaluation, keys):
        parts += [f"## {table.title}", table.note, markdown(table.rows)]
    return "\n\n".join(part for part in parts if part) + "\n"


def write_evaluation(evaluation: dict[str, Any], folder: Path) -> None:
    """evaluation.json, evaluation.md, report.html, and each table as CSV below lines of `header` that begin with #.

    Tables that an earlier evaluation wrote there are removed: this one may lack some of them. A file of the user's,
    known by its first line, stays.
    """
    write(folder / "evaluation.json", json.dumps(evaluation, indent=1))
    write(folder / "evaluation.md", "# Evaluation\n\n" + text(evaluation, TITLES))
    said = "".join(f"# {' '.join(line.split())}\n" for line in header(evaluation))
    for key in TITLES:
        path = folder / f"{key}.csv"
        if path.is_file() and path.read_bytes().startswith(b"# split "):
            path.unlink()
    for table in tables_of(evaluation):
        write(folder / f"{table.key}.csv", said + to_csv(table.rows))
    page = html(f"Evaluation on the split {evaluation['made']['split']}", evaluation, [overview(evaluation)])
    write(folder / "report.html", page)


def overview(evaluation: dict[str, Any]) -> Section:
    """All tables, ROC and reliability curves, and AUROC fold by fold beside the controls."""
    section = Section("All models", notes=list(evaluation["remarks"]), tables=tables_of(evaluation))
    curves = evaluation["curves"]
    for column in dict.fromkeys(name for c in curves.values() for name in c["roc"]):
        of_models = {name: c["roc"].get(column, {"fpr": [], "tpr": []}) for name, c in curves.items()}
        name = f"roc-{column.replace(', ', '-').replace(' ', '-')}"
        shown = figures.png(figures.roc_curves(of_models, column))
        section.figures.append((name, f"ROC curves, {column}, clean", shown))
    bins = {name: c["reliability"] for name, c in curves.items()}
    section.figures.append(("calibration", "Calibration, clean", figures.png(figures.reliability(bins))))
    if evaluation["tables"]["control_folds"]:
        shown = figures.png(figures.folds(evaluation["tables"]["control_folds"]))
        section.figures.append(("folds", "AUROC fold by fold, beside the controls, clean", shown))
    return section


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_inline(line)}" for line in lines)


def _inline(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;")


def write(path: Path, content: str | bytes) -> None:
    """A file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content if isinstance(content, bytes) else content.encode())


def uri(data: bytes, kind: str = "image/png") -> str:
    """Bytes as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def html(title: str, evaluation: dict[str, Any], sections: Sequence[Section]) -> str:
    """The page. Names are escaped, and it has no script and no outside reference."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("faceauth.lab.evaluation", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"cell": cell, "heads": heads, "uri": uri}
    template = environment.get_template("report.html.j2")
    return template.render(title=title, header=header(evaluation), sections=sections)


def write_page(output: Path, title: str, evaluation: dict[str, Any], sections: Sequence[Section]) -> tuple[Path, Path]:
    """Write sections as HTML, and as Markdown with its figures in a folder. Returns the two files."""
    write(output, html(title, evaluation, sections))
    folder = output.with_name(f"{output.stem}-figures")
    parts = ["# Report", _list(header(evaluation))]
    for number, section in enumerate(sections):
        parts += [f"## {_inline(section.title)}", _list(section.notes)]
        parts += [f"### {t.title}\n\n{t.note}\n\n{markdown(t.rows)}" for t in section.tables]
        for name, shows, png in section.figures:
            write(folder / f"{number}-{name}.png", png)
            parts.append(f"![{shows}]({folder.name}/{number}-{name}.png)")
        parts += ["### Config, environment, hashes"] if section.facts else []
        parts += [f"- {key}: `{' '.join(value.split()).replace('`', '')}`" for key, value in section.facts]
    write(output.with_suffix(".md"), "\n\n".join(part for part in parts if part) + "\n")
    return output, output.with_suffix(".md")
