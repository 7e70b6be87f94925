"""A small network taught by a frozen detector, from its lessons to the model file, with a network of a few layers."""

import dataclasses

import numpy as np
import pytest

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")]
torch = pytest.importorskip("torch")
from safetensors.torch import save_file

from faceauth.errors import ConfigError, DataError
from faceauth.lab.evaluation import score_table
from faceauth.lab.evaluation.ship import train_and_ship_student
from faceauth.lab.training import frozen, student
from faceauth.lab.training.networks import import_timm
from faceauth.model_file import ModelFile
from test_lab_frozen_detector import place  # noqa: F401  a fixture: the data set, an encoder and the teacher's config

NETWORK = "test_resnet"


@pytest.fixture(scope="module")
def config(place):  # noqa: F811
    torch.manual_seed(0)
    save_file(import_timm().create_model(NETWORK, num_classes=0).state_dict(), place / "weights.safetensors")
    (place / "student.toml").write_text(
        f'name = "small"\nversion = "1"\ncredit = "test"\nteacher = "config.toml"\nnetwork = "{NETWORK}"\n'
        'weights = "weights.safetensors"\nsteps = 40\nbatch = 16\nlr = 0.003\n[preprocess]\nsize = 64\n'
        "[views]\ntrain = ['clean', 'train-1']\nblend = ['blend-1']\n"
    )
    return student.read_student(place / "student.toml")


@pytest.fixture(scope="module")
def run(place, config):  # noqa: F811
    return train_and_ship_student(config, place / "runs", place / "cache", 1, False)


@pytest.fixture(scope="module")
def teacher(config):
    return frozen.prepare(frozen.read_config(config.teacher), config.teacher.parent / "cache", 1)


def test_a_student_tells_bright_fakes_from_photographs_of_kinds_never_seen(run):
    rows = score_table.read(run / "scores.parquet").rows
    assert set(rows["model"]) == {"small"}
    judged = rows[rows["held_out"] & (rows["variant"] == "clean") & rows["family"].isin(("real", "gan", "diffusion"))]
    fake = (judged["label"] == "fake").to_numpy()
    assert (judged["logit"].to_numpy()[fake][:, None] > judged["logit"].to_numpy()[~fake]).mean() > 0.8


def test_the_model_file_is_the_student_in_eight_bits(run, config, teacher):
    model = ModelFile(run / "detector.onnx")
    prepared = student.prepare_student(config, teacher)
    [file] = run.glob("student-*-all.safetensors")
    views = student.cut(prepared, config.teacher.parent / "cache", 1)
    network = student.fit_student(config, teacher, None, views, None, file)
    pixels = config.preprocess.normalize(np.array(views.pixels[:16]))
    with torch.no_grad():
        expected = network(torch.from_numpy(pixels))[0][:, 0].numpy()
    given = model.run(pixels).parts[:, 0]
    assert np.sqrt(np.mean((given - expected) ** 2)) < 0.1 * expected.std()
    assert model.card.preprocess.size == 64
    assert b"QuantizeLinear" in (run / "detector.onnx").read_bytes()


def test_no_student_is_fitted_to_what_its_fold_holds_out(run, config, teacher, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        student, "train_student", lambda c, rows, cut, taught, allowed: seen.update(taught=taught, allowed=allowed)
        or student.Student(NETWORK),
    )  # fmt: skip
    key = frozen.FoldKey("kind", 0, 1)
    allowed = teacher.may_fit(key) & np.array([r.split == "train" for r in teacher.rows])
    found = frozen.examples(teacher)
    student.fit_student(config, teacher, found, None, allowed, run / "again.safetensors")
    held = {r.sha256 for r, out in zip(teacher.rows, teacher.held(key), strict=True) if out}
    assert held
    assert not held & {image for image, _ in seen["taught"].place}
    views = student.cut(student.prepare_student(config, teacher), config.teacher.parent / "cache", 1)
    index = {r.sha256: i for i, r in enumerate(teacher.rows)}
    of = np.array([index[i] for i in views.image.tolist()])
    groups = student._groups(config, teacher.rows, views.view, of, seen["allowed"])
    shown = {views.image[i] for kinds in groups.values() for places in kinds.values() for i in places}
    assert shown
    assert not held & shown
    real = {views.image[i] for places in groups["real"].values() for i in places}
    assert {teacher.rows[index[i]].label for i in real} == {"real"}
    assert {views.view[i] for places in groups["swapped"].values() for i in places} >= {"blend-1"}


def test_a_lesson_on_another_view_counts_less_and_none_is_given_on_blended_ones():
    taught = student.Lessons({("a", "clean"): 0, ("a", "train-1"): 1, ("b", "clean"): 2}, None, None)
    assert taught.find("a", "clean") == (0, 1.0)
    assert taught.find("a", "train-2") == (1, student.OTHER_VIEW)
    assert taught.find("b", "train-1") == (2, student.OTHER_VIEW)
    assert taught.find("a", "blend-1") == (-1, 0.0)
    assert taught.find("c", "clean") == (-1, 0.0)


def test_the_teacher_moves_the_loss(config):
    taught = student.Lessons({}, np.array([[4.0, -4.0]], np.float32), np.ones((1, student.COMPONENTS), np.float32))
    logits, components = torch.tensor([[4.0, -4.0], [-4.0, -4.0]]), torch.ones(2, student.COMPONENTS)

    def loss(logits, components, found):
        return float(student._loss(config, ["generated", "real"], [found, (-1, 0.0)], logits, components, taught))

    agreed = loss(logits, components, (0, 1.0))
    assert loss(-logits, components, (0, 1.0)) > agreed + 4
    assert loss(logits, 0 * components, (0, 1.0)) == pytest.approx(agreed + config.components)
    assert loss(logits, 0 * components, (-1, 0.0)) < agreed


def test_pixels_are_cut_once(place, config, teacher, run, monkeypatch):  # noqa: F811
    monkeypatch.setattr("faceauth.lab.training.pixels._cut_all", lambda *_: pytest.fail("cut again"))
    prepared = student.prepare_student(config, teacher)
    views = student.cut(prepared, place / "cache", 1)
    assert views.pixels.shape == (len(views.view), 64, 64, 3)
    other = dataclasses.replace(config.preprocess, crop=1.5)
    with pytest.raises(pytest.fail.Exception, match="cut again"):
        student.cut(
            student.prepare_student(config.model_copy(update={"preprocess": other}), teacher), place / "cache", 1
        )


def test_a_changed_recipe_is_another_student(config, teacher):
    def name(**changed):
        prepared = student.prepare_student(config.model_copy(update=changed), teacher)
        return student.student_file(config.teacher.parent, prepared, None)

    assert name() == name()
    assert len({name(), name(steps=41), name(logits=0.5), name(lr=0.1)}) == 4


def test_what_is_missing_is_said(place, config, teacher, tmp_path):  # noqa: F811
    with pytest.raises(DataError, match="no weights"):
        student.prepare_student(config.model_copy(update={"weights": tmp_path / "none"}), teacher)
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match="lacks"):
        student._initial(config.model_copy(update={"weights": tmp_path / "other.safetensors"}))
    with pytest.raises(ConfigError, match="no network"):
        student.Student("nothing_of_timm")
    (tmp_path / "student.toml").write_text((place / "student.toml").read_text().replace("steps", "stepps"))
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        student.read_student(tmp_path / "student.toml")
