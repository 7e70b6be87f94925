"""The spectrum classifier, and who a baseline is trained on."""

import numpy as np
import pytest
from PIL import Image

from conftest import make_card
from lab_corpus import write_corpus

pytest.importorskip("sklearn")
pytest.importorskip("torch")
from faceauth.lab.evaluation import baselines, metrics, profiles
from faceauth.lab.evaluation.baselines import Places, spectrum_svm
from faceauth.lab.evaluation.scoring import VARIANTS

pytestmark = pytest.mark.torch
FOLDS = (("cam-a", "gan-a"), ("cam-b", "gan-b"))


def trained_on(*sources):
    return make_card(sources=sources, labels=tuple("real" if s[0] == "c" else "fake" for s in sources))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("baselines")
    write_corpus(place / "corpus", 24)
    return place


def test_the_profile_is_the_power_over_that_of_ring_0():
    rng = np.random.default_rng(0)
    grey = np.clip(128 + rng.normal(0, 20, (64, 64)), 0, 255).astype(np.uint8)
    found = profiles.profile(Image.fromarray(grey))
    assert found.shape == (33,)
    assert found[0] == 1
    plain = np.abs(np.fft.fft2(grey.astype(float))) ** 2 / 64**2
    assert found[1:] == pytest.approx(10 * np.log10(400) / (10 * np.log10(plain[0, 0])), abs=0.08)  # white noise
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    assert profiles.profile(Image.fromarray(ramp))[-1] < found[-1] / 2
    assert (profiles.profile(Image.new("L", (64, 64))) == 1).all()


def test_the_spectrum_tells_a_grid_and_is_kept(place, monkeypatch):
    def judge():
        return spectrum_svm(trained_on(*FOLDS[0], *FOLDS[1]), FOLDS, place / "corpus", place / "cache", "test")

    seen, unseen = judge()
    assert metrics.auroc(seen.logits[:, 0], seen.fake) > 0.9
    assert len(unseen.records) == len(seen.records)
    assert seen.logits.shape == (len(seen.records), len(VARIANTS))
    assert all(r.source in FOLDS[fold - 1] for r, fold in zip(unseen.records, unseen.fold, strict=True))
    monkeypatch.setattr(profiles, "shared", lambda *_: pytest.fail("computed twice"))
    assert np.array_equal(judge()[0].logits, seen.logits)


def test_nothing_is_fitted_on_what_is_held_out_or_left_out(place):
    fitted = []

    def fit(train, fake, judged):
        fitted.append((set(train[:, 0].astype(int)), fake))
        return np.stack([v[:, 0] for v in judged], axis=1)

    card, folds = trained_on("cam-a", "cam-b", "gan-a"), (*FOLDS, ("gan-b",))
    places = Places.of(card, folds, place / "corpus", place / "cache", "test")
    records = places.corpus.rows
    values = np.tile(np.arange(len(records))[:, None, None], (1, len(VARIANTS), 1))
    seen, unseen = places.columns(values, fit)
    names = [{records[i].source for i in members} for members, _ in fitted]
    assert names == [{"cam-a", "cam-b", "gan-a"}, {"cam-b"}, {"cam-a", "gan-a"}]
    assert all((fake == [records[i].fake for i in sorted(members)]).all() for members, fake in fitted)
    train = set().union(*(members for members, _ in fitted))
    assert {r.source for r in seen.records} == {r.source for r in unseen.records} == {"cam-a", "cam-b", "gan-a"}
    assert not train & set(seen.logits[:, 0].astype(int))
    assert set(baselines.BASELINES) == {"file facts", "16 px thumbnail"}


def test_a_file_by_another_name_is_not_looked_at_again(tmp_path, monkeypatch):
    from faceauth.lab.evaluation.facts import features_of

    Image.new("RGB", (20, 20), "grey").save(tmp_path / "a.png")
    first = features_of([str(tmp_path / "a.png")], "data", tmp_path / "cache", 1)
    (tmp_path / "a.png").unlink()
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    again = features_of(["../a.png"], "data", tmp_path / "cache", 1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
