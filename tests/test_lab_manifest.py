import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("pydantic")
pytest.importorskip("xlsxwriter")
pytest.importorskip("python_calamine")
from python_calamine import CalamineWorkbook

from faceauth.errors import DataError
from faceauth.lab.data import manifest as module
from faceauth.lab.data.manifest import COLUMNS, DETAILS, Row, read_manifest, write_manifest

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
        Row(
            f"/data/{i}.png", f"images/{i}.jpg", "wiki" if i % 2 else "gan", ("train", "test", "dev")[i % 3], i % 2,
            f"{i:064x}", 100 + i, 200, f"g{i}" if i % 2 else "", "real" if i % 2 else "gan", (1.25, 2.5, 30.75, 40.01) if i % 3 else None,
        )
        for i in range(count)
    ]  # fmt: skip
    return [dataclasses.replace(row, **changes) for row in made]


def lay(folder, made):
    for row in made:
        path = folder / row.destination_path
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
    again = read_manifest(tmp_path / f"manifest.{suffix}")
    assert again.rows == written.rows
    assert again.sha256 == written.sha256
    assert not list(tmp_path.glob("*.part"))


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
    written = lay(
        tmp_path, [dataclasses.replace(r, image_path=odd, group=odd, folder=f"{odd}{r.target}") for r in rows(2)]
    )
    assert read_manifest(tmp_path / f"manifest.{suffix}").rows == written.rows


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\0￾￿"), min_size=1, max_size=30))
def test_any_text_stays_text(tmp_path, text):
    written = lay(tmp_path, rows(1, image_path=text, group=text))
    for suffix in ("xlsx", "parquet"):
        assert read_manifest(tmp_path / f"manifest.{suffix}").rows == written.rows


def test_six_columns_are_enough_and_rows_may_go(tmp_path):
    lay(tmp_path, rows(5))
    read = read_manifest(edit(tmp_path, lambda t: t[:1] + t[3:]))
    assert [r.destination_path for r in read.rows] == ["images/0.jpg", "images/3.jpg", "images/4.jpg"]
    assert read.rows[0] == Row("/data/0.png", "images/0.jpg", "gan", "train", 0)


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
    assert read_manifest(path).rows == written.rows[2:]


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
    (lambda t: [*t, t[1]], "row 6: destination_path stands in an earlier row"),
    (lambda t: [*t[:2], [], [], *t[2:3], [*t[3][:3], "x", *t[3][4:]]], "row 7: unknown split 'x'"),
    (put(3, "Folder", "gan"), "row 3: gan is real here and fake in row 2"),
    (lambda t: t.clear() or [[]], "names no images"),
])  # fmt: skip
def test_a_fault_is_one_line_with_its_row(tmp_path, change, says):
    lay(tmp_path, rows(4))
    with pytest.raises(DataError) as caught:
        read_manifest(edit(tmp_path, change))
    assert says in caught.value.message
    assert "\n" not in caught.value.message


def test_many_faults_are_counted(tmp_path):
    lay(tmp_path, rows(20))
    path = edit(tmp_path, lambda t: [[*r[:3], "x" if k < 9 else r[3], *r[4:]] for k, r in enumerate(t)])
    (tmp_path / "images/15.jpg").unlink()
    with pytest.raises(DataError) as caught:
        read_manifest(path)
    first, second = caught.value.message.splitlines()
    assert "rows 2, 3, 4, 5, 6 and 4 more: unknown split 'x'" in first
    assert "row 17: the file of destination_path is missing" in second


@pytest.mark.parametrize("missing", COLUMNS)
def test_a_missing_column_is_named(tmp_path, missing):
    lay(tmp_path, rows(2))
    path = edit(tmp_path, lambda t: t, columns=[c.replace(missing, "other") if c == missing else c for c in COLUMNS])
    with pytest.raises(DataError, match=f"lacks the columns {missing}"):
        read_manifest(path)


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    lay(root, rows(3))
    (tmp_path / "other.jpg").write_bytes(b"x")
    (root / "images/1.jpg").unlink()
    (root / "images/1.jpg").symlink_to(tmp_path / "other.jpg")
    with pytest.raises(DataError, match="row 3: destination_path is a link that leads outside"):
        read_manifest(root / "manifest.xlsx")
    (root / "images").rename(tmp_path / "away")
    (root / "images").symlink_to(tmp_path / "away")
    with pytest.raises(DataError, match="leads outside"):
        read_manifest(root / "manifest.xlsx")


@pytest.mark.parametrize("name", ["none.xlsx", "none.parquet", "bad.xlsx", "bad.parquet"])
def test_no_table_is_one_line(tmp_path, name):
    if name.startswith("bad"):
        (tmp_path / name).write_bytes(b"not a table")
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        read_manifest(tmp_path / name)


def test_more_rows_than_a_sheet_has(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 3)
    with pytest.raises(DataError, match="more than an Excel sheet holds"):
        write_manifest(tmp_path, rows(4))
    assert not list(tmp_path.iterdir())
