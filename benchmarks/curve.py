"""Print how the unseen column grows with the number of sources: `python benchmarks/curve.py`.

For every fold of configs/beside/pyramid.toml, models trained on one, two, ... of the kinds of generator that the fold
leaves over (`--vary real`: of the kinds of photographs), the other class and the budget unchanged, judged on the
sources held out. A kind is what the folds hold out together; face swaps and faces of our own are left out. Runs that
are there are not made again, so the command goes on after a kill.
"""

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from faceauth.errors import FaceAuthError
from faceauth.lab.data.dataset import Examples
from faceauth.lab.evaluation import metrics
from faceauth.lab.evaluation.scoring import VARIANTS, score_files
from faceauth.lab.training.config import TrainConfig, read_config

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "beside" / "pyramid.toml"
Run = tuple[int, int]  # fold from 1, number of kinds


def main() -> None:
    """Parse, train what is missing, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vary", choices=["fake", "real"], default="fake")
    parser.add_argument("--images", type=int, default=6000, help="training budget of a run")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--runs", type=Path, default=Path("runs/curve"))
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    args = parser.parse_args()
    try:
        config = read_config(CONFIG)
        kinds, judged = _kinds(config, config.data.open(), args.vary)
        wanted = [(fold, count) for count in range(1, len(kinds)) for fold in judged]
        with ThreadPoolExecutor(args.jobs) as pool:
            models = dict(zip(wanted, pool.map(lambda run: _model(args, kinds, run), wanted), strict=True))
        _print(args, judged, _judge(args, config, models))
    except FaceAuthError as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {' '.join(map(str, error.cmd))} ended with {error.returncode}; the same command goes on")


def _kinds(config: TrainConfig, examples: Examples, label: str) -> tuple[dict[int, list[str]], list[int]]:
    """The sources of a class that each fold holds out, and the folds that hold out both classes: those are judged."""
    trained = {
        "real": set(config.data.real or examples.sources("real")),
        "fake": set(config.data.fake or examples.sources("fake")),
    }
    folds = {k: set(fold) for k, fold in enumerate(config.data.folds, start=1)}
    judged = [k for k, fold in folds.items() if all(fold & known for known in trained.values())]
    return {k: sorted(fold & trained[label]) for k, fold in folds.items() if fold & trained[label]}, judged


def _model(args: argparse.Namespace, kinds: dict[int, list[str]], run: Run) -> Path:
    fold, count = run
    place = list(kinds).index(fold)
    others = [*list(kinds)[place + 1 :], *list(kinds)[:place]]  # in turn, so that each kind is taken equally often
    sources = [source for k in others[:count] for source in kinds[k]]
    name = f"{args.vary}-{count}-{args.images}"
    folder: Path = args.runs / f"{name}-fold{fold}"
    if not (folder / "model.safetensors").is_file():
        values = {"name": name, "images": args.images, f"data.{args.vary}": sources, "data.cache": f"'{args.cache}'"}
        settings = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
        again = ["--resume"] if folder.exists() else []
        _do("train", CONFIG, "--fold", fold, "--runs", args.runs, *again, *settings)
    if not (folder / "detector.onnx").is_file():
        _do("export", folder)
    return folder / "detector.onnx"


def _do(*command: object) -> None:
    words = [sys.executable, "-m", "faceauth", "lab", *map(str, command)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def _judge(args: argparse.Namespace, config: TrainConfig, models: dict[Run, Path]) -> dict[Run, list[float]]:
    """AUROC in every variant, on the test images of the sources that the run's fold holds out."""
    examples = config.data.open()
    assert config.data.root is not None
    areas = {}
    for fold in sorted({fold for fold, _ in models}):
        held = set(config.data.folds[fold - 1])
        records = [
            r for r, s in zip(examples.records, examples.splits, strict=True) if s == "test" and r.source in held
        ]
        runs = [run for run in models if run[0] == fold]
        paths = [str(config.data.root / r.path) for r in records]
        found = score_files([models[run] for run in runs], paths, examples.sha256, args.cache, args.jobs, again=False)
        fake = np.array([r.fake for r in records])
        for run, logits in zip(runs, found, strict=True):
            areas[run] = [float(metrics.auroc(logits[:, v, 0], fake)) for v in range(len(VARIANTS))]
    return areas


def _print(args: argparse.Namespace, folds: list[int], areas: dict[Run, list[float]]) -> None:
    names = {"fake": "generator", "real": "photographs"}
    print(f"command: `python benchmarks/curve.py --vary {args.vary} --images {args.images}`; test, AUROC unseen\n")
    print(f"| kinds of {names[args.vary]} | {' | '.join(VARIANTS)} | clean, fold by fold |\n|{'---|' * 6}")
    for count in sorted({count for _, count in areas}):
        rows = [areas[fold, count] for fold in folds]
        means = " | ".join(f"{m:.3f}" for m in np.mean(rows, axis=0))
        print(f"| {count} | {means} | {', '.join(f'{row[0]:.2f}' for row in rows)} |")


if __name__ == "__main__":
    main()
