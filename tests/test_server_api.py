"""What the service answers: the rows of the command line, reports, models, states, and a problem for every error."""

import json
import subprocess

import pytest
from PIL import Image

from attributed import RED, coloured, write_colour_model
from command_line import command
from conftest import PORTRAIT, SAMPLES, encoded, make_card, picture, write_model
from serving import files, problem, serving

WHITE, BLACK = encoded(picture((255, 255, 255))), encoded(picture((0, 0, 0)))
MOVING = encoded(picture(), "GIF", save_all=True, append_images=[picture((0, 0, 0))])
CHANGING = {"ms", "judged_at"}
NDJSON = "application/x-ndjson"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "brightness.onnx", make_card())


@pytest.fixture(scope="module")
def service(model):
    with serving("--model", model, "--whole-image", "--max-files", 4, "--max-bytes", 3_000_000) as running:
        yield running


def lasting(row):
    return {name: value for name, value in row.items() if name not in CHANGING}


def of_the_command_line(model, *paths):
    words = command("detect", *paths, "--model", model, "--whole-image")
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_rows_are_those_of_the_command_line_field_for_field(service, model):
    names = ["astronaut.jpg", "grace-hopper.jpg"]
    expected = of_the_command_line(model, *(SAMPLES / name for name in names))
    sent = files(*((name, (SAMPLES / name).read_bytes()) for name in names))
    answer = service.client.post("/v1/detect", files=sent)
    assert answer.headers["content-type"].startswith(NDJSON)
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert [list(row) for row in rows] == [list(row) for row in expected]
    for row, other in zip(rows, expected, strict=True):
        assert other["path"].endswith(row["path"])
        assert lasting(row) == lasting(other) | {"path": row["path"], "path_id": None}


def test_a_picture_that_is_too_large_is_met_with_what_its_sender_can_do(service):
    sent = files(("huge.png", encoded(Image.new("L", (8000, 8000)))), ("moving.gif", MOVING))
    huge, moving = (json.loads(line) for line in service.client.post("/v1/detect", files=sent).text.splitlines())
    assert huge["error"] == "8000 x 8000: more than the limit of 50,000,000 pixels (use a smaller copy)"
    assert moving["note"] == "an animation: its first frame was judged"


def test_a_raw_body_is_what_standard_input_is(service, model):
    words = command("detect", "-", "--model", model, "--whole-image")
    done = subprocess.run(words, input=PORTRAIT.read_bytes(), capture_output=True, check=True)
    answer = service.client.post("/v1/detect", content=PORTRAIT.read_bytes(), headers={"Content-Type": "image/jpeg"})
    assert [lasting(row) for row in answer.json()] == [lasting(json.loads(line)) for line in done.stdout.splitlines()]


def test_accept_chooses_between_a_list_and_lines(service):
    many = files(("a.png", WHITE), ("b.png", BLACK))
    listed = service.client.post("/v1/detect", files=many, headers={"Accept": "application/json"})
    assert [(row["path"], row["label"]) for row in listed.json()] == [("a.png", "fake"), ("b.png", "real")]
    line = service.client.post("/v1/detect", files=many[:1], headers={"Accept": NDJSON})
    assert line.headers["content-type"].startswith(NDJSON)
    assert json.loads(line.text)["label"] == "fake"


def test_an_image_that_cannot_be_read_is_a_row(service):
    sent = files(("a.png", WHITE), ("broken.jpg", b"\xff\xd8\xff nothing"), ("b.png", BLACK))
    rows = [json.loads(line) for line in service.client.post("/v1/detect", files=sent).text.splitlines()]
    assert [row["label"] for row in rows] == ["fake", None, "real"]
    assert rows[1]["error"]
    (alone,) = service.client.post("/v1/detect", files=sent[1:2]).json()
    assert lasting(alone) == lasting(rows[1])


def test_provenance_is_the_report_of_the_command_line(service):
    done = subprocess.run(command("provenance", PORTRAIT), capture_output=True, text=True, check=True)
    (report,) = service.client.post("/v1/provenance", files=files(("x.jpg", PORTRAIT.read_bytes()))).json()
    assert report == json.loads(done.stdout) | {"path": "x.jpg"}
    (broken,) = service.client.post("/v1/provenance", files=files(("x.jpg", b"nothing"))).json()
    assert broken["error"] and broken["findings"] == []


def test_models_states_and_counts(service):
    (told,) = service.client.get("/v1/models").json()["models"]
    assert told["name"] == "brightness"
    assert (told["fake_from"], told["real_to"]) == (0.9, 0.1)
    assert service.client.get("/healthz").json() == {"status": "ok", "workers": 1}
    assert service.client.get("/readyz").json() == {"status": "ready", "workers": 1}
    service.client.post("/v1/detect", files=files(("a.png", WHITE)))
    text = service.client.get("/metrics").text
    assert 'faceauth_verdicts_total{label="fake"}' in text
    assert 'faceauth_requests_total{method="POST",route="/v1/detect",status="200"}' in text


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (400, {"files": files(("a.png", WHITE), field="other")}),
        (400, {"content": b"--x\r\nnothing", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}),
        (400, {"content": b"--x--\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}),
        (400, {"content": b"a", "headers": {"Content-Type": "multipart/form-data"}}),
        (400, {"content": b"a", "headers": {"Content-Type": f"multipart/form-data; boundary={'x' * 500}"}}),
        (400, {"content": b"", "headers": {"Content-Type": "image/png"}}),
        (403, {"files": files(("a.png", WHITE)), "headers": {"Origin": "https://evil.example"}}),
        (403, {"files": files(("a.png", WHITE)), "headers": {"Origin": "null"}}),
        (413, {"files": files(*[("a.png", WHITE)] * 5)}),
        (413, {"content": bytes(3_000_001), "headers": {"Content-Type": "image/png"}}),
        (413, {"content": iter([bytes(2_000_000)] * 2), "headers": {"Content-Type": "image/png"}}),
        (415, {"data": {"files": "https://example.org/a.jpg"}}),
        (415, {"json": {"files": ["/etc/passwd"]}}),
        (421, {"files": files(("a.png", WHITE)), "headers": {"Host": "evil.example"}}),
        (421, {"files": files(("a.png", WHITE)), "headers": {"Host": "[::1"}}),
        (421, {"files": files(("a.png", WHITE)), "headers": {"Host": "127.0.0.1#@evil.example"}}),
        (421, {"files": files(("a.png", WHITE)), "headers": {"Host": "evil@127.0.0.1"}}),
        (403, {"files": files(("a.png", WHITE)), "headers": {"Origin": "http://[::1"}}),
    ],
)
def test_what_is_wrong_is_a_problem(service, status, request_):
    problem(service.client.post("/v1/detect", **request_), status)
    assert service.client.post("/v1/detect", files=files(("a.png", WHITE))).status_code == 200


def test_paths_and_methods_that_are_none(service):
    problem(service.client.get("/v1/nothing"), 404)
    problem(service.client.post("/v1/learn", params={"name": "x"}, files=files(("a.png", WHITE))), 404)
    assert "curl -F files=@photo.jpg" in problem(service.client.get("/v1/detect"), 405)["hint"]
    assert "/v1/openapi.json" in problem(service.client.post("/detect", files=files(("a.png", WHITE))), 404)["hint"]
    asked = service.client.post("/v1/detect", params={"threshold": 0.5}, files=files(("a.png", WHITE)))
    assert "'threshold'" in problem(asked, 400)["detail"]  # ignored, it would be believed
    assert "'image'" in problem(service.client.post("/v1/detect", files={"image": WHITE}), 400)["detail"]
    assert service.client.get("/v1/detect").headers["allow"] == "POST"
    problem(service.client.get("/..%2f..%2fapp.py"), 404)
    assert service.client.post("/v1/detect/", files=files(("a.png", WHITE))).status_code in {404, 405}  # no redirect


def test_every_answer_has_its_id_and_the_headers_of_a_careful_server(service):
    for path in ("/", "/v1/models", "/v1/nothing", "/v1/openapi.json"):
        given = service.client.get(path, headers={"X-Request-ID": "review-17.b_c"})
        assert given.headers["x-request-id"] == "review-17.b_c"
        policy = given.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
        assert given.headers["x-content-type-options"] == "nosniff"
        assert not [name for name in given.headers if name.startswith("access-control")]
        assert "server" not in given.headers
    for wrong in ("a b", "x" * 65, "<script>", ""):
        made = service.client.get("/healthz", headers={"X-Request-ID": wrong}).headers["x-request-id"]
        assert made != wrong and len(made) == 32


def test_what_is_taught_is_known_to_every_worker_and_to_the_next_service(tmp_path):
    model, file = write_colour_model(tmp_path / "colour.onnx"), tmp_path / "learned.json"
    options = ("--model", model, "--whole-image", "--learned", file, "--workers", 2)
    lesson = files(*((f"{i}.png", encoded(coloured(RED, i))) for i in range(20)))
    asked = files(*((f"{i}.png", encoded(coloured(RED, 100 + i))) for i in range(8)))

    def named(service):
        answer = service.client.post("/v1/detect", files=asked)
        rows = [json.loads(line) for line in answer.text.splitlines()]
        return {(row["generator"], tuple(row["learned"])) for row in rows}

    with serving(*options, "--allow-learn") as service:
        assert "rust" not in {generator for generator, _ in named(service)}
        answer = service.client.post("/v1/learn", params={"name": "rust", "family": "gan"}, files=lesson)
        assert (answer.status_code, answer.json()["taught"], answer.json()["count"]) == (200, "rust", 20)
        assert (answer.json()["label"], answer.json()["family"]) == ("fake", "gan")
        assert named(service) == {("rust", ("rust",))}
        assert service.client.get("/v1/models").json()["models"][0]["learned"] == ["rust"]
        again = service.client.post("/v1/learn", params={"name": "rust"}, files=lesson)
        assert "in use" in problem(again, 422)["detail"]
    with serving(*options) as service:
        assert named(service) == {("rust", ("rust",))}
        listed = [service.client.get("/v1/models").json()["models"][0]["learned"]]
        subprocess.run(command("forget", "rust", "--learned", file), check=True)  # while the service runs
        listed.append(service.client.get("/v1/models").json()["models"][0]["learned"])
        assert listed == [["rust"], []]
