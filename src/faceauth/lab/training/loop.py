"""One training run: a folder that is never overwritten, a log, checkpoints, and the same result after a kill.

Step k draws everything it needs from (seed, k), so a resumed run sees what an unbroken one would have seen.
"""

import copy
import ctypes
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from faceauth.errors import DataError, UsageError
from faceauth.lab.data.augment import augment
from faceauth.lab.data.dataset import Examples
from faceauth.lab.data.split import check_folds
from faceauth.lab.training.config import TrainConfig
from faceauth.lab.training.zoo import build


class TrainingSet:
    """Which images are trained on, and how they are drawn: real and fake equally, sources tempered by count."""

    def __init__(self, config: TrainConfig, examples: Examples, held_out: Sequence[str]) -> None:
        """Raises DataError where a class or a source is left without training images."""
        self.faces, self.config = examples.faces, config
        self.members: dict[str, list[int]] = {}
        self.labels: list[str] = []
        for label in ("real", "fake"):
            for source in examples.sources(label):
                if source not in held_out:
                    self.members[source] = [
                        i
                        for i, (r, side) in enumerate(zip(examples.records, examples.splits, strict=True))
                        if r.source == source and side == "train"
                    ]
                    self.labels.append(label)
        empty = [s for s, members in self.members.items() if not members]
        if empty or set(self.labels) != {"real", "fake"}:
            raise DataError(f"nothing to train on for {', '.join(empty) or 'one of the classes'}", "mend the folds")
        counts = np.array([len(m) for m in self.members.values()], float) ** config.data.temper
        fake = np.array([label == "fake" for label in self.labels])
        self.chances = np.where(fake, counts / counts[fake].sum(), counts / counts[~fake].sum()) / 2

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources trained on, in the order of the source logits."""
        return tuple(self.members)

    def batch(self, step: int, pool: ThreadPoolExecutor) -> tuple[npt.NDArray[np.uint8], Tensor]:
        """(batch, size, size, 3) uint8, and the index of each one's source."""
        rng = np.random.default_rng((self.config.seed, step))
        classes = rng.choice(len(self.chances), self.config.batch, p=self.chances)
        members = list(self.members.values())
        chosen = [(members[c][rng.integers(len(members[c]))], rng.spawn(1)[0]) for c in classes]
        return np.stack(list(pool.map(lambda item: self._one(*item), chosen))), torch.from_numpy(classes)

    def _one(self, index: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
        return augment(*self.faces[index], self.config.preprocess, self.config.augment, rng)


class Trainer:
    """The state of a run: network, its moving average, optimiser, step."""

    def __init__(self, config: TrainConfig, data: TrainingSet) -> None:
        torch.manual_seed(config.seed)
        self.config, self.data = config, data
        self.steps = math.ceil(config.images / config.batch)
        self.network = build(config.network, len(data.sources), config.width, config.dropout)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.network)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        self.fake = torch.tensor([float(label == "fake") for label in data.labels])
        self.step = 0

    def advance(self, pool: ThreadPoolExecutor) -> float:
        """One optimiser step; returns its loss."""
        config = self.config
        pixels, sources = self.data.batch(self.step, pool)
        torch.manual_seed(config.seed * 1_000_003 + self.step)  # dropout
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.step)
        self.network.train()
        inputs = torch.from_numpy(config.preprocess.normalize(pixels)).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.bf16):
            out = self.network(inputs)
        loss = self.loss(out.logit.float(), out.source_logits.float(), sources)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self.step += 1
        self._move_average()
        return float(loss.detach())

    def loss(self, logit: Tensor, source_logits: Tensor, sources: Tensor) -> Tensor:
        """Smoothed binary cross-entropy on real/fake plus a weighted cross-entropy over sources."""
        target = self.fake[sources] * (1 - self.config.smoothing) + self.config.smoothing / 2
        binary = F.binary_cross_entropy_with_logits(logit, target)
        return binary + self.config.source_weight * F.cross_entropy(source_logits, sources)

    def rate(self, step: int) -> float:
        """Learning rate: linear warm-up, then half a cosine down to 1 %. Loshchilov and Hutter, ICLR 2017."""
        cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * step / self.steps)) / 2
        return self.config.lr * min(1.0, (step + 1) / max(1, self.config.warmup)) * cosine

    @torch.no_grad()
    def _move_average(self) -> None:
        keep = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for mean, value in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - keep)
            else:
                mean.copy_(value)

    def state(self) -> dict[str, Any]:
        """All that is needed to go on."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])


def train(config: TrainConfig, runs: Path, fold: int | None = None, *, resume: bool = False, threads: int = 1) -> Path:
    """Train one model, on all sources or with those of `fold` (from 1) held out. Returns the run's folder.

    Raises:
        UsageError: the run exists and `resume` is not set, or there is no such fold.
        DataError: the corpus cannot be read or split.
    """
    folds = config.data.folds
    if fold is not None and not 1 <= fold <= len(folds):
        raise UsageError(f"no fold {fold}", f"the config has {len(folds)}, from 1")
    run = runs / (config.name if fold is None else f"{config.name}-fold{fold}")
    if (run / "model.safetensors").exists() or (run.exists() and not resume):
        raise UsageError(f"{str(run)!r} exists", "choose another name, or --resume a run that was broken off")
    torch.set_num_threads(threads)
    _keep_pages()
    examples = config.data.open()
    fakes = examples.sources("fake")
    if folds:
        check_folds(folds, [*examples.sources("real"), *fakes])
    held_out = folds[fold - 1] if fold is not None else []
    if config.data.fake:
        held_out = [*held_out, *(s for s in fakes if s not in config.data.fake)]
    trainer = Trainer(config, TrainingSet(config, examples, held_out))
    _describe(run, trainer, examples.sha256, held_out)
    if (run / "checkpoint.pt").exists():
        trainer.restore(torch.load(run / "checkpoint.pt", weights_only=True))
    _loop(trainer, run, threads)
    save_file({k: v.contiguous() for k, v in trainer.average.state_dict().items()}, run / "model.safetensors.part")
    os.replace(run / "model.safetensors.part", run / "model.safetensors")
    (run / "checkpoint.pt").unlink(missing_ok=True)
    return run


def _keep_pages() -> None:
    """Let glibc keep freed memory: page faults on large tensors otherwise cost half of the time on a CPU."""
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def _loop(trainer: Trainer, run: Path, threads: int) -> None:
    config, seen, start = trainer.config, trainer.step, time.perf_counter()
    losses: list[float] = []
    with ThreadPoolExecutor(threads) as pool, open(run / "log.jsonl", "a", encoding="utf-8") as log:
        for _ in _tracked(trainer.step, trainer.steps):
            losses.append(trainer.advance(pool))
            if trainer.step % config.log_every == 0 or trainer.step == trainer.steps:
                speed = (trainer.step - seen) * config.batch / (time.perf_counter() - start)
                row = {"step": trainer.step, "loss": float(np.mean(losses)), "lr": trainer.rate(trainer.step)}
                log.write(json.dumps(row | {"images_per_second": round(speed, 1)}) + "\n")
                log.flush()
                losses.clear()
            if trainer.step % config.checkpoint_every == 0:
                torch.save(trainer.state(), run / "checkpoint.pt.part")
                os.replace(run / "checkpoint.pt.part", run / "checkpoint.pt")


def _tracked(first: int, last: int) -> Iterator[int]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(range(first, last), "training", console=console, disable=not console.is_terminal)


def _describe(run: Path, trainer: Trainer, data_sha256: str, held_out: Sequence[str]) -> None:
    """Write what the run is made of, once; a resumed run must be made of the same."""
    packages = {name: version(name) for name in ("torch", "numpy", "pillow", "dlib-bin")}
    facts = {
        "config": trainer.config.model_dump(mode="json"),
        "sources": trainer.data.sources,
        "labels": trainer.data.labels,
        "held_out": list(held_out),
        "data_sha256": data_sha256,
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
    }
    path = run / "run.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [k for k, v in facts.items() if json.loads(json.dumps(v)) != before[k]]
        if changed:
            raise UsageError(f"{str(run)!r} was begun with another {', '.join(changed)}", "choose another name")
        return
    run.mkdir(parents=True)
    facts |= {
        "commit": _commit(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["faceauth", *sys.argv[1:]]),
        "environment": {"python": platform.python_version(), "machine": platform.machine(), **packages},
    }
    path.write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"  # not a checkout
    return done.stdout.strip()
