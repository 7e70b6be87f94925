import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from conftest import make_card
from faceauth.lab.data.sources import Record
from faceauth.lab.evaluation.promise import changes, real_sources_left_out
from faceauth.lab.evaluation.protocol import Column
from faceauth.lab.training.export import FEW, calibrated, false_alarm_curve, fit_thresholds, weigh
from faceauth.model_file import Thresholds

pytestmark = pytest.mark.torch
rounded = st.floats(0, 1).map(lambda v: round(v, 2))
rates = st.floats(0.01, 0.9)


def threshold(scores, weights, rate, groups=None):
    return next((t for t, share in false_alarm_curve(scores, weights, groups) if share <= rate), np.inf)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(rounded, st.sampled_from([0.25, 0.5, 1.0])), min_size=3, max_size=25), rates)
def test_the_promise_holds_over_the_faces_of_any_sample(faces, rate):
    # Each face in turn is the new one, the others set the threshold; the heaviest stands there twice.
    scores, weights = np.array([*faces, (0.5, 1.0), (0.5, 1.0)]).T
    called = [scores[i] >= threshold(np.delete(scores, i), np.delete(weights, i), rate) for i in range(len(scores))]
    assert weights[called].sum() <= rate * weights.sum() + 1e-9


def test_the_promise_is_no_more_cautious_than_it_must_be():
    rng = np.random.default_rng(0)
    kept = [rng.random() >= threshold(rng.random(99), np.ones(99), 0.05) for _ in range(2000)]
    assert 0.03 < np.mean(kept) <= 0.06


@settings(max_examples=60, deadline=None)
@given(st.lists(rounded, min_size=1, max_size=40), rates, rates)
def test_the_curve_falls_and_never_to_nought(scores, one, other):
    curve = false_alarm_curve(np.array(scores), np.ones(len(scores)))
    bounds = [bound for _, bound in curve]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] == 1
    assert min(bounds) >= 1 / (len(scores) + 1)
    low, high = sorted((one, other))
    assert threshold(np.array(scores), np.ones(len(scores)), low) >= threshold(
        np.array(scores), np.ones(len(scores)), high
    )


def test_copies_of_a_face_are_one_face():
    scores, weights = np.linspace(0, 1, 30), np.full(30, 1.0)
    once = false_alarm_curve(scores, weights)
    thrice = false_alarm_curve(np.tile(scores, 3), np.tile(weights / 3, 3), np.tile(np.arange(30), 3))
    assert np.array(thrice) == pytest.approx(np.array(once), abs=2e-6)


def test_too_few_faces_give_a_threshold_that_calls_nothing_fake():
    fake = np.arange(20) % 2 == 0
    found = fit_thresholds(np.linspace(0, 0.9, 20), fake, np.ones(20), 0.05, 0.1, "ten real faces")
    assert found.fake == 1.0
    assert found.threshold_at_fpr(0.1) < 1


def test_sources_weigh_the_same_and_small_ones_less():
    sources = ["large"] * 200 + ["middle"] * 100 + ["films"] * 300 + ["small"] * 10
    groups = [str(i) for i in range(300)] + [f"film {i % 60}" for i in range(300)] + [f"s{i}" for i in range(10)]
    weights = weigh(sources, groups)
    of = {s: weights[np.array(sources) == s] for s in set(sources)}
    assert {s: w.sum() for s, w in of.items()} == pytest.approx(
        {"large": 1, "middle": 1, "films": 1, "small": 10 / FEW}
    )
    assert of["films"].max() == pytest.approx(1 / 300)


def column(scores, means=None, fold=0):
    """Real faces of cameras a, b, ... with the given logits (n,), and as many fakes."""
    records = [
        Record(f"{s}{i}.png", s, label, "", "", "", f"{s}{i}")
        for label in ("real", "fake") for s, values in scores.items() for i in range(len(values))
    ]  # fmt: skip
    logits = np.concatenate([*scores.values()] * 2)[:, None] * np.ones(4)
    views = logits if means is None else np.concatenate([*means.values()] * 2)[:, None] * np.ones(4)
    return Column(tuple(records), logits, np.full(len(records), fold), views)


def test_a_source_left_out_has_no_part_in_its_threshold():
    rng = np.random.default_rng(1)
    scores = {name: rng.normal(size=400) for name in "abc"} | {"hard": rng.normal(2, 1, 400)}
    rows = {(r.source, r.promised): r for r in real_sources_left_out(make_card(), column(scores))}
    assert rows["hard", 0.05].measured > 0.5  # the others promise 5 % from about 1.6 on
    assert rows["a", 0.05].measured < 0.02  # its threshold knows of the hard source
    for (_, rate), row in rows.items():
        assert row.n == 400
        assert row.first == row.measured
        assert row.threshold >= rows[row.source, 0.05].threshold or rate == 0.05


def test_kin_go_out_together_and_too_few_promise_nothing():
    scores = {"a": np.zeros(60), "b": np.ones(60)}
    assert {r.threshold for r in real_sources_left_out(make_card(), column(scores, fold=1))} == {None}
    found = list(real_sources_left_out(make_card(), column(scores)))
    assert [(r.source, r.promised, r.threshold is None) for r in found] == [
        ("a", 0.01, True), ("a", 0.05, False), ("b", 0.01, True), ("b", 0.05, False)
    ]  # fmt: skip
    assert [r.measured for r in found if r.threshold is not None] == [0, 1]


def test_the_views_count_in_what_is_measured():
    rng = np.random.default_rng(2)
    first = {name: rng.normal(size=300) for name in "ab"}
    rows = list(real_sources_left_out(make_card(), column(first, {k: v - 9 for k, v in first.items()})))
    assert all(row.first > 0 and row.measured == 0 for row in rows if row.promised == 0.05)


def test_changes_of_verdicts_are_counted():
    card = make_card(thresholds=Thresholds(0.9, 0.1, ((0, 1), (1, 0)), "test"))
    records = tuple(Record(f"{i}", "a", "real", "", "", "", str(i)) for i in range(4))
    logits = np.array([[9, 9, 9, 0], [9, -9, 9, 0], [9, 0, 9, 0], [-9, -9, 9, 0]], float)
    web, hard = changes(card, Column(records, logits, np.zeros(4, int), logits))
    assert (web.changed, web.flipped, hard.changed, hard.flipped) == (0.5, 0.25, 0.25, 0.25)
    calm = Column(records, logits, np.zeros(4, int), np.zeros((4, 4)))
    web, hard = changes(card, calm)
    assert (web.changed_alone, web.flipped_alone) == (0.5, 0.25)
    assert (web.changed, web.flipped, hard.changed, hard.flipped) == (0.25, 0, 0.25, 0)


def test_calibration_counts_images_not_their_copies():
    logits = np.concatenate([np.linspace(-3, 1, 30), np.linspace(0, 4, 30)])
    fake, names = np.arange(60) >= 30, [str(i) for i in range(60)]
    sources = ["camera"] * 30 + ["gan"] * 30
    tied = calibrated(make_card(), np.tile(logits, 3), np.tile(fake, 3), sources * 3, "x", groups=names * 3)
    assert min(share for _, share in tied.thresholds.false_alarms) >= 1 / 31
