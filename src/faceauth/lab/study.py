"""A whole study from one TOML file: prepare, train, export, evaluate, t-SNE, spectra, report.

Every step is a command of `faceauth lab` that could be given by hand. Here they are put in order, run side by side
where they do not need each other, timed, and left out where their result stands and was made of the same. It knows
nothing of pixels or networks.
"""

import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pydantic import Field

from faceauth.errors import DataError
from faceauth.files import write_text
from faceauth.lab.data.prepare import PrepareConfig
from faceauth.lab.training.config import Strict, read_config

Say = Callable[[str], None]


class StudyPlan(Strict):
    """A study. Paths are relative to the working directory, as everywhere.

    Attributes:
        output: the folder for everything that is made.
        prepare: what the data set is made of.
        models: configs of `faceauth lab train`, the slowest first; their `data.manifest` is set to the prepared one.
        only: by a name, the fake sources that every model is trained on alone once more.
        jobs: steps side by side, one thread each.
        open_dev: evaluate on the sealed dev split, once all models are trained; else on test.
    """

    output: Path
    prepare: PrepareConfig
    models: list[Path] = Field(min_length=1)
    only: dict[str, list[str]] = Field(default_factory=dict)
    jobs: int = Field(default=2, ge=1)
    open_dev: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """One command of `faceauth lab`, and the file that it leaves when it is done."""

    name: str
    arguments: tuple[str, ...]
    result: Path

    def __str__(self) -> str:
        return shlex.join(["faceauth", "lab", *self.arguments])


def stages(study: StudyPlan) -> Iterator[list[Step]]:
    """The steps in order; those of one stage do not need each other."""
    manifest = study.output / "prepared" / "manifest.parquet"
    yield [Step("prepare", ("prepare", str(manifest.parent), *_options(study.prepare)), manifest)]
    trainings = list(_trainings(study, manifest))
    yield trainings
    runs = [step.result.parent for step in trainings]
    yield [Step(f"export {run.name}", ("export", str(run)), run / "detector.onnx") for run in runs]
    evaluation, spectra, report = (study.output / name for name in ("evaluation", "spectrum", "report.html"))
    dev = ("--open-dev",) if study.open_dev else ()
    cache = ("--cache", str(study.output / "cache"))
    workers = (*cache, "--workers", str(study.jobs))
    every = tuple(map(str, runs))
    written = evaluation / "evaluation.json"
    yield [Step("evaluate", ("evaluate", *every, "-o", str(evaluation), *dev, *workers), written)]
    maps = [
        Step(f"tsne {run.name}", ("tsne", str(run), "-o", str(run / "tsne"), *cache), run / "tsne" / "tsne.csv")
        for run in runs
    ]
    spectrum = ("spectrum", "--manifest", str(manifest), "-o", str(spectra))
    yield [*maps, Step("spectrum", spectrum, spectra / "profiles.csv")]
    yield [Step("report", ("report", *every, "--evaluation", str(written), "-o", str(report), *workers), report)]


def _trainings(study: StudyPlan, manifest: Path) -> Iterator[Step]:
    runs = study.output / "runs"
    place = f"data.manifest={json.dumps(str(manifest))}"
    for config in study.models:
        name = read_config(config, [place]).name
        for run, fake in {name: [], **{f"{name}-{key}": sources for key, sources in study.only.items()}}.items():
            settings = [place, f"name={json.dumps(run)}", *([f"data.fake={json.dumps(fake)}"] if fake else [])]
            words = [str(config), "--runs", str(runs), "--resume", *(w for s in settings for w in ("--set", s))]
            yield Step(f"train {run}", ("train", *words), runs / run / "model.safetensors")


def _options(prepare: PrepareConfig) -> Iterator[str]:
    """A `[prepare]` table as the command's options."""
    for name, place in prepare.data.items():
        yield from ("--data", f"{name}={place}")
    for option in ("download", "leave_out"):
        for name in getattr(prepare, option):
            yield from (f"--{option.replace('_', '-')}", name)
    if prepare.count is not None:
        yield from ("--count", str(prepare.count))
    yield from ("--fractions", *map(str, prepare.fractions), "--seed", str(prepare.seed))
    if prepare.strict:
        yield "--strict"
    if prepare.mode != "crop":
        yield f"--{prepare.mode}"


def run_study(study: StudyPlan, say: Say) -> Path:
    """Run every step whose result is not there yet. Returns the last one's.

    Raises:
        DataError: a step fails; its log is named, and the next call goes on there. Or a result was made with other
            settings, another config or other data than the plan has now.
    """
    start = time.perf_counter()
    keys: dict[Step, str] = {}
    for stage in stages(study):
        keys |= {step: _key(step, keys) for step in stage}
        _run_stage({step: keys[step] for step in stage}, study.output, study.jobs, say)
    say(f"done after {(time.perf_counter() - start) / 60:.1f} minutes")
    return stage[-1].result


def _key(step: Step, earlier: Mapping[Step, str]) -> str:
    """Changes with the step's command, the configs that it names, and the keys of the steps whose results it takes."""
    words = [word for before, word in pairwise(("", *step.arguments)) if before != "--workers"]
    configs = [Path(word).read_text(encoding="utf-8") for word in step.arguments if word.endswith(".toml")]
    taken = [key for other, key in earlier.items() if str(other.result.parent) in str(step)]
    return hashlib.sha256(json.dumps([words, configs, taken]).encode()).hexdigest()


def _run_stage(steps: Mapping[Step, str], output: Path, jobs: int, say: Say) -> None:
    """Run the steps whose result is not there yet, `jobs` side by side; keys, logs and times go to `output`."""
    logs = output / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    missing = [step for step in steps if not step.result.exists()]
    for step, key in steps.items():
        file = _log(step, logs, ".key")
        if step in missing:
            write_text(file, key)
        elif not file.exists() or file.read_text(encoding="utf-8") != key:
            raise DataError(
                f"{step.name}: {step.result} was made with other settings than the plan has now",
                f"name another output, or remove {step.result.parent} to make it anew",
            )
    with ThreadPoolExecutor(jobs) as pool:
        try:
            side_by_side = min(len(missing), jobs) > 1
            running = {pool.submit(_run, step, logs, side_by_side): step for step in missing}
            for future in as_completed(running):
                step, seconds = running[future], future.result()
                say(f"{step.name}: {seconds:.0f} s")
                row = {"step": step.name, "seconds": round(seconds, 1), "command": str(step)}
                with open(output / "times.jsonl", "a", encoding="utf-8") as times:
                    times.write(json.dumps(row) + "\n")
        finally:
            pool.shutdown(cancel_futures=True)


def _log(step: Step, logs: Path, suffix: str = ".log") -> Path:
    return logs / f"{step.name.replace(' ', '-')}{suffix}"


def _run(step: Step, logs: Path, one_thread: bool) -> float:
    """The seconds that a step took."""
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if one_thread else {})
    log = _log(step, logs)
    start = time.perf_counter()
    with open(log, "a", encoding="utf-8") as file:
        command = [sys.executable, "-m", "faceauth", "lab", *step.arguments]
        done = subprocess.run(command, stdout=file, stderr=file, env=environment, check=False)
    if done.returncode or not step.result.exists():
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
        said = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1])
        raise DataError(f"{step.name}: {said.removeprefix('error: ')}", f"see {log}; the same command goes on there")
    return time.perf_counter() - start
