"""Reports to look at: what is on the page, that nothing from outside becomes markup, and how it behaves in a browser."""

import re
from dataclasses import replace

import pytest

from block_models import write_block_model, write_reference
from conftest import PORTRAIT
from faceauth import images
from faceauth.detector import Detector
from faceauth.explain import explain, page
from faceauth.model_file import ModelFile
from faceauth.provenance.report import Finding

EVIL = "</h1><script>alert(1)</script><img src=x onerror=alert(1)>\u202e`|[x](http://evil.example)\x1b[31m"


@pytest.fixture(scope="module")
def image():
    return images.load(str(PORTRAIT)).image


@pytest.fixture(scope="module")
def portrait(tmp_path_factory):
    path = write_block_model(tmp_path_factory.mktemp("page") / "blocks.onnx")
    write_reference(path, ModelFile(path).sha256)
    return explain(Detector(path), PORTRAIT)


@pytest.fixture(scope="module")
def hostile(portrait):
    report = replace(
        portrait.provenance,
        disagreements=(EVIL,),
        findings=(Finding("says", EVIL, EVIL * 50_000), *portrait.provenance.findings),
    )
    return replace(portrait, sentence=EVIL, verdict=replace(portrait.verdict, path=EVIL), provenance=report)


def test_everything_that_the_records_hold_is_on_the_page(portrait, image):
    text = page.to_html(portrait, image).decode()
    [face] = portrait.faces
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", text))
    assert face.sentence.replace("'", "&#x27;") in words
    assert portrait.custody.image_sha256 in words
    assert portrait.custody.model_sha256 in words
    assert all(f"{e.score:.2f} {e.label}" in words for e in face.stability.edits)
    assert text.count('<rect class="for-') == sum(map(len, face.heat_map.values))
    assert page.HEAT_PROVES in words
    assert all(caveat.split("'")[0] in words for caveat in portrait.caveats)
    assert text.count("data:image/jpeg;base64,") == 2


def test_the_strongest_part_is_named_where_it_is(portrait):
    values = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, -1.0))
    heat = replace(portrait.faces[0].heat_map, values=values, logit=-2.0, side="real", strongest=-1.5)
    heat = replace(heat, score=0.12, without=0.38)
    assert page.where(heat) == (
        "The strongest part is the lower right, which speaks for real. Blurring the fifth of the face that speaks most "
        "for real takes the network's P(fake) from 0.12 to 0.38."
    )
    assert page.where(replace(heat, values=((0.0,),))) == "No part stands out."


def test_faces_are_numbered_by_their_index(portrait, image):
    [told], [judged] = portrait.faces, portrait.verdict.faces
    box = (10, 20, 30, 40)
    faces = (replace(judged, index=1, box=box), judged)  # not in order, so that a count would number them otherwise
    told = replace(portrait, faces=(replace(told, index=1), told), verdict=replace(portrait.verdict, faces=faces))
    text = page.to_html(told, image).decode()
    assert re.findall(r"<h2>Face (\d)", text) == re.findall(r"data-map=\"(\d)\"", text) == ["2", "1"]
    assert re.search(r'x="10" y="20" width="20" height="20"/><text [^>]*>2</text>', text)
    assert re.findall(r"## Face (\d)", page.to_markdown(told, image).decode()) == ["2", "1"]


@pytest.mark.parametrize(
    ("side", "without", "little"),
    [("fake", 0.5, False), ("fake", 0.94, False), ("fake", 1.0, True), ("real", 1.0, False), ("real", 0.5, True)],
)
def test_a_map_that_says_little_says_so(portrait, side, without, little):
    heat = replace(portrait.faces[0].heat_map, side=side, score=0.95, without=without)
    assert ("no part decides by itself, and the map says little here" in page.where(heat)) is little


def test_names_of_files_stand_in_markdown_as_they_are(portrait, image):
    for name, span in (
        ("IMG_1234_a (1).jpg", "`IMG_1234_a (1).jpg`"), ("a``b`.jpg", "```a``b`.jpg```"), ("`a.jpg", "`` `a.jpg ``"),
    ):  # fmt: skip
        one = replace(portrait, verdict=replace(portrait.verdict, path=name))
        assert span in page.to_markdown(one, image).decode().splitlines()


def test_addresses_become_no_links_in_markdown(portrait, image):
    said = Finding("says", "XMP creator", "HTTPS://evil.example ftp://x www.evil.example a@evil.example at 12:30")
    found = replace(portrait, provenance=replace(portrait.provenance, findings=(said,)))
    text = page.to_markdown(found, image).decode()
    assert r"HTTPS\://evil.example ftp\://x www\.evil.example a\@evil.example at 12:30" in text


def test_what_is_absent_is_said_once(portrait, image):
    lines = [line for line in page.to_markdown(portrait, image).decode().splitlines() if line.startswith("| absent")]
    assert lines and all(line.count("which proves nothing") == 1 for line in lines)


def test_the_same_explanation_gives_the_same_bytes(portrait, image):
    assert page.to_html(portrait, image) == page.to_html(portrait, image)
    assert page.to_markdown(portrait, image) == page.to_markdown(portrait, image)


def test_what_comes_from_outside_is_no_markup_and_is_bounded(hostile, image):
    text = page.to_html(hostile, image).decode()
    assert text.count("<script>") == 1  # its own
    assert "<img src=x" not in text
    assert "\u202e" not in text and "\x1b" not in text
    assert len(text) < 400_000
    lines = page.to_markdown(hostile, image).decode()
    assert "\u202e" not in lines and "\x1b" not in lines
    lines = re.sub(r"(?m)^``.*``$", "", lines, count=1)  # the path, in a span of code in which nothing is markup
    assert "<script>" not in lines.replace("\\<", "")
    assert "](http" not in lines.replace("\\]", "")
    assert len(lines) < 40_000


def test_a_picture_without_a_face_or_that_cannot_be_read_has_a_page(tmp_path, image):
    detector = Detector(write_block_model(tmp_path / "b.onnx"))
    blank = image.resize((64, 64)).point(lambda _: 255)
    text = page.to_html(explain(detector, blank), blank).decode()
    assert "no face" in text.lower()
    assert b"no face" in page.to_markdown(explain(detector, blank), blank).lower()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_without_complaint(hostile, image, tmp_path, open_page, scheme):
    (tmp_path / "report.html").write_bytes(page.to_html(hostile, image))
    opened = open_page(tmp_path / "report.html", color_scheme=scheme)
    assert opened.complaints == []
    assert opened.requests == []
    assert opened.serious() == []
    opened.page.locator("input[type=range]").first.fill("10")
    assert opened.page.locator("svg.map").first.evaluate("e => e.style.opacity") == "0.1"


def test_a_narrow_window_needs_no_scrolling_sideways(portrait, image, tmp_path, open_page):
    (tmp_path / "report.html").write_bytes(page.to_html(portrait, image))
    assert open_page(tmp_path / "report.html", width=400).overflow() == 0
