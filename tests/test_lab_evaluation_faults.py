"""Faults that must not survive: each check passes on the code as it is, and fails once its fault is planted.

`FAULTS` is the table: what goes wrong, where, what is replaced by what, and the check that has to notice.
"""

import numpy as np
import pytest

pytest.importorskip("pandas")
pytest.importorskip("sklearn")
import pandas as pd

from faceauth.errors import DataError
from faceauth.lab.evaluation import (
    calibration,
    control_tables,
    controls,
    cross_fit,
    evaluate,
    false_alarms,
    ledger,
    metrics,
    protocol,
    score_sets,
    score_table,
    tables,
)
from planted import planted
from score_tables import METADATA, fold_rows, image_row, row

RNG = np.random.default_rng(0)
SCORES, FAKE = np.array([0.1, 0.4, 0.4, 0.8, 0.9]), np.array([False, False, True, True, False])


def frame(rows):
    return score_table.to_arrow(rows).to_pandas()


def scored_rows(rows):
    found = score_sets.answered(score_sets.score_rows(score_table.ScoreTable(frame(rows), METADATA)))
    return found.assign(ranking=found["logit"])


def class_weights(_):
    """Nine real images to one fake: with both classes weighing the same, logit 0 still means 0.5."""
    logits = np.concatenate([np.linspace(-3, 1, 900), np.linspace(-1, 3, 100)])
    fake = np.arange(1000) >= 900
    found = calibration.fit_platt(logits, fake, np.ones(1000), "it")
    assert found(np.zeros(1))[0] == pytest.approx(0.5, abs=0.02)


def kind_weights(_):
    """A kind of 400 images that scores high does not drown one of 60 that scores low."""
    rows = [row(image_row(i, "camera0"), 2.0 + i % 7 / 7) for i in range(400)]
    rows += [row(image_row(i, "camera1"), -2.0 + i % 7 / 7) for i in range(60)]
    rows += [row(image_row(i, "gan0"), 1.0 + i % 7 / 2) for i in range(60)]
    found, _ = cross_fit.fit_rows(scored_rows(rows), "it")
    assert found(np.array([2.0]))[0] > 0.5


def threshold_of_unseen(_):
    """Trained kinds score far lower than unseen ones; a threshold set on them would let one real image in three pass it."""
    rows = fold_rows(per_kind=40, gap=1.0, seen_gap=8.0)
    found, used = cross_fit.cross_fitted(scored_rows(rows), scored_rows(rows))
    real = found[(found["group"] == "real") & (found["set"] == "unseen kind")]
    assert {u["fitted on"] for u in used} == {"held-out rows of the other folds"}
    assert (real["verdict"] == "fake").mean() < 0.12
    [fold] = [u for u in used if u["part"] == "seed 0, fold 0"]
    others = scored_rows(rows)
    others = others[others["held_out"] & (others["seed"] == 0) & (others["fold"] != 0)]
    _, limits = cross_fit.fit_rows(others, "it")
    assert fold["fake from"] == limits.fake


def auroc_of_scores(_):
    """Verdicts of a perfect ranking that are all `fake` would have AUROC 0.5."""
    rows = scored_rows(fold_rows(kinds=("camera0", "gan0"), per_kind=10, gap=9.0, noise=0.1, seeds=(0,)))
    found = rows.assign(score=rows["logit"] / 100 + 0.8, verdict="fake")
    [figures] = protocol.headline(found, draws=10)
    assert figures["AUROC"]["value"] == 1
    assert figures["balanced accuracy"]["value"] == 0.5


def one_scale(_):
    """Leaving a kind out gives each kind a calibration of its own; their order is that of the logits all the same."""
    rng = np.random.default_rng(0)
    rows = []
    for kind in ("camera0", "camera1", "camera2", "gan0", "gan1", "gan2"):
        shift = rng.normal(0, 0.7) + 0.5 * kind.startswith("gan")
        rows += [row(image_row(i, kind), shift + rng.normal(), held_out=True) for i in range(60)]
    found = evaluate.evaluate(score_table.ScoreTable(frame(rows), METADATA), draws=10)
    [figures] = found["tables"]["headline"]
    logits, fake = np.array([r["logit"] for r in rows]), np.array([r["label"] == "fake" for r in rows])
    assert {r["fitted on"] for r in found["tables"]["calibration"]} == {cross_fit.ALL_BUT}
    assert figures["AUROC"]["value"] == figures["AUROC, pooled"] == pytest.approx(metrics.auroc(logits, fake))
    assert figures["EER"] == pytest.approx(metrics.eer(logits, fake))
    assert figures["TPR at 5 % FPR"] == pytest.approx(metrics.tpr_at_fpr(logits, fake, rate=0.05))


def positive_class(_):
    assert metrics.auroc(SCORES, FAKE) == pytest.approx(3.5 / 6)
    assert metrics.tpr_at_fpr(SCORES, FAKE, rate=0.34) == 0.5


def study_of_scores(_):
    found = evaluate.study_row(np.array([-3.0, -2.0, -1.0, 1.0]), np.array([True, True, False, False]))
    assert (found["AUROC"], found["balanced accuracy"]) == (1, 0.75)


def study_classes(_):
    """1 = real: one of three photographs is called fake, no fake is called real."""
    rows = frame(
        [row(image_row(i, "camera0"), v) for i, v in enumerate((-2.0, -1.0, 0.5))] + [row(image_row(9, "gan0"), 2.0)]
    )
    [found] = evaluate.study_table(rows)
    assert (found["Precision"], found["Recall"]) == (1, pytest.approx(2 / 3))


def study_of_unseen(_):
    """A fold model is wrong about every kind that it was not trained on, and right about the others."""
    rows = frame(fold_rows(kinds=("camera0", "camera1", "gan0", "gan1"), noise=0.1, gap=-4.0, seen_gap=4.0))
    [found] = evaluate.study_table(rows)
    assert (found["AUROC"], found["balanced accuracy"]) == (0, 0)


def control_samples(variants=score_sets.RESAVED):
    """One feature that tells the classes apart in all re-saved variants but says the opposite in clean files."""
    samples, values = [], []
    for kind in ("camera0", "camera1", "gan0", "gan1"):
        for i in range(60):
            image = {**image_row(i, kind, "train" if i < 50 else "test"), "face": True}
            for variant in variants:
                samples.append({**image, "variant": variant})
                sign = -1 if variant == "clean" else 1
                values.append(
                    [sign * (1.0 if image["label"] == "fake" else -1.0) + i / 1000, float(variant == "clean")]
                )
    features = {name: np.array(values, np.float32) for name in score_sets.CONTROL_MODELS}
    return pd.DataFrame(samples), features


def control_on_resaved(_):
    samples, features = control_samples()
    rows, fitted = controls.score_controls(samples, features, {("kind", 0, 0): {"camera1", "gan1"}})
    web = rows[(rows["variant"] == "web") & rows["held_out"] & (rows["model"] == "thumbnail")]
    assert metrics.auroc(web["logit"].to_numpy(), (web["label"] == "fake").to_numpy()) == 1
    assert fitted["thumbnail"] == list(score_sets.RESAVED)


def control_of_held_out(_):
    """Labels of a held-out kind must be news to the control: here they contradict the trained kinds."""
    samples, features = control_samples(("clean",))
    samples.loc[samples["kind"] == "gan1", "kind"] = "camera1"  # one kind, both classes
    flipped = (samples["kind"] == "camera1").to_numpy()
    for values in features.values():
        values[flipped, 0] *= -1
    rows, _ = controls.score_controls(samples, features, {("kind", 0, 0): {"camera1"}}, variants=("clean",))
    held = rows[rows["held_out"] & (rows["model"] == "thumbnail")]
    assert metrics.auroc(held["logit"].to_numpy(), (held["label"] == "fake").to_numpy()) == 0


def control_metadata(_):
    rows = frame([row(image_row(1, "gan0"), 1.0, v, "thumbnail") for v in ("clean", "web")])
    with pytest.raises(DataError, match="not fitted on web"):
        score_sets.check_fitted_on({"controls": {"thumbnail": ["clean"]}}, rows)


def control_distance(_):
    """A control of 0.3 in one fold and 0.7 in the other is as near to a model of 0.72 as one of 0.7 in both."""
    folds = [{"model": "net", "set": "unseen kind", "variant": "clean", "seed": 0, "fold": f, "AUROC": 0.72, "file-facts": a,
              "thumbnail": 0.5, "face-hidden": None, "face-only": None} for f, a in enumerate((0.3, 0.7))]  # fmt: skip
    [found] = control_tables.control_table(folds)
    assert found["file-facts, distance"] == pytest.approx(0.2)
    assert found["note"] == "within 0.05 of the model: file-facts"


def kind_in_two_deals(_):
    """A source whose kind is known is held out in the deal by source alone: its rows must not mix with the others."""
    rows = fold_rows(kinds=("camera0", "camera1", "gan0", "gan1"), per_kind=20, gap=1.0)
    by_source = [{**r, "deal": "source", "logit": 9.0 if r["label"] == "fake" else -9.0} for r in rows if r["held_out"]]
    table = score_table.ScoreTable(frame(rows + by_source), METADATA)
    found = {r["set"]: r["AUROC"]["value"] for r in evaluate.evaluate(table, draws=10)["tables"]["headline"]}
    assert found["unseen source"] == 1
    assert found["unseen kind"] < 0.95
    assert set(found) == {"unseen kind", "unseen source", "seen"}


def two_models_under_one_name(_):
    rows = score_table.to_arrow([row(image_row(1, "gan0"), 1.0), row(image_row(2, "gan0"), 1.0, sha="9" * 64)])
    with pytest.raises(DataError, match="the model has changed"):
        score_table.check(rows, "it")


def dev_without_a_line(place):
    rows = [row(image_row(1, "gan0", "dev"), 1.0), row(image_row(2, "gan0"), 1.0)]
    with pytest.raises(DataError, match="without a line in the ledger"):
        score_table.write(place / "a.parquet", rows, METADATA)
    opening = ledger.open_dev(place / "ledger.jsonl", METADATA["dataset_sha256"], {}, "score")
    score_table.write(place / "a.parquet", rows, METADATA, opening)
    assert set(score_table.read(place / "a.parquet").rows["split"]) == {"test"}
    (place / "ledger.jsonl").unlink()
    ledger.open_dev(place / "ledger.jsonl", METADATA["dataset_sha256"], {}, "another day")
    with pytest.raises(DataError, match="no line for this opening"):
        score_table.read(place / "a.parquet", opening)


def line_before_reading(place):
    """The file is damaged, so reading it fails; the line is there all the same."""
    score_table.write(place / "a.parquet", [row(image_row(2, "gan0"), 1.0)], METADATA)
    with pytest.raises(DataError, match="no rows of the split dev"):
        evaluate.evaluate_files(
            [place / "a.parquet"], opening=evaluate.open_tables([place / "a.parquet"], place / "l.jsonl")
        )
    [line] = ledger.read_ledger(place / "l.jsonl")
    assert line["purpose"] == "evaluate"


def nan_score(_):
    with pytest.raises(DataError, match="NaN or infinite"):
        score_table.check(score_table.to_arrow([row(image_row(1, "gan0"), float("nan"))]), "it")


def missing_row(_):
    rows = fold_rows(per_kind=4)
    lost = next(i for i, r in enumerate(rows) if r["held_out"] and r["seed"] == 1)
    with pytest.raises(DataError, match=r"seed 1, has no held-out clean score of 1 images"):
        score_sets.check_complete(scored_rows(rows[:lost] + rows[lost + 1 :]))


def lost_folds(_):
    """Two of six folds are lost in both seeds; the rows of other folds still name their kinds."""
    rows = fold_rows(kinds=[f"{name}{fold}" for name in ("camera", "gan") for fold in range(6)], per_kind=4)
    score_sets.check_complete(scored_rows(rows))
    lost = scored_rows([r for r in rows if not (r["held_out"] and r["fold"] in (1, 2))])
    with pytest.raises(DataError, match=r"net, seed 0: 4 of 12 kinds are held out by no fold, the first 'camera1'"):
        score_sets.check_complete(lost)


def folds_counted(_):
    """A fold with seen rows alone is no fold: 11 of 12 have held-out rows."""
    rows = fold_rows(kinds=[f"{name}{fold}" for name in ("camera", "gan") for fold in range(6)], per_kind=4)
    rows = [r for r in rows if not (r["held_out"] and (r["seed"], r["fold"]) == (1, 5))]
    assert any(said.startswith("net: 11 folds of 2 seeds by kind") for said in score_sets.remarks(scored_rows(rows)))


def empty_class(_):
    rows = fold_rows(kinds=("camera0", "camera1", "gan1"), per_kind=4)
    with pytest.raises(DataError, match="fold 0: no held-out generated images"):
        score_sets.check_complete(scored_rows(rows))


def swaps_apart(_):
    """Swaps that all score as real change no headline figure."""
    rows = fold_rows(kinds=("camera0", "gan0"), per_kind=10, gap=9.0, noise=0.1, seeds=(0,))
    swaps = [row(image_row(i, "swapper0"), -20.0, seed=0, fold=0, held_out=True) for i in range(10)]
    found = scored_rows(rows + swaps).assign(score=lambda r: r["logit"], verdict="fake")
    [figures] = protocol.headline(found, draws=10)
    assert (figures["AUROC"]["value"], figures["fake"]) == (1, 10)
    [apart] = [r for r in protocol.special_table(found) if r["images"] == "swap"]
    assert apart["AUROC"] == 0


def changes_one_by_one(_):
    """Grey pictures that are called otherwise than clean ones are counted, and are no headline figure."""
    rows = fold_rows(kinds=("camera0", "gan0"), per_kind=10, gap=9.0, noise=0.1, seeds=(0,))
    grey = [{**r, "variant": "grey", "logit": -9.0 if r["label"] == "fake" else r["logit"]} for r in rows]
    found = scored_rows(rows + grey).assign(score=lambda r: r["logit"])
    found["verdict"] = np.where(found["score"] > 4, "fake", "real")
    assert {r["variant"] for r in protocol.headline(found, draws=10)} == {"clean"}
    clean, changed = protocol.robustness_table(found)
    assert (clean["variant"], clean["verdict changed"], clean["generated caught"]) == ("clean", 0, 1)
    assert (changed["variant"], changed["verdict changed"], changed["generated caught"]) == ("grey", 0.5, 0)
    assert (clean["AUROC"], changed["AUROC"]) == (1, 0)


def kinds_are_drawn(_):
    """Images of a kind are alike: the interval must be wide although there are 600 images."""
    rng = np.random.default_rng(1)
    rows = []
    for k in range(12):
        kind = f"{'camera' if k < 6 else 'gan'}{k % 6 * 10}"
        shift = rng.normal(0, 1.5) + (k >= 6)
        rows += [row(image_row(i, kind), shift + rng.normal(0, 0.1), seed=0, fold=0, held_out=True) for i in range(50)]
    found = scored_rows(rows).assign(score=lambda r: 1 / (1 + np.exp(-r["logit"])), verdict="fake")
    [figures] = protocol.headline(found, draws=200)
    assert figures["AUROC"]["high"] - figures["AUROC"]["low"] > 0.2


def one_kind_a_class(_):
    """One kind drawn again and again tells nothing of other kinds."""
    found = scored_rows(fold_rows(kinds=("camera0", "gan0"), seeds=(0,), gap=1.0)).assign(
        score=lambda r: 1 / (1 + np.exp(-r["logit"])), verdict="fake"
    )
    [figures] = protocol.headline(found, draws=10)
    assert tables.cell(figures["AUROC"]) == f"{figures['AUROC']['value']:.3f} (–)"


def mean_over_folds(_):
    """A fold of 0 and one of 1, of very different size: the headline is 0.5, not what the larger fold says."""
    rows = []
    for fold, count, sign in ((0, 30, 1), (1, 3, -1)):
        for i in range(count):
            rows.append(row(image_row(i, f"camera{fold}"), -5.0 * sign, seed=0, fold=fold, held_out=True))
            rows.append(row(image_row(i, f"gan{fold}"), 5.0 * sign, seed=0, fold=fold, held_out=True))
    found = scored_rows(rows).assign(score=lambda r: r["logit"], verdict="fake")
    [figures] = protocol.headline(found, draws=10)
    assert figures["AUROC"]["value"] == 0.5
    assert figures["AUROC, worst fold"] == 0
    assert figures["AUROC, pooled"] > 0.7
    calibrated = found.assign(score=0.5)
    [figures] = protocol.headline(calibrated, draws=10)
    assert figures["ECE, pooled"] == figures["ECE, raw"] == 0
    assert figures["ECE, raw, by chance"] > 0.05, "so few images show no error by luck alone"


def left_out_kind(_):
    """A real kind that scores like fakes: its rate is measured with a threshold that it had no part in."""
    logits = np.concatenate([np.linspace(-4, -2, 300), np.linspace(3, 5, 60)])
    kinds = np.array([f"camera{i % 3}" for i in range(300)] + ["odd"] * 60)
    images, scores = np.array([str(i) for i in range(360)]), 1 / (1 + np.exp(-logits))
    rows = false_alarms.leave_one_kind_out(scores, scores, kinds, images)
    found = {r["kind left out"]: r for r in rows if r["rate"] == 0.05}
    assert found["odd"]["called fake"] == 1
    assert found["odd"]["threshold"] < 0.2


def bound_counts_the_new_image(_):
    """Of 19 images all below t one cannot conclude a rate under 1 / 20."""
    curve = calibration.false_alarm_curve(np.full(19, 0.2), np.ones(19))
    assert calibration.threshold_at_fpr(curve, 0.049) is None
    assert calibration.threshold_at_fpr(curve, 0.05) == pytest.approx(0.205)


def fold_bound(_):
    assert false_alarms.cross_conformal_bound(0.05, 1000, 6) == pytest.approx(2 * (0.05 * 1001 + 5) / 1006)
    rows = [
        r
        for r in false_alarms.false_alarm_tables(scored_rows(fold_rows(per_kind=40)))[0]
        if r["for a further"] == "image"
    ]
    assert all((r["procedure"] == "cross-conformal" and r["bound"] is None) or r["bound"] > 2 * r["rate"] for r in rows)


FAULTS = [
    ("class weights dropped from calibration", calibration, "np.where(fake, weights / weights[fake].sum(), weights / weights[~fake].sum()) * len(fake) / 2", "weights", class_weights),
    ("kind weights dropped from calibration", calibration, "weights = kind_weights(kinds, images)", "weights = np.ones(len(images))", kind_weights),
    ("threshold taken from the training scores", cross_fit, 'held = fitting[fitting["held_out"]]', 'held = fitting[~fitting["held_out"]]', threshold_of_unseen),
    ("threshold taken from the fold's own scores", cross_fit, '(held["fold"] != fold)', '(held["fold"] == fold)', threshold_of_unseen),
    ("AUROC from verdicts", protocol, "metrics.auroc(f.ranking, f.fake, weights)", "metrics.auroc(f.called, f.fake, weights)", auroc_of_scores),
    ("images of several calibrations put in one order", cross_fit, 'ranking=order["score"]', 'ranking=scored["score"]', one_scale),
    ("AUROC of the study from labels", evaluate, "metrics.auroc(-logits, real)", "metrics.auroc((logits < 0) * 1.0, real)", study_of_scores),
    ("the wrong class as positive", metrics, "for of_class in (~fake, fake):", "for of_class in (fake, ~fake):", positive_class),
    ("the study's table with the classes exchanged", evaluate, 'real = (part["label"] == "real")', 'real = (part["label"] == "fake")', study_classes),
    ("the study's table with seen rows of fold models", evaluate, '(rows["seed"] < 0) | rows["held_out"]', 'rows["seed"] > -9', study_of_unseen),
    ("a control fitted on clean files", controls, 'samples["variant"].isin(variants)', 'samples["variant"] == "clean"', control_on_resaved),
    ("a control fitted on clean files, unnoticed", score_sets, "v not in fitted.get(control, ())", "not fitted.get(control, ())", control_metadata),
    ("a control fitted on the kinds held out", controls, "trainable & ~out, out | judged_split", "trainable, out | judged_split", control_of_held_out),
    ("a control counted in one direction only", control_tables, "np.abs(np.array(values) - 0.5)", "np.array(values) - 0.5", control_distance),
    ("the two deals mixed", evaluate, 'own[own["deal"] == deal]', "own", kind_in_two_deals),
    ("the deal by source counted as by kind", score_sets, 'rows["deal"].map(UNSEEN)', 'rows["deal"].map(lambda d: UNSEEN["kind"])', kind_in_two_deals),
    ("scores of two models under one name", score_table, '["model", "deal", "seed", "fold"], "model_sha256"', '["model", "deal", "seed", "fold", "image"], "model_sha256"', two_models_under_one_name),
    ("dev rows written without a ledger line", score_table, "if opening is None:\n            raise DataError(", "if opening is None:\n            return\n            raise DataError(", dev_without_a_line),
    ("dev rows read while developing", score_table, 'pc.field("split") != "dev"', 'pc.field("split") != "none"', dev_without_a_line),
    ("dev rows read for an opening that was made up", ledger, 'line.get("id") != self.id', "False", dev_without_a_line),
    ("the ledger written after reading", evaluate, '    return open_dev(', "    score_table.read(paths[0], Opening(ledger, '', heads[0]['dataset_sha256']))\n    return open_dev(", line_before_reading),
    ("NaN in a score", score_table, "pc.is_finite(values)", 'pc.not_equal(values, float("inf"))', nan_score),
    ("a held-out row missing", score_sets, '_complain(wanted - set(part["image"]), f"{model}, seed {seed}, has', '_complain(set(), f"{model}, seed {seed}, has', missing_row),
    ("whole folds missing", score_sets, "if lacking := sorted(", "if lacking := 0 and sorted(", lost_folds),
    ("folds counted that hold nothing out", score_sets, 'part[(part["seed"] >= 0) & part["held_out"]]', 'part[part["seed"] >= 0]', folds_counted),
    ("a fold without a class", score_sets, 'if len(set(part["group"])) < 2 and variant in RESAVED and', "if False and", empty_class),
    ("swaps counted with the generated images", score_sets, 'special = rows["family"].isin(ALTERED)', 'special = rows["family"].isin(("restored",))', swaps_apart),
    ("changes laid against other images", protocol, "!= verdicts[\"clean\"][common]", "!= verdicts[variant][common]", changes_one_by_one),
    ("images drawn instead of kinds", protocol, "kinds, fake = np.concatenate([s.kinds for s in sets])", "kinds, fake = np.arange(sum(len(s.kinds) for s in sets)).astype(str)", kinds_are_drawn),
    ("an interval from a single kind", protocol, "[fake == label])) < 2", "[fake == label])) < 1", one_kind_a_class),
    ("the pooled figure as headline", protocol, "value = float(np.mean([figure(s, None) for s in sets]))", "value = pooled(metrics.auroc, part)", mean_over_folds),
    ("a kind's rate at a threshold set on it", false_alarms, "others = ~out", "others = out | ~out", left_out_kind),
    ("a bound that forgets the new image", calibration, '+ new) / (weights.sum() + new)', ') / (weights.sum())', bound_counts_the_new_image),
    ("the bound of one model for fold models", false_alarms, "return min(1.0, 2 * (rate * (count + 1) + folds - 1) / (count + folds))", "return rate", fold_bound),
]  # fmt: skip


@pytest.mark.parametrize("check", dict.fromkeys(f[-1] for f in FAULTS), ids=lambda c: c.__name__)
def test_as_it_is(check, tmp_path):
    check(tmp_path)


@pytest.mark.parametrize(("module", "old", "new", "check"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_planted_fault_is_noticed(module, old, new, check, tmp_path):
    with planted(module, old, new), pytest.raises((Exception, pytest.fail.Exception)):
        check(tmp_path)
