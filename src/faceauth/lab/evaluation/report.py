"""A judging as pages: tables as Markdown and CSV, and a report in one HTML file that needs nothing else.

Every name in a page may come from a hostile file, so the template escapes all of them. It computes no number.
"""

import base64
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faceauth import images
from faceauth.errors import DataError, ImageError, UsageError
from faceauth.lab.data.dataset import DataSet
from faceauth.lab.data.examples import from_manifest
from faceauth.lab.evaluation import embeddings, figures, spectrum
from faceauth.lab.evaluation.subjects import Subject
from faceauth.lab.evaluation.tables import Row, cell, markdown, to_csv

THUMBNAIL = 112  # pixels a side
PER_SOURCE = 50  # images of each source on a map


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a title, with a sentence on how to read them; `key` names its file."""

    key: str
    title: str
    note: str
    rows: Sequence[Row]


@dataclass(slots=True)
class Section:
    """What a report says of one model, or of all: tables, figures as (name, what it shows, PNG), pictures."""

    title: str
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[tuple[str, str, bytes]] = field(default_factory=list)
    pictures: list[dict[str, Any]] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)


STUDY_NOTE = (
    "On the prepared faces at logit 0; 1 = real is the positive class, as in the study. AUROC is computed from "
    "scores. The study's printed AUROC (0.83243, 0.63467) equals balanced accuracy, which stands beside it."
)
PROTOCOL_NOTE = (
    "score = P(fake), on {files}; clean as they are, web (768 px, JPEG 60), hard (512 px, JPEG 40), avatar (128 px, "
    "JPEG 75). 95 % bootstrap intervals over groups. uncertain counts the images between the two thresholds."
)
SOURCE_NOTE = "Share called fake: wanted low for real sources, high for fake ones."
AUDIT_NOTE = (
    "AUROC of classifiers that see no face, trained on the train images of the sources that the model knows. Where one "
    "comes close to the model, the column says nothing of faces."
)


def tables_of(evaluation: dict[str, Any]) -> list[Table]:
    """The study's table, the protocol's and the audit, in the order in which they are printed."""
    models = evaluation["models"]
    note = PROTOCOL_NOTE.format(files=evaluation["made"]["files"])
    tables = [
        Table("study", "The study's table", STUDY_NOTE, [m["study"] for m in models]),
        Table("protocol", "The protocol", note, [row for m in models for row in m["protocol"]]),
        Table("by_source", "Source by source", SOURCE_NOTE, [row for m in models for row in m["by_source"]]),
        Table("audit", "The shortcut audit", AUDIT_NOTE, [row for m in models for row in m["audit"]]),
    ]
    return [table for table in tables if table.rows]


def header(evaluation: dict[str, Any]) -> list[str]:
    """What every table carries: the hashes of manifest and models, commit, seed, command."""
    made = evaluation["made"]
    lines = [
        f"split {made['split']}: {made['real']} real and {made['fake']} fake images"
        + (f", at most {made['per_source']} of each source" if made["per_source"] else ""),
        f"manifest {made['manifest_sha256'][:16]}, commit {made['commit'][:12]}, seed {made['seed']}, {made['when']}",
        f"command: {made['command']}",
    ]
    for m in evaluation["models"]:
        limits = f"fake from {m['fake_from']:.3f}, real to {m['real_to']:.3f}"
        lines.append(f"{m['name']}: model {m['model_sha256'][:16]}, {limits}")
    return lines


def remarks(evaluation: dict[str, Any]) -> list[str]:
    """What has to be said of each model: how it was calibrated, what is left out, which column says nothing."""
    return [f"{m['name']}: {note}" for m in evaluation["models"] for note in (*m["notes"], *m["left_out"])]


def text(evaluation: dict[str, Any]) -> str:
    """A judging as Markdown."""
    parts = [_list(header(evaluation))]
    parts += [f"## {t.title}\n\n{t.note}\n\n{markdown(t.rows)}" for t in tables_of(evaluation)]
    if said := remarks(evaluation):
        parts.append(f"## Remarks\n\n{_list(said)}")
    return "\n\n".join(parts) + "\n"


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_inline(line)}" for line in lines)


def _inline(line: str) -> str:
    return line.replace("&", "&amp;").replace("<", "&lt;")


def write(path: Path, content: str | bytes) -> None:
    """A file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.replace(part, path)


def write_evaluation(evaluation: dict[str, Any], folder: Path) -> None:
    """evaluation.json, evaluation.md, and each table as CSV."""
    write(folder / "evaluation.json", json.dumps(evaluation, indent=1))
    write(folder / "evaluation.md", "# Evaluation\n\n" + text(evaluation))
    for table in tables_of(evaluation):
        write(folder / f"{table.key}.csv", to_csv(table.rows))


def read_evaluation(path: Path, subjects: Sequence[Subject], manifest: DataSet) -> dict[str, Any]:
    """A written evaluation of just these models on this manifest. Raises UsageError where it is another's."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        judged = {m["model_sha256"] for m in found["models"]}, found["made"]["manifest_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{str(path)!r} is no evaluation", "faceauth lab evaluate -o FOLDER writes one") from error
    if judged != ({s.sha256 for s in subjects}, manifest.sha256):
        raise UsageError(f"{str(path)!r} is of other models or another manifest", "evaluate these runs again")
    return found


def check_page(output: Path) -> None:
    """Raises UsageError for a suffix that is no page's."""
    if output.suffix.lower() not in {".html", ".htm"}:
        raise UsageError(f"a report is not written as {output.suffix or 'a file without suffix'}", "-o report.html")


def report(
    subjects: Sequence[Subject], manifest: DataSet, evaluation: dict[str, Any], output: Path, cache: Path,
    workers: int = 1, seed: int = 0, pictures: bool = True,
) -> tuple[Path, Path]:  # fmt: skip
    """Write the report as HTML, and beside it as Markdown with its figures in a folder.

    Maps and spectra are of the test split, whatever the evaluation is of.

    Args:
        output: ends in .html; pictures: whether the worst mistakes are shown as thumbnails.

    Returns:
        The two files.
    """
    examples = from_manifest(manifest)
    sections = [_overview(subjects, evaluation)]
    by_hash = {m["model_sha256"]: m for m in evaluation["models"]}
    for subject in subjects:
        judged = by_hash[subject.sha256]
        section = _model(subject, judged, manifest, pictures)
        _add_map(section, subject, embeddings.embed(subject, examples, "test", cache, workers, PER_SOURCE, seed), seed)
        sections.append(section)
    sections.append(_spectra(spectrum.source_spectra(examples, "test", seed=seed, workers=workers)))
    write(output, _html(evaluation, sections))
    for number, section in enumerate(sections):
        for name, _, png in section.figures:
            write(_figure(output, number, name), png)
    write(output.with_suffix(".md"), _markdown(output, evaluation, sections))
    return output, output.with_suffix(".md")


def _overview(subjects: Sequence[Subject], evaluation: dict[str, Any]) -> Section:
    models = evaluation["models"]
    section = Section("All models", tables=tables_of(evaluation))
    for column in dict.fromkeys(name for m in models for name in m["roc"]):
        curves = {m["name"]: m["roc"].get(column, {"fpr": [], "tpr": []}) for m in models}
        name = f"roc-{column.replace(', ', '-').replace(' ', '-')}"
        section.figures.append((name, f"ROC curves, {column}, clean", _png(figures.roc_curves(curves, column))))
    bins = {m["name"]: m["reliability"] for m in models}
    section.figures.append(("calibration", "Calibration, all together, clean", _png(figures.reliability(bins))))
    logs = {s.name: rows for s in subjects if (rows := _log(s))}
    if logs:
        section.figures.append(("training", "Losses while training", _png(figures.training_curves(logs))))
    return section


def _log(subject: Subject) -> list[dict[str, Any]]:
    log = subject.run / "log.jsonl" if subject.run else None
    if log is None or not log.is_file():
        return []
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def _model(subject: Subject, judged: dict[str, Any], manifest: DataSet, pictures: bool) -> Section:
    section = Section(judged["name"], notes=[*judged["notes"], *judged["left_out"]])
    shown = figures.confusion(judged["confusion"], f"{judged['name']}: source named, of the prepared faces")
    section.figures.append(("confusion", "Which source the model names, for each true source", _png(shown)))
    if pictures:
        section.pictures = [row | {"data": _thumbnail(manifest, row["image"])} for row in judged["worst"]]
    if judged["worst"]:
        section.tables.append(Table("worst", "Worst mistakes", "On the wrong side of 0.5, clean.", judged["worst"]))
    openings = judged["dev_openings"]
    if openings:
        section.tables.append(Table("ledger", "Openings of the dev split", "Oldest first.", openings))
    else:
        section.notes.append("The dev split was never opened for this model.")
    section.facts = [("model file", f"{judged['file']}, SHA-256 {judged['model_sha256']}")]
    section.facts.append(("trained on", f"data {subject.card.data_sha256}; {', '.join(subject.card.sources)}"))
    section.facts += [
        (key, json.dumps(subject.facts[key], indent=1) if key in {"config", "environment"} else str(subject.facts[key]))
        for key in ("commit", "started", "command", "parameters", "held_out", "environment", "config")
        if key in subject.facts
    ]
    return section


def _add_map(section: Section, subject: Subject, embedded: embeddings.Embedded, seed: int) -> None:
    rows = embeddings.clusters(embedded, seed)
    note = (
        "Among the images on the map, in the full embedding space, beside the mean over permuted labels: of single "
        "images, and of whole sources. Only as far as a value exceeds the second do the reals form a cluster."
    )
    if rows:
        section.tables.insert(0, Table("clusters", "Clusters in numbers", note, rows))
    if len(embedded.path) < 4:
        section.notes.append("Too few images for a map.")
        return
    map_ = embeddings.tsne(embedded, seed, None, subject.sha256, "")
    shown = _png(figures.tsne_map(map_, subject.name))
    section.figures.insert(0, ("tsne", f"t-SNE map of the embeddings, at most {PER_SOURCE} images of a source", shown))


def _spectra(found: Sequence[spectrum.SourceSpectrum]) -> Section:
    notes = [spectrum.CAVEAT]
    grid = ("spectra", "Average log-power spectrum of the noise residual", _png(figures.spectrum_grid(found)))
    profiles = ("profiles", "Radial profiles and their difference from real", _png(figures.spectrum_profiles(found)))
    return Section("Spectra of the sources", notes, figures=[grid, profiles])


_png = figures.png


def _thumbnail(manifest: DataSet, path: str) -> str:
    try:
        image = images.load(str(manifest.root / path)).image
    except ImageError as error:
        raise DataError(f"{path}: {error}", "prepare the data set again, or give --no-pictures") from error
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return _uri(file.getvalue(), "image/jpeg")


def _uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _html(evaluation: dict[str, Any], sections: Sequence[Section]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("faceauth.lab.evaluation", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"cell": cell, "uri": _uri}
    template = environment.get_template("report.html.j2")
    return template.render(made=evaluation["made"], header=header(evaluation), sections=sections)


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
