import os
import subprocess
import sys

import pytest

from faceauth import files
from faceauth.errors import UsageError


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "one\n")
    assert path.read_bytes() == b"one\n"
    with pytest.raises(RuntimeError), files.replacing(path) as part:
        part.write_text("half")
        assert path.read_text() == "one\n"
        raise RuntimeError
    assert path.read_text() == "one\n"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_have_two_temporary_files(tmp_path):
    with files.replacing(tmp_path / "a") as one, files.replacing(tmp_path / "a") as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "a").read_text() == "one"


def test_the_longest_name_leaves_room_for_the_temporary_one(tmp_path):
    path = tmp_path / ("é" * 125 + ".txt")
    files.write_text(path, "x")
    with files.locked(path):
        pass
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="permissions and links of POSIX")
def test_permissions_and_links_are_kept(tmp_path):
    path, link = tmp_path / "a", tmp_path / "link"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    files.write_text(link, "new")
    assert link.is_symlink()
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o640)
    files.write_text(tmp_path / "fresh", "x")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "fresh").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_lock_is_refused_to_others_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a.jsonl"
    code = f"""
from pathlib import Path
from faceauth.files import locked
with locked(Path({str(path)!r})): pass
"""
    with files.locked(path):
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "another faceauth is writing" in other.stderr
        with pytest.raises(UsageError, match="another faceauth is writing"), files.locked(path):
            pass
    with files.locked(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_the_systems_or_that_of_faceauth_home(monkeypatch, tmp_path):
    monkeypatch.setenv("FACEAUTH_HOME", str(tmp_path))
    assert files.data_folder() == tmp_path
    monkeypatch.delenv("FACEAUTH_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    if sys.platform == "linux":
        assert files.data_folder() == tmp_path / "data" / "faceauth"
