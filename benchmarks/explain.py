"""Print what one `faceauth explain` costs, from the start of the process to its end: `python benchmarks/explain.py`.

Time on the clock counts only on an idle machine, so the load is printed beside it; processor time hardly depends on it.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from faceauth.cpus import usable_cpus

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
TARGET = 5.0  # seconds, on two cores
SUFFIXES = (".json", ".html")


def main() -> None:
    """Time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="*", type=Path, help="pictures; two of samples/, one called real and one fake")
    parser.add_argument("--model", default="accurate", help="a model file, or the name of one of the package")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the median is printed")
    args = parser.parse_args()
    photos = args.photos or [SAMPLES / "grace-hopper.jpg", SAMPLES / "vae-12.jpg"]
    print(f"{args.rounds} rounds, {usable_cpus()} cores, load {os.getloadavg()[0]:.1f} before\n")
    print("| picture | report | seconds | processor seconds |\n|---|---|---|---|")
    slowest = 0.0
    for photo in photos:
        for suffix in SUFFIXES:
            times = [_explained(photo, suffix, args.model) for _ in range(args.rounds)]
            wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
            slowest = max(slowest, wall)
            print(f"| {photo.name} | {suffix} | {wall:.2f} | {cpu:.2f} |", flush=True)
    print(f"\nTarget, at most {TARGET:g} s on two cores: {'reached' if slowest <= TARGET else 'missed'}.")


def _explained(photo: Path, suffix: str, model: str) -> tuple[float, float]:
    """Seconds on the clock and of the processors for one report."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "faceauth", "explain", str(photo), "-o", f"{folder}/report{suffix}"]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([*command, "--model", model], check=True, stdout=subprocess.DEVNULL)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
