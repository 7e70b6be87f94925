"""One training run, by either recipe, on one device or several, with the same result after a kill."""

import contextlib
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from faceauth.errors import DataError
from faceauth.lab.data.augment import AugmentConfig, codec_alone
from faceauth.lab.data.blend import BLENDED
from faceauth.lab.data.examples import Examples
from faceauth.lab.progress import tracked
from faceauth.lab.training.batches import Batch, DecidingSet, Pixels, TrainingSet
from faceauth.lab.training.config import TrainConfig
from faceauth.lab.training.devices import Place, place
from faceauth.lab.training.distill import Teacher, teachers_loss
from faceauth.lab.training.folder import RunFolder
from faceauth.lab.training.networks import TaughtOutputs
from faceauth.lab.training.pyramid import PyramidNet
from faceauth.lab.training.recipes import recipe
from faceauth.lab.training.traces import Floats
from faceauth.lab.training.zoo import build, initial


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
        if fresh and isinstance(network, PyramidNet):
            self._fit(network)
        self.recipe = recipe(config, self.network, data.steps)
        self.spread = here.spread(self.network)
        self.fake = torch.tensor([float(label == "fake") for label in data.labels], device=here.device)
        self.step, self.rate = 0, 0.0
        self.losses: list[Tensor] = []

    @torch.no_grad()
    def _fit(self, network: PyramidNet) -> None:
        """Fit what is not learned: the traces to faces as training shows them, the odds as they reach a user.

        A source that lies far off turns the lines of the traces, so our own are left out of those; the odds know it.
        Blended photographs lie as far apart as photographs do and are no source to the odds; a line is drawn from the
        ones to the others.
        """
        saved_again = codec_alone(self.config.augment, self.config.crop)
        traces = self._numbers(network, [self.config.augment] * 2, self.data.own)
        odds = self._numbers(network, [None, saved_again, saved_again], {BLENDED})
        network.fit(traces, odds, {s: label == "fake" for s, label in enumerate(self.data.labels)})

    def _numbers(
        self, network: PyramidNet, views: Sequence[AugmentConfig | None], without: Collection[str]
    ) -> dict[int, Floats]:
        """The numbers (n, d) that a network writes out of faces of each source in these views, but for some."""
        found: dict[int, list[Tensor]] = {}
        shown = self.data.of_each(self.config.fitted, views if self.config.view == "augmented" else [None], without)
        for source, pixels in shown:
            found.setdefault(source, []).append(network.numbers(network.octaves(self._inputs(pixels))).cpu())
        return {source: torch.cat(parts).numpy() for source, parts in found.items()}

    def advance(self, batch: Batch) -> None:
        """One step of the optimiser, on this process's slice of the batch."""
        config, here = self.config, self.here
        self.rate = self.recipe.before(self.step)
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
        self.recipe.update(self.step)
        self.step += 1
        self.losses.append(here.sum(total))

    def _losses(self, pixels: Pixels, sources: Tensor) -> tuple[Tensor, Tensor]:
        """What moves the network, and what moves only a source head that is a probe; means over the images."""
        config = self.config
        with self._autocast():
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
        """Mean binary cross-entropy over the test images, of the network that the recipe judges. Raises DataError."""
        network = self.recipe.judged.eval()
        total, whole = torch.zeros((), device=self.here.device), 1
        for batch in batches:
            with self._autocast():
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

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.here.device.type, torch.bfloat16, enabled=self.config.bf16)

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
        UsageError: the run exists and `resume` is not set, no such fold, source, checkpoint or device.
        DataError: the data cannot be read or split, weights cannot be had, or the loss is no number.
        KeyboardInterrupt: asked to stop; one process alone has kept a checkpoint.
    """
    with place(device, threads) as here:
        folder = RunFolder(runs / (config.name if fold is None else f"{config.name}-fold{fold}"), resume)
        here.wait()
        if here.leads:
            examples = config.data.open()  # which may fill the cache that the others then read
        here.wait()
        if not here.leads:
            examples = config.data.open()
        held_out = config.data.held_out(examples, fold)
        trainer, deciding = _prepare(config, examples, held_out, folder, here)
        _loop(trainer, deciding, folder, threads)
        if here.leads:
            if config.recipe == "modern":
                folder.keep_best(trainer.recipe.judged)
            folder.finish()
        here.wait()
        del trainer, deciding  # the gradient reducer holds the group of processes, which ends here
    return folder.path


def _prepare(
    config: TrainConfig, examples: Examples, held_out: Sequence[str], folder: RunFolder, here: Place
) -> tuple[Trainer, DecidingSet]:
    teacher = Teacher(config, examples.sha256, held_out, here.device) if config.distill else None
    state = folder.last()
    config = folder.as_begun(config)
    trainer = Trainer(config, TrainingSet(config, examples, held_out), here, teacher, fresh=state is None)
    deciding = DecidingSet(trainer.config, examples, held_out)
    if config.recipe == "study" and not deciding.chosen:
        raise DataError(
            "the study's recipe decides on the test split, which is empty here", "prepare one, or train modern"
        )
    facts = {
        "config": trainer.config.model_dump(mode="json"),
        "sources": trainer.data.sources,
        "labels": trainer.data.labels,
        "held_out": list(held_out),
        "data_sha256": examples.sha256,
        "own_sha256": {s: h for s, h in examples.own.items() if s not in held_out},
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
    }
    if teacher is not None:
        facts["teacher_sha256"] = teacher.sha256
    here.wait()
    if here.leads:
        folder.describe(facts, trainer.network, trainer.config.size)
        folder.forget_after(state["step"] if state else 0)
    if state is not None:
        trainer.restore(state)
    return trainer, deciding


def _loop(trainer: Trainer, deciding: DecidingSet, folder: RunFolder, threads: int) -> None:
    config, here, last = trainer.config, trainer.here, trainer.data.steps
    looks = trainer.data.epoch_steps if config.recipe == "study" else math.ceil(config.test_every / config.batch)
    first, start = trainer.step, time.perf_counter()
    with ThreadPoolExecutor(threads) as pool, _Interrupt(here.world == 1) as interrupt:
        for batch in tracked(_batches(trainer, pool), last, "training", first):
            if trainer.recipe.finished or interrupt.asked:
                break
            trainer.advance(batch)
            step = trainer.step
            looking = bool(deciding.chosen) and (step % looks == 0 or step == last)
            if looking or step % config.log_every == 0 or step == last:
                speed = (step - first) * config.batch / (time.perf_counter() - start)
                row = {"step": step, "loss": trainer.drain(), "lr": trainer.rate}
                if looking:
                    row["test_loss"] = trainer.test(deciding.batches(pool, here.rank, here.world))
                    if trainer.recipe.hear(row["test_loss"]) and here.leads:
                        folder.keep_best(trainer.recipe.judged)
                if here.leads:
                    folder.log(row | {"images_per_second": round(speed, 1)})
            if here.leads and (step % config.checkpoint_every == 0 or looking):
                folder.checkpoint(trainer.state())
    if interrupt.asked and trainer.step < last:
        folder.checkpoint(trainer.state())
        raise KeyboardInterrupt


def _batches(trainer: Trainer, pool: ThreadPoolExecutor) -> Iterator[Batch]:
    """The batches still to come; beside an accelerator the next one is made while this one is trained on."""
    data, here = trainer.data, trainer.here
    steps = range(trainer.step, data.steps)
    if here.device.type == "cpu":
        yield from (data.batch(step, pool, here.rank, here.world) for step in steps)
        return
    with ThreadPoolExecutor(1) as ahead:
        coming: deque[Future[Batch]] = deque()
        for step in steps:
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
