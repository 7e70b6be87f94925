import dataclasses
import inspect

import pytest

import faceauth
from faceauth import errors


def test_all_is_sorted_and_every_name_can_be_had():
    assert sorted(faceauth.__all__) == faceauth.__all__
    for name in faceauth.__all__:
        assert getattr(faceauth, name) is not None
    assert set(faceauth._HOMES) | {"__version__", "load", "rows"} == set(faceauth.__all__)
    assert dir(faceauth) == faceauth.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = faceauth.nothing


def test_every_public_name_is_documented():
    for name in faceauth.__all__:
        thing = getattr(faceauth, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), name


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert version("faceauth") == faceauth.__version__


def test_verdicts_are_frozen():
    face = faceauth.Face(0, (0, 0, 1, 1), "real", 0.1, "a", 0.5, 0.05)
    with pytest.raises(dataclasses.FrozenInstanceError):
        face.label = "fake"


def test_the_gravest_face_names_the_image():
    faces = tuple(
        faceauth.Face(i, None, label, 0.1, "a", 0.5, 0.05) for i, label in enumerate(("real", "fake", "uncertain"))
    )
    assert faceauth.Verdict("a", faces, "m", "0").label == "fake"
    assert faceauth.Verdict("a", faces[::2], "m", "0").label == "uncertain"
    assert faceauth.Verdict("a", (), "m", "0", error="broken").label is None


def test_the_tree_of_errors_is_the_one_drawn():
    codes = {n: c.exit_code for n, c in vars(errors).items() if inspect.isclass(c)}
    assert codes == {
        "FaceAuthError": 1, "UsageError": 2, "ConfigError": 2, "SourceTypeError": 2, "ImageError": 3, "ModelError": 1, "DataError": 1, "MissingExtra": 1,
    }  # fmt: skip
    for name in codes:
        assert name in errors.__doc__


def test_errors_cross_processes_with_their_hints():
    import pickle

    for error in (errors.ImageError("a", "b"), errors.MissingExtra("x", "lab")):
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), str(back)) == (type(error), str(error))
