"""A whole study from one TOML file: prepare, train, export, evaluate, t-SNE, spectra, report.

Every step is a command of `faceauth lab` that could be given by hand. Here they are put in order, run side by side
where they do not need each other, timed, and left out where their result stands. It knows nothing of pixels or
networks.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from faceauth.errors import DataError
from faceauth.lab.data.prepare import PrepareConfig
from faceauth.lab.training.config import Strict, read_config, read_table

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


def read_study(path: Path) -> StudyPlan:
    """Read a study's TOML file. Raises ConfigError for what `read_table` refuses."""
    return read_table(path, StudyPlan)


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
    tsne = [("tsne", str(run), "-o", str(run / "tsne"), *cache) for run in runs]
    maps = [Step(f"tsne {r.name}", words, r / "tsne" / "tsne.csv") for r, words in zip(runs, tsne, strict=True)]
    spectrum = ("spectrum", "--manifest", str(manifest), "-o", str(spectra))
    yield [*maps, Step("spectrum", spectrum, spectra / "profiles.csv")]
    yield [Step("report", ("report", *every, "--evaluation", str(written), "-o", str(report), *workers), report)]


def _trainings(study: StudyPlan, manifest: Path) -> Iterator[Step]:
    runs = study.output / "runs"
    place = f"data.manifest={json.dumps(str(manifest))}"
    for config in study.models:
        name = read_config(config, [place]).name
        for suffix, fake in [("", []), *((f"-{key}", sources) for key, sources in study.only.items())]:
            settings = [
                place,
                f"name={json.dumps(name + suffix)}",
                *([f"data.fake={json.dumps(fake)}"] if fake else []),
            ]
            words = [str(config), "--runs", str(runs), "--resume", *(w for s in settings for w in ("--set", s))]
            yield Step(f"train {name + suffix}", ("train", *words), runs / (name + suffix) / "model.safetensors")


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
        DataError: a step fails; its log is named, and the next call goes on there.
    """
    start = time.perf_counter()
    result = study.output
    for stage in stages(study):
        run_steps(stage, study.output, study.jobs, say)
        result = stage[-1].result
    say(f"done after {(time.perf_counter() - start) / 60:.1f} minutes")
    return result


def run_steps(steps: Sequence[Step], output: Path, jobs: int, say: Say) -> None:
    """Run the steps whose result is not there yet, `jobs` side by side; logs and times go to `output`.

    Raises:
        DataError: a step fails; its log is named, and the next call goes on there.
    """
    steps = [step for step in steps if not step.result.exists()]
    side_by_side = min(len(steps), jobs)
    if not steps:
        return
    (output / "logs").mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(side_by_side) as pool:
        try:
            running = {pool.submit(_run, step, output / "logs", side_by_side > 1): step for step in steps}
            for future in as_completed(running):
                step, seconds = running[future], future.result()
                say(f"{step.name}: {seconds:.0f} s")
                row = {"step": step.name, "seconds": round(seconds, 1), "command": str(step)}
                with open(output / "times.jsonl", "a", encoding="utf-8") as times:
                    times.write(json.dumps(row) + "\n")
        finally:
            pool.shutdown(cancel_futures=True)


def _run(step: Step, logs: Path, one_thread: bool) -> float:
    """The seconds that a step took."""
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if one_thread else {})
    log = logs / f"{step.name.replace(' ', '-')}.log"
    start = time.perf_counter()
    with open(log, "a", encoding="utf-8") as file:
        command = [sys.executable, "-m", "faceauth", "lab", *step.arguments]
        done = subprocess.run(command, stdout=file, stderr=file, env=environment, check=False)
    if done.returncode or not step.result.exists():
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
        said = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1])
        raise DataError(f"{step.name}: {said.removeprefix('error: ')}", f"see {log}; the same command goes on there")
    return time.perf_counter() - start
