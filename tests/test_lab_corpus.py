"""Fetching a corpus, against a server on the loopback address. `corpus.csv` itself is checked against the rules of kinds."""

import csv
import hashlib
import threading
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("urllib3")
pytest.importorskip("filelock")
from faceauth.errors import DataError, UsageError
from faceauth.lab.data import corpus
from faceauth.lab.data.corpus import Entry, fetch, read_table, summary
from faceauth.lab.data.dataset import read_dataset, read_kinds

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


class Server(ThreadingHTTPServer):
    """Serves `files` by path; `script` names what goes wrong with a path, one step a request."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.script, self.asked, self.agents = {}, defaultdict(list), [], set()
        self.open = self.most = 0
        self.counting = threading.Lock()

    def handle_error(self, request, client_address):
        """A client that hangs up is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        with server.counting:
            server.asked.append(self.path)
            server.agents.add(self.headers["User-Agent"])
            step = server.script[self.path].pop(0) if server.script[self.path] else None
        data = server.files.get(self.path)
        if isinstance(step, int):
            self.send_response(step)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif data is None:
            self.send_error(404)
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if step == "cut" else data)
            if step == "cut":
                self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(corpus, "_BACKOFF", 0.01)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def template(server):
    return f"http://127.0.0.1:{server.server_address[1]}/{{repo}}/{{commit}}/{{path}}"


def entry(k, data=None, **changes):
    data = data if data is not None else f"image {k}".encode() * 50
    fake = k % 2
    made = Entry(
        f"images/{'gan' if fake else 'cam'}/{k:04}.jpg", "gan" if fake else "cam", "fake" if fake else "real",
        "gan" if fake else "real", "stylegan" if fake else "camera", f"person {k // 4}" if k % 3 else "", "owner/name",
        "c0ffee", f"a folder/{k} #1+%.jpg", "", hashlib.sha256(data).hexdigest(), "",
    )  # fmt: skip
    return made._replace(**changes)


def write_table(path, entries):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Entry._fields)
        writer.writerows([getattr(e, c) for c in Entry._fields] for e in entries)
    return path


def served(server, count):
    """Entries of `count` images that the server has."""
    for k in range(count):
        server.files[f"/owner/name/c0ffee/a%20folder/{k}%20%231%2B%25.jpg"] = f"image {k}".encode() * 50
    return [entry(k) for k in range(count)]


def url_of(k):
    return f"/owner/name/c0ffee/a%20folder/{k}%20%231%2B%25.jpg"


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_corpus_is_fetched_and_is_a_data_set(server, tmp_path):
    table = write_table(tmp_path / "corpus.csv", entries := served(server, 9))
    fetched = fetch(table, tmp_path / "out", url=template(server))
    assert fetched.here == tuple(entries)
    assert not fetched.gone
    data = read_dataset(tmp_path / "out")
    assert [(r.path, r.source, r.label, r.family, r.generator, r.group, r.sha256) for r in data.rows] == [
        (e.path, e.source, e.label, e.family, e.generator, e.group, e.sha256) for e in entries
    ]
    assert all(hashlib.sha256(data.file(r).read_bytes()).hexdigest() == r.sha256 for r in data.rows)
    assert all(agent.startswith("faceauth/") for agent in server.agents)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["images", "images.csv"]


def test_what_is_there_is_not_fetched_again(server, tmp_path):
    table = write_table(tmp_path / "corpus.csv", served(server, 6))
    fetch(table, tmp_path / "out", url=template(server))
    before = (tmp_path / "out" / "images.csv").read_bytes()
    (tmp_path / "out/images/cam/0002.jpg").write_bytes(b"spoilt")
    (tmp_path / "out/images/gan/0003.jpg").unlink()
    (tmp_path / "out/images/gan/.0003.jpg.0123456789ab.part").write_bytes(b"half")
    server.asked.clear()
    fetch(table, tmp_path / "out", url=template(server))
    assert sorted(server.asked) == [url_of(2), url_of(3)]
    assert (tmp_path / "out" / "images.csv").read_bytes() == before
    assert not list((tmp_path / "out").rglob("*.part"))


def test_what_is_gone_is_listed_with_the_reason(server, tmp_path):
    entries = served(server, 8)
    del server.files[url_of(1)]
    server.files[url_of(2)] = b"a pointer to large file storage"
    entries[3] = entries[3]._replace(change="cropped 10x10+1+2", original_sha256="0" * 64)
    entries[4] = entries[4]._replace(commit="", repo_path="")
    table = write_table(tmp_path / "corpus.csv", entries)
    fetched = fetch(table, tmp_path / "out", url=template(server))
    reasons = {g.entry.path[-8:-4]: g.reason for g in fetched.gone}
    assert reasons == {
        "0001": "HTTP 404", "0002": "other bytes on the server than the table says",
        "0003": "changed after publication, which cannot be remade byte for byte (cropped)",
        "0004": "where it was published is not known file by file",
    }  # fmt: skip
    gone = read(tmp_path / "out" / "gone.csv")
    assert [(r["path"], r["reason"]) for r in gone] == [(g.entry.path, g.reason) for g in fetched.gone]
    assert len(read_dataset(tmp_path / "out").rows) == 4
    assert not (tmp_path / "out/images/cam/0002.jpg").exists(), "a wrong file is not kept"
    assert next(summary(fetched)) == "4 of 8 images, 2 sources"
    assert server.asked.count(url_of(1)) == 1, "what is not there is not asked for twice"
    server.files[url_of(1)] = b"image 1" * 50
    again = fetch(table, tmp_path / "out", url=template(server))
    assert len(again.gone) == 3
    assert len(read(tmp_path / "out" / "gone.csv")) == 3


def test_a_transfer_that_is_cut_off_is_tried_again(server, tmp_path):
    entries = served(server, 4)
    server.script[url_of(2)] = ["cut", "cut"]
    fetched = fetch(write_table(tmp_path / "t.csv", entries), tmp_path / "out", url=template(server))
    assert not fetched.gone
    assert server.asked.count(url_of(2)) == 3
    assert (tmp_path / "out" / entries[2].path).read_bytes() == b"image 2" * 50


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_later(server, tmp_path, status):
    server.script[url_of(0)] = [status, status]
    entries = served(server, 3)
    fetched = fetch(write_table(tmp_path / "t.csv", entries), tmp_path / "out", url=template(server))
    assert not fetched.gone
    assert server.asked.count(url_of(0)) == 3


def test_a_wait_is_what_the_server_asks_for_or_grows(monkeypatch):
    from urllib3 import HTTPResponse

    asked = []
    monkeypatch.setattr("time.sleep", asked.append)
    retries = corpus._retries()
    retries.sleep(HTTPResponse(status=503, headers={"Retry-After": "7"}))
    for _ in range(3):
        retries = retries.increment("GET", "/", response=HTTPResponse(status=503))
        retries.sleep(HTTPResponse(status=503))
    assert asked == [7, 1.0, 2.0, 4.0]


def test_a_server_that_stays_busy_ends_the_run_and_the_next_goes_on(server, tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "_TRIES", 1)
    table = write_table(tmp_path / "corpus.csv", served(server, 40))
    for k in range(2, 40):
        server.script[url_of(k)] = [503] * 20
    with pytest.raises(DataError, match="images were not fetched") as caught:
        fetch(table, tmp_path / "out", url=template(server), connections=1)
    assert caught.value.hint == "the same command goes on where it stopped"
    assert len(server.asked) == 2 + 2 * 5, "not every file is tried of a server that does not answer"
    assert not (tmp_path / "out" / "images.csv").exists(), "half a corpus is no data set"
    server.script.clear()
    server.asked.clear()
    assert len(fetch(table, tmp_path / "out", url=template(server)).here) == 40
    assert len(server.asked) == 38


def test_no_server_is_one_line(tmp_path, monkeypatch, server):
    monkeypatch.setattr(corpus, "_TRIES", 1)
    url = template(server)
    server.server_close()
    server.shutdown()
    with pytest.raises(DataError, match="does not answer"):
        fetch(write_table(tmp_path / "t.csv", [entry(0), entry(1)]), tmp_path / "out", url=url)


def test_a_copy_at_hand_is_not_written_over(tmp_path):
    table = write_table(tmp_path / "t.csv", [entry(0)])
    file = tmp_path / "copy" / entry(0).path
    file.parent.mkdir(parents=True)
    file.write_bytes(b"other bytes")
    (tmp_path / "link").symlink_to(tmp_path / "copy")
    with pytest.raises(UsageError, match="the folder to copy from"):
        fetch(table, tmp_path / "link", tmp_path / "copy")
    assert file.read_bytes() == b"other bytes"


def test_a_copy_at_hand_needs_no_server(tmp_path):
    entries = [entry(k) for k in range(5)]
    entries[2] = entries[2]._replace(change="tile")
    copy = tmp_path / "copy"
    for k, e in enumerate(entries[:4]):
        (copy / e.path).parent.mkdir(parents=True, exist_ok=True)
        (copy / e.path).write_bytes(f"image {k}".encode() * 50 if k != 3 else b"other")
    fetched = fetch(write_table(tmp_path / "t.csv", entries), tmp_path / "out", copy)
    assert [e.path[-8:-4] for e in fetched.here] == ["0000", "0001", "0002"], "a changed image is in the copy"
    assert [g.reason for g in fetched.gone] == ["other bytes in the folder than the table says", "not in the folder"]
    assert (copy / entries[0].path).read_bytes() == (tmp_path / "out" / entries[0].path).read_bytes()
    with pytest.raises(UsageError, match="no folder"):
        fetch(tmp_path / "t.csv", tmp_path / "out", tmp_path / "none")
    with pytest.raises(DataError, match="none of the images can be had"):
        fetch(tmp_path / "t.csv", tmp_path / "other", tmp_path)


@pytest.mark.parametrize(("changes", "says"), [
    ({"path": "../x.jpg"}, "row 3: the path '../x.jpg'"),
    ({"path": "/etc/x.jpg"}, "row 3: the path"),
    ({"path": "C:\\x.jpg"}, "row 3: the path"),
    ({"path": "images/cam/0000.jpg"}, "row 3: images/cam/0000.jpg is in an earlier row"),
    ({"sha256": "abc"}, "row 3: sha256 'abc'"),
    ({"label": "maybe"}, "row 3: no source, or label 'maybe'"),
])  # fmt: skip
def test_a_fault_in_the_table_is_one_line(tmp_path, changes, says):
    table = write_table(tmp_path / "t.csv", [entry(0), entry(1, **changes)])
    with pytest.raises(DataError) as caught:
        fetch(table, tmp_path / "out", tmp_path)
    assert says in caught.value.message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("url", ["ftp://x/{path}", "https://x/", "https://x/{path}/{branch}", "https://x/{path"])
def test_a_url_that_makes_no_sense_is_refused(tmp_path, url):
    with pytest.raises(UsageError, match="no template of a URL"):
        fetch(write_table(tmp_path / "t.csv", [entry(0)]), tmp_path / "out", url=url)


def test_the_command(server, tmp_path):
    from faceauth.lab.cli import app

    table = write_table(tmp_path / "corpus.csv", served(server, 3))
    words = ["corpus", "fetch", str(table), "-o", str(tmp_path / "out"), "--url", template(server)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0
    assert result.stdout.strip() == str(tmp_path / "out" / "images.csv")
    assert "3 of 3 images, 2 sources" in result.stderr


# --- the table of the development corpus ---


@pytest.fixture(scope="module")
def published():
    return read_table(CONFIGS / "corpus.csv")


def test_the_corpus_is_named_whole(published):
    assert len(published) == 5993
    assert len({e.source for e in published}) == 63
    assert Counter(e.label for e in published) == {"real": 3246, "fake": 2697, "edited": 50}
    for e in published:
        assert "@" not in e.repo
        assert e.change or (len(e.commit) == 40 and e.repo_path), e.path
        assert e.original_sha256 != e.sha256
        assert bool(e.original_sha256) <= bool(e.change)
    assert sum(not e.change for e in published) == 5478


def test_sources_of_one_repository_or_group_are_one_kind(published):
    kinds = read_kinds(CONFIGS / "kinds.csv")
    assert set(kinds) == {e.source for e in published}
    for tied in ("repo", "group", "sha256", "original_sha256"):
        of = defaultdict(set)
        for e in published:
            if getattr(e, tied):
                of[getattr(e, tied)].add(kinds[e.source])
        assert {name: k for name, k in of.items() if len(k) > 1} == {}, tied


def test_sources_of_one_generator_are_one_kind(published):
    """StyleGAN of any version, Stable Diffusion 1, FLUX with SDXL of one repository, and the chat models' images."""
    kinds = read_kinds(CONFIGS / "kinds.csv")
    families = {
        "stylegan": "stylegan", "generated-photos": "stylegan", "stable-diffusion-1": "stable-diffusion-1",
        "stable-diffusion-dreambooth": "stable-diffusion-1", "flux": "flux-sdxl", "stable-diffusion-xl": "flux-sdxl",
        "gemini": "chat-image",
    }  # fmt: skip
    for e in published:
        for start, kind in families.items():
            if e.generator.startswith(start):
                assert kinds[e.source] == kind, (e.source, e.generator)
