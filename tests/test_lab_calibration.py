import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pandas")
pytest.importorskip("sklearn")
from typer.testing import CliRunner

from conftest import make_card, write_model
from faceauth.errors import DataError, UsageError
from faceauth.lab.cli import app
from faceauth.lab.evaluation import score_table
from faceauth.lab.evaluation.calibration import (
    FEW,
    false_alarm_curve,
    fit_platt,
    fit_thresholds,
    kind_weights,
    threshold_at_fpr,
    verdicts,
)
from faceauth.lab.evaluation.false_alarms import (
    cross_conformal_bound,
    cross_conformal_threshold,
    leave_one_kind_out,
)
from score_tables import METADATA, fold_rows

rounded = st.floats(0, 1).map(lambda v: round(v, 2))
rates = st.floats(0.01, 0.9)


def threshold(scores, weights, rate, units=None):
    found = threshold_at_fpr(false_alarm_curve(scores, weights, units), rate)
    return np.inf if found is None else found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(rounded, st.sampled_from([0.25, 0.5, 1.0])), min_size=3, max_size=25), rates)
def test_the_bound_holds_over_the_images_of_any_sample(images, rate):
    # Each image in turn is the new one, the others set the threshold; the heaviest stands there twice.
    scores, weights = np.array([*images, (0.5, 1.0), (0.5, 1.0)]).T
    called = [scores[i] >= threshold(np.delete(scores, i), np.delete(weights, i), rate) for i in range(len(scores))]
    assert weights[called].sum() <= rate * weights.sum() + 1e-9


def test_the_bound_is_no_more_cautious_than_it_must_be():
    rng = np.random.default_rng(0)
    called = [rng.random() >= threshold(rng.random(99), np.ones(99), 0.05) for _ in range(2000)]
    assert 0.03 < np.mean(called) <= 0.06


@settings(max_examples=60, deadline=None)
@given(st.lists(rounded, min_size=1, max_size=40), rates, rates)
def test_the_curve_falls_and_never_to_zero(scores, one, other):
    curve = false_alarm_curve(np.array(scores), np.ones(len(scores)))
    bounds = [bound for _, bound in curve]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] == 1
    assert min(bounds) >= 1 / (len(scores) + 1)
    low, high = sorted((one, other))
    assert threshold(np.array(scores), np.ones(len(scores)), low) >= threshold(
        np.array(scores), np.ones(len(scores)), high
    )


def test_variants_of_an_image_count_as_one():
    scores = np.linspace(0, 1, 30)
    once = false_alarm_curve(scores, np.ones(30))
    thrice = false_alarm_curve(np.tile(scores, 3), np.full(90, 1 / 3), np.tile(np.arange(30), 3))
    assert np.array(thrice) == pytest.approx(np.array(once), abs=2e-6)


def test_too_few_images_give_a_threshold_that_calls_nothing_fake():
    fake = np.arange(20) % 2 == 0
    found = fit_thresholds(np.linspace(0, 0.9, 20), fake, np.ones(20), np.arange(20), "ten real images")
    assert found.fake == 1.0
    assert found.threshold_at_fpr(0.1) < 1


def test_thresholds_keep_both_rates():
    rng = np.random.default_rng(0)
    fake = np.arange(20_000) % 2 == 0
    scores = np.clip(rng.normal(0.35 + 0.3 * fake, 0.15), 0, 1)
    found = fit_thresholds(scores, fake, np.ones(len(fake)), np.arange(len(fake)), "a test", 0.05, 0.02)
    assert 0.04 < (scores[~fake] >= found.fake).mean() <= 0.05
    assert 0.01 < (scores[fake] <= found.real).mean() <= 0.02
    assert found.false_alarm_rate(found.fake) <= 0.05


def test_kinds_weigh_the_same_and_small_ones_less():
    kinds = ["large"] * 200 + ["middle"] * 100 + ["variants"] * 300 + ["small"] * 10
    images = [str(i) for i in range(300)] + [f"image {i % 60}" for i in range(300)] + [f"s{i}" for i in range(10)]
    weights = kind_weights(kinds, images)
    of = {k: weights[np.array(kinds) == k] for k in set(kinds)}
    assert {k: w.sum() for k, w in of.items()} == pytest.approx(
        {"large": 1, "middle": 1, "variants": 1, "small": 10 / FEW}
    )
    assert of["variants"].max() == pytest.approx(1 / 300)


def test_a_kind_left_out_has_no_part_in_its_threshold():
    rng = np.random.default_rng(1)
    kinds = np.repeat(["a", "b", "c", "hard"], 400)
    scores = 1 / (1 + np.exp(-(rng.normal(size=1600) + 2 * (kinds == "hard"))))
    images = np.arange(1600).astype(str)
    rows = {(r["kind left out"], r["rate"]): r for r in leave_one_kind_out(scores, scores, kinds, images)}
    assert rows["hard", 0.05]["called fake"] > 0.5
    assert rows["a", 0.05]["called fake"] < 0.02  # its threshold knows of the hard kind
    assert all(r["n"] == 400 for r in rows.values())
    assert rows["a", 0.01]["threshold"] >= rows["a", 0.05]["threshold"]


def test_a_single_kind_sets_no_threshold():
    rows = list(leave_one_kind_out(np.ones(9), np.ones(9), np.full(9, "a"), np.arange(9).astype(str)))
    assert len(rows) == 2
    assert all(row["threshold"] is None and row["called fake"] is None for row in rows)


def test_augmented_views_must_agree_on_fake():
    said = verdicts(np.array([0.9, 0.9, 0.5, 0.1]), np.array([0.95, 0.6, 0.99, 0.99]), 0.8, 0.2)
    assert said.tolist() == ["fake", "uncertain", "uncertain", "real"]


@pytest.mark.parametrize("folds", [2, 6])
def test_the_cross_conformal_rule_stays_under_its_bound(folds):
    """Fold models that are noise around a common score; an image is fake where every fold's model reaches t."""
    rng, count, rate = np.random.default_rng(3), 60, 0.1
    bound = cross_conformal_bound(rate, count, folds)
    assert 2 * rate < bound < 1
    called = []
    for _ in range(400):
        shift = rng.normal(0, 0.2, folds)
        fold = np.arange(count) % folds
        scores = 1 / (1 + np.exp(-(rng.normal(size=count) + shift[fold])))
        t = cross_conformal_threshold(scores, np.ones(count), rate)
        new = 1 / (1 + np.exp(-(rng.normal() + shift)))
        called.append(t is not None and (new >= t).all())
    assert np.mean(called) <= bound


def test_the_cross_conformal_threshold_needs_enough_images():
    assert cross_conformal_threshold(np.full(18, 0.2), np.ones(18), 0.05) is None
    assert cross_conformal_threshold(np.full(19, 0.2), np.ones(19), 0.05) == pytest.approx(0.205)
    assert cross_conformal_threshold(np.full(38, 0.2), np.full(38, 0.5), 0.05) == pytest.approx(0.205)


def test_what_cannot_be_calibrated_says_so():
    with pytest.raises(DataError, match="needs real and fake"):
        fit_platt(np.zeros(3), np.ones(3, bool), np.ones(3), "it")
    with pytest.raises(DataError, match="do not rise"):
        fit_platt(np.linspace(-1, 1, 20), np.arange(20) < 10, np.ones(20), "it")


def test_a_model_is_not_calibrated_with_the_only_other_model_of_a_table(tmp_path):
    pytest.importorskip("torch")
    model = write_model(tmp_path / "m.onnx", make_card(name="mine"))
    before = model.read_bytes()
    score_table.write(tmp_path / "scores.parquet", fold_rows(), METADATA)
    command = ["calibrate", str(model), "--scores", str(tmp_path / "scores.parquet")]
    refused = CliRunner().invoke(app, command).exception
    assert isinstance(refused, UsageError)
    assert (refused.message, refused.hint) == ("the table has no model 'mine'", "say with --name which one of net")
    assert model.read_bytes() == before
    assert CliRunner().invoke(app, [*command, "--name", "net"]).exit_code == 0
    assert model.read_bytes() != before
