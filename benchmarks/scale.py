"""Print images a second and peak memory of the plain pool and of Ray: `python benchmarks/scale.py --images 1000 10000`.

Both judge the same references, again and again the photographs of samples/, and write Parquet parts, in turns and each
in processes of its own; the clock runs from the start of the first process to the end of the last. A run of a few
images comes first: what it takes is the start, and is left out of the rates, so that the cost of an image can be
compared between numbers of images. Memory is the sum of the proportional set sizes of all processes; Linux.

The classifiers of speed.py, with random weights, judge the same references in one process, with as many threads as
there are workers; they are slow, and judge so many images at most as `MOST` says.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path

from PIL import Image

from faceauth.cpus import usable_cpus
from faceauth.detector import Detector
from faceauth.errors import FaceAuthError
from faceauth.output import PartsOutput
from faceauth.scale.blocks import Input
from faceauth.scale.cluster import connected, needs_ray
from faceauth.scale.engine import judged, planned
from speed import CLASSIFIERS, NPR, VIT

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
START = 16  # images of the run that is nearly all start
PAUSE = 1.0  # seconds between looks at the memory
TIMEOUT = 120.0  # seconds that an image may take
MOST = {VIT: 64, NPR: 256}  # images that a classifier judges
Run = tuple[float, float]  # seconds, and megabytes


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="*", default=[1000], help="numbers of images; 1000")
    parser.add_argument("--longest", type=int, default=1024, help="longest side of the images, pixels; 1024")
    parser.add_argument("--model", default="fast", help="a model file, or accurate or fast; fast")
    parser.add_argument("--workers", type=int, default=usable_cpus(), help="processes that judge; one a core")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)  # way, number of images, folder
    args = parser.parse_args()
    if args.child:
        way, count, folder = args.child
        if way in CLASSIFIERS:
            _classify(way, int(count), Path(folder), args.workers)
        else:
            WAYS[way](Detector(args.model), int(count), Path(folder), args.workers)
        return
    with tempfile.TemporaryDirectory() as name:
        _make_photos(Path(name), args.longest)
        counts = sorted(args.images)
        start, last = _pools(counts, name, args.model, args.workers)
        others = {}
        for way in CLASSIFIERS if counts else ():
            if all(map(find_spec, CLASSIFIERS[way][0])):
                most = min(counts[-1], MOST[way])
                measured = (_measured([way, str(n), name], args.model, args.workers) for n in (0, START, most))
                others[way] = most, [*measured][1:]  # the first has drawn its weights
    if counts:
        _print_classifiers(others, counts[-1], start, last)


def _make_photos(folder: Path, longest: int) -> None:
    for path in SAMPLES.glob("*.jpg"):
        with Image.open(path) as image:
            k = longest / max(image.size)
            size = round(image.width * k), round(image.height * k)
            image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(folder / path.name, quality=90)


def _references(folder: Path, count: int) -> list[str]:
    return list(islice(cycle(sorted(map(str, folder.glob("*.jpg")))), count))


def _plain(detector: Detector, count: int, folder: Path, workers: int) -> None:
    with PartsOutput(folder / f"plain-{count}") as output:
        for verdict in detector.stream(_references(folder, count), workers, timeout=TIMEOUT):
            output.write(verdict)


def _ray(detector: Detector, count: int, folder: Path, workers: int) -> None:
    needs_ray()
    work = planned(detector, [Input(path, path) for path in _references(folder, count)])
    with connected(None):
        judged(detector, work, str(folder / f"ray-{count}"), workers, TIMEOUT)


def _classify(name: str, count: int, folder: Path, workers: int) -> None:
    import torch

    judge = CLASSIFIERS[name][1](folder)
    torch.set_num_threads(workers)
    for path in _references(folder, count):
        judge(path)


WAYS = {"plain": _plain, "ray": _ray}


def _measured(child: list[str], model: str, workers: int) -> Run:
    """Run one way in a process of its own."""
    start, peak = time.monotonic(), 0.0
    process = subprocess.Popen(
        [sys.executable, __file__, "--model", model, "--workers", str(workers), "--child", *child]
    )
    while process.poll() is None:
        peak = max(peak, sum(map(_megabytes, _family(process.pid))))
        try:
            process.wait(PAUSE)
        except subprocess.TimeoutExpired:
            continue
    if process.returncode:
        raise SystemExit(f"{child[0]} failed")
    return time.monotonic() - start, peak


def _family(root: int) -> list[int]:
    """A process and all that it started, and so on."""
    told = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(pid): int(parent) for pid, parent in map(str.split, told.splitlines())}
    family = [root]
    for pid in family:  # grows while it is walked
        family += [child for child, parent in parents.items() if parent == pid]
    return family


def _megabytes(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def _pools(counts: list[int], folder: str, model: str, workers: int) -> tuple[Run, Run]:
    """Measure both ways and print each number of images as it is done; the plain pool's first and last run."""

    def both(count: int) -> list[Run]:
        return [_measured([way, str(count), folder], model, workers) for way in WAYS]

    first = last = both(START)
    starts = [seconds for seconds, _ in first]
    print(f"{workers} workers; start and {START} images: plain {starts[0]:.1f} s, Ray {starts[1]:.1f} s\n")
    print("| images | plain, images/s | Ray, images/s | Ray / plain | plain, MB | Ray, MB | Ray / plain |")
    print("|---|---|---|---|---|---|---|", flush=True)
    costs = []  # seconds an image with Ray
    for count in counts:
        last = (plain, less), (ray, more) = both(count)
        rates = [_rate(count, seconds, start) for seconds, start in zip((plain, ray), starts, strict=True)]
        costs.append(1 / rates[1])
        cells = (
            f"{rates[0]:.1f} | {rates[1]:.1f} | {rates[1] / rates[0]:.2f} | {less:.0f} | {more:.0f} | {more / less:.2f}"
        )
        print(f"| {count:,} | {cells} |", flush=True)
    if len(costs) > 1:
        print(f"\nWith Ray an image costs {costs[-1] / costs[0]:.2f} times as much at the last number as at the first.")
    return first[0], last[0]


def _print_classifiers(others: dict[str, tuple[int, list[Run]]], count: int, start: Run, plain: Run) -> None:
    """Beside the plain pool, whose run of `count` images is the last."""
    pool = _rate(count, plain[0], start[0])
    print("\n| classifier | images | start, s | images/s | / plain | MB | / plain |\n|---|---|---|---|---|---|---|")
    for name, (most, [(opening, _), (seconds, memory)]) in others.items():
        rate = _rate(most, seconds, opening)
        cells = f"{opening:.1f} | {rate:.1f} | {rate / pool:.3g} | {memory:.0f} | {memory / plain[1]:.2f}"
        print(f"| {name} | {most} | {cells} |")
    for missing in CLASSIFIERS.keys() - others.keys():
        print(f"| {missing} | not installed: pip install 'faceauth[lab]' | | | | | |")


def _rate(count: int, seconds: float, start: float) -> float:
    """Images a second beyond the start, which took `start` seconds with the first images."""
    return (count - START) / (seconds - start)


if __name__ == "__main__":
    try:
        main()
    except FaceAuthError as error:
        raise SystemExit(f"error: {error}") from None
