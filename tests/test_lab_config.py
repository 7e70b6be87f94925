"""TOML files that begin with another."""

import pytest

pytest.importorskip("pydantic")
pytest.importorskip("torch")
from faceauth.errors import ConfigError
from faceauth.lab.training.config import read_config

pytestmark = pytest.mark.torch
BASE = """
name = "base"
images = 100
lr = 0.5
[data]
root = "corpus"
folds = [["a"], ["b"]]
[augment]
blur = 0.1
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "base.toml").write_text(BASE)
    (tmp_path / "sub" / "middle.toml").write_text('base = "../base.toml"\nname = "middle"\n[data]\nsplit_seed = 3')
    (tmp_path / "child.toml").write_text('base = "sub/middle.toml"\nlr = 0.1\n[data]\nfolds = [["a", "b"]]\n')
    return tmp_path


def test_a_file_says_what_differs_from_its_base(place):
    config = read_config(place / "child.toml")
    assert (config.name, config.images, config.lr, config.augment.blur) == ("middle", 100, 0.1, 0.1)
    assert (config.data.root.name, config.data.split_seed, config.data.folds) == ("corpus", 3, [["a", "b"]])
    assert read_config(place / "base.toml").lr == 0.5
    assert read_config(place / "child.toml", ["lr=0.2", "data.split_seed=4"]).data.split_seed == 4


@pytest.mark.parametrize(("file", "change", "says"), [
    ("base.toml", "lr = -1\n", r"base\.toml: lr: "), ("child.toml", "lr = -1\n", r"child\.toml: lr: "),
    ("sub/middle.toml", "[data]\ncash = 1\n", r"middle\.toml: unknown key 'data.cash'"),
    ("base.toml", "lr = \n", r"base\.toml: not TOML"), ("sub/middle.toml", 'base = "none.toml"\n', r"middle\.toml: base: there is no file"),
    ("base.toml", 'base = "child.toml"\n', "leads back to itself"), ("child.toml", 'base = "child.toml"\n', "leads back to itself"),
    ("sub/middle.toml", "base = 3\n", r"middle\.toml: base: the path of another TOML file, not 3"),
    ("base.toml", "", r"child\.toml: images, the training budget, is missing"),
])  # fmt: skip
def test_an_error_names_the_file_it_is_in(place, file, change, says):
    keep = "" if "[data]" in change or not change else '\n[data]\nroot = "corpus"\n'
    head = 'base = "../base.toml"\n' if file == "sub/middle.toml" and "base" not in change else ""
    head += 'base = "sub/middle.toml"\n' if file == "child.toml" and "base" not in change else ""
    (place / file).write_text(head + change + keep + ("" if change else '[data]\nroot = "corpus"\n'))
    if file == "base.toml" and "lr = -1" in change:
        (place / "child.toml").write_text('base = "sub/middle.toml"\n')
    with pytest.raises(ConfigError, match=says):
        read_config(place / "child.toml")
