"""What a network is shown: which images are drawn, and how often."""

from collections import Counter

import pytest

pytest.importorskip("torch")
from faceauth.lab.data.dataset import ImageRow
from faceauth.lab.data.examples import Examples
from faceauth.lab.training.batches import TrainingSet
from faceauth.lab.training.config import TrainConfig

pytestmark = pytest.mark.torch
COUNTS = {"cam-a": 400, "cam-b": 100, "gan-a": 25, "gan-b": 16, "gan-c": 9}
TOTAL = {"cam": 20 + 10, "gan": 5 + 4 + 3}  # square roots of the counts


@pytest.fixture(scope="module")
def examples():
    rows = [
        ImageRow(f"{s}/{split}{i}", s, "real" if s[0] == "c" else "fake", "", s, "", s, f"{s}{split}{i}", split)
        for s, n in COUNTS.items()
        for split, count in (("train", n), ("test", 5), ("dev", 5))
        for i in range(count)
    ]
    return Examples(tuple(rows), tuple(r.split for r in rows), (), "0" * 64)


def drawn(examples, held_out=(), steps=60):
    config = TrainConfig(name="t", images=1000, batch=100, data={"root": "corpus"})
    data = TrainingSet(config, examples, held_out)
    return [examples.records[i] for step in range(steps) for i, _, _ in data.draw(step)]


def test_classes_are_drawn_equally_whatever_their_size(examples):
    """Half of all draws are of either class; within it a source is drawn in proportion to the root of its count."""
    rows = drawn(examples)
    counts = Counter(r.source for r in rows)
    for source, n in COUNTS.items():
        share = n**0.5 / TOTAL[source[:3]] / 2
        spread = (share * (1 - share) / len(rows)) ** 0.5
        assert counts[source] / len(rows) == pytest.approx(share, abs=5 * spread), source


def test_what_is_held_out_is_never_drawn(examples):
    rows = drawn(examples, ("cam-b", "gan-a"))
    assert {r.source for r in rows} == {"cam-a", "gan-b", "gan-c"}
    assert {r.split for r in rows} == {"train"}
    assert {r.path for r in rows if r.label == "fake"} == {f"gan-b/train{i}" for i in range(16)} | {
        f"gan-c/train{i}" for i in range(9)
    }
