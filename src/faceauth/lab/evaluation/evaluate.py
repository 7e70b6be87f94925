"""Every figure of the protocol from one table of scores: one dictionary of plain values, `evaluation.json`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from faceauth.errors import DataError
from faceauth.lab.evaluation import protocol, score_table
from faceauth.lab.evaluation.control_tables import control_folds, control_table
from faceauth.lab.evaluation.cross_fit import cross_fitted
from faceauth.lab.evaluation.false_alarms import false_alarm_tables, left_out_summary
from faceauth.lab.evaluation.ledger import Opening, open_dev, read_ledger
from faceauth.lab.evaluation.score_sets import (
    answered,
    check_complete,
    check_fitted_on,
    controls_of,
    counts,
    deals,
    detectors,
    remarks,
    score_rows,
)
from faceauth.lab.evaluation.score_table import ScoreTable
from faceauth.lab.evaluation.study_table import study_table
from faceauth.lab.run_info import command, commit, file_sha256, now

TABLES = (
    "headline", "plain", "worth", "seen_unseen", "controls", "special", "robustness", "false_alarms", "left_out",
    "left_out_kinds", "study", "real_sources", "fake_sources", "worst", "folds", "control_folds", "calibration",
    "counts",
)  # fmt: skip


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
    """Evaluate a table in memory.

    Args:
        fitting: rows for calibration and thresholds; `table` itself by default, where every kind and fold is
            calibrated by the others.

    Returns:
        Plain values: `made` says of what and how, `remarks` what the table lacks, `tables` the rows of each of
        `TABLES`, `curves` for the plots.

    Raises:
        DataError: as `evaluate_files`.
    """
    rows = score_rows(table, models)
    check_complete(rows)
    check_fitted_on(table.metadata, rows)
    fit_from = rows if fitting is None else score_rows(fitting, models)
    kept, to_fit = answered(rows), answered(fit_from)
    tables: dict[str, list[protocol.Row]] = {name: [] for name in TABLES}
    curves: dict[str, Any] = {}
    names = detectors(rows)
    if not names:
        raise DataError("the table has scores of controls alone", "score a detector: faceauth lab score")
    for name in names:
        own, fit_own = kept[kept["model"] == name], to_fit[to_fit["model"] == name]
        curves[name] = {"roc": {}, "reliability": []}
        for deal in deals(own):
            fit_rows = fit_own[fit_own["deal"] == deal]
            shipped = table.metadata.get("calibration", {}).get(name)
            scored, used = cross_fitted(own[own["deal"] == deal], fit_rows, shipped)
            tables["calibration"] += [{"model": name, **row, "deal": deal} for row in used]
            _add_tables(tables, scored, controls_of(kept, name), draws)
            _add_curves(curves[name], scored)
        alarms, left_out = false_alarm_tables(fit_own[fit_own["deal"] == "kind"])
        tables["false_alarms"] += [{"model": name, **row} for row in alarms]
        tables["left_out_kinds"] += [{"model": name, **row} for row in left_out]
    tables["seen_unseen"] = protocol.seen_beside_unseen(tables["headline"])
    tables["controls"] = control_table(tables["control_folds"])
    tables["left_out"] = left_out_summary(tables["left_out_kinds"])
    tables["study"] = study_table(kept[kept["model"].isin(names) & (kept["deal"] == "kind")])
    tables["counts"] = counts(rows)
    return {
        "made": _made(table, rows),
        "remarks": [*table.metadata.get("notes", []), *remarks(rows), *_fitted_before(tables["calibration"])],
        "tables": tables,
        "curves": curves,
    }


def _fitted_before(used: Sequence[protocol.Row]) -> list[str]:
    """A remark for each model whose file brought its calibration, which may come from the images at hand."""
    shipped = {row["model"]: row["fitted on"] for row in used if row["part"] == "shipped"}
    return [
        f"{model}: calibration and thresholds are those of its file, fitted on {fitted_on}; where these are images of "
        "this table, its ECE, Brier score and figures at thresholds are of the images that they were fitted on"
        for model, fitted_on in shipped.items()
    ]


def _add_tables(
    tables: dict[str, list[protocol.Row]], scored: pd.DataFrame, controls: pd.DataFrame, draws: int
) -> None:
    tables["headline"] += protocol.headline(scored, draws)
    tables["plain"] += protocol.plain_table(scored)
    tables["worth"] += protocol.worth_table(scored)
    tables["special"] += protocol.special_table(scored)
    tables["robustness"] += protocol.robustness_table(scored)
    tables["real_sources"] += protocol.source_table(scored[scored["label"] == "real"], "called fake")
    tables["fake_sources"] += protocol.source_table(scored[scored["label"] != "real"], "caught")
    tables["worst"] += protocol.worst(scored) if deals(scored) == ["kind"] else []
    tables["folds"] += protocol.fold_table(scored)
    tables["control_folds"] += control_folds(scored, controls)


def _add_curves(found: dict[str, Any], scored: pd.DataFrame) -> None:
    """For the plots, all folds together, clean: the ROC of each set, and the reliability of the first."""
    for name, column in protocol.columns(scored):
        clean = column[(column["variant"] == "clean") & column["group"].isin(("real", "generated"))]
        fake, scores = (clean["group"] == "generated").to_numpy(), clean["score"].to_numpy(float)
        if fake.any() and not fake.all():
            found["roc"][name] = protocol.roc_points(clean["ranking"].to_numpy(float), fake)
            found["reliability"] = found["reliability"] or protocol.reliability(scores, fake)


def _made(table: ScoreTable, rows: pd.DataFrame) -> dict[str, Any]:
    hashes = rows[["model", "deal", "seed", "fold", "model_sha256"]].drop_duplicates().itertuples(index=False)
    return {
        "dataset_sha256": table.metadata["dataset_sha256"],
        "models": [
            {"model": str(m), "deal": str(d), "seed": int(s), "fold": int(f), "sha256": str(sha)}
            for m, d, s, f, sha in hashes
        ],
        "seeds": sorted({int(s) for s in rows["seed"]}), "bootstrap_seed": 0,
        "split": "dev" if (rows["split"] == "dev").all() else "test",
        "scores": [
            {key: of[key] for key in ("command", "commit", "code_version", "created")}
            for of in table.metadata.get("merged", [table.metadata])
        ],
        "commit": commit(), "command": command(), "created": now(),
    }  # fmt: skip
