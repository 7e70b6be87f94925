"""Print how fast training is beside its forward and backward passes alone: `python benchmarks/train.py`.

For each config, in turns: the loop of `faceauth lab train`, which reads, augments, steps the optimiser and logs, on a
prepared data set made here of a photograph in samples/; and forward and backward passes of the same network in the same
batch, on as many threads, on tensors that lie in memory. Weights are random. The median of the rounds' ratios counts.
Neither the start nor the test at the end is timed, and the time is that on the clock. At the study's own size:
`python benchmarks/train.py configs/report/densenet.toml --images 96`.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from faceauth.cpus import usable_cpus
from faceauth.errors import FaceAuthError
from faceauth.lab.data.dataset import ImageRow
from faceauth.lab.data.storing import JPEG, SPEC, write_manifest
from faceauth.lab.training.config import TrainConfig, read_config
from faceauth.lab.training.devices import place
from faceauth.lab.training.loop import train
from faceauth.lab.training.zoo import initial

ROOT = Path(__file__).resolve().parent.parent
FACE = (173, 123, 353, 337)  # of samples/grace-hopper.jpg
CONFIGS = [ROOT / "configs" / "small" / f"{name}.toml" for name in ("vit", "pyramid", "densenet")]
TARGET = 0.8


def main() -> None:
    """Make a data set, train, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "configs", nargs="*", type=Path, default=CONFIGS, help="experiments; of configs/small by default"
    )
    parser.add_argument("--images", type=int, default=480, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=usable_cpus())
    parser.add_argument("--device", default="auto", help="as of faceauth lab train")
    args = parser.parse_args()
    print(
        f"{args.rounds} rounds, {args.threads} threads, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before\n"
    )
    print(f"| config | batch | training, images/s | passes alone | ratio (target: at least {TARGET}) |")
    print("|---|---|---|---|---|")
    for path in args.configs:
        with tempfile.TemporaryDirectory() as name:
            config = _config(path, Path(name), args.images)
            steps = math.ceil(args.images / config.batch)
            rates = []
            for k in range(args.rounds):
                whole = _trained(config, Path(name, str(k)), args.threads, args.device)
                rates.append((whole, _passes(config, steps, args.threads, args.device)))
        whole, alone = (statistics.median(column) for column in zip(*rates, strict=True))
        ratio = statistics.median(a / b for a, b in rates)
        print(f"| {config.name} | {config.batch} | {whole:.1f} | {alone:.1f} | {ratio:.2f} |", flush=True)


def _config(path: Path, folder: Path, images: int) -> TrainConfig:
    """The experiment at `path` with random weights, through so many images of a data set made in `folder`."""
    given = read_config(path, ["init=random", f"data.manifest={folder / 'manifest.parquet'}"])
    _make(folder, images)
    whole = {"images": images} if given.images else {"study": given.study.model_copy(update={"epochs": 1})}
    return given.model_copy(update={**whole, "log_every": 10**9, "checkpoint_every": 10**9})


def _make(folder: Path, count: int) -> None:
    """A prepared data set of `count` images to train on and two to test on, half of them called real."""
    with Image.open(ROOT / "samples" / "grace-hopper.jpg") as image:
        region = SPEC.region(FACE, *image.size)
        picture = Image.fromarray(SPEC.resize(image.convert("RGB"), region))
    k = SPEC.size / (region[2] - region[0])
    left, top, right, bottom = ((v - region[i % 2]) * k for i, v in enumerate(FACE))
    rows = []
    for i in range(count + 2):
        path, label = f"{i:06}.jpg", ("real", "fake")[i % 2]
        picture.save(folder / path, **JPEG)
        split = "train" if i < count else "test"
        row = ImageRow(path, label, label, label, label, "", label, str(i), split, (left, top, right, bottom))
        rows.append(replace(row, original=path, width=SPEC.size, height=SPEC.size))
    write_manifest(folder, rows)


def _trained(config: TrainConfig, runs: Path, threads: int, device: str) -> float:
    """Images a second, as the run's log says at its last step."""
    run = train(config, runs, threads=threads, device=device)
    return float(json.loads((run / "log.jsonl").read_text().splitlines()[-1])["images_per_second"])


def _passes(config: TrainConfig, steps: int, threads: int, device: str) -> float:
    """Images a second of forward and backward passes alone."""
    with place(device, threads) as here:
        network, config = initial(config, 2)
        network = network.to(here.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        part = math.ceil(config.batch / config.accumulate)
        pixels = torch.randn(part, 3, config.size, config.size).to(here.device, memory_format=torch.channels_last)
        start = time.perf_counter()
        for _ in range(steps):
            for _ in range(config.accumulate):
                with here.autocast(config.bf16):
                    out = network(pixels)
                (out.logit.float().mean() + out.source_logits.float().mean()).backward()
            network.zero_grad(set_to_none=True)
        if here.device.type == "cuda":
            torch.cuda.synchronize()
        return steps * part * config.accumulate / (time.perf_counter() - start)


if __name__ == "__main__":
    try:
        main()
    except FaceAuthError as error:
        raise SystemExit(f"error: {error}") from None
