"""Pages opened in a headless Chromium: nothing in the console, no request, nothing serious for axe-core, keys, widths."""

import hashlib

import pytest

from browser import unwanted
from conftest import picture
from faceauth.output import FileOutput
from faceauth.verdict import Face, Verdict


@pytest.mark.parametrize(("address", "leaves"), [
    ("data:image/png;base64,AA", False), ("file:///a/b/c.png", False), ("file:///etc/passwd", True),
    ("https://example.org/x.js", True), ("http://127.0.0.1:8000/api", True),
])  # fmt: skip
def test_what_counts_as_leaving_the_page(address, leaves):
    assert unwanted(address, "file:///a/b/") is leaves


def test_a_bad_page_is_noticed(tmp_path, open_page):
    path = tmp_path / "bad.html"
    path.write_text(
        '<!doctype html><title>x</title><img src="http://127.0.0.1:9/x.png"><p style="width:2000px;color:#eee">x</p>'
        "<script>missing()</script>"
    )
    opened = open_page(path, width=400)
    assert opened.requests == ["http://127.0.0.1:9/x.png"]
    assert any("missing" in complaint for complaint in opened.complaints)
    assert opened.overflow() > 1000
    assert {"image-alt", "html-has-lang"} <= {line.partition(":")[0] for line in opened.serious()}


def gallery(tmp_path, count):
    """A page of `count` pictures, in turn fake, real and uncertain, the first two of which lie there."""
    labels = ("fake", "real", "uncertain")
    with FileOutput(tmp_path / "out.html") as output:
        for i in range(count):
            path = tmp_path / f"{'<b>' * (i == 1)}{i:04}.png"
            if i < 2:
                picture().save(path)
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if i < 2 else "0" * 64
            face = Face(0, (10, 10, 80, 80), labels[i % 3], i / count, "camera", 0.6, 0.05, generator=f"g{i % 2}")
            output.write(Verdict(str(path), (face,), "m", "f" * 64, sha256, 96, 96))
    return tmp_path / "out.html"


@pytest.mark.parametrize("options", [{}, {"width": 400}, {"color_scheme": "dark"}, {"java_script_enabled": False}])
def test_the_gallery_is_clean_in_a_browser(tmp_path, open_page, options):
    opened = open_page(gallery(tmp_path, 6), **options)
    assert opened.page.locator("article").count() == 6
    assert opened.page.locator("article img").count() == 2
    assert opened.overflow() == 0
    if options.get("java_script_enabled", True):
        assert opened.serious() == []
    assert (opened.complaints, opened.requests) == ([], [])


def test_the_gallery_filters_sorts_and_goes_by_keys(tmp_path, open_page):
    opened = open_page(gallery(tmp_path, 3000))
    page = opened.page
    assert page.locator("article").count() < 300  # of thousands, what is near is on the page
    page.keyboard.press("/")
    page.keyboard.type("299")
    assert page.locator("#found").text_content() == "13 of 3000 pictures"
    page.get_by_label("Verdict").select_option("fake")
    page.get_by_label("Order").select_option("high")
    assert page.locator("article h2 a").first.text_content() == "2997.png"
    page.locator("article h2 a").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == "2994.png"
    page.keyboard.press("Home")
    assert page.evaluate("document.activeElement.textContent") == "2997.png"
    assert opened.complaints == []
