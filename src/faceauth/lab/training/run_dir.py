"""A run's folder: config and environment, log, checkpoint, weights. Every file is written whole or not at all.

run.json           config, data, code version and environment, written once
summary_NAME.txt   the architecture, layer by layer
log.jsonl          one JSON object a line: losses, rates, speed
checkpoint.pt      while it trains: all that --resume needs
best.safetensors   while it trains by the study's recipe: the weights with the lowest test loss
model.safetensors  the weights of the finished run
"""

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from faceauth.errors import DataError, UsageError
from faceauth.lab.training.config import TrainConfig

RESOLVED = ("architecture", "mean", "std")  # what a checkpoint may decide, and run.json then holds


class RunDir:
    """The folder of one run, `path`; only one process writes it."""

    def __init__(self, path: Path, resume: bool) -> None:
        """Raises UsageError where the run is finished, or exists and `resume` is not set."""
        if (path / "model.safetensors").exists() or (path.exists() and not resume):
            raise UsageError(f"{str(path)!r} exists", "choose another name, or --resume a run that was broken off")
        self.path = path

    def facts(self) -> dict[str, Any] | None:
        """What run.json says; None for a new run."""
        try:
            found: dict[str, Any] = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return found

    def resolved(self, config: TrainConfig) -> TrainConfig:
        """The config with what a checkpoint decided when the run started, where the two agree so far."""
        before = (self.facts() or {}).get("config", {})
        known = TrainConfig.model_validate(before) if before else config
        unset = {k: getattr(known, k) for k in RESOLVED if not getattr(config, k)}
        if config.architecture.items() <= known.architecture.items():
            unset["architecture"] = known.architecture
        return config.model_copy(update=unset)

    def describe(self, facts: dict[str, Any], network: nn.Module, size: int) -> None:
        """Write run.json and the summary, once. Raises UsageError where a started run has other facts."""
        before = self.facts()
        if before is not None:
            changed = [k for k, v in facts.items() if json.loads(json.dumps(v)) != before.get(k)]
            if changed:
                raise UsageError(
                    f"{str(self.path)!r} was started with another {', '.join(changed)}", "choose another name"
                )
            return
        self.path.mkdir(parents=True, exist_ok=True)
        self._write(f"summary_{facts['config']['name']}.txt", summary(network, size))
        names = ("torch", "transformers", "timm", "numpy", "pillow", "dlib-bin")
        packages = {name: version(name) for name in names}
        facts = facts | {
            "commit": commit(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": " ".join(["faceauth", *sys.argv[1:]]),
            "environment": {"python": platform.python_version(), "machine": platform.machine(), **packages},
        }
        self._write("run.json", json.dumps(facts, indent=1))

    def log(self, row: dict[str, Any]) -> None:
        """Add a line to the log."""
        with open(self.path / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Save the state that `train` resumes from."""
        torch.save(state, self.path / "checkpoint.pt.part")
        os.replace(self.path / "checkpoint.pt.part", self.path / "checkpoint.pt")

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
        try:
            lines = (self.path / "log.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        except FileNotFoundError:
            return
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        self._write("log.jsonl", "".join(kept))

    def save_best(self, network: nn.Module) -> None:
        """Write the network's weights as the best so far."""
        weights = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
        save_file(weights, self.path / "best.safetensors.part")
        os.replace(self.path / "best.safetensors.part", self.path / "best.safetensors")

    def finish(self) -> None:
        """Make the best weights the run's own; from now on it is finished."""
        os.replace(self.path / "best.safetensors", self.path / "model.safetensors")
        (self.path / "checkpoint.pt").unlink(missing_ok=True)

    def _write(self, name: str, text: str) -> None:
        part = self.path / f"{name}.part"
        part.write_text(text, encoding="utf-8")
        os.replace(part, self.path / name)


def summary(network: nn.Module, size: int) -> str:
    """The architecture layer by layer: output shapes and parameters, for one image."""
    import torchinfo

    pixels = torch.zeros(1, 3, size, size, device=next(network.parameters()).device)
    return str(torchinfo.summary(network, input_data=pixels, depth=5, verbose=0)) + "\n"


def commit() -> str:
    """The commit of this project, `-dirty` where files differ from it, `unknown` outside a checkout."""
    words = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
