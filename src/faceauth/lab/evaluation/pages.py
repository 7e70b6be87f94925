"""An evaluation as files: JSON, Markdown, CSV, and one HTML page that needs nothing else.

Every name in a page may come from a hostile file, so the template escapes all of them. No figure is computed here.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faceauth.files import write_bytes
from faceauth.lab.evaluation import figures
from faceauth.lab.evaluation.evaluate import TABLES
from faceauth.lab.evaluation.score_sets import is_control
from faceauth.lab.evaluation.tables import Table, cell, markdown, to_csv

TITLES = {
    "headline": ("Headline", "score = P(fake). Real against GAN and diffusion images. Unseen kind: held out with all "
        "its relatives; unseen source: other sources of its kind may be known. The mean over the folds of both seeds, "
        "with a 95 % interval from resampling kinds. Balanced accuracy is at the threshold for fake. ECE is given with "
        "both classes weighing the same, and raw; by chance: of calibrated scores on as few images. matched: face "
        "boxes of 128 px, one size and codec."),
    "plain": ("What pictures are called", "Shares of images, at the thresholds; unseen ones where there are some."),
    "worth": ("What fake is worth", "The share of images called fake that are fake, where one picture in two, in ten, "
        "in a hundred is."),
    "seen_unseen": ("Seen beside unseen", "AUROC on new images of the kinds trained on, and on what is held out."),
    "controls": ("Controls", "AUROC of what sees no face: facts of the file, a 16 x 16 thumbnail; and of the model "
        "with the face painted over, and all but the face. A control counts by its distance from 0.5."),
    "special": ("Swaps, restored, edited",
        "Against the real images of the same fold. Edited images are in neither class."),
    "robustness": ("What one change does", "The same images saved three times (JPEG, WEBP, JPEG), with noise, in grey, "
        "blurred, cropped, at half size and back, and laundered: put through an autoencoder of real faces "
        "(faceauth lab launder). Verdict changed: share that is called otherwise than clean."),
    "false_alarms": ("Thresholds and bounds", "split conformal: for this model and kinds it was not trained on. "
        "cross-conformal: for the fold models of a seed asked together (Vovk 2015; Barber et al. 2021), not for a "
        "model trained again on everything."),
    "left_out": ("Real kinds left out", "The threshold is set on the other kinds, the rate measured on that one."),
    "study": ("The study's table", "At logit 0; 1 = real is the positive class, as in the study. AUROC comes from "
        "scores. The study's printed AUROC (0.83243) equals its balanced accuracy, which stands beside it here."),
    "real_sources": ("Real sources", "Share called fake, wanted low, and share uncertain."),
    "fake_sources": ("Fake sources", "Share caught, wanted high, and share uncertain."),
    "worst": ("Worst mistakes", "On the wrong side of 0.5, clean."),
    "folds": ("Fold by fold", ""),
    "control_folds": ("Controls, fold by fold", "AUROC on the images that model and control both answer."),
    "left_out_kinds": ("Real kinds left out, one by one", ""),
    "calibration": ("Calibrations used", "score = sigmoid(scale x logit + shift); kinds and classes weigh the same."),
    "counts": ("Images", "Answered images of each variant; without a face and errors have no score."),
}  # fmt: skip
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


def tables_of(evaluation: dict[str, Any], keys: Sequence[str] = TABLES) -> list[Table]:
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
            for m in made["models"]
            if m["model"] == name
        ]
        lines.append(f"{'control' if is_control(name) else 'model'} {name}: {', '.join(dict.fromkeys(hashes))}")
    return lines


def text(evaluation: dict[str, Any], keys: Sequence[str] = PRINTED) -> str:
    """An evaluation as Markdown."""
    parts = [_list(header(evaluation))]
    if evaluation["remarks"]:
        parts.append(f"## Remarks\n\n{_list(evaluation['remarks'])}")
    parts += [_section(t) for t in tables_of(evaluation, keys)]
    return "\n\n".join(parts) + "\n"


def _section(table: Table) -> str:
    return "\n\n".join(part for part in (f"## {table.title}", table.note, markdown(table.rows)) if part)


def write_evaluation(evaluation: dict[str, Any], folder: Path) -> None:
    """evaluation.json, evaluation.md, report.html, and each table as CSV below lines of `header` that begin with #.

    Tables that an earlier evaluation wrote there are removed: this one may lack some of them.
    """
    write(folder / "evaluation.json", json.dumps(evaluation, indent=1))
    write(folder / "evaluation.md", "# Evaluation\n\n" + text(evaluation, TABLES))
    said = "".join(f"# {' '.join(line.split())}\n" for line in header(evaluation))
    for key in TABLES:
        _remove_table(folder / f"{key}.csv")
    for table in tables_of(evaluation):
        write(folder / f"{table.key}.csv", said + to_csv(table.rows))
    page = html(f"Evaluation on the split {evaluation['made']['split']}", evaluation, [overview(evaluation)])
    write(folder / "report.html", page)


def _remove_table(path: Path) -> None:
    """Remove a table that `write_evaluation` wrote, known by its first line; a file of the user's stays."""
    if path.is_file():
        with path.open("rb") as file:
            ours = file.readline().startswith(b"# split ")
        if ours:
            path.unlink()


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
    environment.filters |= {"cell": cell, "uri": uri}
    template = environment.get_template("report.html.j2")
    return template.render(title=title, header=header(evaluation), sections=sections)


def write_page(output: Path, title: str, evaluation: dict[str, Any], sections: Sequence[Section]) -> tuple[Path, Path]:
    """Write sections as HTML, and as Markdown with its figures in a folder. Returns the two files."""
    write(output, html(title, evaluation, sections))
    for number, section in enumerate(sections):
        for name, _, png in section.figures:
            write(_figure(output, number, name), png)
    write(output.with_suffix(".md"), _markdown(output, evaluation, sections))
    return output, output.with_suffix(".md")


def _figure(output: Path, section: int, name: str) -> Path:
    return output.with_name(f"{output.stem}-figures") / f"{section}-{name}.png"


def _markdown(output: Path, evaluation: dict[str, Any], sections: Sequence[Section]) -> str:
    parts = ["# Report", _list(header(evaluation))]
    for number, section in enumerate(sections):
        parts.append(f"## {_inline(section.title)}")
        parts.append(_list(section.notes))
        parts += [f"### {t.title}\n\n{t.note}\n\n{markdown(t.rows)}" for t in section.tables]
        for name, shows, _ in section.figures:
            file = _figure(output, number, name)
            parts.append(f"![{shows}]({file.parent.name}/{file.name})")
        parts += ["### Config, environment, hashes"] if section.facts else []
        parts += [f"- {key}: `{' '.join(value.split()).replace('`', '')}`" for key, value in section.facts]
    return "\n\n".join(part for part in parts if part) + "\n"
