"""Print which photographs to hold out with which generator: `python benchmarks/pairs.py`.

Every way to pair the kinds of photographs with the kinds of generator that configs/embedded.toml holds out is judged
by the shortcut baselines alone, on *test*, before any network is: the best pairs leave them the least to go by. A kind
is what the folds hold out together; photographs that no generator goes out with are trained on in every fold.
"""

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from itertools import permutations, product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt

from faceauth.lab.data.examples import Examples
from faceauth.lab.evaluation import metrics
from faceauth.lab.evaluation.baselines import BASELINES, fit
from faceauth.lab.evaluation.facts import features_of
from faceauth.lab.evaluation.scoring import VARIANTS
from faceauth.lab.training.config import TrainConfig, read_config

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "embedded.toml"
Kind = tuple[str, ...]
Pair = tuple[Kind, Kind]  # sources of photographs and of a generator
Job = tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_], list[npt.NDArray[np.float32]]]


def main() -> None:
    """Parse, judge every pair, print the best ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--show", type=int, default=10, help="how many ways to print")
    args = parser.parse_args()
    config = read_config(args.config)
    examples = config.data.open()
    pairs, now = _pairs(config, examples)
    logits, fake = _judge(args, config, examples, list(product(*pairs)))
    ways = []
    for generators in permutations(pairs[1]):
        way = list(zip(pairs[0], generators, strict=True))
        truth = np.concatenate([fake[pair] for pair in way])
        pooled = np.concatenate([logits[pair] for pair in way], axis=1)  # (baselines, images, variants)
        ways.append((np.array([[metrics.auroc(one[:, v], truth) for v in range(3)] for one in pooled]), way))
    ways.sort(key=lambda found: found[0].max())
    place = next(i for i, (_, way) in enumerate(ways) if set(way) == set(now))
    print(f"command: `python benchmarks/pairs.py`; test, AUROC of {' and '.join(BASELINES)} on the pairs together\n")
    print(f"| | {' | '.join(f'{b}, {v}' for b in BASELINES for v in VARIANTS[:3])} | pairs |\n|{'---|' * 8}")
    for i in sorted({*range(min(args.show, len(ways))), place}):
        areas, way = ways[i]
        named = ", ".join(f"{a[0]} + {b[0]}" for a, b in way)
        cells = " | ".join(f"{a:.2f}" for a in areas.ravel())
        print(f"| {i + 1}{' (the config)' if i == place else ''} | {cells} | {named} |")


def _pairs(config: TrainConfig, examples: Examples) -> tuple[tuple[list[Kind], list[Kind]], list[Pair]]:
    """The kinds of photographs, the kinds of generator, and how the config pairs them."""
    label = {r.source: r.label for r in examples.records if r.source not in examples.own}
    trained = {*examples.sources("real"), *(config.data.fake or examples.sources("fake"))}
    both = []
    for fold in config.data.folds:
        real = tuple(s for s in fold if s in trained and label[s] == "real")
        fake = tuple(s for s in fold if s in trained and label[s] == "fake")
        if real and fake:
            both.append((real, fake))
    return ([real for real, _ in both], [fake for _, fake in both]), both


def _judge(
    args: argparse.Namespace, config: TrainConfig, examples: Examples, pairs: list[Pair]
) -> tuple[dict[Pair, npt.NDArray[np.float64]], dict[Pair, npt.NDArray[np.bool_]]]:
    """For each pair the logits of every baseline (baselines, images, variants), and which of the images are fake."""
    assert config.data.root is not None
    kept = [i for i, r in enumerate(examples.records) if r.source not in examples.own]
    records, splits = [examples.records[i] for i in kept], np.array([examples.splits[i] for i in kept])
    sources, fake = np.array([r.source for r in records]), np.array([r.fake for r in records])
    known = np.isin(sources, [*examples.sources("real"), *(config.data.fake or examples.sources("fake"))])
    paths = [str(config.data.root / r.path) for r in records]
    features = features_of(paths, examples.sha256, args.cache, args.workers)
    jobs: list[Job] = []
    truth = {}
    for pair in pairs:
        out = np.isin(sources, [s for kind in pair for s in kind])
        train, judged = known & (splits == "train") & ~out, known & (splits == "test") & out
        truth[pair] = fake[judged]
        jobs += [(f[train, 0], fake[train], [f[judged, v] for v in range(3)]) for f in features]
    with ProcessPoolExecutor(args.workers, get_context("spawn")) as pool:
        found = list(pool.map(_fit, jobs))
    each = len(features)
    return {pair: np.stack(found[each * i : each * (i + 1)]) for i, pair in enumerate(pairs)}, truth


def _fit(job: Job) -> npt.NDArray[np.float64]:
    return np.asarray(fit(*job))


if __name__ == "__main__":
    main()
