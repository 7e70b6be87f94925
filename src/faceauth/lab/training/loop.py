"""One training run, by either recipe, on one device or several, with the same result after a kill."""

import contextlib
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from faceauth.errors import DataError, UsageError
from faceauth.files import locked
from faceauth.lab.data.examples import Examples
from faceauth.lab.progress import tracked
from faceauth.lab.run_info import file_sha256
from faceauth.lab.training.batches import Batch, Pixels, TrainingSet, ValidationSet
from faceauth.lab.training.config import DistillConfig, TrainConfig
from faceauth.lab.training.devices import Place, place
from faceauth.lab.training.export import load_run
from faceauth.lab.training.networks import TaughtOutputs
from faceauth.lab.training.optim import ModernRecipe, Recipe, StudyRecipe
from faceauth.lab.training.run_dir import RunDir
from faceauth.lab.training.zoo import build, initial


class Teacher:
    """The network of a finished run, which teaches the distillation token. Touvron et al., ICML 2021, arXiv 2012.12877.

    It is frozen and sees the student's own pixels, brought to its own size, mean and std.
    """

    def __init__(self, config: TrainConfig, data_sha256: str, held_out: Sequence[str], device: torch.device) -> None:
        """Raises UsageError for a teacher that is unfinished, or that saw what the student must not learn from."""
        assert config.distill is not None
        path = config.distill.teacher
        network, taught, facts = load_run(path)
        seen = sorted(set(held_out) & set(facts["sources"]))
        if facts["data_sha256"] != data_sha256 or _split(taught) != _split(config):
            raise UsageError(f"the teacher {str(path)!r} was trained on other data", "train it on this split first")
        if seen:
            raise UsageError(f"the teacher {str(path)!r} has seen {', '.join(seen)}, held out here", "take another one")
        self.sha256 = file_sha256(path / "model.safetensors")
        self.network, self.preprocess, self.device = network.to(device).requires_grad_(False), taught.preprocess, device

    @torch.no_grad()
    def logits(self, pixels: Pixels) -> Tensor:
        """What it says of the student's pixels (n, size, size, 3): (n,)."""
        spec = self.preprocess
        if pixels.shape[1] != spec.size:
            pixels = np.stack([spec.cut(Image.fromarray(p), None) for p in pixels])
        logit: Tensor = self.network(torch.from_numpy(spec.normalize(pixels)).to(self.device)).logit
        return logit.float()


def teachers_loss(logit: Tensor, teacher: Tensor, config: DistillConfig) -> Tensor:
    """How far the distillation token is from the teacher; both logits (n,).

    hard: binary cross-entropy against the teacher's decision. soft: t^2 KL(teacher || student) of the two-class
    distributions at temperature t (Hinton et al., 2015, arXiv 1503.02531).
    """
    if config.kind == "hard":
        return F.binary_cross_entropy_with_logits(logit, (teacher > 0).float())
    t = config.temperature
    target = torch.sigmoid(teacher / t)
    entropy = F.binary_cross_entropy_with_logits(teacher / t, target)
    return t**2 * (F.binary_cross_entropy_with_logits(logit / t, target) - entropy)


def _split(config: TrainConfig) -> object:
    data = config.data
    return None if data.manifest is not None else (data.split_seed, data.fractions, data.train_only)


class Trainer:
    """The state of a run: network, recipe, step, and the losses since the last line of the log."""

    def __init__(
        self, config: TrainConfig, data: TrainingSet, here: Place, teacher: Teacher | None = None, fresh: bool = True
    ) -> None:
        """Where not `fresh`, the weights come from a checkpoint, and `init` is not asked again."""
        torch.manual_seed(config.seed)
        count = len(data.sources)
        network, config = initial(config, count) if fresh else (build(config, count), config)
        self.config, self.data, self.here, self.teacher = config, data, here, teacher
        self.network = network.to(here.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recipe: Recipe = (
            StudyRecipe(config, network) if config.recipe == "study" else ModernRecipe(config, network, data.steps)
        )
        self.spread = here.spread(self.network)
        self.fake = torch.tensor([float(label == "fake") for label in data.labels], device=here.device)
        self.step, self.rate = 0, 0.0
        self.losses: list[Tensor] = []

    def advance(self, batch: Batch) -> None:
        """One step of the optimiser, on this process's slice of the batch."""
        config, here = self.config, self.here
        self.rate = self.recipe.rate
        self.network.train()
        self.recipe.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=here.device)
        parts = np.array_split(np.arange(len(batch.sources)), min(config.accumulate, len(batch.sources)))
        for i, part in enumerate(parts):
            torch.manual_seed(config.seed * 1_000_003 + self.step + ((here.rank * len(parts) + i) << 40))  # dropout
            later = here.world > 1 and i < len(parts) - 1
            with self.spread.no_sync() if later else contextlib.nullcontext():  # type: ignore[operator]
                loss, probe = self._losses(batch.pixels[part], batch.sources[part].to(here.device))
                share = len(part) / batch.whole
                ((loss + probe) * (share * here.world)).backward()  # type: ignore[no-untyped-call]
            total += loss.detach() * share
        self.recipe.step()
        self.step += 1
        self.losses.append(here.sum(total))

    def _losses(self, pixels: Pixels, sources: Tensor) -> tuple[Tensor, Tensor]:
        """What moves the network, and what moves only a source head that is a probe; means over the images."""
        config = self.config
        with self.here.autocast(config.bf16):
            out = self.spread(self._inputs(pixels))
            word = self.teacher.logits(pixels) if self.teacher is not None else None
        target = self.fake[sources] * (1 - config.smoothing) + config.smoothing / 2
        loss = F.binary_cross_entropy_with_logits(out.logit.float(), target)
        if word is not None and config.distill is not None:
            assert isinstance(out, TaughtOutputs)
            taught = teachers_loss(out.distilled_logit.float(), word, config.distill)
            loss = (1 - config.distill.weight) * loss + config.distill.weight * taught
        source = F.cross_entropy(out.source_logits.float(), sources)
        if self.network.probe:
            return loss, source
        return loss + config.source_weight * source, torch.zeros_like(source)

    @torch.no_grad()
    def test(self, batches: Iterator[Batch]) -> float:
        """Mean binary cross-entropy over the test images, of `recipe.evaluated`. Raises DataError."""
        network = self.recipe.evaluated.eval()
        total, whole = torch.zeros((), device=self.here.device), 1
        for batch in batches:
            with self.here.autocast(self.config.bf16):
                logit = network(self._inputs(batch.pixels)).logit.float()
            target = self.fake[batch.sources.to(self.here.device)]
            total += F.binary_cross_entropy_with_logits(logit, target, reduction="sum")
            whole = batch.whole
        return self._finite(float(self.here.sum(total)) / whole)

    def drain(self) -> float:
        """Mean loss since it was last asked. Raises DataError where it is no number."""
        loss = float(torch.stack(self.losses).mean())
        self.losses.clear()
        return self._finite(loss)

    def _finite(self, loss: float) -> float:
        if not math.isfinite(loss):
            raise DataError(f"the loss is {loss} at step {self.step}", "lower the learning rate: --set lr=...")
        return loss

    def _inputs(self, pixels: Pixels) -> Tensor:
        inputs = torch.from_numpy(self.config.preprocess.normalize(pixels)).to(self.here.device)
        return inputs.contiguous(memory_format=torch.channels_last)

    def state(self) -> dict[str, Any]:
        """All that is needed to go on."""
        losses = [float(loss) for loss in self.losses]
        return {"step": self.step, "losses": losses, "network": self.network.state_dict(), **self.recipe.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self.step = state["step"]
        self.losses = [torch.tensor(loss, device=self.here.device) for loss in state["losses"]]
        self.network.load_state_dict(state["network"])
        self.recipe.restore(state)


def train(
    config: TrainConfig, runs: Path, fold: int | None = None, *, resume: bool = False, threads: int = 1,
    device: str = "auto",
) -> Path:  # fmt: skip
    """Train one model, on all sources or with those of `fold` (from 1) held out. Returns the run's folder.

    Under torchrun every process calls this with the same arguments; the first one writes.

    Raises:
        UsageError: the run exists and `resume` is not set, another process trains it, no such fold, source, checkpoint
            or device.
        DataError: the data cannot be read or split, weights cannot be had, or the loss is no number.
        KeyboardInterrupt: asked to stop; one process alone has kept a checkpoint.
    """
    with place(device, threads) as here:
        folder = RunDir(runs / (config.name if fold is None else f"{config.name}-fold{fold}"), resume)
        here.wait()
        if here.leads:
            examples = config.data.open()  # which may fill the cache that the others then read
        here.wait()
        if not here.leads:
            examples = config.data.open()
        held_out = config.data.held_out(examples, fold)
        trainer, validation = _prepare(config, examples, held_out, folder, here)
        with locked(folder.path) if here.leads else contextlib.nullcontext():
            _loop(trainer, validation, folder, threads)
            if here.leads:
                if config.recipe == "modern":
                    folder.save_best(trainer.recipe.evaluated)
                folder.finish()
        here.wait()
        del trainer, validation  # the gradient reducer holds the group of processes, which ends here
    return folder.path


def _prepare(
    config: TrainConfig, examples: Examples, held_out: Sequence[str], folder: RunDir, here: Place
) -> tuple[Trainer, ValidationSet]:
    teacher = Teacher(config, examples.sha256, held_out, here.device) if config.distill else None
    state = folder.load_checkpoint()
    config = folder.resolved(config)
    trainer = Trainer(config, TrainingSet(config, examples, held_out), here, teacher, fresh=state is None)
    validation = ValidationSet(trainer.config, examples, held_out)
    if config.recipe == "study" and not validation.chosen:
        what = "the study's recipe decides on the test split, which is empty here"
        raise DataError(what, "prepare one, or train modern")
    facts = {
        "config": trainer.config.model_dump(mode="json"),
        "sources": trainer.data.sources,
        "labels": trainer.data.labels,
        "held_out": list(held_out),
        "data_sha256": examples.sha256,
        "extra_sha256": {s: h for s, h in examples.extra.items() if s not in held_out},
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
    }
    if teacher is not None:
        facts["teacher_sha256"] = teacher.sha256
    here.wait()
    if here.leads:
        folder.describe(facts, trainer.network, trainer.config.size)
        folder.truncate_log(state["step"] if state else 0)
    if state is not None:
        trainer.restore(state)
    return trainer, validation


def _loop(trainer: Trainer, validation: ValidationSet, folder: RunDir, threads: int) -> None:
    config, here, last = trainer.config, trainer.here, trainer.data.steps
    every = trainer.data.epoch_steps if config.recipe == "study" else math.ceil(config.test_every / config.batch)
    first, start = trainer.step, time.perf_counter()
    with ThreadPoolExecutor(threads) as pool, _Interrupt(here.world == 1) as interrupt:
        for batch in tracked(_batches(trainer, pool), last, "training", first):
            if trainer.recipe.finished or interrupt.asked:
                break
            trainer.advance(batch)
            step = trainer.step
            testing = bool(validation.chosen) and (step % every == 0 or step == last)
            if testing or step % config.log_every == 0 or step == last:
                row = {"step": step, "loss": trainer.drain(), "lr": trainer.rate}  # waits for steps still in work
                speed = (step - first) * config.batch / (time.perf_counter() - start)
                if testing:
                    row["test_loss"] = trainer.test(validation.batches(pool, here.rank, here.world))
                    if trainer.recipe.report(row["test_loss"]) and here.leads:
                        folder.save_best(trainer.recipe.evaluated)
                if here.leads:
                    folder.log(row | {"images_per_second": round(speed, 1)})
            if here.leads and (step % config.checkpoint_every == 0 or testing):
                folder.save_checkpoint(trainer.state())
    if interrupt.asked and trainer.step < last:
        folder.save_checkpoint(trainer.state())
        raise KeyboardInterrupt


def _batches(trainer: Trainer, pool: ThreadPoolExecutor) -> Iterator[Batch]:
    """The batches still to come; the next ones are made while this one is trained on."""
    data, here = trainer.data, trainer.here
    with ThreadPoolExecutor(1) as ahead:
        coming: deque[Future[Batch]] = deque()
        for step in range(trainer.step, data.steps):
            coming.append(ahead.submit(data.batch, step, pool, here.rank, here.world))
            if len(coming) > 2:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


class _Interrupt:
    """Ctrl-C waits for the end of a step; a second one does not."""

    def __init__(self, watch: bool) -> None:
        self.asked, self.watch = False, watch and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "_Interrupt":
        self.before = signal.signal(signal.SIGINT, self._ask) if self.watch else None
        return self

    def __exit__(self, *_: object) -> None:
        if self.watch:
            signal.signal(signal.SIGINT, self.before)

    def _ask(self, *_: object) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self.before)
