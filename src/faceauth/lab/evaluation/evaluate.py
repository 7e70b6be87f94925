"""Every figure of the protocol from one table of scores: one dictionary of plain values, `evaluation.json`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from faceauth.errors import DataError
from faceauth.lab.evaluation import protocol, score_table
from faceauth.lab.evaluation.control_tables import check_fitted_on, control_folds, control_table
from faceauth.lab.evaluation.cross_fit import cross_fitted
from faceauth.lab.evaluation.false_alarms import false_alarm_tables, left_out_summary
from faceauth.lab.evaluation.ledger import open_dev, read_ledger
from faceauth.lab.evaluation.run_info import command, commit, file_sha256, now
from faceauth.lab.evaluation.score_sets import (
    CONTROL_MODELS,
    answered,
    check_complete,
    counts,
    detectors,
    remarks,
    score_rows,
)
from faceauth.lab.evaluation.score_table import ScoreTable
from faceauth.lab.evaluation.study_table import study_table

TABLES = (
    "headline", "plain", "worth", "seen_unseen", "controls", "special", "false_alarms", "left_out", "left_out_kinds",
    "study", "sources", "folds", "control_folds", "calibration", "counts",
)  # fmt: skip


def evaluate_files(
    paths: Sequence[Path], models: Sequence[str] = (), open_the_dev_set: bool = False,
    ledger: Path | None = None, draws: int = protocol.DRAWS,
) -> dict[str, Any]:  # fmt: skip
    """Read tables of scores, merge them and evaluate: without their dev rows, or with them alone.

    Args:
        models: the detectors to evaluate, all by default; controls always stay.
        open_the_dev_set: figures of the dev rows. The ledger's line is on the disk before one of them is read;
            thresholds and calibration still come from the other rows.
        ledger: by default `dev_ledger.jsonl` beside the first table.

    Raises:
        DataError: a table is unreadable, incomplete or lacks a class; see `score_table.check` and `check_complete`.
    """
    if not paths:
        raise DataError("no table of scores", "give the files that faceauth lab score wrote")
    opened = None
    book = ledger or paths[0].parent / "dev_ledger.jsonl"
    if open_the_dev_set:
        heads = [score_table.read_metadata(path) for path in paths]
        names = {str(path): file_sha256(path) for path in paths}
        opened = open_dev(book, heads[0]["dataset_sha256"], names, "evaluate")
        table = score_table.merge([score_table.read_dev(path, opened) for path in paths])
    else:
        table = score_table.merge([score_table.read(path) for path in paths])
    fitting = _others(paths) if opened else None
    found = evaluate(table, models, fitting, draws)
    found["made"] |= {
        "files": {str(path): file_sha256(path) for path in paths},
        "dev_openings": read_ledger(book) if opened else [],
    }
    return found


def _others(paths: Sequence[Path]) -> ScoreTable:
    """The rows that are not dev, of the files that have some."""
    tables = []
    for path in paths:
        try:
            tables.append(score_table.read(path))
        except DataError as error:
            if "outside the split dev" not in error.message:
                raise
    if not tables:
        raise DataError(
            "no rows to set thresholds with: the files hold dev rows alone", "give the file of test scores as well"
        )
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
    controls = kept[kept["model"].isin(CONTROL_MODELS)]
    tables: dict[str, list[protocol.Row]] = {name: [] for name in TABLES}
    curves: dict[str, Any] = {}
    names = detectors(rows)
    if not names:
        raise DataError("the table has scores of controls alone", "score a detector: faceauth lab score")
    for name in names:
        fit_rows = to_fit[to_fit["model"] == name]
        shipped = table.metadata.get("calibration", {}).get(name)
        scored, used = cross_fitted(kept[kept["model"] == name], fit_rows, shipped)
        tables["calibration"] += used
        _add_tables(tables, scored, controls, draws)
        alarms, left_out = false_alarm_tables(fit_rows)
        tables["false_alarms"] += alarms
        tables["left_out_kinds"] += left_out
        curves[name] = _curves(scored)
    tables["seen_unseen"] = protocol.seen_beside_unseen(tables["headline"])
    tables["controls"] = control_table(tables["control_folds"])
    tables["left_out"] = left_out_summary(tables["left_out_kinds"])
    tables["study"] = study_table(kept[kept["model"].isin(names)])
    tables["counts"] = counts(rows)
    return {"made": _made(table, rows), "remarks": remarks(rows), "tables": tables, "curves": curves}


def _add_tables(
    tables: dict[str, list[protocol.Row]], scored: pd.DataFrame, controls: pd.DataFrame, draws: int
) -> None:
    tables["headline"] += protocol.headline(scored, draws)
    tables["plain"] += protocol.plain_table(scored)
    tables["worth"] += protocol.worth_table(scored)
    tables["special"] += protocol.special_table(scored)
    tables["sources"] += protocol.source_table(scored)
    tables["folds"] += protocol.fold_table(scored)
    tables["control_folds"] += control_folds(scored, controls)


def _curves(scored: pd.DataFrame) -> dict[str, Any]:
    """For the plots: ROC and reliability of the first set, clean, all folds together."""
    name, column = next(protocol.columns(scored), ("", scored.iloc[:0]))
    clean = column[(column["variant"] == "clean") & column["group"].isin(("real", "generated"))]
    fake = (clean["group"] == "generated").to_numpy()
    if not len(clean) or fake.all() or not fake.any():
        return {}
    scores = clean["score"].to_numpy(float)
    return {"set": name, "roc": protocol.roc_points(scores, fake), "reliability": protocol.reliability(scores, fake)}


def _made(table: ScoreTable, rows: pd.DataFrame) -> dict[str, Any]:
    hashes = rows[["model", "seed", "fold", "model_sha256"]].drop_duplicates()
    return {
        "dataset_sha256": table.dataset_sha256,
        "models": [
            {"model": m, "seed": int(s), "fold": int(f), "sha256": sha} for m, s, f, sha in hashes.itertuples(index=False)
        ],
        "seeds": sorted({int(s) for s in rows["seed"]}), "bootstrap_seed": 0,
        "split": "dev" if (rows["split"] == "dev").all() else "test",
        "scores_commit": table.metadata["commit"], "scores_command": table.metadata["command"],
        "scores_code_version": table.metadata["code_version"], "scores_created": table.metadata["created"],
        "commit": commit(), "command": command(), "created": now(),
    }  # fmt: skip
