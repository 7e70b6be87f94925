"""Print how fast detection is beside decoding alone and beside plain classifiers: `python benchmarks/speed.py`.

The photographs are made here from two of samples/, scaled: a portrait that fills the frame, and a half-length one,
where the face finder searches a larger copy. Enlarged ones decode sooner than photographs of that size do. What is
compared is timed in one run, in turns, round by round, and the median of the rounds' ratios counts. Times are processor
time on one thread, so the ratios hold on a busy machine; only where two workers share the work, and for the first
verdict of a new process, it is time on the clock.

The classifiers have random weights and stand here for their speed alone: ViT-B/16 in an image-classification pipeline
of transformers, and NPR (residual of nearest-neighbour up-sampling, first half of a ResNet-50, 256 px) in plain
PyTorch. They judge the whole picture, and look for no face.
"""

import argparse
import io
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from faceauth.detector import Detector
from faceauth.errors import FaceAuthError
from faceauth.images import load

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
PHOTOGRAPHS = ("grace-hopper.jpg", "astronaut.jpg")
FORMATS: dict[str, tuple[int, str, dict[str, Any]]] = {  # longest side, and how it is saved
    "jpeg-512": (512, ".jpg", {"quality": 90}),
    "jpeg-1024": (1024, ".jpg", {"quality": 90}),
    "jpeg-4000": (4000, ".jpg", {"quality": 90}),
    "png-1024": (1024, ".png", {}),
    "webp-1024": (1024, ".webp", {"quality": 90}),
}
QUICK = ("jpeg-512", "png-1024")
DECODE, VIT, NPR = "decode only (Pillow)", "ViT-B/16, transformers pipeline", "NPR, plain PyTorch"
TARGET, SHARED = 2.0, 1.8  # end to end in times of decoding alone; two workers in times of one

Way = Callable[[int], object]  # works on photograph number i
Judge = Callable[[str], object]  # works on the file at a path


def main() -> None:
    """Make photographs, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", default=["fast", "accurate"], help="model files, or names of the package"
    )
    parser.add_argument("--formats", nargs="+", choices=FORMATS, metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument("--quick", action="store_true", help="one short round of two formats, for a try")
    parser.add_argument("--once", nargs=3, help=argparse.SUPPRESS)  # a classifier, its folder, a photograph
    args = parser.parse_args()
    if args.once:
        CLASSIFIERS[args.once[0]][1](Path(args.once[1]))(args.once[2])
        return
    rounds, seconds = (1, 0.05) if args.quick else (5, 0.3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        installed = (name for name, (modules, _) in CLASSIFIERS.items() if all(map(find_spec, modules)))
        classifiers = {name: CLASSIFIERS[name][1](folder) for name in installed}
        detectors = {model: Detector(model, learned=False) for model in args.models}
        measured: list[tuple[str, str, float, Sequence[float], Sequence[float]]] = []
        print(f"median of {rounds} rounds, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before", flush=True)
        with _Workers(detectors) as workers:
            for form in args.formats or (QUICK if args.quick else FORMATS):
                workers.paths[:] = paths = _photographs(folder, form)
                ways = _ways(paths, detectors, classifiers)
                times, clocks = _timed(ways, workers, rounds, seconds)
                _print_steps(form, times)
                measured += [(form, m, _ratio(times[f"{m}: end to end"], times[DECODE]), *clocks[m]) for m in clocks]
        _print_targets(measured)
        _print_first(folder, paths[0], args.models, list(classifiers), rounds)


def _photographs(folder: Path, form: str) -> list[str]:
    longest, suffix, options = FORMATS[form]
    made = []
    for path in (SAMPLES / name for name in PHOTOGRAPHS):
        with Image.open(path) as image:
            k = longest / max(image.size)
            size = round(image.width * k), round(image.height * k)
            target = folder / f"{form}-{path.stem}{suffix}"
            image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(target, **options)
            made.append(str(target))
    return made


def _vit(folder: Path) -> Judge:
    """The pipeline; its weights are drawn once and kept in `folder`."""
    import torch

    from faceauth.lab.training.networks import mend_torchvision

    mend_torchvision()
    import transformers

    torch.set_num_threads(1)
    place = folder / "vit"
    if not place.exists():
        transformers.ViTForImageClassification(transformers.ViTConfig()).save_pretrained(place)  # by default B/16
        transformers.ViTImageProcessor().save_pretrained(place)
    judge: Judge = transformers.pipeline("image-classification", model=str(place), device="cpu")
    return judge


def _npr(folder: Path) -> Judge:
    """The network on a picture of 256 px; its weights are drawn once and kept in `folder`."""
    import torch

    from faceauth.lab.training.residuals import NprNet
    from faceauth.preprocess import PreprocessSpec

    torch.set_num_threads(1)
    network, spec, place = (
        NprNet(sources=2).eval(),
        PreprocessSpec(size=256, interpolation="bilinear"),
        folder / "npr.pt",
    )
    if not place.exists():
        torch.save(network.state_dict(), place)
    network.load_state_dict(torch.load(place, weights_only=True))

    @torch.inference_mode()
    def judge(path: str) -> float:
        with Image.open(path) as image:
            pixels = spec.resize(image.convert("RGB"), (0, 0, *image.size))
        return float(network(torch.from_numpy(spec.normalize(pixels[None]))).logit)

    return judge


CLASSIFIERS = {VIT: (("torch", "transformers"), _vit), NPR: (("torch",), _npr)}  # each with what it needs


def _ways(paths: Sequence[str], detectors: dict[str, Detector], classifiers: dict[str, Judge]) -> dict[str, Way]:
    """What is timed on one core, by name."""

    def of(judge: Judge) -> Way:
        return lambda i: judge(paths[i % len(paths)])

    any_detector = next(iter(detectors.values()))
    images = [load(path).image for path in paths]
    ways: dict[str, Way] = {
        DECODE: of(_decode), "read, decode, upright sRGB": of(load),
        "find faces": lambda i: any_detector.find_faces(images[i % len(images)]),
    }  # fmt: skip
    for name, detector in detectors.items():
        ways |= {f"{name}: {step}": way for step, way in _steps(detector, images).items()}
        ways[f"{name}: end to end"] = of(lambda path, detector=detector: list(detector.stream([path])))  # type: ignore[misc]
    return ways | {name: of(judge) for name, judge in classifiers.items()}


def _decode(path: str) -> None:
    with Image.open(io.BytesIO(Path(path).read_bytes())) as image:
        image.load()


def _steps(detector: Detector, images: Sequence[Image.Image]) -> dict[str, Way]:
    spec = detector.model.card.preprocess
    faces = [detector.find_faces(image)[0] for image in images]
    batches = [spec.normalize(spec.cut(image, face)[None]) for image, face in zip(images, faces, strict=True)]
    return {
        "cut and resize": lambda i: spec.cut(images[i % len(images)], faces[i % len(images)]),
        "network": lambda i: detector.model.run(batches[i % len(batches)]),
    }


class _Workers:
    """Two worker processes for each model, which judge the files at `paths` over and over."""

    def __init__(self, detectors: dict[str, Detector]) -> None:
        self.paths: list[str] = []
        self.one, self.two = ({m: d.stream(self._endless(), workers=n) for m, d in detectors.items()} for n in (1, 2))

    def _endless(self) -> Iterator[str]:
        return (self.paths[i % len(self.paths)] for i in itertools.count())

    def seconds(self, model: str, count: int, budget: float) -> float:
        """On the clock, an image; what the processes were at before is let go by first."""
        stream = (self.one if count == 1 else self.two)[model]
        for _ in range(4 * (count - 1)):
            next(stream)
        return _seconds(lambda _: next(stream), budget, time.perf_counter, 2 * count)

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (*self.one.values(), *self.two.values()):
            stream.close()


Times = dict[str, list[float]]


def _timed(ways: dict[str, Way], workers: _Workers, rounds: int, budget: float) -> tuple[Times, dict[str, Any]]:
    """Processor seconds an image of each way, and on the clock with one and two workers of each model, by rounds."""
    times: Times = {name: [] for name in ways}
    clocks: dict[str, Any] = {model: ([], []) for model in workers.one}
    for _ in range(rounds):
        for name, way in ways.items():
            times[name].append(_seconds(way, budget, time.process_time, len(PHOTOGRAPHS)))
        for model, both in clocks.items():
            for count, found in enumerate(both, 1):
                found.append(workers.seconds(model, count, budget))
    return times, clocks


def _seconds(way: Way, budget: float, clock: Callable[[], float], least: int) -> float:
    """Seconds an image: `least` images, and so many again as long as `budget` seconds are not spent."""
    done, start = 0, clock()
    while not done or clock() - start < budget:
        for _ in range(least):
            way(done)
            done += 1
    return (clock() - start) / done


def _ratio(one: Sequence[float], other: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def _print_steps(form: str, times: Times) -> None:
    print(f"\n| {form} | ms an image | images/s | x decode only | x ViT-B/16 | x NPR |\n|---|---|---|---|---|---|")
    for name, found in times.items():
        ratios = [f"{_ratio(found, times[base]):.3g}" if base in times else "-" for base in (DECODE, VIT, NPR)]
        middle = statistics.median(found)
        print(f"| {name} | {middle * 1e3:.2f} | {1 / middle:.1f} | {' | '.join(ratios)} |")
    for missing in CLASSIFIERS.keys() - times.keys():
        print(f"| {missing} | not installed: pip install 'faceauth[lab]' | | | | |")
    sys.stdout.flush()


def _print_targets(measured: Sequence[tuple[str, str, float, Sequence[float], Sequence[float]]]) -> None:
    print(f"\n| photographs | model | end to end, x decode only (target: at most {TARGET}) | images/s, 1 worker | "
          f"2 workers | times as many (target: at least {SHARED}) |\n|---|---|---|---|---|---|")  # fmt: skip
    for form, model, alone, one, two in measured:
        rates = [f"{1 / statistics.median(found):.1f}" for found in (one, two)]
        print(f"| {form} | {model} | {alone:.3g} | {' | '.join(rates)} | {_ratio(one, two):.2f} |", flush=True)


def _print_first(folder: Path, photo: str, models: Sequence[str], classifiers: Sequence[str], rounds: int) -> None:
    """The first verdict of a new process, from the start of Python to its end."""
    detect = [sys.executable, "-m", "faceauth", "detect", photo, "--model"]
    commands = {f"faceauth detect --model {model}": [*detect, model] for model in models}
    commands |= {c: [sys.executable, __file__, "--once", c, str(folder), photo] for c in classifiers}
    times: Times = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times[name].append(time.perf_counter() - start)
    first = next(iter(times.values()))
    print("\n| first verdict of a new process, on the clock | seconds | x the first row |\n|---|---|---|")
    for name, found in times.items():
        print(f"| {name} | {statistics.median(found):.2f} | {_ratio(found, first):.2f} |")


if __name__ == "__main__":
    try:
        main()
    except FaceAuthError as error:
        raise SystemExit(f"error: {error}") from None
