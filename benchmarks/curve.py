"""Print what the unseen column grows with: `python benchmarks/curve.py`.

For every fold of configs/beside/pyramid.toml, models judged on the sources held out. They are trained on one, two, ...
of the kinds of generator that the fold leaves over (`--vary real`: of the kinds of photographs), the other class and
the budget unchanged; a kind is what the folds hold out together, without face swaps and faces of our own. Or on all
kinds, but on a share of each source's images (`--vary images`), or with narrower and wider networks (`--vary width`).
Runs that are there are not made again, so the command goes on after a kill.
"""

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from faceauth.errors import FaceAuthError
from faceauth.lab.data.examples import Examples
from faceauth.lab.evaluation import metrics
from faceauth.lab.evaluation.scoring import VARIANTS, score_files
from faceauth.lab.training.config import TrainConfig, read_config

CONFIG = Path(__file__).resolve().parent.parent / "configs" / "beside" / "pyramid.toml"
SETTINGS = {"images": ("data.share", (0.125, 0.25, 0.5, 1.0)), "width": ("width", (12, 24, 48))}  # of the config
HEADS = {
    "fake": "kinds of generator", "real": "kinds of photographs", "images": "share of the train images",
    "width": "width of the network",
}  # fmt: skip
Run = tuple[int, float]  # fold from 1, and the number of kinds or what else varies


def main() -> None:
    """Parse, train what is missing, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vary", choices=list(HEADS), default="fake")
    parser.add_argument("--images", type=int, default=6000, help="training budget of a run")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--runs", type=Path, default=Path("runs/curve"))
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    args = parser.parse_args()
    try:
        config = read_config(CONFIG)
        kinds, judged = _kinds(config, config.data.open(), args.vary)
        points = SETTINGS[args.vary][1] if args.vary in SETTINGS else range(1, len(kinds))
        wanted = [(fold, point) for point in points for fold in judged]
        with ThreadPoolExecutor(args.jobs) as pool:
            trained = pool.map(lambda run: _model(args, run, _settings(args, kinds, run)), wanted)
            models = dict(zip(wanted, trained, strict=True))
        _print(args, judged, _judge(args, config, models))
    except FaceAuthError as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: {' '.join(map(str, error.cmd))} ended with {error.returncode}; the same command goes on")


def _kinds(config: TrainConfig, examples: Examples, label: str) -> tuple[dict[int, list[str]], list[int]]:
    """The sources of a class that each fold holds out, and the folds that hold out both classes: those are judged.

    Where `label` is no class, the sources of both.
    """
    trained = {
        "real": set(config.data.real or examples.sources("real")),
        "fake": set(config.data.fake or examples.sources("fake")),
    }
    folds = {k: set(fold) for k, fold in enumerate(config.data.folds, start=1)}
    judged = [k for k, fold in folds.items() if all(fold & known for known in trained.values())]
    varied = trained.get(label, trained["real"] | trained["fake"])
    return {k: sorted(fold & varied) for k, fold in folds.items() if fold & varied}, judged


def _settings(args: argparse.Namespace, kinds: dict[int, list[str]], run: Run) -> dict[str, object]:
    """What the run's config has of its own."""
    fold, point = run
    if args.vary in SETTINGS:
        return {"images": args.images, SETTINGS[args.vary][0]: point}
    place = list(kinds).index(fold)
    others = [*list(kinds)[place + 1 :], *list(kinds)[:place]]  # in turn, so that each kind is taken equally often
    sources = [source for k in others[: int(point)] for source in kinds[k]]
    return {"images": args.images, f"data.{args.vary}": sources}


def _model(args: argparse.Namespace, run: Run, settings: dict[str, object]) -> Path:
    fold, point = run
    name = f"{args.vary}-{point}-{args.images}"
    folder: Path = args.runs / f"{name}-fold{fold}"
    if not (folder / "model.safetensors").is_file():
        values = {"name": name, "data.cache": f"'{args.cache}'", **settings}
        words = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
        again = ["--resume"] if folder.exists() else []
        _do("train", CONFIG, "--fold", fold, "--runs", args.runs, *again, *words)
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
    print(f"command: `python benchmarks/curve.py --vary {args.vary} --images {args.images}`; test, AUROC unseen\n")
    print(f"| {HEADS[args.vary]} | {' | '.join(VARIANTS)} | clean, fold by fold |\n|{'---|' * 6}")
    for point in sorted({point for _, point in areas}):
        rows = [areas[fold, point] for fold in folds]
        means = " | ".join(f"{m:.3f}" for m in np.mean(rows, axis=0))
        print(f"| {point:g} | {means} | {', '.join(f'{row[0]:.2f}' for row in rows)} |")


if __name__ == "__main__":
    main()
