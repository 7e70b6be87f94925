"""What ships, made again without each fold, and judged on that."""

from types import SimpleNamespace

import numpy as np
import pytest

from command_line import faceauth
from lab_frozen_data import SOURCES, prepared, write_frozen

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from faceauth.lab.evaluation import nested as module
from faceauth.lab.evaluation.nested import nested
from faceauth.lab.training import frozen
from faceauth.lab.training.frozen import fit_heads

MORE = {
    **SOURCES, "sea": ("real", "real", 0.72), "moor": ("real", "real", 0.78), "field": ("real", "real", 0.74),
    "neon": ("fake", "gan", 1.28), "sun": ("fake", "diffusion", 1.33), "candle": ("fake", "gan", 1.31),
}  # fmt: skip


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    place = write_frozen(tmp_path_factory.mktemp("frozen"), variants=("clean", "web", "hard"), sources=MORE)
    return place, *prepared(place)


def test_no_line_has_seen_the_fold_that_the_mean_judges(ready, tmp_path, monkeypatch):
    _, prepared, found = ready
    asked = []

    def fit(prepared, found, allowed):
        asked.append(allowed)
        return fit_heads(prepared, found, allowed)

    monkeypatch.setattr(frozen, "fit_heads", fit)
    for fold in range(3):
        asked.clear()
        run = tmp_path / str(fold)
        run.mkdir()
        lines = module._lines(prepared, found, 0, fold, run)
        assert [key.fold for key in lines] == [k for k in range(3) if k != fold]
        for key, allowed in zip(lines, asked, strict=True):
            kept_out = prepared.held(key) | prepared.held(frozen.FoldKey("kind", 0, fold))
            assert not (allowed & kept_out).any()
            assert {prepared.rows[i].split for i in np.flatnonzero(allowed)} == {"train"}


def test_lines_that_lack_two_folds_serve_either(ready, tmp_path, monkeypatch):
    _, prepared, found = ready
    fits = []
    monkeypatch.setattr(frozen, "fit_heads", lambda *given: fits.append(1) or fit_heads(*given))
    for fold in range(3):
        module._lines(prepared, found, 0, fold, tmp_path)
    assert len(fits) == 3


def test_bright_fakes_of_kinds_never_seen_are_told_and_a_run_goes_on(ready, tmp_path, monkeypatch):
    _, prepared, found = ready
    rows = nested(prepared, found, tmp_path)
    assert [row["variant"] for row in rows] == ["clean", "web", "hard"]
    assert rows[0]["folds"] == 3
    assert rows[0]["AUROC"] == rows[0]["AUROC, worst fold"] == 1.0
    monkeypatch.setattr(frozen, "fit_heads", lambda *_: pytest.fail("fitted again"))
    assert nested(prepared, found, tmp_path) == rows


def test_a_rate_is_the_mean_over_kinds_of_photographs_whatever_their_size(ready, tmp_path, monkeypatch):
    _, prepared, found = ready
    lines = module._lines(prepared, found, 0, 0, tmp_path)
    kinds = np.array([row.kind for row in prepared.rows])
    fewer = np.flatnonzero((found.view == "clean") & np.isin(kinds[found.row], ["lake", "sea"]))[2:]
    kept = np.setdiff1d(np.arange(len(found.row)), fewer)
    few = frozen.Examples(found.features[kept], found.row[kept], found.view[kept])
    clean = (few.view == "clean") & np.array([row.split != "dev" for row in prepared.rows])[few.row]
    of, logit = kinds[few.row[clean]], frozen.mean_heads(list(lines.values())).generated(few.features[clean])
    real = [kind for kind in np.unique(of) if kind in {"lake", "wood", "hill", "sea", "moor", "field"}]
    limit = float(np.median(logit[np.isin(of, real)]))
    monkeypatch.setattr(module, "calibrate", lambda *_: shipped(limit))
    monkeypatch.setattr(frozen.Dealt, "held", lambda self, key: np.ones(len(self.rows), bool))
    row = next(module._judged(prepared, few, frozen.FoldKey("kind", 0, 0), lines))
    rates = [(logit[of == kind] >= limit).mean() for kind in real]
    assert row["real called fake"] == pytest.approx(np.mean(rates))
    assert row["worst kind"] == max(rates)
    assert np.mean(rates) != pytest.approx((logit[np.isin(of, real)] >= limit).mean())


def shipped(limit):
    """What `calibrate` gives, with the logit as the score and one threshold."""
    thresholds = SimpleNamespace(fake=limit, real=limit)
    return SimpleNamespace(rule=lambda generated, _: generated, calibration=lambda x: x, thresholds=thresholds)


def test_the_command_prints_a_table(ready, tmp_path):
    place, _, _ = ready
    code, out, _ = faceauth("lab", "nested", place / "config.toml", "--runs", tmp_path, "--cache", place / "cache")
    assert code == 0
    assert out.splitlines()[2].startswith("| clean | 3 | 1.000 |")
