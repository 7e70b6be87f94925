import hashlib
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lab_trees

pytest.importorskip("pydantic")
from faceauth.errors import DataError
from faceauth.lab.data import moving
from faceauth.lab.data.manifest import read_manifest
from faceauth.lab.data.moving import move_all

pytestmark = pytest.mark.torch  # a killed run starts the laboratory a dozen times


MOVER = """
import sys
from pathlib import Path
from faceauth.lab.data.prepare import PrepareConfig, prepare
from faceauth.lab.data import moving
import os, time
if {across}:
    def rename(a, b):
        raise OSError(18, "Invalid cross-device link")
    moving.os.rename = rename
slow = moving._move
def _move(*a):
    slow(*a)
    time.sleep(0.004)
moving._move = _move
data = {{"cam": "{root}/real:real", "gan": "{root}/fake:fake"}}
print(prepare(PrepareConfig(data=data, mode="move"), Path("{root}/out"), 1, lambda _: None).sha256)
"""


@pytest.mark.parametrize("across", [False, True], ids=["one file system", "two"])
def test_a_killed_move_loses_no_image(tmp_path, across):
    """Killed for good a number of times at different moments; every image lies somewhere whole at each, and at last in place."""
    lab_trees.plain(tmp_path / "real", 20, 0)
    lab_trees.plain(tmp_path / "fake", 20, 1000, True)
    before = sorted(hashlib.sha256(p.read_bytes()).hexdigest() for p in tmp_path.rglob("*.png"))
    command = [sys.executable, "-c", MOVER.format(root=tmp_path, across=across)]
    for arrived in (0, 3, 9, 17, 30):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while process.poll() is None:
            moved = len(list(tmp_path.glob("out/images/*/*.png")))
            if (tmp_path / "out" / "moves.jsonl").exists() and moved >= arrived:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.001)
        assert process.wait() == -signal.SIGKILL
        now = {hashlib.sha256(p.read_bytes()).hexdigest() for p in tmp_path.rglob("*.png")}
        assert now == set(before)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    manifest = read_manifest(tmp_path / "out" / "manifest.xlsx")
    assert manifest.sha256 == done.stdout.strip()
    assert sorted(hashlib.sha256(manifest.file(r).read_bytes()).hexdigest() for r in manifest.rows) == before
    assert all(
        manifest.file(r).is_file() and hashlib.sha256(manifest.file(r).read_bytes()).hexdigest() == r.sha256
        for r in manifest.rows
    )
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "images",
        "manifest.parquet",
        "manifest.xlsx",
        "prepare.json",
    ]
    assert not list((tmp_path / "real").iterdir())
    assert not list(tmp_path.rglob("*.part"))


@settings(max_examples=40, deadline=None)
@given(
    states=st.lists(st.sampled_from(["origin", "both", "destination"]), min_size=1, max_size=6), across=st.booleans()
)
def test_every_state_that_a_kill_leaves_is_finished(tmp_path_factory, states, across):
    root = tmp_path_factory.mktemp("m")
    moves = []
    for k, state in enumerate(states):
        origin, destination, data = root / f"a{k}", root / "b" / f"{k}", b"image %d" % k
        destination.parent.mkdir(exist_ok=True)
        for path, there in ((origin, state != "destination"), (destination, state != "origin")):
            if there:
                path.write_bytes(data)
        moves.append((origin, destination, hashlib.sha256(data).hexdigest()))
    with pytest.MonkeyPatch.context() as patch:
        if across:
            patch.setattr(moving.os, "rename", cross_device)
        assert list(move_all(moves)) == [m[1] for m in moves]
    assert sorted(p.name for p in root.iterdir()) == ["b"]
    assert [m[1].read_bytes() for m in moves] == [b"image %d" % k for k in range(len(states))]


def cross_device(*_):
    raise OSError(18, "Invalid cross-device link")


def test_a_file_that_changed_is_not_moved_and_nothing_is_deleted(tmp_path):
    origin, destination = lab_trees.put(tmp_path, "a", b"new"), tmp_path / "b"
    with pytest.raises(DataError, match="has changed"):
        list(move_all([(origin, destination, hashlib.sha256(b"old").hexdigest())]))
    destination.write_bytes(b"something else")
    with pytest.raises(DataError, match="has changed"):
        list(move_all([(origin, destination, hashlib.sha256(b"new").hexdigest())]))
    assert (origin.read_bytes(), destination.read_bytes()) == (b"new", b"something else")


def test_a_copy_that_went_wrong_keeps_the_original(tmp_path, monkeypatch):
    origin, destination = lab_trees.put(tmp_path, "a", b"data"), tmp_path / "b"
    monkeypatch.setattr(moving.os, "rename", cross_device)
    monkeypatch.setattr(moving.shutil, "copyfileobj", lambda source, copy, size: copy.write(b"dat"))
    with pytest.raises(DataError, match="has changed"):
        list(move_all([(origin, destination, hashlib.sha256(b"data").hexdigest())]))
    assert origin.read_bytes() == b"data"
    assert not destination.exists()
