import contextlib
import csv
import gc
import hashlib
import io
import json
import math
import ntpath
import os
import re
import sys
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import needing, picture
from faceauth.errors import FaceAuthError, MissingExtra, UsageError
from faceauth.output import FIELDS, FileOutput, TableOutput, count, path_id, printable, rows, sentence, writers
from faceauth.output.gallery import link
from faceauth.output.rows import verdict_of
from faceauth.verdict import Face, Verdict

FACE = Face(0, (1, 2, 30, 40), "fake", 0.75, "stylegan2", 0.6, 0.05, stability=0.8)
GOOD = Verdict("a.png", (FACE, Face(1, (5, 5, 9, 9), "uncertain", None, None, 0.6, 0.05, "face too small")), "m", "f" * 64,
               "e" * 64, 96, 96, 3.5)  # fmt: skip
BAD = Verdict("=b\n.png", (), "m", "f" * 64, ms=0.1, error="the file is empty")
EMPTY = Verdict("c.png", (), "m", "f" * 64, "e" * 64, 96, 96, 3.5)
NO_FACE = Verdict("n.png", (Face(None, None, "no-face", None, None, 0.6, None),), "m", "f" * 64, "d" * 64, 8, 8, 1.0)
SUFFIXES = [".jsonl", ".json", ".csv", ".xlsx", needing("pyarrow", ".parquet"), ".html"]


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
    with open(written(tmp_path / "o.csv"), newline="", encoding="utf-8-sig") as file:
        found = list(csv.DictReader(file))
    assert tuple(found[0]) == FIELDS
    assert found[0]["box"] == "1 2 30 40"
    assert found[2]["path"] == "=b\n.png"
    assert found[2]["score"] == ""


def test_parquet_keeps_types(tmp_path):
    table = pytest.importorskip("pyarrow.parquet").read_table(written(tmp_path / "o.parquet"))
    assert table.column_names == list(FIELDS)
    assert table["box"].to_pylist()[0] == [1, 2, 30, 40]
    assert table["score"].to_pylist() == [0.75, None, None]
    assert table["stability"].to_pylist() == [0.8, None, None]


def test_parquet_keeps_a_name_as_it_is_but_for_stray_bytes(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    names = ["a\nb\t\x1b.jpg", "Zoë\u202e.png", "\udcff.png"]
    path = written(tmp_path / "o.parquet", [replace(GOOD, path=name) for name in names])
    found = pq.read_table(path)["path"].to_pylist()
    assert found[::2] == [*names[:2], "\\udcff.png"]


def test_xlsx_holds_text_never_formulas(tmp_path):
    with zipfile.ZipFile(written(tmp_path / "o.xlsx")) as book:
        sheet = book.read("xl/worksheets/sheet1.xml").decode()
    assert "<f>" not in sheet
    assert "0.75" in sheet
    assert sheet.count("<row ") == 4


def test_the_gallery_shows_small_copies_and_escapes_what_comes_from_outside(tmp_path):
    picture().save(tmp_path / "a.png")
    digest = hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    evil = Verdict('</noscript><script>"x.png', GOOD.faces, "m", "f" * 64, "e" * 64, 96, 96, 1.0)
    here = Verdict(str(tmp_path / "a.png"), GOOD.faces, "m", "f" * 64, digest, 96, 96, 1.0)
    other = Verdict(str(tmp_path / "a.png"), GOOD.faces, "m", "f" * 64, "e" * 64, 96, 96, 1.0)
    page = written(tmp_path / "o.html", (evil, here, BAD)).read_text()
    assert page.count("<script>") == 1  # its own
    assert page.count("</noscript>") == 3
    assert "script-src 'sha256-" in page
    assert 'href="a.png"' in page
    assert page.count("data:image/jpeg;base64,") == 1
    assert '<rect class="fake" x="1" y="2" width="29" height="38"/>' in page
    changed = written(tmp_path / "p.html", (other,)).read_text()
    assert "data:image/jpeg;base64," not in changed  # the file is not the one that was judged


def test_the_gallery_numbers_boxes_as_the_faces_beside_them(tmp_path):
    picture().save(path := tmp_path / "a.png")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    one = Verdict(str(path), GOOD.faces[::-1], "m", "f" * 64, digest, 96, 96, 1.0)  # as older outputs may have them
    page = written(tmp_path / "o.html", (one,)).read_text()
    assert re.findall(r'width="(\d+)" height="\d+"/><text [^>]*>(\d)</text>', page) == [("4", "2"), ("29", "1")]
    assert re.findall(r"<li>(\d)\. ", page) == ["2", "1"]


def test_the_gallery_shows_pictures_up_to_a_number_and_names_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr("faceauth.output.gallery.MOST_PICTURES", 2)
    verdicts = []
    for i in range(4):
        picture().save(path := tmp_path / f"{i}.png")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        verdicts.append(Verdict(str(path), GOOD.faces, "m", "f" * 64, digest, 96, 96, 1.0))
    page = written(tmp_path / "o.html", verdicts).read_text()
    assert page.count("data:image/jpeg;base64,") == 2
    assert "The first 2 pictures are shown" in page
    assert all(f'href="{i}.png"' in page for i in range(4))


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
    with pytest.raises(FaceAuthError, match="No space left.*disk full") as caught:
        written(tmp_path / "o.jsonl", overwrite=True)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("count", [1, 1000])
def test_a_workbook_on_a_full_disk_fails_once(tmp_path, count):
    """What its ZIP file throws when it is disposed of would be shown as a traceback; here a warning is an error."""
    writer = writers.XlsxWriter(Path("/dev/full"), tmp_path, FIELDS)
    for _ in range(count):
        writer.write(rows(GOOD)[0] | {"path": os.urandom(40).hex()})
    with pytest.raises(OSError, match="No space left on device") as caught:
        writer.close()
    assert caught.value.errno == 28 and caught.value.strerror == "No space left on device"
    del writer, caught
    gc.collect()
    assert list(tmp_path.iterdir()) == []


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


def test_a_row_says_by_what_and_when(tmp_path):
    import faceauth

    (row,) = rows(Verdict("a.png", (FACE,), "m", "f" * 64, learned_sha256="1" * 64, face_finder="dlib"))
    assert row["version"] == faceauth.__version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["judged_at"])
    assert (row["learned_sha256"], row["face_finder"], row["reason"]) == ("1" * 64, "dlib", None)


def test_a_path_has_one_id_however_it_is_spelled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spellings = ["a.png", "./a.png", "x/../a.png", str(tmp_path / "a.png")]
    assert len({path_id(s) for s in spellings}) == 1
    assert path_id("b.png") != path_id("a.png")
    assert path_id("-") is path_id(None) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_number_becomes_null_with_an_error(tmp_path, value):
    faces = (
        Face(0, (1, 2, 30, 40), "fake", value, "a", 0.6, 0.05, generator="a", generators=(("a", value),)),
        Face(1, None, "real", 0.1, "a", value, 0.05),
    )
    first, second = rows(Verdict("a.png", faces, "m", "f" * 64))
    assert (first["score"], first["label"], first["generators"]) == (None, "uncertain", {})
    assert (second["threshold"], second["score"]) == (None, 0.1)
    assert first["error"]
    assert "threshold" in second["error"]
    path = written(tmp_path / "o.jsonl", (Verdict("a.png", faces, "m", "f" * 64),))
    assert "NaN" not in path.read_text()
    assert "Infinity" not in path.read_text()


def test_no_face_is_shown_everywhere(tmp_path):
    (row,) = rows(NO_FACE)
    assert (row["label"], row["score"], row["error"], row["face"]) == ("no-face", None, None, None)
    assert "no face found" in sentence(row)
    assert NO_FACE.label == "no-face"
    tally = Counter()
    count(tally, [row])
    assert tally == {"images": 1, "no-face": 1}
    stream = io.StringIO()
    with TableOutput(stream) as table:
        table.write(NO_FACE)
    assert "no-face" in stream.getvalue()
    page = written(tmp_path / "o.html", (NO_FACE,)).read_text()
    assert '<span class="label no-face">no face</span>' in page


@pytest.mark.parametrize("verdict", [GOOD, NO_FACE])
def test_a_note_on_what_was_judged_is_shown_everywhere(tmp_path, verdict):
    noted = replace(verdict, note="an animation: its first frame was judged")
    (row, *_) = rows(noted)
    assert row["note"] == noted.note
    assert noted.note in sentence(row)
    stream = io.StringIO()
    with TableOutput(stream) as table:
        table.write(noted)
    assert "first frame" in " ".join(stream.getvalue().split())
    assert noted.note in written(tmp_path / "o.html", (noted,)).read_text()


def test_the_reason_is_shown_where_there_is_one(tmp_path):
    face = Face(0, None, "uncertain", 0.5, "a", 0.6, 0.05, reason="between the two thresholds")
    verdict = Verdict("a.png", (face,), "m", "f" * 64)
    assert "between the two thresholds" in sentence(rows(verdict)[0])
    stream = io.StringIO()
    with TableOutput(stream) as table:
        table.write(verdict)
    assert "between the two" in " ".join(stream.getvalue().split())


def test_json_is_one_array(tmp_path):
    assert json.loads(written(tmp_path / "o.json").read_text()) == rows(GOOD) + rows(BAD)
    assert json.loads(written(tmp_path / "none.json", ()).read_text()) == []


def test_csv_begins_with_a_byte_order_mark_and_holds_no_formula(tmp_path):
    face = Face(0, None, "fake", 0.9, "=1+1", 0.6, 0.05, generator="@sum", generators=(("@sum", 1.0),))
    path = written(tmp_path / "o.csv", (Verdict("Zoë.png", (face,), "-m", "f" * 64),))
    assert path.read_bytes().startswith(b"\xef\xbb\xbfpath,")
    with open(path, newline="", encoding="utf-8-sig") as file:
        (row,) = csv.DictReader(file)
    assert row["path"] == "Zoë.png"
    assert [row[n][:2] for n in ("source", "generator", "generators", "model")] == ["'=", "'@", "'@", "'-"]


@pytest.mark.parametrize("first", "=+-@")
def test_xlsx_keeps_formulas_as_text(tmp_path, first):
    path = written(tmp_path / "o.xlsx", (Verdict(f"{first}1+1", (FACE,), f"{first}m", "f" * 64),))
    with zipfile.ZipFile(path) as book:
        texts = [n for n in book.namelist() if n.endswith(".xml")]
        content = "".join(book.read(n).decode() for n in texts)
    assert "<f>" not in content
    assert f"{first}1+1" in content
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.xlsx"]


def test_xlsx_goes_on_on_another_sheet(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "SHEET_ROWS", 3)
    long = Verdict("x" * 40_000, (FACE,), "m", "f" * 64)
    with zipfile.ZipFile(written(tmp_path / "o.xlsx", (long,) * 5)) as book:
        sheets = [book.read(f"xl/worksheets/sheet{i}.xml").decode() for i in (1, 2, 3)]
    assert [s.count("<row ") for s in sheets] == [3, 3, 2]
    assert "x" * writers.CELL_CHARACTERS in sheets[0]


@pytest.mark.parametrize(("picture", "folder", "url"), [
    (r"D:\photos\a b#1.jpg", r"C:\reports", "file:///D:/photos/a%20b%231.jpg"),
    (r"C:\photos\a b.jpg", r"C:\reports", "../photos/a%20b.jpg"),
    (r"c:\photos\a.jpg", r"C:\reports", "../photos/a.jpg"),
    (r"\\server\share\a b.jpg", r"C:\reports", "file://server/share/a%20b.jpg"),
])  # fmt: skip
def test_links_on_windows(picture, folder, url):
    assert link(picture, folder, ntpath) == url


def test_upper_case_suffixes_are_formats_too(tmp_path):
    assert written(tmp_path / "V.CSV").read_bytes().startswith(b"\xef\xbb\xbfpath,")
    assert zipfile.is_zipfile(written(tmp_path / "V.XLSX"))


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_rows_are_kept_where_the_file_cannot_be_finished(tmp_path, monkeypatch, suffix):
    class Failing:
        def __init__(self, path, folder, fields):
            pass

        def write(self, row):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    path = tmp_path / f"o{suffix}"
    monkeypatch.setitem(writers.WRITERS, suffix, Failing)
    with pytest.raises(FaceAuthError, match="No space left") as caught:
        written(path)
    kept = tmp_path / f"o{suffix}.rows.jsonl"
    assert str(kept) in caught.value.hint
    assert caught.value.exit_code == 1
    assert [json.loads(line) for line in kept.read_text().splitlines()] == rows(GOOD) + rows(BAD)
    assert list(tmp_path.iterdir()) == [kept]


def test_the_rows_of_one_image_are_said_in_the_singular(tmp_path):
    for name, said in (("o.csv", "the rows of 1 image are in"), ("o.jsonl", "holds 1 image;")):
        with FileOutput(tmp_path / name) as output:
            output.write(GOOD)
            assert said in output.where()


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_an_output_is_replaced_with_its_first_row_and_not_before(tmp_path, error):
    path = tmp_path / "o.jsonl"
    path.write_text("an earlier output\n" * 100)
    with contextlib.suppress(KeyboardInterrupt), FileOutput(path, overwrite=True):
        if error:
            raise error
    assert path.read_text() == ("an earlier output\n" * 100 if error else "")
    path.write_text("an earlier output\n" * 100)
    with contextlib.suppress(KeyboardInterrupt), FileOutput(path, overwrite=True) as output:
        output.write(GOOD)
        output.write(BAD)
        if error:
            raise error
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows(GOOD) + rows(BAD)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_is_left_beside_a_finished_output(tmp_path, suffix):
    path = written(tmp_path / f"o{suffix}")
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_with_another_writer_is_refused(tmp_path):
    path = tmp_path / "o.jsonl"
    with FileOutput(path) as output:
        output.write(GOOD)
        for options in ({}, {"overwrite": True}, {"resume": True}):
            with pytest.raises(UsageError, match="another faceauth is writing|exists"):
                FileOutput(path, **options)
        output.write(BAD)
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows(GOOD) + rows(BAD)


def test_rows_that_lack_later_fields_still_make_a_verdict():
    older = [
        {k: v for k, v in row.items() if k not in {"note", "duplicate_of", "families", "learned"}} for row in rows(GOOD)
    ]
    assert verdict_of(older) == GOOD
