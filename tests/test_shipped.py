"""The package's own model files are those that it was released with."""

import hashlib

import pytest

from faceauth import shipped
from faceauth.errors import ModelError
from faceauth.faces import CenterFaceFinder
from faceauth.model_file import ModelFile


def test_every_model_of_the_package_has_its_hash_in_the_code():
    there = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in shipped.folder().glob("*.onnx")}
    assert there == shipped.SHA256, "a model file was changed: write its SHA-256 into shipped.py"


@pytest.mark.parametrize(("name", "opened"), [("accurate", ModelFile), ("centerface", CenterFaceFinder)])
@pytest.mark.parametrize("data", [b"another model", b"", b"version https://git-lfs.github.com/spec/v1"])
def test_a_changed_file_of_the_package_is_refused_before_it_is_run(tmp_path, monkeypatch, name, opened, data):
    (tmp_path / f"{name}.onnx").write_bytes(data)
    monkeypatch.setattr(shipped, "folder", lambda: tmp_path)
    with pytest.raises(ModelError, match="not the file that faceauth came with") as caught:
        opened()
    assert name in caught.value.message
    assert "again" in caught.value.hint


def test_a_model_of_the_user_may_have_the_name_of_one_of_the_package(tmp_path, model_path):
    other = tmp_path / "accurate.onnx"
    other.write_bytes(model_path.read_bytes())
    assert ModelFile(other).card.name == "brightness"
