"""Every figure of the protocol from one table of scores: one dictionary of plain values, `evaluation.json`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from faceauth.errors import DataError
from faceauth.lab.evaluation import metrics, protocol, score_sets, score_table
from faceauth.lab.evaluation.control_tables import control_folds, control_table
from faceauth.lab.evaluation.cross_fit import cross_fitted
from faceauth.lab.evaluation.false_alarms import false_alarm_tables, left_out_summary
from faceauth.lab.evaluation.ledger import Opening, open_dev, read_ledger
from faceauth.lab.evaluation.metrics import Bools, Floats
from faceauth.lab.evaluation.score_table import ScoreTable
from faceauth.lab.evaluation.tables import TITLES
from faceauth.lab.run_info import command, commit, file_sha256, now


def evaluate_files(
    paths: Sequence[Path], models: Sequence[str] = (), opening: Opening | None = None, draws: int = protocol.DRAWS
) -> dict[str, Any]:
    """Read tables of scores, merge them and evaluate: without their dev rows, or with them alone.

    Args:
        models: the detectors to evaluate, all by default; controls always stay.
        opening: for the figures of the dev rows, see `open_tables`; thresholds and calibration still come from the
            other rows.

    Raises:
        DataError: a table is unreadable, incomplete or lacks a class; see `score_table.check` and `check_complete`.
    """
    if not paths:
        raise DataError("no table of scores", "give the files that faceauth lab score wrote")
    if opening is None:
        found = evaluate(score_table.merge([score_table.read(path) for path in paths]), models, None, draws)
    else:
        dev = _some(paths, opening, "give the file of dev scores as well")
        others = _some(paths, None, "thresholds come from other rows: give the file of test scores as well")
        found = evaluate(dev, models, others, draws)
    found["made"]["files"] = {str(path): file_sha256(path) for path in paths}
    found["made"]["dev_openings"] = read_ledger(opening.ledger) if opening else []
    return found


def open_tables(paths: Sequence[Path], ledger: Path) -> Opening:
    """Write the ledger's line for the dev rows of these files, before one of them is read. Raises DataError."""
    heads = [score_table.read_metadata(path) for path in paths]
    return open_dev(ledger, heads[0]["dataset_sha256"], {str(path): file_sha256(path) for path in paths}, "evaluate")


def _some(paths: Sequence[Path], opening: Opening | None, hint: str) -> ScoreTable:
    """What is read of the files, without those that have no such rows. Raises DataError where none has."""
    tables = []
    for path in paths:
        try:
            tables.append(score_table.read(path, opening))
        except DataError as error:
            lacking = error
            if score_table.NO_ROWS not in error.message:
                raise
    if not tables:
        raise DataError(lacking.message, hint)
    return score_table.merge(tables)


def evaluate(
    table: ScoreTable, models: Sequence[str] = (), fitting: ScoreTable | None = None, draws: int = protocol.DRAWS
) -> dict[str, Any]:
    """Evaluate a table in memory. Raises as `evaluate_files`.

    Args:
        fitting: rows for calibration and thresholds; `table` itself by default, where every kind and fold is
            calibrated by the others.

    Returns:
        Plain values: `made` says of what and how, `remarks` what the table lacks, `tables` the rows of each of
        `tables.TITLES`, `curves` for the plots.
    """
    rows = score_sets.score_rows(table, models)
    score_sets.check_complete(rows)
    score_sets.check_fitted_on(table.metadata, rows)
    kept = score_sets.answered(rows)
    to_fit = kept if fitting is None else score_sets.answered(score_sets.score_rows(fitting, models))
    tables: dict[str, list[protocol.Row]] = {name: [] for name in TITLES}
    curves: dict[str, Any] = {}
    names = score_sets.detectors(rows)
    if not names:
        raise DataError("the table has scores of controls alone", "score a detector: faceauth lab score")
    for name in names:
        own, fit_own = kept[kept["model"] == name], to_fit[to_fit["model"] == name]
        curves[name] = {"roc": {}, "reliability": []}
        for deal in score_sets.deals(own):
            fit_rows = fit_own[fit_own["deal"] == deal]
            shipped = table.metadata.get("calibration", {}).get(name)
            scored, used = cross_fitted(own[own["deal"] == deal], fit_rows, shipped)
            found = _tables(scored, score_sets.controls_of(kept, name), draws)
            found["calibration"] = [{**row, "deal": deal} for row in used]
            _add(tables, name, found)
            _add_curves(curves[name], scored)
        alarms, left_out = false_alarm_tables(fit_own[fit_own["deal"] == "kind"])
        _add(tables, name, {"false_alarms": alarms, "left_out_kinds": left_out})
    tables["seen_unseen"] = protocol.seen_beside_unseen(tables["headline"])
    tables["controls"] = control_table(tables["control_folds"])
    tables["left_out"] = left_out_summary(tables["left_out_kinds"])
    tables["study"] = study_table(kept[kept["model"].isin(names) & (kept["deal"] == "kind")])
    tables["counts"] = score_sets.counts(rows)
    notes = table.metadata.get("notes", [])
    remarks = [*notes, *score_sets.remarks(rows), *_fitted_before(tables["calibration"])]
    return {"made": _made(table, rows), "remarks": remarks, "tables": tables, "curves": curves}


def study_table(rows: pd.DataFrame) -> list[protocol.Row]:
    """A row for each model, on its real and fake images at logit 0 as the study did: prepared faces, else clean.

    Edited images are in neither class. Of fold models the held-out rows count alone. Raises DataError for a model
    without real or without fake images.
    """
    variant = score_table.PREPARED if (rows["variant"] == score_table.PREPARED).any() else "clean"
    rows = rows[(rows["seed"] < 0) | rows["held_out"]]
    rows = rows[(rows["variant"] == variant) & rows["label"].isin(("real", "fake")) & rows["logit"].notna()]
    found = []
    for model, part in rows.groupby("model", sort=False):
        real = (part["label"] == "real").to_numpy()
        if real.all() or not real.any():
            raise DataError(f"{model} has no {'fake' if real.all() else 'real'} images", "score images of both classes")
        found.append({"model": str(model), **study_row(part["logit"].to_numpy(float), real)})
    return found


def study_row(logits: Floats, real: Bools) -> protocol.Row:
    """The study's columns: Accuracy, Precision, Recall, AUROC and F1, with its class convention, 1 = real.

    The AUROC that the study printed (0.83243) equals the balanced accuracy computed from its other figures: an AUROC
    from 0/1 answers is that. Here AUROC comes from scores, and balanced accuracy stands beside it under its own name.
    Precision is None where nothing is called real.

    Args:
        logits: (n,) of P(fake), not calibrated; real: (n,), the positive class.
    """
    called = logits < 0
    hits = float((called & real).sum())
    recall, passed = hits / real.sum(), float((called & ~real).sum() / (~real).sum())
    return {
        "Accuracy": float((called == real).mean()),
        "Precision": float(hits / called.sum()) if called.any() else None,
        "Recall": float(recall),
        "AUROC": float(metrics.auroc(-logits, real)),
        "F1": float(2 * hits / (called.sum() + real.sum())),
        "balanced accuracy": float(np.mean([recall, 1 - passed])),
    }


def _fitted_before(used: Sequence[protocol.Row]) -> list[str]:
    """A remark for each model whose file brought its calibration, which may come from the images at hand."""
    shipped = {row["model"]: row["fitted on"] for row in used if row["part"] == "shipped"}
    return [
        f"{model}: calibration and thresholds are those of its file, fitted on {fitted_on}; where these are images of "
        "this table, its ECE, Brier score and figures at thresholds are of the images that they were fitted on"
        for model, fitted_on in shipped.items()
    ]


def _tables(scored: pd.DataFrame, controls: pd.DataFrame, draws: int) -> dict[str, list[protocol.Row]]:
    """The tables of one model's rows of one deal."""
    real = scored["label"] == "real"
    return {
        "headline": protocol.headline(scored, draws),
        "plain": protocol.plain_table(scored),
        "worth": protocol.worth_table(scored),
        "special": protocol.special_table(scored),
        "robustness": protocol.robustness_table(scored),
        "real_sources": protocol.source_table(scored[real], "called fake"),
        "fake_sources": protocol.source_table(scored[~real], "caught"),
        "worst": protocol.worst(scored) if score_sets.deals(scored) == ["kind"] else [],
        "folds": protocol.fold_table(scored),
        "control_folds": control_folds(scored, controls),
    }


def _add(tables: dict[str, list[protocol.Row]], model: str, found: dict[str, list[protocol.Row]]) -> None:
    for key, rows in found.items():
        tables[key] += [{"model": model, **row} for row in rows]


def _add_curves(found: dict[str, Any], scored: pd.DataFrame) -> None:
    """For the plots, all folds together, clean: the ROC of each set, and the reliability of the first."""
    for name, column in protocol.columns(scored):
        clean = column[(column["variant"] == "clean") & column["group"].isin(("real", "generated"))]
        fake, scores = (clean["group"] == "generated").to_numpy(), clean["score"].to_numpy(float)
        if fake.any() and not fake.all():
            found["roc"][name] = protocol.roc_points(clean["ranking"].to_numpy(float), fake)
            found["reliability"] = found["reliability"] or protocol.reliability(scores, fake)


def _made(table: ScoreTable, rows: pd.DataFrame) -> dict[str, Any]:
    models = rows[["model", "deal", "seed", "fold", "model_sha256"]].drop_duplicates()
    return {
        "dataset_sha256": table.metadata["dataset_sha256"],
        "models": models.rename(columns={"model_sha256": "sha256"}).to_dict("records"),
        "seeds": sorted(set(rows["seed"].tolist())), "bootstrap_seed": 0,
        "split": "dev" if (rows["split"] == "dev").all() else "test",
        "scores": [
            {key: of[key] for key in ("command", "commit", "code_version", "created")}
            for of in table.metadata.get("merged", [table.metadata])
        ],
        "commit": commit(), "command": command(), "created": now(),
    }  # fmt: skip
