"""The report of runs on a prepared data set: an evaluation, and beside it maps, spectra, losses, mistakes, config."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from faceauth import images
from faceauth.errors import DataError, ImageError, UsageError
from faceauth.lab.data.dataset import DataSet
from faceauth.lab.data.examples import from_manifest
from faceauth.lab.evaluation import embeddings, figures, spectrum
from faceauth.lab.evaluation.candidates import Candidate, choose
from faceauth.lab.evaluation.pages import Section, overview, uri, write_page
from faceauth.lab.evaluation.score_sets import is_control
from faceauth.lab.evaluation.scoring import prepared_outputs
from faceauth.lab.evaluation.tables import Table
from faceauth.model_file import Outputs

THUMBNAIL = 112  # pixels a side
PER_SOURCE = 50  # images of each source on a map


def read_evaluation(path: Path, candidates: Sequence[Candidate], manifest: DataSet) -> dict[str, Any]:
    """A written evaluation of just these models on this manifest. Raises UsageError where it is another's."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        made = found["made"]
        scored = {m["sha256"] for m in made["models"] if not is_control(m["model"])}, made["dataset_sha256"]
        found["tables"], found["curves"], made["scores"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{str(path)!r} is no evaluation", "faceauth lab evaluate -o FOLDER writes one") from error
    if scored != ({c.sha256 for c in candidates}, manifest.sha256):
        raise UsageError(f"{str(path)!r} is of other models or another manifest", "evaluate these runs again")
    return found


def report(
    candidates: Sequence[Candidate], manifest: DataSet, evaluation: dict[str, Any], output: Path, cache: Path,
    workers: int = 1, seed: int = 0, pictures: bool = True,
) -> tuple[Path, Path]:  # fmt: skip
    """Write the report of runs as HTML, and beside it as Markdown with its figures in a folder; returns the two files.

    Maps, spectra and the sources named are of the test split, whatever the evaluation is of. `output` ends in .html,
    `pictures` says whether the worst mistakes are shown as thumbnails.
    """
    examples = from_manifest(manifest)
    sections = [overview(evaluation)]
    logs = {c.name: rows for c in candidates if (rows := _log(c))}
    if logs:
        sections[0].figures.append(("training", "Losses while training", figures.png(figures.training_curves(logs))))
    names = {m["sha256"]: m["model"] for m in evaluation["made"]["models"]}
    chosen = choose(examples, "test", None, seed)
    outputs = prepared_outputs([c.file for c in candidates], examples, chosen, cache, workers)
    for candidate, of_candidate in zip(candidates, outputs, strict=True):
        section = _model(candidate, names[candidate.sha256], evaluation, manifest, pictures)
        named = candidate.card.sources
        counts = confusion(named, [examples.records[i].source for i in chosen], of_candidate)
        shown = figures.confusion(counts, named, f"{candidate.name}: source named, of the prepared faces")
        section.figures.append(("confusion", "Which source the model names, for each true source", figures.png(shown)))
        embedded = embeddings.embed(candidate, examples, "test", cache, workers, PER_SOURCE, seed)
        _add_map(section, candidate, embedded, seed)
        sections.append(section)
    found = spectrum.source_spectra(examples, "test", seed=seed, workers=workers)
    grid, profiles = figures.png(figures.spectrum_grid(found)), figures.png(figures.spectrum_profiles(found))
    section = Section("Spectra of the sources", [spectrum.CAVEAT])
    section.figures.append(("spectra", "Average log-power spectrum of the noise residual", grid))
    section.figures.append(("profiles", "Radial profiles and their difference from real", profiles))
    sections.append(section)
    title = f"How {len(candidates)} model{'s do' if len(candidates) > 1 else ' does'} on the split"
    return write_page(output, f"{title} {evaluation['made']['split']}", evaluation, sections)


def confusion(named: Sequence[str], true: Sequence[str], outputs: Outputs) -> dict[str, npt.NDArray[np.int64]]:
    """For each true source (n,), how often the source head named each source that the model knows, in its order."""
    sources, answers = np.array(true), outputs.source_logits.argmax(axis=1)
    order = {source: i for i, source in enumerate(named)}
    ordered = sorted(set(true), key=lambda source: (order.get(source, len(order)), source))
    return {source: np.bincount(answers[sources == source], minlength=len(named)) for source in ordered}


def _log(candidate: Candidate) -> list[dict[str, Any]]:
    log = candidate.run / "log.jsonl" if candidate.run else None
    if log is None or not log.is_file():
        return []
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def _model(candidate: Candidate, name: str, evaluation: dict[str, Any], manifest: DataSet, pictures: bool) -> Section:
    section = Section(name)
    worst = [row for row in evaluation["tables"]["worst"] if row["model"] == name]
    if pictures:
        section.pictures = [row | {"data": _thumbnail(manifest, row["image"])} for row in worst]
    openings = [o for o in evaluation["made"].get("dev_openings", []) if candidate.sha256 in o["models"].values()]
    if openings:
        note = "Oldest first; the ledger's lines of this model file."
        rows = [{k: o[k] for k in ("number", "opened", "purpose", "commit", "command")} for o in openings]
        section.tables.append(Table("ledger", "Openings of the dev set", note, rows))
    section.facts = [("model file", f"{candidate.file}, SHA-256 {candidate.sha256}")]
    section.facts.append(("trained on", f"data {candidate.card.data_sha256}; {', '.join(candidate.card.sources)}"))
    section.facts += [
        (k, json.dumps(candidate.facts[k], indent=1) if k in {"config", "environment"} else str(candidate.facts[k]))
        for k in ("commit", "started", "command", "parameters", "held_out", "environment", "config")
        if k in candidate.facts
    ]
    return section


def _add_map(section: Section, candidate: Candidate, embedded: embeddings.Embedded, seed: int) -> None:
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
    map_ = embeddings.tsne(embedded, seed, None, candidate.sha256, "")
    shown = figures.png(figures.tsne_map(map_, candidate.name))
    section.figures.insert(0, ("tsne", f"t-SNE map of the embeddings, at most {PER_SOURCE} images of a source", shown))


def _thumbnail(manifest: DataSet, path: str) -> str:
    try:
        image = images.load(str(manifest.root / path)).image
    except ImageError as error:
        raise DataError(f"{path}: {error}", "prepare the data set again, or give --no-pictures") from error
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return uri(file.getvalue(), "image/jpeg")
