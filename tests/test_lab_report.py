"""The report: one page without outside references, harmless whatever a file is called."""

import json
import re
from html.parser import HTMLParser

import pytest

pytest.importorskip("torch")
from typer.testing import CliRunner

from faceauth.__main__ import app
from faceauth.errors import UsageError
from lab_prepared import COUNTS, write_run, write_set

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")]
HOSTILE = "<script>alert(1)<\u2215script>.png"


class Page(HTMLParser):
    """The tags and references of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.references, self.images = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.references += [v for k, v in attrs if k in {"src", "href", "srcset", "data", "action"}]
        if tag == "img":
            self.images.append(dict(attrs))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("report")
    names = {(source, "test", i): f"{i}{HOSTILE}" for source in ("cam-a", "gan-a") for i in range(COUNTS["test"])}
    manifest = write_set(place, names=names)
    for name, sources in (("bright", ("cam-a", "cam-b", "gan-a", "gan-b")), ("single", ("cam-a", "cam-b", "gan-a"))):
        write_run(place / "runs", manifest, name, sources)
    return place


def invoke(place, *words):
    runs = [place / "runs" / "bright", place / "runs" / "single"]
    return CliRunner().invoke(app, ["lab", "report", *map(str, (*runs, "--cache", place / "cache", *words))])


@pytest.fixture(scope="module")
def page(place):
    done = invoke(place, "-o", place / "report.html")
    assert done.exit_code == 0, done.output
    return (place / "report.html").read_text()


def test_a_report_needs_nothing_else(page):
    found = Page(page)
    assert found.references
    assert all(r.startswith(("data:image/", "#part-")) for r in found.references)
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r"base64,[A-Za-z0-9+/=]*", "", page))
    assert not {"script", "iframe", "link", "object"} & set(found.tags)


def test_hostile_file_names_are_escaped(page, place):
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in page
    assert "<script" not in (place / "report.md").read_text()


def test_a_report_holds_the_whole_evaluation(page):
    for said in ("The study&#39;s table", "Headline", "Source by source", "Controls, fold by fold", "Clusters in numbers",
                 "Worst mistakes", "ROC curves, seen", "unseen generated, seen real", "Calibration, clean", "t-SNE map",
                 "Losses while training", "Spectra of the sources", "c0ffee", "Which source the model names",
                 "prefers-color-scheme: dark", "bootstrap seed 0"):  # fmt: skip
        assert said in page, said


def test_a_report_can_be_read_aloud(page):
    found = Page(page)
    assert all(image.get("alt") for image in found.images)
    assert found.tags.count("table") == found.tags.count("caption") == found.tags.count("thead") > 4
    assert found.tags.count("h1") == 1


def test_the_markdown_links_to_figures_that_are_there(page, place):
    text = (place / "report.md").read_text()
    links = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert len(links) > 7
    assert all((place / link).is_file() for link in links)


def test_pictures_can_be_left_out(page, place):
    done = invoke(place, "-o", place / "plain.html", "--no-pictures")
    assert done.exit_code == 0, done.output
    assert "data:image/jpeg" in page
    assert "data:image/jpeg" not in (place / "plain.html").read_text()


def test_a_written_evaluation_is_shown_and_another_is_refused(page, place):
    both = [str(place / "runs" / name) for name in ("bright", "single")]
    common = ["--cache", str(place / "cache"), "-o"]
    CliRunner().invoke(app, ["lab", "evaluate", *both, *common, str(place / "kept")], catch_exceptions=False)
    kept = place / "kept" / "evaluation.json"
    written = json.loads(kept.read_text())
    written["made"]["command"] = "a command of another day"
    kept.write_text(json.dumps(written))
    done = invoke(place, "-o", place / "kept.html", "--evaluation", kept, "--no-pictures")
    assert done.exit_code == 0, done.output
    assert "a command of another day" in (place / "kept.html").read_text()
    written["made"]["models"].pop(1)
    kept.write_text(json.dumps(written))
    refused = invoke(place, "-o", place / "no.html", "--evaluation", kept)
    assert isinstance(refused.exception, UsageError)
    assert not (place / "no.html").exists()


def test_a_report_is_a_page(place):
    assert isinstance(invoke(place, "-o", "report.pdf").exception, UsageError)
