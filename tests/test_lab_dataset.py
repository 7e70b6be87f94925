import dataclasses
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("pydantic")
pytest.importorskip("xlsxwriter")
pytest.importorskip("python_calamine")
from python_calamine import CalamineWorkbook

from faceauth.errors import DataError
from faceauth.lab.data import storing
from faceauth.lab.data.dataset import COLUMNS, DETAILS, ImageRow, read_dataset, read_kinds
from faceauth.lab.data.storing import write_manifest
from lab_corpus import write_corpus

ODD = (
    "=1+1",
    "NA",
    "nan",
    "None",
    "1e5",
    "0012",
    "+3",
    "-2",
    "@x",
    "TRUE",
    " lead",
    "tail ",
    "ü 脸",
    "http://x/y",
    "1/2/2020",
)


def rows(count=4, **changes):
    made = [
        ImageRow(
            f"images/{i}.jpg", "wiki" if i % 2 else "gan", "real" if i % 2 else "fake", "real" if i % 2 else "gan", "wiki" if i % 2 else "gan",
            f"g{i}" if i % 2 else "", "wiki" if i % 2 else "gan", f"{i:064x}", ("train", "test", "dev")[i % 3],
            (1.25, 2.5, 30.75, 40.01) if i % 3 else None, f"/data/{i}.png", 100 + i, 200,
        )
        for i in range(count)
    ]  # fmt: skip
    return [dataclasses.replace(row, **changes) for row in made]


def named(row, source, **changes):
    """The row, of another source."""
    return dataclasses.replace(row, source=source, generator=source, kind=source, **changes)


def lay(folder, made):
    for row in made:
        path = folder / row.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return write_manifest(folder, made)


def edit(folder, change, columns=COLUMNS, sheets=1):
    """Save the workbook anew as a hand would: numbers as numbers, `change` applied to the list of rows."""
    import xlsxwriter

    with CalamineWorkbook.from_path(str(folder / "manifest.xlsx")) as book:
        table = book.get_sheet_by_index(0).to_python()[1:]
    table = change(table) or table
    with xlsxwriter.Workbook(folder / "manifest.xlsx") as book:
        sheet = book.add_worksheet()
        for k, values in enumerate([list(columns), *table]):
            for j, value in enumerate(values):
                sheet.write(k, j, value)
    return folder / "manifest.xlsx"


@pytest.mark.parametrize("suffix", ["xlsx", "parquet"])
def test_what_is_written_is_read(tmp_path, suffix):
    written = lay(tmp_path, rows(7))
    again = read_dataset(tmp_path / f"manifest.{suffix}")
    assert again.rows == written.rows
    assert again.sha256 == written.sha256
    assert not list(tmp_path.glob(".*part"))


def test_the_first_sheet_is_the_study_s(tmp_path):
    lay(tmp_path, rows(2))
    with CalamineWorkbook.from_path(str(tmp_path / "manifest.xlsx")) as book:
        first, second = (book.get_sheet_by_index(k).to_python() for k in (0, 1))
    assert tuple(first[0]) == COLUMNS
    assert first[1:] == [
        ["/data/0.png", "images/0.jpg", "gan", "train", "fake", 0.0], ["/data/1.png", "images/1.jpg", "wiki", "test", "real", 1.0],
    ]  # fmt: skip
    assert second[0] == ["destination_path", *DETAILS]


@pytest.mark.parametrize("suffix", ["xlsx", "parquet"])
@pytest.mark.parametrize("odd", ODD)
def test_text_stays_text(tmp_path, odd, suffix):
    written = lay(tmp_path, [named(r, f"{odd}{r.target}", original=odd, group=odd) for r in rows(2)])
    assert read_dataset(tmp_path / f"manifest.{suffix}").rows == written.rows


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\0￾￿"), min_size=1, max_size=30))
def test_any_text_stays_text(tmp_path, text):
    written = lay(tmp_path, rows(1, original=text, group=text))
    for suffix in ("xlsx", "parquet"):
        assert read_dataset(tmp_path / f"manifest.{suffix}").rows == written.rows


def test_six_columns_are_enough_and_rows_may_go(tmp_path):
    lay(tmp_path, rows(5))
    read = read_dataset(edit(tmp_path, lambda t: t[:1] + t[3:]))
    assert [r.path for r in read.rows] == ["images/0.jpg", "images/3.jpg", "images/4.jpg"]
    assert read.rows[0] == ImageRow(
        "images/0.jpg", "gan", "fake", "", "gan", "", "gan", "", "train", original="/data/0.png"
    )


def test_rows_deleted_on_the_first_sheet_only_keep_their_details(tmp_path):
    written = lay(tmp_path, rows(5))
    with CalamineWorkbook.from_path(str(tmp_path / "manifest.xlsx")) as book:
        details = book.get_sheet_by_index(1).to_python()
    path = edit(tmp_path, lambda t: t[2:])
    import xlsxwriter

    with CalamineWorkbook.from_path(str(path)) as book:
        first = book.get_sheet_by_index(0).to_python()
    with xlsxwriter.Workbook(path) as book:
        for table in (first, details):
            sheet = book.add_worksheet()
            for k, values in enumerate(table):
                sheet.write_row(k, 0, values)
    assert read_dataset(path).rows == written.rows[2:]


def put(row, column, value):
    def change(table):
        table[row - 2][COLUMNS.index(column)] = value

    return change


@pytest.mark.parametrize(("change", "says"), [
    (put(3, "split", "trian"), "row 3: unknown split 'trian'"),
    (put(4, "target_class", "genuine"), "row 4: unknown target_class 'genuine'"),
    (put(2, "target", 1), "row 2: target 1 contradicts target_class fake"),
    (put(2, "target", 7), "row 2: target '7' is neither"),
    (put(2, "Folder", ""), "row 2: no Folder"),
    (put(5, "destination_path", "images/no.jpg"), "row 5: the file of destination_path is missing"),
    (put(5, "destination_path", "../x.jpg"), "row 5: destination_path leads outside"),
    (put(5, "destination_path", "images/../../x.jpg"), "row 5: destination_path leads outside"),
    (put(5, "destination_path", "/etc/passwd"), "row 5: destination_path leads outside"),
    (put(5, "destination_path", "C:\\x.jpg"), "row 5: destination_path leads outside"),
    (put(5, "destination_path", "images"), "row 5: destination_path is no file"),
    (lambda t: [*t, t[1]], "row 6: destination_path is in an earlier row"),
    (lambda t: [*t[:2], [], [], *t[2:3], [*t[3][:3], "x", *t[3][4:]]], "row 7: unknown split 'x'"),
    (put(3, "Folder", "gan"), "row 3: gan is real here and fake in row 2"),
    (lambda t: t.clear() or [[]], "names no images"),
])  # fmt: skip
def test_a_fault_is_one_line_with_its_row(tmp_path, change, says):
    lay(tmp_path, rows(4))
    with pytest.raises(DataError) as caught:
        read_dataset(edit(tmp_path, change))
    assert says in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(("column", "value", "says"), [
    ("width", math.inf, "row 2: width 'inf' is no number"), ("height", "1e999", "row 2: height '1e999' is no number"),
    ("face_left", "nan", "row 2: face_left 'nan' is no number"), ("face_top", -math.inf, "row 2: face_top '-inf' is no number"),
    ("face_left", 50.0, "row 2: face_left is not below face_right"), ("face_bottom", 2.5, "face_top not below face_bottom"),
    ("face_right", math.nan, "row 2: no face_right"),
])  # fmt: skip
def test_a_number_that_is_none_is_named_with_its_column(tmp_path, column, value, says):
    import pyarrow as pa
    from pyarrow import parquet

    lay(tmp_path, rows(3))
    records = parquet.read_table(tmp_path / "manifest.parquet").to_pylist()
    records[1][column] = value
    columns = {name: [record[name] for record in records] for name in records[0]}
    if isinstance(value, str):
        columns[column] = [None if v is None else str(v) for v in columns[column]]
    parquet.write_table(pa.table(columns), tmp_path / "manifest.parquet")
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path / "manifest.parquet")
    assert says in caught.value.message
    assert "\n" not in caught.value.message


def test_a_cell_that_is_nan_is_an_empty_one(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    lay(tmp_path, rows(3))
    table = parquet.read_table(tmp_path / "manifest.parquet")
    nan = pa.array([math.nan] * 3)
    for column in ("group", "sha256", "width", "face_left", "face_top", "face_right", "face_bottom"):
        table = table.set_column(table.column_names.index(column), column, nan)
    parquet.write_table(table, tmp_path / "manifest.parquet")
    found = read_dataset(tmp_path / "manifest.parquet").rows
    assert {(r.group, r.sha256, r.width, r.face) for r in found} == {("", "", 0, None)}


def test_two_columns_of_one_name_are_refused(tmp_path):
    lay(tmp_path, rows(3))
    path = edit(tmp_path, lambda t: [[*r, "dev"] for r in t], (*COLUMNS, "split"))
    with pytest.raises(DataError, match="has two columns 'split'"):
        read_dataset(path)


def test_many_faults_are_counted(tmp_path):
    lay(tmp_path, rows(20))
    path = edit(tmp_path, lambda t: [[*r[:3], "x" if k < 9 else r[3], *r[4:]] for k, r in enumerate(t)])
    (tmp_path / "images/15.jpg").unlink()
    with pytest.raises(DataError) as caught:
        read_dataset(path)
    first, second = caught.value.message.splitlines()
    assert "rows 2, 3, 4, 5, 6 and 4 more: unknown split 'x'" in first
    assert "row 17: the file of destination_path is missing" in second


@pytest.mark.parametrize("missing", COLUMNS)
def test_a_missing_column_is_named(tmp_path, missing):
    lay(tmp_path, rows(2))
    path = edit(tmp_path, lambda t: t, columns=[c.replace(missing, "other") if c == missing else c for c in COLUMNS])
    with pytest.raises(DataError, match=f"lacks the columns {missing}"):
        read_dataset(path)


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    lay(root, rows(3))
    (tmp_path / "other.jpg").write_bytes(b"x")
    (root / "images/1.jpg").unlink()
    (root / "images/1.jpg").symlink_to(tmp_path / "other.jpg")
    with pytest.raises(DataError, match="row 3: destination_path is a link that leads outside"):
        read_dataset(root / "manifest.xlsx")
    (root / "images").rename(tmp_path / "away")
    (root / "images").symlink_to(tmp_path / "away")
    with pytest.raises(DataError, match="leads outside"):
        read_dataset(root / "manifest.xlsx")


@pytest.mark.parametrize("name", ["none.xlsx", "none.parquet", "bad.xlsx", "bad.parquet"])
def test_no_table_is_one_line(tmp_path, name):
    if name.startswith("bad"):
        (tmp_path / name).write_bytes(b"not a table")
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        read_dataset(tmp_path / name)


def test_more_rows_than_a_sheet_has(tmp_path, monkeypatch):
    monkeypatch.setattr(storing, "MOST_ROWS", 3)
    with pytest.raises(DataError, match="more than an Excel sheet holds"):
        write_manifest(tmp_path, rows(4))
    assert not list(tmp_path.iterdir())


# --- images.csv and Parquet of the same columns ---


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def test_a_corpus_is_read_by_its_folder_and_by_its_file(corpus):
    data = read_dataset(corpus)
    assert data == read_dataset(corpus / "images.csv")
    assert {r.source for r in data.rows if r.label == "real"} == {"cam-a", "cam-b"}
    assert {r.source for r in data.rows if r.fake} == {"gan-a", "gan-b"}
    assert len(data.rows) == 124
    assert sum(r.fake for r in data.rows) == 60
    assert {r.target for r in data.rows if r.label == "edited"} == {0}
    assert data.file(data.rows[0]) == corpus / "cam-a/000.png"
    assert {r.kind for r in data.rows} == {"cam-a", "cam-b", "gan-a", "gan-b", "hand"}
    assert {r.split for r in data.rows} == {""}


def test_parquet_says_the_same_and_has_a_hash_of_its_own_kind(corpus, tmp_path):
    import pandas as pd

    table = pd.read_csv(corpus / "images.csv", keep_default_na=False)
    table.to_parquet(corpus / "other.parquet", index=False)
    before = read_dataset(corpus / "other.parquet")
    assert before.rows == read_dataset(corpus).rows
    table.sample(frac=1, random_state=0).to_parquet(corpus / "other.parquet", index=False)
    assert read_dataset(corpus / "other.parquet").sha256 == before.sha256, "the order of rows does not matter"
    table.loc[3, "group"] = "another"
    table.to_parquet(corpus / "other.parquet", index=False)
    assert read_dataset(corpus / "other.parquet").sha256 != before.sha256


def test_kinds_come_from_a_table_or_a_column_or_are_the_source(corpus, tmp_path):
    (tmp_path / "kinds.csv").write_text("source,kind\ncam-a,cameras\ncam-b,cameras\n")
    rows = read_dataset(corpus, tmp_path / "kinds.csv").rows
    assert {r.source: r.kind for r in rows} == {
        "cam-a": "cameras",
        "cam-b": "cameras",
        "gan-a": "gan-a",
        "gan-b": "gan-b",
        "hand": "hand",
    }
    text = (corpus / "images.csv").read_text().splitlines()
    wide = [f"{text[0]},kind,split", *(f"{line},{'k1' if k % 2 else ''},dev" for k, line in enumerate(text[1:]))]
    (corpus / "wide.csv").write_text("\n".join(wide))
    read = read_dataset(corpus / "wide.csv").rows
    assert [r.kind for r in read[:2]] == ["cam-a", "k1"]
    assert {r.split for r in read} == {"dev"}


@pytest.mark.parametrize(("text", "says"), [
    ("source\na\n", "lacks the columns source, kind"),
    ("source,kind\na,\n", "row 2: no source or no kind"),
    ("source,kind\na,b\na,c\n", "row 3: a is in an earlier row already"),
])  # fmt: skip
def test_a_bad_table_of_kinds_is_one_line(tmp_path, text, says):
    (tmp_path / "kinds.csv").write_text(text)
    with pytest.raises(DataError, match=says):
        read_kinds(tmp_path / "kinds.csv")
    with pytest.raises(DataError, match="cannot read the kinds"):
        read_kinds(tmp_path / "none.csv")


@pytest.mark.parametrize(("change", "says"), [
    (lambda t: t.replace("source,label", "source,lable"), "lacks the columns label"),
    (lambda t: t.replace("cam-a,real", "cam-a,maybe", 1), "row 2: label 'maybe' is none of real, fake, edited"),
    (lambda t: t.replace("cam-a,real", "cam-a,fake", 1), "row 3: cam-a is real here and fake in row 2"),
    (lambda t: t.replace("cam-a/000.png", "../000.png", 1), "row 2: path leads outside"),
    (lambda t: t.replace("cam-a/000.png", "/etc/passwd", 1), "row 2: path leads outside"),
    (lambda t: t.replace("cam-a/000.png", "cam-a/no.png", 1), "row 2: the file of path is missing"),
    (lambda t: t.replace("cam-a/001.png", "cam-a/000.png", 1), "row 3: path is in an earlier row"),
    (lambda t: t.replace("cam-a,real", ",real", 1), "row 2: no source"),
    (lambda t: t.splitlines()[0], "names no images"),
    (lambda t: "", "lacks the columns path, source"),
])  # fmt: skip
def test_a_fault_in_a_corpus_is_one_line_with_its_row(tmp_path, change, says):
    root = write_corpus(tmp_path, count=2)
    (root / "images.csv").write_text(change((root / "images.csv").read_text()))
    with pytest.raises(DataError) as caught:
        read_dataset(root)
    assert says in caught.value.message
    assert "\n" not in caught.value.message


def test_a_folder_of_a_corpus_may_be_a_link(tmp_path):
    root = write_corpus(tmp_path / "a", count=2)
    (root / "cam-a").rename(tmp_path / "elsewhere")
    (root / "cam-a").symlink_to(tmp_path / "elsewhere")
    assert len(read_dataset(root).rows) == 12


def test_what_is_not_there_says_what_to_run(tmp_path):
    for path in (tmp_path, tmp_path / "none", tmp_path / "none.csv"):
        with pytest.raises(DataError) as caught:
            read_dataset(path)
        assert "faceauth lab corpus fetch configs/corpus.csv -o DIR" in caught.value.hint
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(DataError, match="no table of images"):
        read_dataset(tmp_path / "a.json")
    (tmp_path / "images.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="no table"):
        read_dataset(tmp_path)
