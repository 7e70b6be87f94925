import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributed import BLUE, COLOURS, KINDS, RED, SPEC, coloured, embeddings, make_prototypes
from conftest import make_card, write_model
from faceauth.attribution import (
    PROTOTYPES_KEY,
    UNKNOWN,
    Attributor,
    Kind,
    Prototypes,
    Taught,
    Unknown,
    novelty,
    without,
)
from faceauth.detector import Detector
from faceauth.errors import ModelError, UsageError
from faceauth.model_file import Thresholds

PROTOTYPES = make_prototypes()


def taught(colour=RED, label="fake", name="rust", count=20, **changes):
    kind = Kind(name, label, "real" if label == "real" else "gan", name)
    values = dict(kind=kind, mean=embeddings(colour, count, 500).mean(axis=0), count=count, model_sha256="m",
                  date="2026-01-01", log_weight=0.0, recall=1.0, taken=0.0)  # fmt: skip
    return Taught(**(values | changes))


@given(
    points=st.lists(st.lists(st.floats(-50, 50), min_size=3, max_size=3), min_size=1, max_size=4),
    score=st.floats(0, 1),
    temperature=st.floats(0.1, 30),
    with_taught=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_shares_are_probabilities_and_a_generator_is_a_part_of_its_family(points, score, temperature, with_taught):
    known = replace(PROTOTYPES, temperature=temperature)
    classes = [taught(), taught(BLUE, "real", "harbour")] if with_taught else []
    scores, answers = Attributor(known, classes)(np.array(points), np.full(len(points), score))
    family_of = {k.generator: k.family for k in KINDS} | {UNKNOWN: UNKNOWN, "rust": "gan", "harbour": "real"}
    for final, answer in zip(scores, answers, strict=True):
        generators, families = dict(answer.generators), dict(answer.families)
        assert 0 <= final <= 1
        for shares in (answer.generators, answer.families):
            values = [share for _, share in shares]
            assert sum(values) == pytest.approx(1)
            assert min(values) >= 0
            assert values == sorted(values, reverse=True)
        assert all(share <= families[family_of[name]] + 1e-12 for name, share in generators.items())
        real = generators["camera"] + generators.get("harbour", 0)
        assert real == pytest.approx(1 - final, abs=1e-9)
        assert (family_of[answer.generator] == "real") == (final < 0.5)


@pytest.mark.parametrize("name", [k.name for k in KINDS if k.label == "fake"])
def test_a_known_generator_is_named(name):
    kind = next(k for k in KINDS if k.name == name)
    _, answers = Attributor(PROTOTYPES)(embeddings(COLOURS[name], 8, 200), np.ones(8))
    assert {a.generator for a in answers} == {kind.generator}
    assert {a.families[0][0] for a in answers} == {kind.family}


def test_what_lies_far_from_every_generator_is_unknown():
    _, answers = Attributor(PROTOTYPES)(embeddings(BLUE, 8), np.ones(8))
    assert {a.generator for a in answers} == {UNKNOWN}


def test_novelty_counts_the_likeliest_known_source_or_all_of_them_by_its_temperature():
    one, two = np.array([[-1.0, -30.0, -1.0]]), np.array([[-1.0, -1.0, -1.0]])
    assert novelty(one, 1.0) == pytest.approx(0)
    assert novelty(two, 1.0) == pytest.approx(-np.log(2))
    assert novelty(one, 1e3) == pytest.approx(-np.log(2), abs=0.02)
    far = replace(PROTOTYPES, temperature=7.0, unknown=Unknown(0.0, 1.0, 2.0))
    near = replace(far, temperature=0.5)
    points = far.place(embeddings(BLUE, 3))
    assert Attributor(far).unknown(far.densities(points)) == pytest.approx(
        Attributor(near).unknown(near.densities(points))
    )


def test_without_anything_taught_the_score_is_the_models_own():
    scores = np.array([0.1, 0.5, 0.93])
    final, answers = Attributor(PROTOTYPES)(embeddings(RED, 3), scores)
    assert final == pytest.approx(scores)
    assert [dict(a.generators)["camera"] for a in answers] == pytest.approx(1 - scores)


def test_a_taught_generator_is_named_and_others_keep_their_names():
    attributor = Attributor(PROTOTYPES, [taught()])
    scores, answers = attributor(embeddings(RED, 10, 800), np.full(10, 0.3))
    assert [a.generator for a in answers].count("rust") >= 9
    assert np.median(scores) > 0.9
    for name in COLOURS:
        kind, low = next(k for k in KINDS if k.name == name), 0.02
        score = np.full(8, 1 - low if kind.label == "fake" else low)
        scores, answers = attributor(embeddings(COLOURS[name], 8, 300), score)
        assert {a.generator for a in answers} == {kind.generator}
        assert scores == pytest.approx(score, abs=0.01)


def test_a_taught_camera_lowers_the_scores_of_its_photos_alone():
    attributor = Attributor(PROTOTYPES, [taught(BLUE, "real", "harbour")])
    scores, answers = attributor(embeddings(BLUE, 10, 800), np.full(10, 0.95))
    assert np.median(scores) < 0.1
    assert answers[0].generator == "harbour"
    for name in ("bulb-a", "lamp"):
        scores, _ = attributor(embeddings(COLOURS[name], 8, 300), np.full(8, 0.95))
        assert scores == pytest.approx(np.full(8, 0.95), abs=0.01)


def test_a_low_weight_takes_less():
    at = embeddings(RED, 1, 800)
    parts = [Attributor(PROTOTYPES, [taught(log_weight=w)]).parts(at)[0, 0] for w in (0.0, -5.0, -1000.0)]
    assert parts[0] > parts[1] > parts[2]
    assert parts[2] == pytest.approx(0, abs=1e-12)


def test_the_density_of_a_class_is_that_of_a_gaussian_whose_mean_is_uncertain():
    rng = np.random.default_rng(0)
    between, count, seen = 4.0, 5, 1.7
    one = replace(PROTOTYPES, between=np.array([between]))
    means = rng.normal(0, np.sqrt(between), 2_000_000)
    likely = np.exp(-count * (seen - means) ** 2 / 2)  # of the mean that was seen
    fresh = means + rng.normal(0, 1, means.shape)
    for low, high in ((0.9, 1.1), (2.9, 3.1)):
        inside = likely[(fresh > low) & (fresh < high)].sum() / likely.sum()
        log = one.density(np.array([[(low + high) / 2]]), np.array([seen]), count)[0]
        assert inside == pytest.approx(0.2 * np.exp(log) / np.sqrt(2 * np.pi), rel=0.03)


def test_prototypes_survive_the_round_trip():
    back = Prototypes.from_json(PROTOTYPES.to_json())
    assert back.kinds == KINDS
    assert back.unknown == PROTOTYPES.unknown
    assert back.axes == pytest.approx(PROTOTYPES.axes, rel=1e-6)
    assert back.to_json() == PROTOTYPES.to_json()


@pytest.mark.parametrize("damage", [
    lambda d: d.pop("axes"), lambda d: d.update(format=9),
    lambda d: d.update(unknown=[0, float("nan"), 1, ""]), lambda d: d.update(unknown=[0, 1, 0, ""]),
    lambda d: d.update(unknown=[0, 1]), lambda d: d.update(axes="AAAA"), lambda d: d.update(axes=3),
    lambda d: d.update(temperature=0), lambda d: d.update(reference_kind=[7] * 40), lambda d: d.update(kinds=[["a"]]),
    lambda d: d.update(kinds=[]), lambda d: d.update(between=d["center"]), lambda d: d.update(unknown=[1, 2, 3, 4, 5]),
    lambda d: d.update(center="AADAfwAAwH8AAMB/"),
])  # fmt: skip
def test_damaged_prototypes_are_an_error_of_ours(damage):
    data = json.loads(PROTOTYPES.to_json())
    damage(data)
    with pytest.raises(ModelError):
        Prototypes.from_json(json.dumps(data))


def test_a_generator_can_be_taken_away():
    fewer = without(PROTOTYPES, ["bulb"])
    assert [k.name for k in fewer.kinds] == ["night", "dusk", "lamp"]
    assert fewer.reference == pytest.approx(np.delete(PROTOTYPES.reference, slice(20, 30), axis=0))
    assert fewer.reference_kind.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    with pytest.raises(UsageError):
        without(PROTOTYPES, ["bulb", "lamp"])


def test_a_mean_of_another_width_is_refused():
    with pytest.raises(UsageError, match="2 values, not 3"):
        Attributor(PROTOTYPES, [taught(mean=np.zeros(2))])


def test_prototypes_of_another_network_are_refused_where_they_are_used():
    with pytest.raises(ModelError, match="for 3 values, and an embedding of 2"):
        Attributor(PROTOTYPES)(embeddings(RED, 2)[:, :2], np.ones(2))


def many_tested():
    """Prototypes that keep 30 test images of each source."""
    plain = make_prototypes()
    tested = [plain.place(embeddings(COLOURS[k.name], 30, 100)) for k in plain.kinds]
    return replace(plain, reference=np.concatenate(tested), reference_kind=np.repeat(np.arange(4), 30))


def test_what_lies_far_from_every_source_is_unlike_anything_tested():
    attributor = Attributor(many_tested())
    for name in COLOURS:
        assert attributor.unlike(embeddings(COLOURS[name], 40, 500)).mean() <= 0.1
    assert attributor.unlike(embeddings(BLUE, 20)).all()
    assert not Attributor(make_prototypes()).unlike(embeddings(BLUE, 20)).any()  # 40 test images say too little


def test_an_uncertain_face_unlike_anything_tested_says_so(tmp_path):
    card = make_card(name="colour", preprocess=SPEC, thresholds=Thresholds(1.0, 0.0, ((0.0, 1.0), (1.0, 0.0)), "x"))
    path = write_model(tmp_path / "m.onnx", card, colour=True, more={PROTOTYPES_KEY: many_tested().to_json()})
    detector = Detector(path, whole_image=True, learned=False)
    reasons = [detector.detect(coloured(c, 700))[0].faces[0].reason for c in (BLUE, COLOURS["lamp"])]
    assert reasons == ["unlike anything tested", "between thresholds"]
