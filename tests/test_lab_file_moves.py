import hashlib
import signal
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lab_trees

pytest.importorskip("pydantic")
from faceauth.errors import DataError
from faceauth.lab.data import storing
from faceauth.lab.data.dataset import read_dataset
from faceauth.lab.data.storing import move_all

pytestmark = pytest.mark.torch  # a killed run starts the laboratory a dozen times


MOVER = """
import os, shutil, signal, sys
from pathlib import Path
from faceauth.lab.data import prepare as module

root, across, moment = Path(sys.argv[1]), sys.argv[2] == "two", sys.argv[3]
steps = 0

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def step(name, do):
    def done(*args):
        global steps
        steps += 1
        if moment.isdigit() and steps == int(moment):
            if name == "copyfileobj":
                args[1].write(args[0].read(100))
                args[1].flush()
            die()
        if name == "rename" and across:
            raise OSError(18, "Invalid cross-device link")
        return do(*args)
    return done

def move_all(moves):
    for place, name in ((os, "rename"), (os, "replace"), (os, "unlink"), (os, "fsync"), (shutil, "copyfileobj")):
        setattr(place, name, step(name, getattr(place, name)))
    return original(moves)

original, module.move_all = module.move_all, move_all
if moment in ("write_manifest", "finish"):
    setattr(module, moment, die)
data = {"cam": f"{root}/real:real", "gan": f"{root}/fake:fake"}
print(module.prepare(module.PrepareConfig(data=data, mode="move"), root / "out", 1, lambda _: None).sha256)
"""
MOMENTS = {  # steps before which, or in the middle of which, the process is killed; each run takes up what is left
    "one": ("1", "2", "9", "write_manifest", "finish"),
    "two": ("1", "2", "3", "4", "5", "6", "40"),  # rename, half a copy, fsync, replace, fsync of the folder, unlink
}


@pytest.mark.parametrize("systems", ["one", "two"])
def test_a_killed_move_loses_no_image(tmp_path, systems):
    """Killed again and again, each time elsewhere: every image lies whole somewhere at each, and at last in place."""
    lab_trees.plain(tmp_path / "real", 12, 0)
    lab_trees.plain(tmp_path / "fake", 12, 1000, True)
    before = sorted(digest(p) for p in tmp_path.rglob("*.png"))
    command = [sys.executable, "-c", MOVER, str(tmp_path), systems]
    for moment in MOMENTS[systems]:
        assert subprocess.run([*command, moment], capture_output=True).returncode == -signal.SIGKILL
        assert {digest(p) for p in tmp_path.rglob("*.png")} == set(before), moment
    done = subprocess.run([*command, "never"], capture_output=True, text=True, check=True)
    manifest = read_dataset(tmp_path / "out" / "manifest.xlsx")
    assert manifest.sha256 == done.stdout.strip()
    assert sorted(digest(manifest.file(r)) for r in manifest.rows) == before
    assert all(digest(manifest.file(r)) == r.sha256 for r in manifest.rows)
    whole = ["images", "manifest.parquet", "manifest.xlsx", "prepare.json"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == whole
    assert not list((tmp_path / "real").iterdir())
    assert not list(tmp_path.rglob("*.part"))


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
            patch.setattr(storing.os, "rename", cross_device)
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
    monkeypatch.setattr(storing.os, "rename", cross_device)
    monkeypatch.setattr(storing.shutil, "copyfileobj", lambda source, copy, size: copy.write(b"dat"))
    with pytest.raises(DataError, match="has changed"):
        list(move_all([(origin, destination, hashlib.sha256(b"data").hexdigest())]))
    assert origin.read_bytes() == b"data"
    assert not destination.exists()
