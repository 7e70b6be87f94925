"""A run's folder: config and environment, log, checkpoint, weights. Every file is written whole or not at all.

run.json           config, data, code version and environment, written once
summary_NAME.txt   the architecture, layer by layer: output shapes and parameters, for one image
log.jsonl          one JSON object a line: losses, rates, speed
checkpoint.pt      while it trains: all that --resume needs
best.safetensors   while it trains by the study's recipe: the weights with the lowest test loss
model.safetensors  the weights of the finished run
"""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from faceauth.errors import DataError, UsageError
from faceauth.files import replacing, write_text
from faceauth.lab.run_info import command, commit, now
from faceauth.lab.training.config import TrainConfig

RESOLVED = ("architecture", "mean", "std")  # what a checkpoint may decide, and run.json then holds


class RunDir:
    """The folder of one run, `path`; only one process writes it."""

    def __init__(self, path: Path, resume: bool) -> None:
        """Raises UsageError where the run is finished, or exists and `resume` is not set."""
        if (path / "model.safetensors").exists() or (path.exists() and not resume):
            raise UsageError(f"{str(path)!r} exists", "choose another name, or --resume a run that was broken off")
        self.path = path

    def facts(self) -> dict[str, Any]:
        """What run.json says; nothing for a new run."""
        file = self.path / "run.json"
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}

    def resolved(self, config: TrainConfig) -> TrainConfig:
        """The config with what a checkpoint decided when the run started, where the two agree so far."""
        before = self.facts().get("config")
        known = TrainConfig.model_validate(before) if before else config
        unset = {k: getattr(known, k) for k in RESOLVED if not getattr(config, k)}
        if config.architecture.items() <= known.architecture.items():
            unset["architecture"] = known.architecture
        return config.model_copy(update=unset)

    def describe(self, facts: dict[str, Any], network: nn.Module, size: int) -> None:
        """Write run.json and the summary, once. Raises UsageError where a started run has other facts."""
        import torchinfo

        before = self.facts()
        if before:
            if changed := [k for k, v in facts.items() if json.loads(json.dumps(v)) != before.get(k)]:
                what = f"{str(self.path)!r} was started with another {', '.join(changed)}"
                raise UsageError(what, "choose another name")
            return
        self.path.mkdir(parents=True, exist_ok=True)
        pixels = torch.zeros(1, 3, size, size, device=next(network.parameters()).device)
        layers = torchinfo.summary(network, input_data=pixels, depth=5, verbose=0)
        write_text(self.path / f"summary_{facts['config']['name']}.txt", f"{layers}\n")
        names = ("torch", "transformers", "timm", "numpy", "pillow", "onnxruntime")
        environment = {"python": platform.python_version(), "machine": platform.machine()}
        environment |= {name: version(name) for name in names}
        facts = facts | {"commit": commit(), "started": now(), "command": command(), "environment": environment}
        write_text(self.path / "run.json", json.dumps(facts, indent=1))

    def log(self, row: dict[str, Any]) -> None:
        """Add a line to the log."""
        with open(self.path / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Save the state that `train` resumes from."""
        with replacing(self.path / "checkpoint.pt") as part:
            torch.save(state, part)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The state saved last, if there is one. Raises DataError for a damaged one."""
        path = self.path / "checkpoint.pt"
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except Exception as error:  # zip, pickle and torch each raise their own
            raise DataError(f"cannot read {str(path)!r}: {type(error).__name__}", "start the run again") from error
        return state

    def truncate_log(self, step: int) -> None:
        """Remove log lines after `step`, which will be logged again, and a line that a kill cut short."""
        log = self.path / "log.jsonl"
        if log.exists():
            lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = (line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step)
            write_text(log, "".join(kept))

    def save_best(self, network: nn.Module) -> None:
        """Write the network's weights as the best so far."""
        weights = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
        with replacing(self.path / "best.safetensors") as part:
            save_file(weights, part)

    def finish(self) -> None:
        """Make the best weights the run's own; from now on it is finished."""
        os.replace(self.path / "best.safetensors", self.path / "model.safetensors")
        (self.path / "checkpoint.pt").unlink(missing_ok=True)
