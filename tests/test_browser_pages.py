"""Pages opened in a headless Chromium: nothing in the console, no request, nothing serious for axe-core, keys, widths."""

import pytest

from browser import unwanted


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
