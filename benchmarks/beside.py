"""Train what stands beside the embedded model: `python benchmarks/beside.py --jobs 2`.

Every config of configs/beside, on all its sources and once more for each fold that holds out a fake it would be
trained on; then each run as a model file. What is done is left alone, and what was broken off goes on. Each step is a
command of `faceauth lab` on one thread; OUTPUT/logs has what it said, OUTPUT/times.jsonl how long it took.

`python benchmarks/quality.py` then prints all of them side by side.
"""

import argparse
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from faceauth.errors import FaceAuthError, UsageError
from faceauth.lab.study import Step, run_steps
from faceauth.lab.training.config import TrainConfig, nearest, read_config

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Parse, train, export."""
    args = _arguments()
    try:
        configs = _chosen(args.configs, args.only)
        trainings = [step for path, config in configs.items() for step in _trainings(path, config, args.output)]
        if not all(step.result.exists() for step in trainings):
            for config in configs.values():
                config.data.open()  # cuts the faces once, before several processes would
        for steps in (trainings, [_export(step.result.parent) for step in trainings]):
            run_steps(steps, args.output, args.jobs, partial(print, file=sys.stderr))
        print(f"{len(trainings)} models of {', '.join(c.name for c in configs.values())} stand in {args.output}")
    except FaceAuthError as error:
        sys.exit(f"error: {error}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, default=HERE.parent / "configs" / "beside", help="a folder of configs")
    parser.add_argument("--only", action="append", help="only the config of this name; repeatable")
    parser.add_argument("--output", type=Path, default=Path("runs/beside"))
    parser.add_argument("--jobs", type=int, default=1, help="processes at once, each on one thread")
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error("--jobs: at least 1")
    return args


def _chosen(folder: Path, only: list[str] | None) -> dict[Path, TrainConfig]:
    configs = {path: read_config(path) for path in sorted(folder.glob("*.toml"))}
    if not configs:
        raise UsageError(f"no config in {str(folder)!r}", "give --configs a folder of TOML files")
    names = [config.name for config in configs.values()]
    for name in only or ():
        if name not in names:
            raise UsageError(f"no config {name!r} in {folder}", nearest(name, names))
    return {path: config for path, config in configs.items() if not only or config.name in only}


def _trainings(path: Path, config: TrainConfig, output: Path) -> Iterator[Step]:
    words = ("train", str(path), "--runs", str(output), "--resume")
    yield Step(f"train {config.name}", words, output / config.name / "model.safetensors")
    for number, held in enumerate(config.data.folds, start=1):
        if not config.data.fake or set(held) & set(config.data.fake):
            name = f"{config.name}-fold{number}"
            yield Step(f"train {name}", (*words, "--fold", str(number)), output / name / "model.safetensors")


def _export(run: Path) -> Step:
    return Step(f"export {run.name}", ("export", str(run)), run / "detector.onnx")


if __name__ == "__main__":
    main()
