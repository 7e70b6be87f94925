"""What the laboratory measures for explanations: heat maps against chance, and the reference beside a model file."""

import numpy as np
import pytest

from block_models import PATCH, SIDE, SIZE, write_block_model
from conftest import SAMPLES
from faceauth import images
from faceauth.errors import DataError
from faceauth.explain import reference as reference_
from faceauth.faces import finder
from faceauth.lab.data.dataset import DataSet, ImageRow
from faceauth.lab.evaluation import heatmaps
from faceauth.lab.evaluation.reference import read_rates, reference
from faceauth.model_file import ModelFile

PAGE = """
| variant | other |
|---|---|
| clean | 1 |

| variant | pictures | n | called real | uncertain | called fake |
|---|---|---|---|---|---|
| clean | real | 280 | 0.5 | 0.4 | 0.1 |
| clean | GAN | 100 | 0.2 | 0.6 | 0.2 |
| clean | diffusion | 300 | 0.0 | 0.4 | 0.6 |
| clean | swapped | 31 | 0.3 | 0.6 | 0.1 |
| web | real | 280 | 0.9 | 0.0 | 0.1 |

| variant | pictures | n | called real | uncertain | called fake |
|---|---|---|---|---|---|
| clean | real | 1 | 0.9 | 0.0 | 0.1 |
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ModelFile(write_block_model(tmp_path_factory.mktemp("blocks") / "blocks.onnx", of_mean=(8.0, 0.0, 0.0)))


def row(path, source, label, split="train", sha256=None):
    return ImageRow(path, source, label, label, source, "", source, sha256 or path, split)


def patchwork(seed):
    """Dark patches, and a few red ones here and there."""
    rng = np.random.default_rng(seed)
    red = np.zeros(SIDE * SIDE)
    red[rng.permutation(SIDE * SIDE)[:3]] = 255
    pixels = rng.integers(0, 30, (SIZE, SIZE, 3), np.uint8)
    pixels[..., 0] = np.maximum(pixels[..., 0], np.kron(red.reshape(SIDE, SIDE), np.ones((PATCH, PATCH)))).astype(
        np.uint8
    )
    return pixels


def test_a_heat_map_is_more_faithful_than_chance_and_a_centre_prior(model):
    rng = np.random.default_rng(0)
    found = [heatmaps.areas_of(model, patchwork(i), rng) for i in range(12)]
    deletion, insertion = ({n: np.mean([areas[n][k] for areas in found]) for n in heatmaps.MAPS} for k in (0, 1))
    for name in ("random", "centre"):
        assert deletion["heat map"] < deletion[name] - 0.1
        assert insertion["heat map"] > insertion[name] + 0.1


def test_the_table_says_by_how_much_and_how_sure_that_is():
    ours, other = np.array([[0.0, 3.0], [1.0, 3.0]]), np.array([[2.0, 1.0], [3.0, 1.0]])
    first, second = heatmaps.table({"heat map": ours, "random": other})
    assert first["deletion"] == "0.50 (0.00 to 1.00)" and "heat map's deletion less" not in first
    assert second["heat map's deletion less"] == "-2.00 (-2.00 to -2.00)"
    assert second["heat map's insertion more"] == "2.00 (2.00 to 2.00)"


def test_images_of_the_test_split_are_chosen_a_source_at_a_time():
    rows = [
        row(f"{source}{split}{i}", source, label, split)
        for source, label in (("a", "real"), ("b", "real"), ("c", "fake"), ("d", "fake"))
        for split in ("train", "test", "dev")
        for i in range(3)
    ]
    chosen = heatmaps.choose(rows, 8)
    assert {r.split for r in chosen} == {"test"} and len({r.path for r in chosen}) == 8
    assert {r.source for r in chosen[:4]} == {"a", "b", "c", "d"}
    assert [r.label for r in chosen] == ["real", "fake"] * 4
    assert heatmaps.choose(rows, 8) == heatmaps.choose(rows[::-1], 8)


def test_rates_come_from_the_page_as_they_are(tmp_path):
    (tmp_path / "card.md").write_text(PAGE)
    rates = read_rates(tmp_path / "card.md", "any")
    assert rates.real == {"real": 0.5, "uncertain": 0.4, "fake": 0.1}
    assert rates.generated == {"real": 0.05, "uncertain": 0.45, "fake": 0.5}
    assert rates.measured_on == "280 photographs, 400 generated faces of kinds held out"


def test_only_the_model_and_unseen_kinds_count(tmp_path):
    head = "| model | set | variant | pictures | n | called real | uncertain | called fake |\n|---|---|---|---|---|---|---|---|\n"
    lines = [
        f"| {m} | {s} | clean | {p} | 10 | 0.1 | 0.1 | {f} |"
        for m, s, f in (("other", "unseen kind", 0.1), ("mine", "seen", 0.2), ("mine", "unseen kind", 0.8))
        for p in ("real", "GAN")
    ]
    (tmp_path / "report.md").write_text(head + "\n".join(lines))
    assert read_rates(tmp_path / "report.md", "mine").real["fake"] == 0.8


@pytest.mark.parametrize("text", ["", "no table", PAGE.replace("clean", "web"), PAGE.replace("0.5 |", "x |")])
def test_a_page_without_the_table_is_refused(tmp_path, text):
    (tmp_path / "card.md").write_text(text)
    with pytest.raises(DataError):
        read_rates(tmp_path / "card.md", "any")


def test_spectra_are_those_of_the_train_split_as_the_network_is_shown_it(tmp_path, model):
    (tmp_path / "card.md").write_text(PAGE)
    rows = [row("grace-hopper.jpg", "cam", "real"), row("astronaut.jpg", "cam2", "real", "test"),
            row("vae-04.jpg", "vae", "fake"), row("vae-05.jpg", "vae", "fake")]  # fmt: skip
    data = DataSet(tuple(rows), SAMPLES, "0" * 64)
    spec = model.card.preprocess
    found = reference(data, rows, spec, tmp_path / "card.md", "any", per_source=1)
    image = images.load(SAMPLES / "grace-hopper.jpg").image
    own = reference_.profile(spec.cut(image, finder()(image)[0]))
    np.testing.assert_allclose(found.real.decibels, own, atol=0.006)
    assert [(g.name, g.images) for g in found.generators] == [("vae", 1)] and found.real.images == 1
    np.testing.assert_allclose(found.low, own, atol=0.006)


def test_a_source_without_a_face_is_named(tmp_path, model):
    (tmp_path / "card.md").write_text(PAGE)
    rows = [row("grace-hopper.jpg", "cam", "real"), row("no-face.png", "walls", "fake")]
    with pytest.raises(DataError, match="walls"):
        reference(DataSet(tuple(rows), SAMPLES, "0"), rows, model.card.preprocess, tmp_path / "card.md", "any", 2)
