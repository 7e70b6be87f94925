"""What each part of a detector on a frozen encoder is worth."""

import numpy as np
import pytest

from command_line import faceauth
from lab_frozen_data import prepared, write_frozen

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from faceauth.errors import UsageError
from faceauth.lab.evaluation import ablations as module
from faceauth.lab.evaluation.ablations import ablations
from faceauth.lab.training import frozen
from faceauth.lab.training.linear import LinearHead


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    place = write_frozen(tmp_path_factory.mktemp("frozen"))
    return place, *prepared(place)


def test_one_thing_changes_at_a_time_and_no_fold_is_fitted_to_what_it_holds_out(ready, tmp_path, monkeypatch):
    _, prepared, found = ready
    fits = []

    def fit(changed, examples, allowed):
        fits.append((changed.config, examples.features, allowed))
        return LinearHead(np.ones(examples.features.shape[1], np.float32), 0.0)

    monkeypatch.setattr(module, "fit_generated", fit)
    rows = ablations(prepared, found, tmp_path, 2)
    made = {row["what is fitted"]: fits[6 * n : 6 * n + 6] for n, row in enumerate(rows)}
    assert len(fits) == 6 * len(rows)
    family = np.array([row.family for row in prepared.rows])
    kinds = np.array([row.kind for row in prepared.rows])
    test = np.array([row.split != "train" for row in prepared.rows])
    held = [prepared.held(frozen.FoldKey(deal, 0, fold)) for deal in ("kind", "source") for fold in range(3)]
    for of in made.values():
        for (_, _, allowed), out in zip(of, held, strict=True):
            assert not (allowed & (out | test)).any()
    config, features, allowed = made["the whole model"][0]
    assert config == prepared.config
    assert features is found.features
    assert np.array_equal(made["patch means alone"][0][1], found.features[:, [1, 4]])
    assert np.array_equal(made["the last block alone"][0][1], found.features[:, 3:])
    assert made["files as they are alone"][0][0].views.train == ("clean",)
    assert "one edited view in place of all" not in made
    assert np.array_equal(made["without gan"][0][2], allowed & (family != "gan"))
    assert made["without gan"][0][0] == config
    assert made["l2 5 in place of 0.5"][0][0].head.l2 == 5
    half = np.logical_or.reduce([a for _, _, a in made["50% of the kinds of photographs (2 of 3)"]])
    assert len(set(kinds[half & (family == "real")])) == 2
    assert set(kinds[half & (family != "real")]) == set(kinds[family != "real"])


def test_a_run_that_was_cut_off_goes_on_and_tells_bright_fakes_from_dark_photographs(ready, tmp_path, monkeypatch):
    _, prepared, found = ready
    rows = ablations(prepared, found, tmp_path, 0)
    whole = rows[0]
    assert whole["unseen kind, clean"] == whole["unseen source, hard"] == 1.0
    assert not [row for row in rows if row["part"] == "features"]
    monkeypatch.setattr(module, "fit_generated", lambda *_: pytest.fail("fitted again"))
    assert ablations(prepared, found, tmp_path, 0) == rows


def test_dev_is_not_scored(ready):
    _, prepared, found = ready
    scored = {prepared.rows[i].split for i in found.row[module._scored(prepared, found)]}
    assert scored == {"train", "test"}


def test_features_of_another_network_have_no_blocks(ready, tmp_path):
    _, prepared, found = ready
    with pytest.raises(UsageError, match="not those of 12 blocks"):
        ablations(prepared, found, tmp_path, 12)


def test_the_command_prints_a_table(ready, tmp_path):
    place, _, _ = ready
    code, out, _ = faceauth("lab", "ablate", place / "config.toml", "--runs", tmp_path, "--cache", place / "cache")
    assert code == 0
    assert out.splitlines()[2].startswith("|  | the whole model | 1.000 |")
