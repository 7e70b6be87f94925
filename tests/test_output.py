import csv
import io
import json
import os
import sys
import zipfile

import pyarrow.parquet as pq
import pytest

from conftest import picture
from faceauth.errors import MissingExtra, UsageError
from faceauth.output import FIELDS, FileOutput, TableOutput, printable, rows, sentence
from faceauth.verdict import Face, Verdict

FACE = Face(0, (1, 2, 30, 40), "fake", 0.75, "stylegan2", 0.6, 0.05, stability=0.8)
GOOD = Verdict("a.png", (FACE, Face(1, (5, 5, 9, 9), "uncertain", None, None, 0.6, 0.05, "face too small")), "m", "f" * 64,
               "e" * 64, 96, 96, 3.5)  # fmt: skip
BAD = Verdict("=b\n.png", (), "m", "f" * 64, ms=0.1, error="the file is empty")
EMPTY = Verdict("c.png", (), "m", "f" * 64, "e" * 64, 96, 96, 3.5)
SUFFIXES = [".jsonl", ".csv", ".xlsx", ".parquet", ".html"]


def written(path, verdicts=(GOOD, BAD), **options):
    with FileOutput(path, **options) as output:
        for verdict in verdicts:
            output.write(verdict)
    return path


def test_rows_hold_exactly_the_fields_one_a_face():
    assert [tuple(r) for r in rows(GOOD)] == [FIELDS, FIELDS]
    first, second = rows(GOOD)
    assert (first["face"], first["box"], first["score"], first["error"]) == (0, [1, 2, 30, 40], 0.75, None)
    assert (second["score"], second["error"]) == (None, "face too small")
    assert (first["stability"], second["stability"]) == (0.8, None)
    (bad,) = rows(BAD)
    assert (bad["label"], bad["face"], bad["error"]) == (None, None, "the file is empty")


def test_a_picture_without_a_face_is_a_row_that_says_so():
    (row,) = rows(EMPTY)
    assert tuple(row) == FIELDS
    assert (row["label"], row["score"], row["threshold"], row["error"]) == ("no-face", None, None, None)
    assert sentence(row) == "no face found, nothing judged"


def test_a_row_says_why_it_is_uncertain():
    face = Face(0, (1, 2, 30, 40), "uncertain", 0.5, "camera", 0.6, 0.05, reason="between thresholds")
    (row,) = rows(Verdict("a.png", (face,), "m", "f" * 64))
    assert row["reason"] == "between thresholds"
    assert "between thresholds" in sentence(row)


def test_json_lines(tmp_path):
    lines = written(tmp_path / "o.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows(GOOD) + rows(BAD)


def test_csv(tmp_path):
    with open(written(tmp_path / "o.csv"), newline="") as file:
        found = list(csv.DictReader(file))
    assert tuple(found[0]) == FIELDS
    assert found[0]["box"] == "1 2 30 40"
    assert found[2]["path"] == "=b\n.png"
    assert found[2]["score"] == ""


def test_parquet_keeps_types(tmp_path):
    table = pq.read_table(written(tmp_path / "o.parquet"))
    assert table.column_names == list(FIELDS)
    assert table["box"].to_pylist()[0] == [1, 2, 30, 40]
    assert table["score"].to_pylist() == [0.75, None, None]
    assert table["stability"].to_pylist() == [0.8, None, None]


def test_xlsx_holds_text_never_formulas(tmp_path):
    with zipfile.ZipFile(written(tmp_path / "o.xlsx")) as book:
        sheet = book.read("xl/worksheets/sheet1.xml").decode()
    assert "<f>" not in sheet
    assert "0.75" in sheet
    assert sheet.count("<row ") == 4


def test_html_escapes_names_and_copies_no_pixels(tmp_path):
    picture().save(tmp_path / "a.png")
    evil = Verdict('<script>"x.png', GOOD.faces, "m", "f" * 64, "e" * 64, 96, 96, 1.0)
    here = Verdict(str(tmp_path / "a.png"), GOOD.faces, "m", "f" * 64, "e" * 64, 96, 96, 1.0)
    page = written(tmp_path / "o.html", (evil, here, BAD)).read_text()
    assert "<script>" not in page
    assert 'src="a.png"' in page
    assert "base64" not in page
    assert page.count("<figure>") == 3
    assert '<rect class="fake" x="1" y="2" width="29" height="38"/>' in page


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_output_is_not_overwritten_unasked(tmp_path, suffix):
    path = tmp_path / f"o{suffix}"
    path.write_text("precious")
    with pytest.raises(UsageError, match="--overwrite"):
        FileOutput(path)
    assert path.read_text() == "precious"
    written(path, overwrite=True)
    assert path.read_bytes() != b"precious"


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_a_broken_run_leaves_no_half_file_under_the_name(tmp_path, suffix):
    path = tmp_path / f"o{suffix}"
    path.write_text("precious")
    output = FileOutput(path, overwrite=True)
    with pytest.raises(RuntimeError), output:
        output.write(GOOD)
        raise RuntimeError
    assert path.read_text() == "precious"


def test_resume_judges_the_last_image_again_and_keeps_the_rest(tmp_path):
    path = written(tmp_path / "o.jsonl", (BAD, GOOD))
    with open(path, "a") as file:
        file.write('{"path": "torn')
    with FileOutput(path, resume=True) as output:
        assert output.done == {(BAD.path, BAD.model_sha256)}
        output.write(GOOD)
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows(BAD) + rows(GOOD)


@pytest.mark.parametrize("content", ["not json\n", '{"other": 1}\n', "[1]\n"])
def test_resume_refuses_a_foreign_file(tmp_path, content):
    path = tmp_path / "o.jsonl"
    path.write_text(content)
    with pytest.raises(UsageError, match="not an output"):
        FileOutput(path, resume=True)
    assert path.read_text() == content


@pytest.mark.parametrize(("name", "options"), [("o.txt", {}), ("o", {}), ("no/o.csv", {}), ("o.csv", {"resume": True})])
def test_impossible_outputs_are_refused_at_once(tmp_path, name, options):
    with pytest.raises(UsageError):
        FileOutput(tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_extra_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"faceauth\[parquet\]"):
        FileOutput(tmp_path / "o.parquet")


def test_a_full_disk_is_one_line(tmp_path):
    os.symlink("/dev/full", tmp_path / "o.jsonl")
    with pytest.raises(UsageError, match="disk full"):
        written(tmp_path / "o.jsonl", overwrite=True)


def test_the_table_shows_every_face_and_says_what_was_not_drawn():
    stream = io.StringIO()
    with TableOutput(stream, limit=3) as output:
        output.write(GOOD)
        output.write(EMPTY)
        output.write(BAD)
    shown = stream.getvalue()
    assert "stylegan2" in shown
    assert "face too small" in shown
    assert "no-face" in shown
    assert "80% of the views" in " ".join(shown.split())
    assert "1 rows more" in shown
    assert "=b" not in shown


def test_printable_takes_the_teeth_out():
    assert printable("a\x1b[31mb\n") == "a\\x1b[31mb\\n"
    assert printable("\udcff.png") == "\\udcff.png"
    assert printable("Zoë 图.png") == "Zoë 图.png"
