"""Embeddings, maps and the numbers beside them; spectra of sources on a prepared data set."""

import csv

import numpy as np
import pytest

pytest.importorskip("torch")
import pandas as pd
from PIL import Image
from typer.testing import CliRunner

from faceauth.errors import DataError, UsageError
from faceauth.lab.cli import app
from faceauth.lab.data.dataset import read_dataset
from faceauth.lab.data.examples import from_manifest
from faceauth.lab.evaluation.candidates import choose, open_candidates
from faceauth.lab.evaluation.embeddings import Embedded, clusters, embed, load_map, tsne
from faceauth.lab.evaluation.spectrum import source_spectra
from faceauth.model_file import ModelFile
from lab_prepared import write_run, write_set

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")]


def blobs(apart, n=40, d=8):
    """Four sources, two of each class, `apart` widths from each other."""
    rng = np.random.default_rng(0)
    source = np.repeat(["cam-a", "cam-b", "gan-a", "gan-b"], n)
    centers = apart * np.eye(4, d)
    x = rng.normal(size=(4 * n, d)) + np.repeat(centers, n, axis=0)
    target = np.repeat([1, 1, 0, 0], n)
    names = np.array([f"{i}.png" for i in range(4 * n)])
    return Embedded(x.astype(np.float32), names, source, target, np.linspace(0, 1, 4 * n))


def numbers(embedded):
    return {(r["measure"], r["of"]): (r["value"], r["chance"]) for r in clusters(embedded)}


def whole(embedded):
    [row] = [r for r in clusters(embedded) if r["of"] == "the reals as one cluster"]
    return row["chance, sources whole"]


def test_separate_sources_are_separate_in_numbers():
    found = numbers(blobs(30))
    value, chance = found["accuracy of 5 nearest", "sources"]
    assert value == 1
    assert chance == pytest.approx(0.25, abs=0.05)
    assert found["accuracy of 5 nearest", "real and fake"][0] == 1
    assert found["silhouette", "sources"][0] > 0.8
    assert found["silhouette", "real sources among themselves"][0] > 0.8
    # The two real sources lie as far from each other as from the fakes: they are no cluster of their own.
    assert found["silhouette", "the reals as one cluster"][0] == pytest.approx(whole(blobs(30)), abs=0.02)


def test_one_blob_is_at_chance_in_numbers():
    for (measure, _), (value, chance) in numbers(blobs(0)).items():
        assert value == pytest.approx(chance, abs=0.12 if "nearest" in measure else 0.04)


def test_the_reals_as_one_cluster_show():
    e = blobs(0)
    moved = e.embedding + 30 * (e.target == 1)[:, None]
    together = Embedded(moved.astype(np.float32), e.path, e.source, e.target, e.score)
    found = numbers(together)
    assert found["silhouette", "the reals as one cluster"][0] > max(0.8, 1.3 * whole(together))
    assert found["accuracy of 5 nearest", "real sources among themselves"][0] < 0.7


def test_an_image_is_not_its_own_neighbour():
    e = blobs(0, n=3, d=2)  # a label that stands once cannot be found among others
    source = np.array([f"s{i}" for i in range(11)] + ["s0"])
    found = numbers(Embedded(e.embedding, e.path, source, e.target, e.score))
    assert found["accuracy of 5 nearest", "sources"][0] <= 2 / 12


@pytest.fixture(scope="module")
def separate():
    return tsne(blobs(30), 3, 20, "m" * 64, "d" * 64)


def test_a_map_is_the_same_for_the_same_seed(separate):
    again = tsne(blobs(30), 3, 20, "m" * 64, "d" * 64)
    assert np.array_equal(again.points, separate.points)
    assert separate.points.shape == (160, 2)


def test_a_map_keeps_separate_sources_apart(separate):
    e = separate.embedded
    found = numbers(Embedded(separate.points.astype(np.float32), e.path, e.source, e.target, e.score))
    assert found["accuracy of 5 nearest", "sources"][0] == 1


def test_known_images_are_placed_near_themselves_on_a_saved_map(separate, tmp_path):
    separate.save(tmp_path / "map.npz")
    np.load(tmp_path / "map.npz", allow_pickle=False).close()
    loaded = load_map(tmp_path / "map.npz", "m" * 64)
    assert (loaded.seed, loaded.perplexity, loaded.manifest_sha256) == (3, 20, "d" * 64)
    chosen = [0, 50, 90, 150]
    points = loaded.place(separate.embedded.embedding[chosen])
    spread = np.ptp(separate.points, axis=0).max()
    for i, point in zip(chosen, points, strict=True):
        assert np.linalg.norm(point - separate.points[i]) < 0.1 * spread
        assert loaded.nearest(point) == separate.embedded.source[i]
    with pytest.raises(UsageError, match="another model"):
        load_map(tmp_path / "map.npz", "x" * 64)
    (tmp_path / "broken.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="no map"):
        load_map(tmp_path / "broken.npz", "m" * 64)


def test_few_images_get_the_perplexity_that_suits_them():
    assert tsne(blobs(1, n=4), 0, None, "", "").perplexity == 5
    assert tsne(blobs(1, n=30), 0, None, "", "").perplexity == 30


def test_a_perplexity_that_does_not_suit_is_refused():
    with pytest.raises(UsageError, match="1 to 13 does"):
        tsne(blobs(1, n=10), 0, 30, "", "")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("maps")
    write_set(place, counts={"train": 2, "test": 8, "dev": 2})
    write_run(place / "runs", place / "set" / "manifest.parquet")
    return place


def invoke(place, *words):
    return CliRunner().invoke(app, [*map(str, words)])


def test_embed_writes_every_image_of_the_split(place):
    run, cache = place / "runs" / "bright", place / "cache"
    for name in ("e.npz", "e.parquet"):
        done = invoke(place, "embed", run, "-o", place / name, "--cache", cache)
        assert done.exit_code == 0, done.output
    table = pd.read_parquet(place / "e.parquet")
    with np.load(place / "e.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"embedding", "path", "source", "target", "score"}
        assert arrays["embedding"].shape == (32, 4)
        assert np.array_equal(np.stack(table["embedding"]), arrays["embedding"])
        assert table["path"].tolist() == arrays["path"].tolist()
    assert set(zip(table["source"], table["target"], strict=True)) == {
        ("cam-a", 1),
        ("cam-b", 1),
        ("gan-a", 0),
        ("gan-b", 0),
    }
    # What a network sees of a prepared face is what the model file's preprocessing makes of it.
    model, file = ModelFile(run / "detector.onnx"), place / "set" / table["path"][5]
    spec = model.card.preprocess
    pixels = spec.resize(Image.open(file).convert("RGB"), spec.region((8, 8, 56, 56), 64, 64))
    expected = model.run(spec.normalize(pixels[None]))
    assert table["embedding"][5] == pytest.approx(expected.embedding[0], abs=1e-5)
    assert table["score"][5] == pytest.approx(model.card.calibration(expected.logit)[0])


def test_dev_is_sealed_for_everything_but_evaluate(place):
    run, manifest = place / "runs" / "bright", place / "set" / "manifest.parquet"
    for words in (["embed", run], ["tsne", run], ["spectrum", "--manifest", manifest]):
        done = invoke(place, *words, "--split", "dev", "-o", place / "dev.npz")
        assert isinstance(done.exception, UsageError)
        assert "--open-dev" in str(done.exception)
        assert not (place / "dev.npz").exists()


def test_embeddings_of_a_suffix_that_is_none(place):
    done = invoke(place, "embed", place / "runs" / "bright", "-o", "e.txt")
    assert isinstance(done.exception, UsageError)


def test_tsne_writes_its_map_and_places_images_on_it(place):
    run, out, original = place / "runs" / "bright", place / "map", place / "originals" / "cam-a" / "test-0.png"
    common = ["tsne", run, "--perplexity", 5, "-o", out, "--cache", place / "cache"]
    done = invoke(place, *common)
    assert done.exit_code == 0, done.output
    assert "| accuracy of 5 nearest | real and fake |" in done.stdout
    assert {f.name for f in out.iterdir()} == {"map.npz", "tsne.png", "tsne.svg", "tsne.csv", "clusters.csv"}
    rows = list(csv.DictReader((out / "tsne.csv").open()))
    assert len(rows) == 32
    assert "seed 0, perplexity 5" in (out / "tsne.svg").read_text() or "<path" in (out / "tsne.svg").read_text()
    assert Image.open(out / "tsne.png").width >= 1200
    before = (out / "map.npz").read_bytes()
    placed = invoke(place, *common, "--place", original)
    assert placed.exit_code == 0, placed.output
    assert placed.stdout.startswith(f"{original}: ")
    assert (out / "placed.png").is_file()
    assert (out / "map.npz").read_bytes() == before


def test_at_most_so_many_of_each_source_are_drawn_with_the_seed(place):
    examples = from_manifest(read_dataset(place / "set" / "manifest.parquet"))
    chosen = choose(examples, "test", 3, 0)
    assert chosen == choose(examples, "test", 3, 0) != choose(examples, "test", 3, 1)
    assert len(chosen) == 12
    assert {examples.splits[i] for i in chosen} == {"test"}
    [candidate] = open_candidates([place / "runs" / "bright"])
    assert len(embed(candidate, examples, "test", place / "cache", 1, 3).path) == 12
    with pytest.raises(DataError, match="empty"):
        embed(candidate, examples, "none", place / "cache", 1)


def test_spectra_show_the_grid_of_the_fakes(place):
    """The corpus made in code lays a grid of period 8 over the fakes, which 96 to 64 pixels makes 5.33."""
    examples = from_manifest(read_dataset(place / "set" / "manifest.parquet"))
    found = source_spectra(examples, "test")
    assert [(s.source, s.fake, s.images) for s in found] == [
        ("cam-a", False, 8), ("cam-b", False, 8), ("gan-a", True, 8), ("gan-b", True, 8),
    ]  # fmt: skip
    for s in found:
        assert (s.low <= s.profile).all() and (s.profile <= s.high).all()
        assert s.log_power.shape == (64, 64)
    real = np.mean([s.profile for s in found if not s.fake], axis=0)
    fake = found[2]
    assert fake.difference == pytest.approx(fake.profile - real)
    at = np.hypot(1, 1) * 96 / 8 / 64  # cycles a pixel of the diagonal of the grid
    ring = np.abs(fake.frequency - at).argmin()
    assert fake.difference_low[ring - 1 : ring + 2].max() > 1
    assert abs(found[0].difference[ring]) < 1
    means = [s.summary()["upper half, dB"] for s in found]
    assert means[0] + means[1] == pytest.approx(0, abs=1e-9)  # the reals lie about their own mean
    assert means[2] > 0.1


def test_spectrum_writes_figures_and_a_table(place):
    out = place / "spectra"
    done = invoke(place, "spectrum", "--manifest", place / "set" / "manifest.parquet", "-o", out)
    assert done.exit_code == 0, done.output
    assert {f.name for f in out.iterdir()} == {
        "spectra.png", "spectra.svg", "profiles.png", "profiles.svg", "profiles.csv",
    }  # fmt: skip
    assert "resize shapes every spectrum" in done.stderr
    rows = list(csv.DictReader((out / "profiles.csv").open()))
    assert len(rows) == 4 * 33
    assert float(rows[-1]["frequency"]) == 0.5


def test_spectra_need_one_size(place, tmp_path):
    manifest = write_set(tmp_path, counts={"test": 3})
    Image.new("RGB", (50, 50)).save(tmp_path / "set" / "gan-b" / "test-1.png")
    with pytest.raises(DataError, match="one size"):
        source_spectra(from_manifest(read_dataset(manifest)), "test")
