"""Reports to file as PDF: what they say, that they come out the same, and that nothing from outside has an effect."""

import re
import sys
import zlib
from dataclasses import replace

import pytest

from block_models import write_block_model, write_reference
from command_line import faceauth
from conftest import PORTRAIT
from faceauth import images
from faceauth.detector import Detector
from faceauth.explain import explain
from faceauth.explain.pdf import to_pdf
from faceauth.model_file import ModelFile
from faceauth.provenance.report import Finding

pytest.importorskip("fpdf")


@pytest.fixture(scope="module")
def image():
    return images.load(str(PORTRAIT)).image


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = write_block_model(tmp_path_factory.mktemp("pdf") / "blocks.onnx")
    write_reference(path, ModelFile(path).sha256)
    return path


@pytest.fixture(scope="module")
def portrait(model):
    return explain(Detector(model), PORTRAIT)


def streams(pdf):
    """What the streams of a file hold, the pictures' left out."""
    for found in re.finditer(rb"/Filter /FlateDecode.*?stream\n(.*?)\nendstream", pdf, re.DOTALL):
        yield zlib.decompress(found[1])


def words(pdf):
    """The text of all pages, on one line."""
    shown = [s for stream in streams(pdf) for s in re.findall(rb"\((.*?)(?<!\\)\) Tj", stream, re.DOTALL)]
    return re.sub(r"\\([()\\])", r"\1", " ".join(s.decode("latin-1") for s in shown))


def test_everything_that_the_records_hold_is_in_the_report(portrait, image):
    pdf = to_pdf(portrait, image)
    said = words(pdf)
    [face] = portrait.faces
    assert pdf.startswith(b"%PDF-1.")
    assert face.sentence in said
    assert portrait.sentence in said
    assert portrait.custody.image_sha256 in said
    assert portrait.custody.model_sha256 in said
    assert all(f"{e.score:.2f} {e.label}" in said for e in face.stability.edits)
    assert all(near.source in said for near in face.nearest)
    assert all(caveat[:40] in said for caveat in portrait.caveats)
    assert pdf.count(b"/Subtype /Image") == 2  # the picture, and the face under its heat map


def test_faces_are_numbered_by_their_index(portrait, image, monkeypatch):
    drawn = []
    monkeypatch.setattr("PIL.ImageDraw.ImageDraw.text", lambda _, at, text, *more, **options: drawn.append(text))
    [told], [judged] = portrait.faces, portrait.verdict.faces
    faces = (
        replace(judged, index=1, box=(10, 20, 30, 40)),
        judged,
    )  # not in order: a count would number them otherwise
    told = replace(portrait, faces=(replace(told, index=1), told), verdict=replace(portrait.verdict, faces=faces))
    assert re.findall(r"Face (\d): ", words(to_pdf(told, image))) == drawn == ["2", "1"]


def test_the_same_explanation_gives_the_same_bytes(portrait, image):
    assert to_pdf(portrait, image) == to_pdf(portrait, image)


def test_what_comes_from_outside_is_plain_and_bounded(portrait, image):
    evil = "(x) Tj ET Q /Launch <</S/URI>> \u202e\x1b[31m \u5b57"
    report = replace(portrait.provenance, disagreements=(evil,), findings=(Finding("says", evil, evil * 50_000),) * 3)
    pdf = to_pdf(replace(portrait, verdict=replace(portrait.verdict, path=evil), provenance=report), image)
    assert len(pdf) < 300_000
    said = words(pdf)
    assert "(x) Tj ET Q /Launch" in said
    assert "\\u5b57" in said  # no font has it
    assert "\x1b" not in said
    outside = re.sub(rb"stream\n.*?endstream", b"", pdf, flags=re.DOTALL)
    assert not re.search(
        rb"/(Annots?|URI|Launch|JavaScript|OpenAction /|AA)\b(?![^(]*\))", outside.replace(b"/OpenAction [", b"")
    )


def test_a_picture_without_a_face_has_a_report(model, image):
    blank = image.resize((64, 64)).point(lambda _: 255)
    assert "No face was found" in words(to_pdf(explain(Detector(model), blank), blank))


def test_it_is_chosen_by_suffix_and_a_missing_library_is_one_line(model, tmp_path, monkeypatch):
    code, _, err = faceauth("explain", PORTRAIT, "--model", model, "-o", tmp_path / "report.pdf")
    assert code == 0, err
    assert "What judged it" in words((tmp_path / "report.pdf").read_bytes())
    monkeypatch.setitem(sys.modules, "fpdf", None)
    code, _, err = faceauth("explain", PORTRAIT, "--model", tmp_path / "none", "-o", tmp_path / "other.pdf")
    assert code == 1
    assert "error: PDF files need fpdf2" in err and "faceauth[pdf]" in err  # said before a model is opened
    assert not (tmp_path / "other.pdf").exists()
