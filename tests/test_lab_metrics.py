import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn")
from sklearn.metrics import brier_score_loss, roc_auc_score, roc_curve

from faceauth.lab.evaluation import metrics

rounded = st.floats(0, 1).map(lambda v: round(v, 2))

SCORES, FAKE = np.array([0.1, 0.4, 0.4, 0.8, 0.9]), np.array([False, False, True, True, False])


def test_metrics_of_five_faces_worked_out_by_hand():
    assert metrics.auroc(SCORES, FAKE) == pytest.approx(3.5 / 6)  # of six pairs three are right and one is a tie
    assert metrics.tpr_at_fpr(SCORES, FAKE, rate=0.01) == 0
    assert metrics.tpr_at_fpr(SCORES, FAKE, rate=0.34) == 0.5
    assert metrics.balanced_accuracy(SCORES, FAKE, threshold=0.5) == pytest.approx((1 / 2 + 2 / 3) / 2)
    reals, fakes = (0.01 + 0.16 + 0.81) / 3, (0.36 + 0.04) / 2
    assert metrics.brier(SCORES, FAKE) == pytest.approx((reals + fakes) / 2)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(rounded, st.booleans()), min_size=2, max_size=60).filter(lambda v: len({f for _, f in v}) == 2)
)
def test_auroc_is_the_chance_that_a_fake_scores_higher(pairs):
    scores, fake = np.array([s for s, _ in pairs]), np.array([f for _, f in pairs])
    difference = scores[fake][:, None] - scores[~fake][None, :]
    assert metrics.auroc(scores, fake) == pytest.approx(((difference > 0) + (difference == 0) / 2).mean())
    assert metrics.auroc(1 - scores, fake) == pytest.approx(1 - metrics.auroc(scores, fake))


def test_auroc_without_a_class_is_nan():
    assert np.isnan(metrics.auroc(np.array([0.1, 0.2]), np.array([True, True])))


def test_eer_of_known_curves():
    fake = np.array([False] * 100 + [True] * 100)
    assert metrics.eer(np.arange(200) / 200, fake) == pytest.approx(0, abs=0.01)
    shifted = np.concatenate([np.arange(100), np.arange(100) + 80]) / 200
    assert metrics.eer(shifted, fake) == pytest.approx(0.1, abs=0.01)


def test_calibration_error_is_nought_for_honest_scores_and_not_for_boasts():
    rng = np.random.default_rng(0)
    honest = rng.random(200_000)
    fake = rng.random(200_000) < honest
    assert metrics.calibration_error(honest, fake) < 0.01
    boast = np.where(honest > 0.5, 0.99, 0.01)
    assert metrics.calibration_error(boast, fake) > 0.2


@pytest.mark.parametrize("count", [97, 2000])
def test_what_few_honest_scores_show_is_what_chance_makes_of_them(count):
    rng = np.random.default_rng(1)
    honest = rng.beta(2, 2, count)
    shown = np.mean([metrics.calibration_error(honest, rng.random(count) < honest, balanced=False) for _ in range(100)])
    assert metrics.calibration_error_by_chance(honest) == pytest.approx(shown, rel=0.1)
    assert (shown > 0.1) == (count == 97)


ALL = (
    metrics.auroc, metrics.tpr_at_fpr, metrics.eer, metrics.balanced_accuracy, metrics.calibration_error, metrics.brier,
)  # fmt: skip


@pytest.mark.parametrize("metric", ALL, ids=lambda m: m.__name__)
def test_an_image_drawn_twice_counts_as_two(metric):
    rng = np.random.default_rng(5)
    scores, fake = rng.random(60).round(1), np.arange(60) % 3 == 0
    weights = rng.integers(0, 4, (7, 60)).astype(float)
    repeated = [metric(np.repeat(scores, w.astype(int)), np.repeat(fake, w.astype(int))) for w in weights]
    assert metric(scores, fake, weights) == pytest.approx(np.array(repeated))


def test_metrics_agree_with_scikit_learn():
    rng = np.random.default_rng(2)
    fake = np.arange(300) % 4 == 0
    scores = np.clip(0.3 + 0.3 * fake + rng.normal(0, 0.2, 300), 0, 1).round(2)
    assert metrics.auroc(scores, fake) == pytest.approx(roc_auc_score(fake, scores))
    fpr, tpr, _ = roc_curve(fake, scores, drop_intermediate=False)
    for ours, theirs in zip(metrics.roc(scores, fake), (fpr, tpr), strict=True):
        assert ours == pytest.approx(theirs)
    assert metrics.tpr_at_fpr(scores, fake) == pytest.approx(tpr[fpr <= 0.01].max())
    weight = np.where(fake, 1 / fake.sum(), 1 / (~fake).sum())
    assert metrics.brier(scores, fake) == pytest.approx(brier_score_loss(fake, scores, sample_weight=weight))


def test_kinds_are_drawn_with_replacement_within_a_class():
    kinds, fake = np.array(["a", "a", "b", "c", "d", "d"]), np.array([False, False, False, True, True, True])
    counts = metrics.kind_draws(kinds, fake, 500, 0)
    assert set(counts) == {("a", False), ("b", False), ("c", True), ("d", True)}
    assert (counts["a", False] + counts["b", False] == 2).all()
    assert (counts["c", True] + counts["d", True] == 2).all()
    assert counts["a", False].mean() == pytest.approx(1, abs=0.1)
    assert counts["a", False].std() > 0.5
