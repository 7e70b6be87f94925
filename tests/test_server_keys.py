"""Who is let in: keys made, kept and compared, rates, addresses that want keys, and the command around them."""

import hashlib
import json
import socket

import pytest

pytest.importorskip("fastapi")

from command_line import faceauth
from conftest import encoded, make_card, picture, write_model
from faceauth.errors import UsageError
from faceauth.server import keys
from faceauth.server.problems import Problem
from faceauth.server.run import bind
from faceauth.server.settings import Settings
from faceauth.server.uploads import Body, Held
from serving import files, problem, serving

WHITE = encoded(picture((255, 255, 255)))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys.txt"


def test_a_key_is_printed_once_and_kept_as_a_hash(file):
    code, out, err = faceauth("serve", "--new-key", "reviewers", "--api-keys", file)
    assert code == 0 and "once" in err
    text = out.strip()
    assert len(text) > 40 and text not in file.read_text()
    assert file.read_text() == f"reviewers {hashlib.sha256(text.encode()).hexdigest()}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    other = keys.make("desk", file)
    known = keys.load(file, {})
    assert [keys.find(known, given).name for given in (text, other)] == ["reviewers", "desk"]
    assert keys.find(known, text + "x") is None
    assert faceauth("serve", "--new-key", "desk", "--api-keys", file)[0] == 2
    assert faceauth("serve", "--new-key", "a b", "--api-keys", file)[0] == 2
    assert faceauth("serve", "--new-key", "desk")[0] == 2
    assert keys.load(file, {}) == known


def test_keys_come_from_the_environment_too_and_wrong_lines_are_refused_unrepeated(file):
    line = f"ci {hashlib.sha256(b'k').hexdigest()}"
    assert keys.find(keys.load(None, {keys.VARIABLE: f"{line},{line.replace('ci', 'cd')}"}), "k").name == "ci"
    assert keys.load(None, {}) == ()
    file.write_text("# none\n")
    with pytest.raises(UsageError, match="no key"):
        keys.load(file, {})
    file.write_text(f"{line}\nfa_this-is-a-secret\n")
    with pytest.raises(UsageError, match="line 2") as refused:
        keys.load(file, {})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "faces.example.org"])
def test_other_addresses_want_keys_or_a_word(host):
    code, _, err = faceauth("serve", "--host", host)
    assert code == 2
    assert "--api-keys" in err and "--no-auth" in err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--api-keys", "missing.txt"), "cannot read 'missing.txt'"),
        (("--model", "missing.onnx"), "missing.onnx"),
        (("--learned", "a.json", "--no-learned"), "exclude"),
        (("--allow-learn", "--no-learned"), "exclude"),
    ],
)
def test_what_cannot_be_served_is_one_line(options, told):
    code, _, err = faceauth("serve", "--port", 0, *options)
    assert code in {1, 2}
    assert told in err and "Traceback" not in err


def test_an_address_that_cannot_be_had_is_said_with_what_to_change(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(UsageError, match="Address already in use") as refused:
            bind(Settings(port=taken.getsockname()[1]))
        assert "--port" in refused.value.hint
    with pytest.raises(UsageError) as refused:
        bind(Settings(host="192.0.2.7", port=0))
    assert "--host" in refused.value.hint


def test_loopback_is_every_address_of_this_machine():
    assert [Settings(host=h).on_loopback for h in ("127.0.0.1", "127.0.0.2", "::1", "localhost")] == [True] * 4
    assert not Settings(host="0.0.0.0").on_loopback


def test_rates_refill_evenly_and_a_large_request_is_paid_for_later():
    now = [0.0]
    rates = keys.Rates(60, lambda: now[0])
    assert rates.wait("a") == 0
    rates.take("a", 90)
    assert rates.wait("a") == pytest.approx(31)
    assert rates.wait("b") == 0
    now[0] = 32.0
    assert rates.wait("a") == 0
    assert keys.Rates(0).wait("a") == 0


def test_one_client_holds_at_most_half_of_the_memory():
    held = Held(1000)
    one, other = Body(held, "one"), Body(held, "other")
    one.take(500)
    with pytest.raises(Problem) as refused:
        one.take(1)
    assert refused.value.status == 429
    other.take(500)
    one.release(), other.release()
    assert (held.now, dict(held.by_client)) == (0, {})


def test_a_service_with_keys_and_learning(tmp_path, file):
    model = write_model(tmp_path / "brightness.onnx", make_card())
    key, other = keys.make("reviewers", file), keys.make("desk", file)
    options = ("--api-keys", file, "--allow-learn", "--whole-image", "--rate", 3, "--allow-host", "faces.example.org")
    with serving("--model", model, *options) as running:
        sent = {"files": files(("a.png", WHITE))}
        told = running.client.post("/v1/detect", **sent)
        problem(told, 401)
        assert told.headers["www-authenticate"] == "Bearer"
        for wrong in ("", "Bearer", f"Bearer {key}x", f"Basic {key}", "Bearer \xff"):
            headers = {"Authorization": wrong.encode("latin-1")}
            problem(running.client.post("/v1/detect", **sent, headers=headers), 401)
        problem(running.client.get("/metrics"), 401)
        assert running.client.get("/v1/models").json()["needs_key"] is True
        bearer = {"Authorization": f"Bearer {key}", "Host": "faces.example.org"}
        answer = running.client.post("/v1/detect", **sent, headers=bearer)
        assert answer.status_code == 200
        assert running.log(answer.headers["x-request-id"])["key"] == "reviewers"
        learnt = running.client.post("/v1/learn", params={"name": "x"}, **sent, headers=bearer)
        assert "prototypes" in problem(learnt, 422)["detail"]  # this model holds none
        assert "name" in problem(running.client.post("/v1/learn", **sent, headers=bearer), 422)["detail"]
        assert running.client.post("/v1/detect", **sent, headers=bearer).status_code == 200
        refused = running.client.post("/v1/detect", **sent, headers=bearer)
        problem(refused, 429)
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert running.client.post("/v1/detect", **sent, headers={"X-API-Key": other}).status_code == 200
        assert key not in "\n".join(running.lines)
        assert all(json.loads(line) for line in running.lines[1:])
