import dataclasses
import hashlib
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lab_corpus import write_corpus

pytest.importorskip("pydantic")
from faceauth.errors import DataError
from faceauth.images import dhash
from faceauth.lab.data import examples
from faceauth.lab.data.augment import AugmentConfig, augment
from faceauth.lab.data.blend import self_blended
from faceauth.lab.data.dataset import read_dataset
from faceauth.lab.data.examples import LARGEST, open_crops
from faceauth.preprocess import PreprocessSpec


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return read_dataset(write_corpus(tmp_path_factory.mktemp("corpus")))


def test_crops_are_cut_once_and_read_back(corpus, tmp_path):
    crops = open_crops(corpus, tmp_path, workers=1)
    assert len(crops) == len(corpus.rows)
    image, box = crops[3]
    assert image.width == image.height <= LARGEST
    assert 0 <= box[0] < box[2] <= image.width + 1
    stamp = os.stat(next(tmp_path.glob("*/pixels.bin"))).st_mtime_ns
    again = open_crops(corpus, tmp_path)
    assert os.stat(next(tmp_path.glob("*/pixels.bin"))).st_mtime_ns == stamp
    assert np.array_equal(np.asarray(again[3][0]), np.asarray(image))


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A data set of five images, quickly cut."""
    return read_dataset(write_corpus(tmp_path_factory.mktemp("three"), count=0))


def test_what_shapes_a_crop_is_part_of_its_key(three, corpus, tmp_path, monkeypatch):
    cut = []
    monkeypatch.setattr(
        examples, "_cut_all", lambda data, folder, workers: cut.append(folder) or cut_here(data, folder, workers)
    )
    before = open_crops(three, tmp_path)
    open_crops(three, tmp_path)
    assert len(set(cut)) == len(cut) == 1
    with monkeypatch.context() as patch:
        patch.setattr(examples, "LARGEST", 40)
        assert open_crops(three, tmp_path)[0][0].width == 40 < before[0][0].width
    with monkeypatch.context() as patch:
        patch.setattr(examples, "CONTEXT", 1.0)
        assert open_crops(three, tmp_path)[0][0].width < before[0][0].width
    for name, value in (("REVISION", "other"), ("VERSION", 99)):
        with monkeypatch.context() as patch:
            patch.setattr(examples, name, value)
            open_crops(three, tmp_path)
    open_crops(dataclasses.replace(three, rows=three.rows[:3], sha256="1" * 64), tmp_path)
    assert len(set(cut)) == len(cut) == 6, "each has a cache of its own"
    assert open_crops(three, tmp_path)[0][0].size == before[0][0].size


def test_crops_follow_the_order_of_the_rows(three, tmp_path):
    before = open_crops(three, tmp_path, 1)
    turned = open_crops(dataclasses.replace(three, rows=three.rows[::-1]), tmp_path, 1)
    assert np.array_equal(np.asarray(turned[0][0]), np.asarray(before[len(before) - 1][0]))


def test_extra_images_that_are_evaluated_on_are_left_out(corpus, three, tmp_path, capsys):
    """Byte for byte, resaved, or another of the same person; of a source held out those of the train split too."""
    base = examples.from_corpus(corpus, tmp_path)
    free = ["gan-a", "gan-b", "cam-b"]
    sealed = [r for r, s in zip(base.records, base.splits, strict=True) if s != "train" and r.source in free]
    fit = [r for r, s in zip(base.records, base.splits, strict=True) if s == "train" and r.source == "gan-a"]
    root = tmp_path / "extra"
    root.mkdir()
    Image.open(corpus.file(sealed[1])).resize((192, 192)).save(root / "near.png")
    for name, seed in (("person.png", 1), ("new.png", 2)):
        pixels = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
        Image.fromarray(pixels).resize((96, 96)).save(root / name)
    for name, row in (("copy.png", sealed[0]), ("trained.png", fit[0])):
        (root / name).write_bytes(corpus.file(row).read_bytes())
    person = next(r.group for r, s in zip(base.records, base.splits, strict=True) if s != "train" and r.group)
    rows = tuple(
        dataclasses.replace(
            three.rows[0], path=f.name, source="extra", label="fake", group=person if f.name == "person.png" else "",
            sha256=hashlib.sha256(f.read_bytes()).hexdigest(),
        )
        for f in sorted(root.iterdir())
    )  # fmt: skip
    extra = dataclasses.replace(three, rows=rows, root=root)
    found = examples.with_extra(base, extra, tmp_path)
    assert [r.path for r in found.records[len(base.records) :]] == ["new.png", "trained.png"]
    assert "3 of 5 images are left out" in capsys.readouterr().err
    assert len(found.records) == len(found.splits) == len(found.faces) == len(found.dhashes)
    last = np.asarray(found.faces[len(found.faces) - 1][0])
    assert np.array_equal(last, np.asarray(base.faces[base.records.index(fit[0])][0]))
    held = examples.with_extra(base, extra, tmp_path, ["gan-a"])
    assert [r.path for r in held.records[len(base.records) :]] == ["new.png"]


def test_given_splits_are_kept_whole_or_refused(three, tmp_path):
    def opened(*splits):
        rows = tuple(dataclasses.replace(r, split=s) for r, s in zip(three.rows, splits, strict=False))
        return examples.from_corpus(dataclasses.replace(three, rows=rows), tmp_path).splits

    assert opened("dev", "test", "train", "dev") == ("dev", "test", "train", "dev")
    with pytest.raises(DataError, match="2 of 4 rows have no split"):
        opened("dev", "", "train", "")


def cut_here(data, folder, workers):
    whole_cut(data, folder, 1)


whole_cut = examples._cut_all


@pytest.mark.parametrize("file", ["pixels.bin", "index.npz"])
@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_a_torn_cache_is_cut_again(three, tmp_path, file, keep):
    before = [np.asarray(open_crops(three, tmp_path, 1)[i][0]).copy() for i in range(len(three.rows))]
    [torn] = tmp_path.glob(f"*/{file}")
    data = torn.read_bytes()
    torn.write_bytes(data[: int(keep * len(data))])
    again = open_crops(three, tmp_path, 1)
    assert all(np.array_equal(np.asarray(again[i][0]), b) for i, b in enumerate(before))
    assert [p.name for p in sorted(tmp_path.glob("*/*"))] == ["index.npz", "pixels.bin"]


def test_an_unreadable_image_stops_the_cutting(tmp_path):
    root = write_corpus(tmp_path / "c", count=2)
    (root / "cam-a" / "000.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"cam-a.000\.png"):
        open_crops(read_dataset(root), tmp_path / "cache", workers=1)


def test_an_image_of_other_bytes_or_without_a_hash_stops_the_cutting(three, tmp_path):
    other = dataclasses.replace(three.rows[0], sha256="0" * 64)
    with pytest.raises(DataError, match=rf"{other.path}: its bytes are not those of the table's sha256"):
        open_crops(dataclasses.replace(three, rows=(other,)), tmp_path, workers=1)
    unknown = dataclasses.replace(three.rows[0], sha256="")
    with pytest.raises(DataError, match="1 rows have no sha256"):
        open_crops(dataclasses.replace(three, rows=(unknown, *three.rows[1:])), tmp_path, workers=1)


def test_dhash_stays_under_a_resave_and_tells_pictures_apart(corpus):
    images = [Image.open(corpus.file(r)) for r in corpus.rows[:2]]
    small = images[0].resize((48, 48), Image.Resampling.BICUBIC)
    assert (dhash(images[0]) ^ dhash(small)).bit_count() <= 12
    assert 0 <= dhash(images[1]) < 2**64


CROP = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
FACE = (50.0, 50.0, 150.0, 150.0)


def test_augmentation_is_a_function_of_its_generator():
    spec, config = PreprocessSpec(size=64), AugmentConfig(smallest=48)
    one, two, other = (augment(CROP, FACE, spec, config, np.random.default_rng(s)) for s in (7, 7, 8))
    assert one.shape == (64, 64, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_every_clue_can_be_switched_off():
    off = AugmentConfig(
        blur=0, sharpen=0, noise=0, jpeg=0, webp=0, twice=0, colour=0, crop=(1, 1), shift=0, smallest=64
    )
    outs = [augment(CROP, FACE, PreprocessSpec(size=64), off, np.random.default_rng(s)).astype(int) for s in range(4)]
    plain = PreprocessSpec(size=64).resize(CROP, FACE).astype(int)
    for out in outs:  # only the size and the mirror are left
        assert min(np.abs(out - plain).mean(), np.abs(out[:, ::-1] - plain).mean()) < 25


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(16, 250), st.floats(5, 300))
def test_augmentation_takes_any_crop(seed, side, span):
    crop = Image.new("RGB", (side, side), "grey")
    out = augment(crop, (0, 0, span, span), PreprocessSpec(size=32), AugmentConfig(), np.random.default_rng(seed))
    assert out.shape == (32, 32, 3)


def test_a_face_is_blended_into_its_own_picture():
    def difference(seed):
        made = np.asarray(self_blended(picture, FACE, np.random.default_rng(seed)), int)
        assert np.array_equal(made, np.asarray(self_blended(picture, FACE, np.random.default_rng(seed)), int))
        return np.abs(made - np.asarray(picture, int)).mean(2)

    rows = np.arange(200)
    waves = 128 + 60 * np.sin(rows[:, None] / 5) * np.cos(rows / 7)
    picture = Image.fromarray(np.repeat(waves[:, :, None], 3, 2).astype(np.uint8))
    found = [difference(seed) for seed in range(40)]
    within = np.array([d[80:120, 80:120].mean() for d in found])
    corner = np.array([d[:20, :20].mean() for d in found])
    assert (within > 0.5).mean() > 0.8
    untouched = corner == 0  # what is pasted was changed, or what lies below it
    assert 0.5 < untouched.mean() < 0.95
    assert (within[untouched] > corner[untouched]).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(8, 120), st.integers(8, 120), st.floats(1, 200))
def test_blending_takes_any_picture(seed, width, height, span):
    picture = Image.new("RGB", (width, height), "grey")
    made = self_blended(picture, (-5, 3, span - 5, span), np.random.default_rng(seed))
    assert (made.size, made.mode) == (picture.size, "RGB")
