import json

import pytest

pytest.importorskip("pandas")
pytest.importorskip("sklearn")
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from faceauth.errors import DataError
from faceauth.lab.evaluation import ledger, score_table
from faceauth.lab.evaluation.evaluate import evaluate
from faceauth.lab.evaluation.pages import header, write_evaluation
from score_tables import METADATA, fold_rows, image_row, row

GOOD = [row(image_row(i, kind), float(i), view_logits=[0.5, 1.5]) for kind in ("camera0", "gan0") for i in range(3)]


def changed(**values):
    """The good rows, the second one changed."""
    return [GOOD[0], GOOD[1] | values, *GOOD[2:]]


def test_a_table_comes_back_as_it_was_written(tmp_path):
    file = tmp_path / "deep" / "scores.parquet"
    score_table.write(file, GOOD, METADATA)
    found = score_table.read(file)
    assert found.rows["logit"].tolist() == [r["logit"] for r in GOOD]
    assert found.rows["view_logits"][0].tolist() == [0.5, 1.5]
    assert found.rows["swap_logit"].isna().all()
    assert found.metadata["dataset_sha256"] == METADATA["dataset_sha256"]
    assert pq.read_schema(file).equals(score_table.SCHEMA)
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"logit": float("nan")}, "1 values of logit are NaN or infinite"),
        ({"logit": float("inf")}, "1 values of logit are NaN or infinite"),
        ({"swap_logit": float("nan")}, "1 values of swap_logit are NaN"),
        ({"view_logits": [0.0, float("-inf")]}, "1 values of view_logits are NaN"),
        ({"view_logits": [None, 1.0]}, "1 values of view_logits are NaN or infinite, or missing"),
        ({"logit": None}, "1 logits are missing though a face was found"),
        ({"face": False}, "1 images have a logit and no face"),
        ({"error": "cannot be decoded"}, "1 images have a logit and no face, or an error"),
        ({"label": "Fake"}, "unknown label 'Fake'"),
        ({"split": "validation"}, "unknown split 'validation'"),
        ({"variant": "Clean"}, "unknown variant 'Clean'"),
        ({"image": GOOD[0]["image"], "image_sha256": GOOD[0]["image_sha256"]}, "1 rows come twice"),
        ({"variant": "web", "image": GOOD[0]["image"]}, "two values of image_sha256"),
        ({"model_sha256": "9" * 64}, "the model has changed"),
        ({"held_out": True}, "the kind camera0 is held out from net for some images only"),
        ({"logit": "high"}, "another type"),
        ({"kind": None}, "lacks values in the column kind"),
    ],
    ids=lambda v: v if isinstance(v, str) else "-".join(v),
)
def test_a_wrong_row_is_refused_when_written_and_nothing_is_left_behind(tmp_path, values, said):
    with pytest.raises(DataError, match=said) as error:
        score_table.write(tmp_path / "scores.parquet", changed(**values), METADATA)
    assert error.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_row_is_refused_when_read(tmp_path):
    """Another program may have written the file."""
    table = score_table.to_arrow(changed(logit=float("nan")))
    pq.write_table(table.replace_schema_metadata({b"faceauth": json.dumps(METADATA).encode()}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="NaN"):
        score_table.read(tmp_path / "a.parquet")


def test_a_row_without_a_split_is_refused_when_read(tmp_path):
    columns = score_table.to_arrow(GOOD)
    split = pa.array([None, *["test"] * (len(GOOD) - 1)])
    columns = columns.drop(["split"]).append_column("split", split)
    file = tmp_path / "a.parquet"
    pq.write_table(columns.replace_schema_metadata({b"faceauth": json.dumps(METADATA).encode()}), file)
    with pytest.raises(DataError, match="lacks values in the column split"):
        score_table.read(file)


@pytest.mark.parametrize("key", ["calibration", "controls", "notes"])
def test_damaged_metadata_is_refused_in_one_line_and_null_is_absent(tmp_path, key):
    file = tmp_path / "a.parquet"
    for damaged in (1, {"net": 1} if key == "controls" else [1]):
        with pytest.raises(DataError, match=f"the metadata '{key}' is damaged"):
            score_table.write(file, GOOD, METADATA | {key: damaged})
    score_table.write(file, GOOD, METADATA | {key: None})
    assert key not in score_table.read(file).metadata


def test_a_nan_of_a_data_frame_is_a_missing_logit(tmp_path):
    frame = score_table.to_arrow(GOOD).to_pandas()
    frame.loc[2, "logit"] = float("nan")
    with pytest.raises(DataError, match="1 logits are missing"):
        score_table.write(tmp_path / "a.parquet", frame, METADATA)


def test_an_image_without_a_face_has_a_row_without_a_logit(tmp_path):
    score_table.write(tmp_path / "a.parquet", changed(face=False, logit=None), METADATA)
    assert score_table.read(tmp_path / "a.parquet").rows["logit"].isna().sum() == 1


@pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing", b"path,score\n"])
def test_a_file_that_is_no_parquet_says_so(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"cannot be read as Parquet.*score the models again"):
        score_table.read(tmp_path / "a.parquet")


def test_a_cut_off_file_says_so(tmp_path):
    score_table.write(tmp_path / "a.parquet", GOOD, METADATA)
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        score_table.read(tmp_path / "a.parquet")


def test_a_missing_file_and_another_table_say_so(tmp_path):
    with pytest.raises(DataError, match="no table of scores"):
        score_table.read(tmp_path / "a.parquet")
    pq.write_table(score_table.to_arrow(GOOD), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no 'faceauth' metadata"):
        score_table.read(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="metadata lacks commit"):
        score_table.write(tmp_path / "a.parquet", GOOD, METADATA | {"commit": ""})


def test_a_missing_column_says_so(tmp_path):
    with pytest.raises(DataError, match="lacks the columns kind"):
        score_table.write(tmp_path / "a.parquet", [{k: v for k, v in r.items() if k != "kind"} for r in GOOD], METADATA)


def test_tables_of_several_models_are_merged():
    rows = score_table.to_arrow(fold_rows(per_kind=2)).to_pandas()
    other = rows.assign(model="thumbnail", model_sha256="t" * 64)
    tables = [score_table.ScoreTable(r, METADATA) for r in (rows, other)]
    merged = score_table.merge(tables)
    assert len(merged.rows) == 2 * len(rows)
    assert set(merged.rows["model"]) == {"net", "thumbnail"}
    with pytest.raises(DataError, match="rows come twice"):
        score_table.merge([tables[0], tables[0]])
    with pytest.raises(DataError, match="different data sets"):
        score_table.merge([tables[0], score_table.ScoreTable(other, METADATA | {"dataset_sha256": "e" * 64})])
    stale = rows.assign(variant="web", model_sha256="0" * 64)
    with pytest.raises(DataError, match="the model has changed"):
        score_table.merge([tables[0], score_table.ScoreTable(stale, METADATA)])


def test_the_notes_and_the_making_of_every_merged_table_are_in_the_report():
    rows = score_table.to_arrow(fold_rows(per_kind=4)).to_pandas()
    first = METADATA | {"notes": ["a note", "of the detector"], "command": "faceauth lab train", "commit": "1" * 40}
    second = METADATA | {"notes": ["a note", "of the other"], "command": "faceauth lab score", "commit": "2" * 40}
    other = rows.assign(model="other", model_sha256="o" * 64)
    tables = [score_table.ScoreTable(rows, first), score_table.ScoreTable(other, second)]
    found = evaluate(score_table.merge(tables), draws=10)
    assert found["remarks"][:3] == ["a note", "of the detector", "of the other"]
    said = [line for line in header(found) if line.startswith("scores: ")]
    assert [line.split(", version")[0] for line in said] == [
        "scores: faceauth lab train, commit 111111111111",
        "scores: faceauth lab score, commit 222222222222",
    ]


def test_a_remark_says_what_the_calibration_of_a_model_file_was_fitted_on():
    rows = [row(image_row(i, kind), float(kind == "gan0") + i) for kind in ("camera0", "gan0") for i in range(9)]
    shipped = {"scale": 1, "shift": 0, "fake_from": 0.9, "real_to": 0.1, "measured_on": "test images of its sources"}
    frame = score_table.to_arrow(rows).to_pandas()
    for calibration, count in (({"net": shipped}, 1), ({}, 0)):
        found = evaluate(score_table.ScoreTable(frame, METADATA | {"calibration": calibration}), draws=10)
        said = [remark for remark in found["remarks"] if "fitted on test images of its sources" in remark]
        assert len(said) == count


def test_a_folder_keeps_no_table_of_an_earlier_evaluation_and_what_is_the_users(tmp_path):
    rows = fold_rows(("camera0", "camera1", "gan0", "gan1", "swapper0"), per_kind=4)
    for kept in (rows, [r for r in rows if r["family"] != "swap"]):
        frame = score_table.to_arrow(kept).to_pandas()
        write_evaluation(evaluate(score_table.ScoreTable(frame, METADATA), draws=10), tmp_path)
        found = {file.name for file in tmp_path.iterdir()}
        assert ("special.csv" in found) == (kept is rows)
        (tmp_path / "robustness.csv").write_text("mine\n")
    assert (tmp_path / "robustness.csv").read_text() == "mine\n"


def test_dev_rows_are_written_and_read_for_an_opening_alone(tmp_path):
    file, book = tmp_path / "scores.parquet", tmp_path / "dev_ledger.jsonl"
    rows = [*GOOD, row(image_row(7, "gan0", "dev"), 1.0)]
    with pytest.raises(DataError, match="dev rows without a line in the ledger"):
        score_table.write(file, rows, METADATA)
    opening = ledger.open_dev(book, METADATA["dataset_sha256"], {"net": "a" * 64}, "score")
    score_table.write(file, rows, METADATA, opening)
    assert set(score_table.read(file).rows["split"]) == {"test"}
    assert score_table.read(file, opening).rows["image"].tolist() == ["images/gan0/007.png"]
    invented = ledger.Opening(book, "0" * 32, METADATA["dataset_sha256"])
    with pytest.raises(DataError, match="no line for this opening"):
        score_table.read(file, invented)
    other = ledger.open_dev(book, "e" * 64, {}, "evaluate")
    with pytest.raises(DataError, match="of data set"):
        score_table.read(file, other)
    book.unlink()
    with pytest.raises(DataError, match="no line for this opening"):
        score_table.read(file, opening)


def test_the_ledger_counts_openings_and_refuses_a_damaged_line(tmp_path):
    book = tmp_path / "deep" / "dev_ledger.jsonl"
    for _ in range(2):
        ledger.open_dev(book, "d" * 64, {"net": "a" * 64}, "evaluate")
    lines = ledger.read_ledger(book)
    assert [line["number"] for line in lines] == [1, 2]
    assert lines[0]["models"] == {"net": "a" * 64}
    with open(book, "a") as file:
        file.write('{"id": "half')
    with pytest.raises(DataError, match="line 3 of the ledger"):
        ledger.open_dev(book, "d" * 64, {}, "evaluate")


@pytest.mark.parametrize("line", [b"5", b"[]", b'{"id": "\xff"}', b"null"])
def test_a_line_of_the_ledger_that_is_no_object_in_utf8_is_damaged(tmp_path, line):
    (tmp_path / "a.jsonl").write_bytes(b'{"id": "a"}\n' + line + b"\n")
    with pytest.raises(DataError, match="line 2 of the ledger"):
        ledger.read_ledger(tmp_path / "a.jsonl")


def test_a_ledger_without_a_final_newline_keeps_its_last_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": "a"}')
    ledger.open_dev(tmp_path / "a.jsonl", "d" * 64, {}, "score")
    ledger.open_dev(tmp_path / "a.jsonl", "d" * 64, {}, "score")
    assert [line.get("number") for line in ledger.read_ledger(tmp_path / "a.jsonl")] == [None, 2, 3]


def test_the_line_is_on_the_disk_before_the_opening_exists(tmp_path, monkeypatch):
    """Without fsync a crash right after scoring could lose the line."""
    synced = []
    monkeypatch.setattr(ledger.os, "fsync", synced.append)
    ledger.open_dev(tmp_path / "a.jsonl", "d" * 64, {}, "score")
    assert len(synced) == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=8))
def test_what_is_written_is_finite(logits):
    rows = score_table.to_arrow([row(image_row(i, "gan0"), v) for i, v in enumerate(logits)])
    if all(abs(v) < float("inf") for v in logits):
        score_table.check(rows, "it")
    else:
        with pytest.raises(DataError, match="NaN or infinite"):
            score_table.check(rows, "it")
