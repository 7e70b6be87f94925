"""The table of scores: one row for each image, variant, model and fold, in one Parquet file.

Whatever scores images writes this table, and whatever computes a figure reads it. `SCHEMA` lists the columns; the file
metadata (key `faceauth`) is JSON, see `run_info.run_info`. Rows of the split `dev` are read and written for an opening
that the ledger holds, and for nothing else. Needs pyarrow and pandas, not torch.

A fold model is (model, deal, seed, fold). `held_out` is true where the image's kind, or in the deal by source its
source, took no part in fitting the model. Rows of the deal by source are all held out.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from faceauth.errors import DataError
from faceauth.files import replacing
from faceauth.lab.data.dataset import LABELS, SPLITS
from faceauth.lab.data.splits import DEALS
from faceauth.lab.data.variants import VARIANTS
from faceauth.lab.evaluation.ledger import Opening

_TEXT = (
    "image", "image_sha256", "source", "kind", "label", "family", "generator", "split", "variant", "model",
    "model_sha256",
)  # fmt: skip
SCHEMA = pa.schema([
    *(pa.field(name, pa.string(), nullable=False) for name in _TEXT),
    pa.field("deal", pa.string(), nullable=False),  # kind or source: what `held_out` is about
    pa.field("seed", pa.int64(), nullable=False),  # -1: not a fold model
    pa.field("fold", pa.int64(), nullable=False),  # -1: not a fold model
    pa.field("held_out", pa.bool_(), nullable=False),
    pa.field("face", pa.bool_(), nullable=False),
    pa.field("logit", pa.float64()),  # of P(fake), not calibrated; null without a face or with an error
    pa.field("swap_logit", pa.float64()),
    pa.field("view_logits", pa.list_(pa.float64())),
    pa.field("error", pa.string()),
])  # fmt: skip
METADATA = b"faceauth"
KEY = ("image", "variant", "model", "deal", "seed", "fold")
OPTIONAL = ("swap_logit", "view_logits", "error")
NO_ROWS = "no rows"
PREPARED = "prepared"  # the variant of a prepared face scored as it lies, which is what the study scored
OF_IMAGE = ("image_sha256", "source", "kind", "label", "family", "generator", "split")
_REQUIRED_METADATA = ("dataset_sha256", "commit", "command", "code_version", "created")
_OPTIONAL_METADATA: Mapping[str, Callable[[Any], bool]] = {
    "calibration": lambda v: isinstance(v, Mapping),  # by model, see `cross_fit.Fitted.of_card`
    "controls": lambda v: isinstance(v, Mapping) and all(isinstance(names, list) for names in v.values()),
    "notes": lambda v: isinstance(v, list) and all(isinstance(note, str) for note in v),
}
AGAIN = "score the models again with faceauth lab score"


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Checked rows and their metadata.

    Attributes:
        rows: a pandas DataFrame with the columns of `SCHEMA`.
        metadata: dataset_sha256 (what was scored), commit, command, code_version, created; whoever writes may add keys.
    """

    rows: pd.DataFrame
    metadata: Mapping[str, Any]


def write(path: Path, rows: Any, metadata: Mapping[str, Any], opening: Opening | None = None) -> None:
    """Check rows and write them, whole or not at all.

    Args:
        rows: a pandas DataFrame, a pyarrow Table, or an iterable of mappings; `OPTIONAL` columns may be left out.
        metadata: at least what `run_info.run_info` gives.
        opening: the ledger's line for the dev set; needed where a row is of the split `dev`.

    Raises:
        DataError: a check of `check` fails, dev rows come without an opening, or the file cannot be written.
    """
    table = to_arrow(rows)
    _check_metadata(metadata, str(path))
    check(table, str(path))
    if "dev" in pc.unique(table["split"]).to_pylist():
        if opening is None:
            raise DataError(f"{path}: dev rows without a line in the ledger", "score the dev set with --open-dev")
        opening.check(str(metadata["dataset_sha256"]))
        metadata = {**metadata, "dev_opening": opening.id}
    table = table.replace_schema_metadata({METADATA: json.dumps(dict(metadata)).encode()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            pq.write_table(table, part, compression="zstd")
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}", "give another place") from error


def read(path: Path, opening: Opening | None = None) -> ScoreTable:
    """Read and check a table without its dev rows, or, for an opening that the ledger holds, these alone.

    The filter is applied while reading.

    Raises:
        DataError: the file is missing, unreadable, no table of scores, or fails a check of `check` or of the opening.
    """
    metadata = read_metadata(path)
    wanted, lacking = pc.field("split") != "dev", f"{NO_ROWS} outside the split dev"
    if opening is not None:
        opening.check(metadata["dataset_sha256"])
        wanted, lacking = pc.field("split") == "dev", f"{NO_ROWS} of the split dev"
    try:
        # A row without a split is read as well: `to_arrow` refuses it, and the filter would drop it in silence.
        table = to_arrow(pq.read_table(path, filters=wanted | pc.field("split").is_null()))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {_first_line(error)}", AGAIN) from error
    if not table.num_rows:
        raise DataError(f"{path} has {lacking}", AGAIN)
    check(table, str(path))
    return ScoreTable(table.to_pandas(), metadata)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a file, without reading a row. Raises DataError for a file that is no table of scores."""
    try:
        found = (pq.read_schema(path).metadata or {}).get(METADATA)
        metadata = None if found is None else json.loads(found)
    except FileNotFoundError as error:
        raise DataError(f"no table of scores {str(path)!r}", "make it with faceauth lab score") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {_first_line(error)}", AGAIN) from error
    return _check_metadata(metadata, str(path))


def merge(tables: Sequence[ScoreTable]) -> ScoreTable:
    """One table of several, at least one, such as a detector's and its controls'; `merged` has the metadata of each.

    Raises DataError where they are of different data sets, share rows, or disagree about an image or a model.
    """
    hashes = {table.metadata["dataset_sha256"] for table in tables}
    if len(hashes) > 1:
        named = ", ".join(sorted(h[:12] for h in hashes))
        raise DataError(f"the tables are of different data sets ({named})", "score all models on one data set")
    rows = pa.concat_tables([to_arrow(table.rows) for table in tables])
    check(rows, "the merged tables")
    parts = [dict(table.metadata) for table in tables]
    metadata = {key: value for part in parts for key, value in part.items()}
    for key in ("calibration", "controls"):  # by model; each file has its own models
        metadata[key] = {name: value for part in parts for name, value in part.get(key, {}).items()}
    metadata["notes"] = list(dict.fromkeys(note for part in parts for note in part.get("notes", [])))
    return ScoreTable(rows.to_pandas(), {**metadata, "merged": parts})


def to_arrow(rows: Any) -> pa.Table:
    """Rows as a pyarrow Table with the columns and types of `SCHEMA`, in its order.

    A NaN in a DataFrame becomes null and a NaN in mappings or a Table stays NaN; `check` refuses either where a logit
    is due. Raises DataError for a missing column or a value of another type.
    """
    try:
        if isinstance(rows, pd.DataFrame):
            table = pa.Table.from_pandas(rows, preserve_index=False)
        else:
            table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows))
        missing = [name for name in SCHEMA.names if name not in table.column_names]
        if wrong := [name for name in missing if name not in OPTIONAL]:
            raise DataError(f"the table of scores lacks the columns {', '.join(wrong)}", AGAIN)
        for name in missing:
            table = table.append_column(name, pa.nulls(table.num_rows, SCHEMA.field(name).type))
        table = table.select(SCHEMA.names)
        if lacking := [f.name for f in SCHEMA if not f.nullable and table[f.name].null_count]:
            raise DataError(f"the table of scores lacks values in the column {lacking[0]}", AGAIN)
        return table.cast(SCHEMA)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise DataError(f"a column of the table of scores has another type: {_first_line(error)}", AGAIN) from error


def check(table: pa.Table, name: str) -> None:
    """What holds for every table, complete or not.

    Raises:
        DataError: it is empty; an unknown label, split, deal or variant; a logit that is NaN, infinite or missing; a
            logit for an image without a face; a row that comes twice; two rows that disagree about one image; two
            hashes for one model, which is a score kept after the model changed.
    """
    if not table.num_rows:
        raise DataError(f"{name}: the table of scores has no rows", AGAIN)
    known = {"label": LABELS, "split": ("", *SPLITS), "deal": DEALS, "variant": (*VARIANTS, PREPARED)}
    for column, allowed in known.items():
        if unknown := set(pc.unique(table[column]).to_pylist()) - set(allowed):
            raise DataError(f"{name}: unknown {column} {sorted(unknown)[0]!r}", f"one of {', '.join(allowed)}")
    _check_logits(table, name)
    frame = table.select([*KEY, *OF_IMAGE, "model_sha256", "held_out"]).to_pandas()
    twice = frame.duplicated(list(KEY))
    if twice.any():
        row = frame[twice].iloc[0]
        raise DataError(
            f"{name}: {int(twice.sum())} rows come twice, the first {row['image']!r}, {row['variant']}, by "
            f"{row['model']} (seed {row['seed']}, fold {row['fold']})", "give each file of scores once",
        )  # fmt: skip
    for column in OF_IMAGE:
        if image := _disagreeing(frame, ["image"], column):
            raise DataError(f"{name}: two values of {column} for the image {image[0]!r}", AGAIN)
    if model := _disagreeing(frame, ["model", "deal", "seed", "fold"], "model_sha256"):
        raise DataError(
            f"{name}: scores of two files of the model {model[0]} (seed {model[2]}, fold {model[3]}): the model has "
            "changed since some of them were computed", AGAIN,
        )  # fmt: skip
    for deal in DEALS:
        if mixed := _disagreeing(frame[frame["deal"] == deal], ["model", "seed", "fold", deal], "held_out"):
            raise DataError(f"{name}: the {deal} {mixed[3]} is held out from {mixed[0]} for some images only", AGAIN)


def _check_logits(table: pa.Table, name: str) -> None:
    for column, values, wrong in (
        ("logit", table["logit"].drop_null(), "NaN or infinite"),
        ("swap_logit", table["swap_logit"].drop_null(), "NaN or infinite"),
        ("view_logits", pc.list_flatten(table["view_logits"]), "NaN or infinite, or missing"),  # no list lacks a value
    ):
        if count := len(values) - (pc.sum(pc.is_finite(values)).as_py() or 0):
            raise DataError(f"{name}: {count} values of {column} are {wrong}", AGAIN)
    due = pc.and_(table["face"], pc.is_null(table["error"]))
    missing = pc.and_(due, pc.is_null(table["logit"]))
    if count := pc.sum(missing).as_py():
        first = table.filter(missing).slice(0, 1).to_pylist()[0]
        raise DataError(
            f"{name}: {count} logits are missing though a face was found and there was no error, the first of "
            f"{first['image']!r}, {first['variant']}", AGAIN,
        )  # fmt: skip
    if count := pc.sum(pc.and_(pc.invert(due), pc.is_valid(table["logit"]))).as_py():
        raise DataError(f"{name}: {count} images have a logit and no face, or an error", AGAIN)


def _disagreeing(frame: pd.DataFrame, keys: Sequence[str], column: str) -> tuple[Any, ...]:
    """The first key with two values of a column; empty where there is none."""
    pairs = frame[[*keys, column]].drop_duplicates()
    twice = pairs[pairs.duplicated(list(keys))]
    return () if twice.empty else tuple(twice.iloc[0][list(keys)])


def _check_metadata(metadata: Any, name: str) -> dict[str, Any]:
    if not isinstance(metadata, Mapping):
        raise DataError(f"{name} is no table of scores: it has no {METADATA.decode()!r} metadata", AGAIN)
    if missing := [key for key in _REQUIRED_METADATA if not metadata.get(key)]:
        raise DataError(f"{name}: the metadata lacks {', '.join(missing)}", AGAIN)
    found = {key: value for key, value in metadata.items() if value is not None or key not in _OPTIONAL_METADATA}
    for key, is_right in _OPTIONAL_METADATA.items():
        if key in found and not is_right(found[key]):
            raise DataError(f"{name}: the metadata {key!r} is damaged", AGAIN)
    return found


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
