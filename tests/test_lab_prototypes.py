from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
from command_line import faceauth
from conftest import make_card, write_model
from faceauth.attribution import PROTOTYPES_KEY, Attributor, Prototypes, Unknown
from faceauth.errors import DataError, UsageError
from faceauth.lab.data.dataset import ImageRow
from faceauth.lab.evaluation import open_set, prototypes
from faceauth.lab.evaluation.prototypes import EmbeddedSet
from faceauth.lab.training.onnx_file import rewrite
from faceauth.model_file import Calibration, ModelFile, Outputs, Thresholds
from lab_prepared import write_set

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::FutureWarning")]

D = 8
SOURCES = {
    "cam-a": ("real", "real", "camera"), "cam-b": ("real", "real", "camera"), "gan-1": ("fake", "gan", "gan"),
    "gan-2": ("fake", "gan", "gan"), "dif": ("fake", "diffusion", "dif"), "flow": ("fake", "diffusion", "flow"),
}  # fmt: skip
CURVE = ((0.0, 1.0), (1.0, 0.0))


@pytest.fixture(scope="module")
def embedded():
    """Gaussian embeddings of covariance A A'; the second model has never seen `flow` and `cam-b`."""
    rng = np.random.default_rng(0)
    mixing = np.diag(np.linspace(0.5, 2, D)) @ np.linalg.qr(rng.normal(size=(D, D)))[0]
    means = {s: rng.normal(0, 4, D) for s in SOURCES}
    means["gan-2"] = means["gan-1"] + 1.5
    records, splits, embeddings = [], [], []
    for source, (label, family, generator) in SOURCES.items():
        for i in range(90):
            records.append(ImageRow(f"{source}/{i}", source, label, family, generator, "", source, f"{source}{i}"))
            splits.append("train" if i < 60 else "test")
            embeddings.append((means[source] + rng.normal(size=(2, D))) @ mixing.T)
    x = np.array(embeddings, np.float32)
    fake = np.array([r.fake for r in records])
    logit = np.repeat(np.where(fake, 3.0, -3.0)[:, None], 2, axis=1).astype(np.float32)
    cards, outputs = [], []
    for lacks in ((), ("flow", "cam-b")):
        known = [s for s in SOURCES if s not in lacks]
        cards.append(make_card(
            sources=tuple(known), labels=tuple(SOURCES[s][0] for s in known), calibration=Calibration(1.0, 0.0),
            thresholds=Thresholds(0.8, 0.2, CURVE, "test"),
        ))  # fmt: skip
        near = -np.stack([np.square(x - means[s] @ mixing.T).sum(-1) for s in known], axis=-1) / 8
        outputs.append(Outputs(logit, near.astype(np.float32), x))
    return EmbeddedSet(tuple(records), np.array(splits), tuple(cards), tuple(outputs))


@pytest.fixture(scope="module")
def found(embedded):
    return prototypes.prototypes(embedded)


def test_the_axes_whiten_the_sources_and_keep_the_means(embedded, found):
    rows = embedded.where(lambda r: True, "train")
    points = found.place(embedded.outputs[0].embedding[rows].reshape(-1, D)).reshape(-1, 2, D)
    names = np.array([r.source for r in embedded.records])[rows]
    pairs = zip(found.kinds, found.means, strict=True)
    within = np.concatenate([points[names == kind.name].reshape(-1, D) - mean for kind, mean in pairs])
    assert np.cov(within.T) == pytest.approx(np.eye(D), abs=0.25)
    spread = np.cov(found.means.T)
    assert np.abs(spread - np.diag(np.diag(spread))).max() < 0.3 * np.diag(spread).max()


def test_it_names_what_it_knows_and_two_collections_of_one_generator_alike(embedded, found):
    rows = embedded.where(lambda r: True, "test")
    named = open_set.name(Attributor(found), embedded, 0, rows, 1)
    assert named.right("generators", closed=True)[named.fake].mean() > 0.97
    assert named.right("families", closed=False).mean() > 0.9


def test_shares_are_calibrated(embedded):
    """A temperature away from the fitted one has a higher loss, on either side."""
    rng = np.random.default_rng(1)
    one = embedded.outputs[0]
    blurred = one.embedding + rng.standard_t(2, one.embedding.shape).astype(np.float32)  # no Gaussian, and no gaps
    outputs = (Outputs(one.logit, one.source_logits, blurred), *embedded.outputs[1:])
    embedded = EmbeddedSet(embedded.records, embedded.splits, embedded.cards, outputs)
    found = prototypes.prototypes(embedded)
    best = found.temperature
    assert prototypes.TEMPERATURES[0] < best < prototypes.TEMPERATURES[-1]
    flat = replace(found, temperature=1.0)
    assert prototypes.temperature(flat, embedded) == pytest.approx(best)


def test_unknown_is_set_on_a_generator_that_a_model_never_saw(embedded, found):
    _, left = open_set.folds(found, embedded)
    assert [one.generator for one in left] == ["flow"]
    assert "trained without them" in found.unknown.fitted_on
    judged = open_set.novel(found, left[0], embedded, 0)
    assert judged["AUROC"] > 0.95
    assert judged["called unknown"] > 0.8 > 0.2 > judged["known ones called unknown"]


def test_without_fold_models_prototypes_are_taken_away_in_turn(embedded):
    alone = EmbeddedSet(embedded.records, embedded.splits, embedded.cards[:1], embedded.outputs[:1])
    unknown = prototypes.prototypes(alone).unknown
    assert "taken away" in unknown.fitted_on
    assert unknown.slope > 0


def test_the_reference_is_of_test_images(embedded, found):
    assert len(found.reference) == 20 * len(SOURCES)
    test = found.place(embedded.outputs[0].embedding[embedded.where(lambda r: r.source == "dif", "test")][:20, 0])
    row = [k.name for k in found.kinds].index("dif")
    assert found.reference[found.reference_kind == row] == pytest.approx(test)


def test_a_left_out_generator_and_camera_are_taught(embedded, found):
    folds, _ = open_set.folds(found, embedded)
    [flow] = open_set.teach(folds[1], 1, embedded, "flow", ["clean"])
    assert flow["as"] == "fake"
    assert flow["recall"] > 0.9
    assert flow["refused"] == 0
    assert flow["others named right, after"] > flow["others named right, before"] - 0.02
    [camera] = open_set.teach(folds[1], 1, embedded, "cam-b", ["clean"])
    assert camera["known fakes caught, after"] == pytest.approx(camera["known fakes caught, before"], abs=0.02)


def test_a_source_beside_those_of_the_network_is_named_too(embedded):
    fewer = EmbeddedSet(embedded.records, embedded.splits, embedded.cards[1:], embedded.outputs[1:])
    names = [k.name for k in prototypes.prototypes(fewer, also=["flow"]).kinds]
    assert "flow" in names
    with pytest.raises(UsageError, match="nothing"):
        prototypes.prototypes(fewer, also=["nothing"])


def test_a_source_of_train_images_alone_is_named_but_neither_evaluated_nor_taught(embedded):
    """The corpus has such a source, and its generator may have no other."""
    of_flow = embedded.where(lambda r: r.source == "flow")
    whole = replace(embedded, splits=np.where(of_flow, "train", embedded.splits))
    found = prototypes.prototypes(whole)
    assert "flow" in [k.name for k in found.kinds]
    assert found.kinds[found.reference_kind.max()].name == "dif"
    folds, left = open_set.folds(found, whole)
    assert left == []
    assert found.unknown == folds[1].unknown == Unknown()
    assert open_set.lessons_of(1, whole) == ["cam-b"]
    assert open_set.lessons_of(1, embedded) == ["cam-b", "flow"]
    tables = open_set.attribution_tables(whole, ["clean", "web"])
    assert [row["of"] for row in tables["Known generators"]] == [2, 2], "gan and dif"
    assert tables["Unknown generators"] == []
    assert {row["taught"] for row in tables["Taught sources"]} == {"cam-b"}


def trained_on(card, sources):
    """The card of a model that was trained on some sources alone."""
    fakes = {s for s in sources if not s.startswith("cam")}
    return replace(card, sources=tuple(sources), labels=tuple("fake" if s in fakes else "real" for s in sources))


def test_a_generator_that_no_model_was_trained_on_is_no_evidence(embedded):
    """It would be left out by every model; and a model may hold out photographs alone."""
    judged = trained_on(embedded.cards[1], [s for s in SOURCES if s != "flow"])
    fold = trained_on(judged, [s for s in judged.sources if s != "cam-b"])
    foreign = replace(embedded, cards=(judged, fold), outputs=embedded.outputs[1:] * 2)
    found = prototypes.prototypes(foreign, also=["flow"])
    assert "flow" in [k.name for k in found.kinds]
    folds, left = open_set.folds(found, foreign)
    assert left == []
    assert open_set.lessons_of(1, foreign) == ["cam-b"]
    [camera] = open_set.teach(folds[1], 1, foreign, "cam-b", ["clean"])
    assert np.isfinite([value for value in camera.values() if isinstance(value, float)]).all()


def test_a_source_without_train_images_is_an_error(embedded):
    none = EmbeddedSet(embedded.records, np.full(len(embedded.records), "test"), embedded.cards, embedded.outputs)
    with pytest.raises(DataError, match="train images"):
        prototypes.fit(none, 0, ["dif"])


def test_the_command_writes_them_into_the_file_and_calibrating_keeps_them(tmp_path):
    manifest = write_set(tmp_path)
    card = make_card(sources=("cam-a", "cam-b", "gan-a", "gan-b"), labels=("real", "real", "fake", "fake"))
    model = write_model(tmp_path / "model.onnx", card, colour=True, sources=4)
    code, out, err = faceauth("lab", "prototypes", model, "--manifest", manifest, "--cache", tmp_path / "cache")
    assert code == 0, err
    assert "4 prototypes" in out
    text = ModelFile(model).metadata[PROTOTYPES_KEY]
    assert {k.name for k in Prototypes.from_json(text).kinds} == {"cam-a", "cam-b", "gan-a", "gan-b"}
    rewrite(model, replace(ModelFile(model).card, version="2"))
    assert ModelFile(model).metadata[PROTOTYPES_KEY] == text
    assert faceauth("lab", "prototypes", model)[0] == 2
