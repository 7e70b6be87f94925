"""The map and the spectra of a folder's faces: what is in them, and what becomes of pictures that have none."""

import csv
import re
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from attributed import SPEC, make_prototypes
from command_line import faceauth
from conftest import SAMPLES, encoded, make_card, picture, write_model
from faceauth import cli_embed, images, learned
from faceauth.attribution import PROTOTYPES_KEY, Kind, Taught
from faceauth.detector import Detector
from faceauth.errors import FaceAuthError
from faceauth.explain import folder
from faceauth.explain.reference import Profile, Reference, frequencies, profile
from faceauth.faces import finder

FACES = ("astronaut.jpg", "grace-hopper.jpg", "vae-04.jpg", "vae-05.jpg")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "colour.onnx"
    card = make_card(name="colour", preprocess=SPEC)
    return write_model(path, card, colour=True, more={PROTOTYPES_KEY: make_prototypes().to_json()})


@pytest.fixture
def pictures(tmp_path):
    place = tmp_path / "pictures"
    place.mkdir()
    for name in FACES:
        shutil.copy(SAMPLES / name, place / name)
    (place / "white.png").write_bytes(encoded(picture((255, 255, 255))))
    (place / "broken.jpg").write_bytes((SAMPLES / FACES[0]).read_bytes()[:400])
    return place


def test_embeddings_are_those_of_the_library(model, pictures, tmp_path):
    code, out, err = faceauth("embed", pictures, "--model", model, "-o", tmp_path / "e.npz")
    assert (code, out) == (3, "")
    assert "broken.jpg: " in err and "4 faces of 5 pictures; 1 unreadable" in err
    found = np.load(tmp_path / "e.npz", allow_pickle=False)
    detector = Detector(model, learned=False)
    assert [path.rpartition("/")[2] for path in found["path"]] == list(FACES)
    np.testing.assert_allclose(found["embedding"], detector.embed([pictures / n for n in FACES]), atol=1e-6)
    np.testing.assert_allclose(found["score"], detector.scores([pictures / n for n in FACES]), atol=1e-6)
    assert found["place"].shape == (4, 2)


def test_scores_are_those_of_detect_with_what_was_learned(model, pictures, tmp_path):
    plain, file = Detector(model, learned=False), tmp_path / "learned.json"
    mean = plain.embed([pictures / n for n in FACES]).mean(axis=0)
    kind = Kind("ours", "real", "real", "ours")
    learned.write(file, [Taught(kind, mean, 12, plain.model.sha256, "2026-01-31", 0.0, 0.5, 0.01)])
    err = faceauth("embed", pictures, "--model", model, "--learned", file, "-o", tmp_path / "e.npz")[2]
    assert "4 faces of 5 pictures; with what was learned: ours; 1 unreadable" in err
    faceauth("embed", pictures, "--model", model, "--learned", file, "--no-learned", "-o", tmp_path / "p.npz")
    found, without = (np.load(tmp_path / name, allow_pickle=False) for name in ("e.npz", "p.npz"))
    verdicts = Detector(model, learned=file).detect([pictures / n for n in FACES])
    np.testing.assert_allclose(found["score"], [v.faces[0].score for v in verdicts], atol=1e-6)
    assert list(found["generator"]) == [v.faces[0].generator for v in verdicts]
    np.testing.assert_allclose(without["score"], plain.scores([pictures / n for n in FACES]), atol=1e-6)
    assert np.abs(found["score"] - without["score"]).max() > 0.01


def test_the_map_keeps_what_lies_apart_apart():
    prototypes = make_prototypes()
    values = prototypes.center + np.linalg.solve(prototypes.axes, prototypes.means.T).T
    places, sources = folder.on_a_map(values, prototypes)
    np.testing.assert_allclose(places, sources, atol=1e-6)
    apart = np.linalg.norm(sources[:, None] - sources[None], axis=2)
    assert (
        np.corrcoef(apart.ravel(), np.linalg.norm(prototypes.means[:, None] - prototypes.means, axis=2).ravel())[0, 1]
        > 0.9
    )
    alone, none = folder.on_a_map(np.array([[0.0, 0, 0], [3, 0, 0], [0, 1, 0]]), None)
    assert np.linalg.norm(alone[0] - alone[1]) == pytest.approx(3) and len(none) == 0


def test_the_page_has_a_mark_for_every_face_and_source(model, pictures, tmp_path, open_page):
    evil = pictures / "<script>alert(1)<b>.jpg"
    shutil.copy(SAMPLES / FACES[0], evil)
    assert faceauth("embed", pictures, "--model", model, "-o", tmp_path / "map.html")[0] == 3
    html = (tmp_path / "map.html").read_text()
    svg = ET.fromstring(re.search(r"<svg class=\"plot\".*?</svg>", html, re.DOTALL)[0])
    marks = [e.get("class") for e in svg]
    assert marks.count("source") == 4
    assert len(marks) == 4 + len(FACES) + 1
    assert "<script>alert" not in html
    opened = open_page(tmp_path / "map.html")
    assert opened.complaints == [] and opened.requests == [] and opened.serious() == []


def test_spectra_of_groups_are_means_of_their_faces(model, pictures, tmp_path):
    code, _, err = faceauth("spectrum", pictures, pictures / FACES[0], "--model", model, "-o", tmp_path / "s.csv")
    assert code == 3 and "5 faces of 2 groups; 1 unreadable" in err
    with (tmp_path / "s.csv").open() as file:
        rows = list(csv.DictReader(file))
    opened = [images.load(pictures / n).image for n in FACES]
    profiles = [profile(SPEC.cut(image, finder()(image)[0])) for image in opened]
    expected = np.mean(profiles, axis=0)
    own = [float(r["decibels"]) for r in rows if r["group"] == str(pictures)]
    np.testing.assert_allclose(own, expected, atol=1e-3)
    assert {r["faces"] for r in rows} == {"4", "1"}
    beside = Reference(None, Profile("photographs", 9, tuple(expected)), tuple(expected - 3), tuple(expected + 3), ())
    page = folder.to_spectra({"a": (4, expected), "<b>": (1, profiles[0])}, SPEC.size, beside).decode()
    assert page.count("<polyline") == 4 and page.count("<polygon") == 1 and "<b>" not in page
    assert len(frequencies(SPEC.size)) == len(expected)


def test_groups_that_add_nothing_are_named(model, pictures, tmp_path):
    (tmp_path / "blank").mkdir()
    (tmp_path / "blank" / "white.png").write_bytes(encoded(picture((255, 255, 255))))
    words = ("spectrum", "--model", model, "-o", "s.csv", "pictures", "blank", "./pictures/", tmp_path / "pictures")
    code, _, err = faceauth(*words, cwd=tmp_path)
    assert code == 3 and "4 faces of 1 group; 1 unreadable" in err
    assert "blank: left out, no face was found in it\n" in err
    assert "./pictures/: the same pictures as pictures, counted once\n" in err
    assert f"{tmp_path / 'pictures'}: the same pictures as pictures, counted once\n" in err


def test_an_empty_group_is_refused_before_the_others_are_judged(model, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "embedded", lambda *_: pytest.fail("a picture was judged"))
    (tmp_path / "empty").mkdir()
    code, _, err = faceauth("spectrum", pictures, "empty", "--model", model, "-o", "s.csv", cwd=tmp_path)
    assert code == 2 and "no images in 'empty'" in err


def test_a_group_is_no_formula_in_a_table():
    found = {name: (1, np.zeros(len(frequencies(SPEC.size)))) for name in ("=cmd", "@x", "-1", "plain")}
    lines = list(csv.DictReader(folder.to_csv(found, SPEC.size).decode().splitlines()))
    assert list(dict.fromkeys(line["group"] for line in lines)) == ["'=cmd", "'@x", "'-1", "plain"]


@pytest.mark.parametrize(("words", "says"), [
    (("embed", "x", "-o", "map.png"), "choose one of .html, .npz"),
    (("spectrum", "x", "-o", "no/where/s.html"), "no folder"),
    (("embed", "x", "-o", "there.html"), "exists"),
])  # fmt: skip
def test_outputs_that_cannot_be_are_said_before_the_work(words, says, tmp_path):
    (tmp_path / "there.html").touch()
    code, out, err = faceauth(*words, cwd=tmp_path)
    assert (code, out) == (2, "") and says in err


@pytest.mark.parametrize("words", ["embed", "spectrum"])
def test_pictures_of_which_none_can_be_read_are_code_3(model, tmp_path, words):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    code, _, err = faceauth(words, tmp_path / "broken.png", "--model", model, "-o", tmp_path / "o.html")
    assert code == 3 and "the picture could not be read" in err and "no face" not in err
    (tmp_path / "gone.png").write_bytes(b"\x89PNG nothing")
    code, _, err = faceauth(words, tmp_path, "--model", model, "-o", tmp_path / "o.html")
    assert code == 3 and "none of the 2 pictures could be read" in err
    assert not (tmp_path / "o.html").exists()


def test_no_face_at_all_is_one_line(model, tmp_path):
    (tmp_path / "white.png").write_bytes(encoded(picture((255, 255, 255))))
    for command, output in (("embed", "e.html"), ("spectrum", "s.html")):
        code, _, err = faceauth(command, tmp_path / "white.png", "--model", model, "-o", tmp_path / output)
        assert code in {1, 2} and "no face was found in any picture" in err
        assert not (tmp_path / output).exists()


def test_a_disk_that_is_full_is_said_of_the_file(model, pictures, tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cli_embed, "write_bytes", full)
    with pytest.raises(FaceAuthError, match=r"cannot write '.*map\.html': No space left on device"):
        cli_embed.embed([str(pictures)], tmp_path / "map.html", model)
