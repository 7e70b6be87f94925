"""What may go wrong around an image: workers that die, hang or lack memory, clients that are slow, hostile files."""

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")

from command_line import wait_for
from conftest import encoded, make_card, picture, write_model
from faceauth.server import judges, settings, work
from image_files import deep_tiff, pq_png, preview_first
from serving import files, problem, serving
from test_fuzz_images import SEEDS

WHITE = encoded(picture((255, 255, 255)))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "brightness.onnx", make_card())


@pytest.fixture(scope="module")
def service(model):
    with serving("--model", model, "--whole-image", "--queue", 2, "--read-timeout", 1) as running:
        yield running


def test_no_limit_of_time_is_none(model):
    with serving("--model", model, "--whole-image", "--timeout", "inf", "--read-timeout", "inf") as running:
        assert running.client.get("/v1/models").json()["limits"]["timeout"] is None
        assert send(running).json()[0]["label"] == "fake"


def in_background(call):
    """The result of a call in a thread, as a function that waits for it."""
    found = []
    thread = threading.Thread(target=lambda: found.append(call()), daemon=True)
    thread.start()

    def wait():
        thread.join(120)
        return found[0]

    return wait


def send(service, data=WHITE):
    return service.client.post("/v1/detect", files=files(("a.png", data)))


def admitted(service):
    lines = service.client.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith("faceauth_admitted_requests ")).split()[1])


def stopped(service):
    """Hold the only worker where it is; returns its process id."""
    (pid,) = service.workers()
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_a_worker_killed_in_the_middle_costs_its_request_and_no_other(service):
    pid = stopped(service)
    answer = in_background(lambda: send(service))
    wait_for(lambda: admitted(service) == 1, 30)
    time.sleep(0.3)  # it has been handed over
    os.kill(pid, signal.SIGKILL)
    told = problem(answer(), 503)
    assert "SIGKILL" in told["detail"]
    assert send(service).status_code == 200
    assert service.workers() != [pid]


def test_a_worker_killed_while_it_waits_costs_nothing(service):
    (pid,) = service.workers()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: service.workers() not in ([], [pid]), 60)
    assert send(service).status_code == 200


def test_among_many_images_a_lost_one_is_a_row(service):
    pid = stopped(service)
    sent = files(("a.png", WHITE), ("b.png", WHITE), ("c.png", WHITE))
    answer = in_background(lambda: service.client.post("/v1/detect", files=sent))
    wait_for(lambda: admitted(service) == 1, 30)
    time.sleep(0.3)
    os.kill(pid, signal.SIGKILL)
    rows = [json.loads(line) for line in answer().text.splitlines()]
    assert [(row["path"], row["label"]) for row in rows] == [("a.png", None), ("b.png", "fake"), ("c.png", "fake")]
    assert "SIGKILL" in rows[0]["error"]


def test_a_full_queue_is_429_and_what_is_admitted_is_answered(service):
    pid = stopped(service)
    answers = [in_background(lambda: send(service)) for _ in range(2)]
    wait_for(lambda: admitted(service) == 2, 30)
    refused = send(service)
    problem(refused, 429)
    assert int(refused.headers["retry-after"]) >= 1
    os.kill(pid, signal.SIGCONT)
    assert [answer().status_code for answer in answers] == [200, 200]


def test_a_client_that_goes_away_is_not_judged(service):
    pid = stopped(service)
    first = in_background(lambda: send(service))
    wait_for(lambda: admitted(service) == 1, 30)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{service.url}/v1/detect", files=files(("gone.png", WHITE)), timeout=1)
    wait_for(lambda: admitted(service) == 1, 30)
    os.kill(pid, signal.SIGCONT)
    assert first().status_code == 200


def test_an_image_that_takes_too_long_is_504(model):
    with serving("--model", model, "--whole-image", "--timeout", 2) as running:
        stopped(running)
        told = problem(send(running), 504)
        assert "2 s" in told["detail"]
        assert send(running).status_code == 200


def test_workers_without_memory_and_without_a_model_and_their_end(model, tmp_path):
    moved = tmp_path / "model.onnx"
    moved.write_bytes(model.read_bytes())
    with serving("--model", moved, "--whole-image", "--worker-memory", 300) as running:
        answer = send(running, encoded(picture((255, 255, 255), (7000, 7000)), compress_level=1))
        assert answer.status_code == 503 or answer.json()[0]["error"]
        assert send(running).json()[0]["label"] == "fake"
        moved.unlink()
        (pid,) = running.workers()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: running.client.get("/readyz").status_code == 503, 30)
        assert running.client.get("/healthz").status_code == 200
        problem(send(running), 503)
        moved.write_bytes(model.read_bytes())
        wait_for(lambda: running.client.get("/readyz").status_code == 200, 60)
        assert send(running).status_code == 200
        (pid,) = running.workers()
        running.process.kill()
        running.process.wait()
        wait_for(lambda: gone(pid), 20)


def test_hostile_files_leave_the_service_alive_and_its_memory_where_it_was(service):
    hostile = [data[:end] for data in SEEDS.values() for end in (len(data) // 3, len(data) - 7)]
    hostile += [deep_tiff(), pq_png(), preview_first(), b"\0" * 1000, b"II*\0" + b"\xff" * 64]
    send(service)
    before = service.memory()
    for start in range(0, len(hostile), 10):
        sent = files(*((f"{i}.bin", data) for i, data in enumerate(hostile[start : start + 10])))
        answer = service.client.post("/v1/detect", files=sent)
        assert answer.status_code == 200
        paths = [json.loads(line)["path"] for line in answer.text.splitlines()]
        assert list(dict.fromkeys(paths)) == [name for _, (name, *_) in sent]
        assert service.client.post("/v1/provenance", files=sent).status_code == 200
    assert send(service).status_code == 200
    assert service.memory() - before < 30_000_000
    assert admitted(service) == 0


def test_uploads_are_held_in_memory_alone_and_let_go(service):
    handles = Path(f"/proc/{service.process.pid}/fd")
    pid = stopped(service)
    data = encoded(picture(), "BMP") + bytes(5_000_000)  # more than any form parser keeps in memory by default
    answer = in_background(lambda: send(service, data))
    wait_for(lambda: admitted(service) == 1, 30)
    try:
        links = [os.readlink(handle) for handle in handles.iterdir()]
        held = next(n for n in service.client.get("/metrics").text.splitlines() if n.startswith("faceauth_held_bytes "))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert answer().status_code == 200
    assert not [link for link in links if link.startswith("/tmp") or "(deleted)" in link]
    assert float(held.split()[1]) > 5_000_000
    assert "faceauth_held_bytes 0.0" in service.client.get("/metrics").text


def test_the_log_holds_no_name_and_no_content(service):
    made = service.client.post("/v1/detect", files=files(("secret-name.png", WHITE)))
    line = service.log(made.headers["x-request-id"])
    assert (line["route"], line["status"], line["images"]) == ("/v1/detect", 200, 1)
    assert line["bytes"] > len(WHITE)
    service.client.post("/v1/detect", files=files(("a.png", WHITE)), params={"secret-query": "secret-value"})
    service.client.get("/secret-path")
    assert "secret" not in "\n".join(service.lines)


def gone(pid):
    """Whether a process has ended, be it that nobody has asked for its exit code yet."""
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def connected(service, text):
    connection = socket.create_connection(("127.0.0.1", service.port), timeout=60)
    connection.sendall(text.encode())
    return connection


def read_all(connection):
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
    connection.close()
    return data.decode("latin-1")


HEAD = "POST /v1/detect HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"


def test_slow_clients_are_given_up_and_keep_nobody_waiting(service):
    body = connected(service, HEAD + "Content-Length: 1000\r\n\r\nabc")
    head = connected(service, "POST /v1/detect HTTP/1.1\r\nHost: 127.0")
    start = time.monotonic()
    assert send(service).status_code == 200
    assert time.monotonic() - start < 5
    assert "408" in read_all(body)
    assert read_all(head) == ""
    assert 0.9 < time.monotonic() - start < 20


def test_errors_are_answered_before_the_body_has_come(model):
    with serving("--model", model, "--read-timeout", 5, "--max-bytes", 3_000_000) as running:
        for length, status in ((10**9, "413"), (1000, "408")):
            start = time.monotonic()
            connection = connected(running, HEAD + f"Content-Length: {length}\r\n\r\n")
            answer = connection.recv(65536).decode()
            assert answer.startswith(f"HTTP/1.1 {status}") and "connection: close" in answer.lower()
            assert time.monotonic() - start < (2 if status == "413" else 8)
            connection.close()
        with httpx.Client() as client:
            for _ in range(2):  # what is announced, and comes, is dropped; the answer is read all the same
                found = client.post(
                    f"{running.url}/v1/detect", content=bytes(6_000_000), headers={"Content-Type": "image/png"}
                )
                assert found.status_code == 413


def test_a_name_too_long_for_a_form_is_called_so(service):
    found = service.client.post("/v1/detect", files=files((f"{'a' * 5000}.png", WHITE)))
    assert found.status_code == 400 and "name of a file is too long" in found.json()["detail"]
    assert service.client.post("/v1/detect", files=files((f"{'a' * 3000}.png", WHITE))).status_code == 200


def test_bodies_longer_and_shorter_than_announced(service):
    data = connected(service, HEAD + "Content-Length: 3\r\n\r\nabcdefghi\r\n\r\n")
    answer = read_all(data)
    assert answer.startswith("HTTP/1.1 200") and "400" in answer  # what follows is no request
    short = connected(service, HEAD + "Content-Length: 10\r\n\r\nabc")
    short.close()
    for wrong in ("Content-Length: x", "Content-Length: -1", "Content-Length: 99999999999999999999"):
        connection = connected(service, HEAD + wrong + "\r\n\r\n")
        assert read_all(connection).split()[1] in {"400", "413"}
    assert send(service).status_code == 200


def test_a_thousand_open_connections(service):
    opened = [socket.create_connection(("127.0.0.1", service.port), timeout=60) for _ in range(1000)]
    try:
        for connection in opened[::100]:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert send(service).status_code == 200
        assert all("200 OK" in read_all(connection) for connection in opened[::100])
    finally:
        for connection in opened:
            connection.close()


def test_sigterm_finishes_what_has_come(model):
    with serving("--model", model, "--whole-image") as running:
        pid = stopped(running)
        sent = files(("a.png", WHITE), ("b.png", WHITE), ("c.png", WHITE))
        answer = in_background(lambda: running.client.post("/v1/detect", files=sent))
        wait_for(lambda: admitted(running) == 1, 30)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{running.url}/healthz")
        os.kill(pid, signal.SIGCONT)
        assert [json.loads(line)["label"] for line in answer().text.splitlines()] == ["fake"] * 3
        assert running.process.wait(30) == 0


def test_a_picture_of_too_many_faces_is_refused():
    find = work.at_most(2, lambda image: [None] * 3)
    with pytest.raises(Exception, match="3 faces, more than the limit of 2"):
        find(picture())
    assert work.at_most(3, lambda image: [None] * 3)(picture()) == [None] * 3


def test_jobs_that_are_left_at_the_end_are_given_up(model):
    import asyncio

    async def left():
        opened = judges.Judges(settings.Settings(model=model, whole_image=True))
        opened.open()
        asked = asyncio.create_task(opened.answer(work.Job("detect", ())))
        await asyncio.sleep(0.1)
        await opened.close()
        return await asked

    answer = asyncio.run(left())
    assert isinstance(answer, judges.GivenUp) and not answer.late
