"""GANprintR rebuilt: the network that is trained, the corpus that it writes, and what laundering does to a picture."""

import csv
import hashlib

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
from command_line import faceauth
from conftest import PORTRAIT
from faceauth.errors import DataError, UsageError
from faceauth.lab.data.variants import NETWORK, Launderer, launderer
from faceauth.lab.training.launder import launder, psnr
from lab_corpus import write_corpus

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("laundry") / "corpus", 12)


def test_fakes_come_back_as_a_corpus_of_their_own(corpus, tmp_path):
    said = faceauth("lab", "launder", tmp_path / "out", "--corpus", corpus, "--images", 64, "--cache", tmp_path / "c")
    assert said[0] == 0, said
    assert said[1].startswith("24 faces in")
    with (tmp_path / "out" / "images.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert {(r["source"], r["label"], r["family"]) for r in rows} == {("laundered", "fake", "laundered")}
    assert {r["generator"] for r in rows} == {"gan-a", "gan-b"}
    for row in rows[:3]:
        file = tmp_path / "out" / row["path"]
        assert hashlib.sha256(file.read_bytes()).hexdigest() == row["sha256"]
        with Image.open(file) as image:
            assert (image.format, image.size) == ("JPEG", (224, 224))
    again = launder(corpus, tmp_path / "c", tmp_path / "again", images=64)
    assert again["faces"] == 24
    assert (tmp_path / "again" / NETWORK).read_bytes() == (tmp_path / "out" / NETWORK).read_bytes()


def test_what_cannot_be_laundered_is_said(corpus, tmp_path):
    with pytest.raises(DataError, match="0 fakes of diffusion"):
        launder(corpus, tmp_path / "c", tmp_path / "out", ("diffusion",))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(UsageError, match="not empty"):
        launder(corpus, tmp_path / "c", tmp_path / "full")
    (tmp_path / "no.onnx").write_bytes(b"no network")
    with pytest.raises(DataError, match="cannot use"):
        Launderer(tmp_path / "no.onnx")


def test_the_network_of_the_laboratory_keeps_a_face_and_drops_what_is_finest():
    """Real faces come back nearly as they were; a grid of single pixels, as upsampling leaves it, does not."""
    with Image.open(PORTRAIT) as image:
        face = image.convert("RGB").resize((224, 256), Image.Resampling.BICUBIC, (160, 100, 370, 340))
    assert psnr([np.asarray(face)], launderer()) > 25
    grid = 24 * (-1.0) ** np.add.outer(np.arange(256), np.arange(224))[..., None]
    marked = Image.fromarray((np.asarray(face) * 0.8 + 25 + grid).clip(0, 255).astype(np.uint8))

    def finest(picture):
        pixels = np.asarray(picture, float)[:252, :220].mean(2)
        return abs((pixels * (-1.0) ** np.add.outer(np.arange(252), np.arange(220))).mean())

    assert finest(launderer()(marked)) < finest(marked) / 4


def test_sides_are_cut_to_multiples_of_four():
    assert launderer()(Image.new("RGB", (39, 45), "gray")).size == (36, 44)
