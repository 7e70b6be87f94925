"""Print the peak memory of `faceauth detect`, which must not grow: `python benchmarks/memory.py --rows 1000 100000`.

So many files are made, small copies of a photograph of samples/: a file that is given twice is judged once. In one of
ten the face is large enough to be judged. Each run is a process of its own that reads a list of them and writes JSON
Lines; then it is started again with --resume, where every row is there already. The system counts for a worker, at
the least, what the main process had when it started it. Needs getrusage(2).
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

PHOTOGRAPH = Path(__file__).resolve().parent.parent / "samples" / "grace-hopper.jpg"
SIDES = (128, *(96,) * 9)
PROGRAM = """
import resource, sys
from faceauth.__main__ import script
try:
    script()
finally:
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(*(peak // (2**20 if sys.platform == "darwin" else 2**10) for peak in peaks))
"""


def main() -> None:
    """Make files, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000], help="how many images")
    parser.add_argument("--model", default="fast", help="a model file, or the name of one of the package")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    print(f"{args.workers} workers, {os.cpu_count()} cores\n")
    print("| images | run | seconds | peak memory, MB: main process | largest worker |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for count in args.rows:
            paths = _make(Path(name), count)
            output = Path(name, f"{count}.jsonl")
            command = ["detect", f"@{paths}", "-o", str(output), "--model", args.model, "--workers", str(args.workers)]
            for run, more in (("all", []), ("--resume, all kept", ["--resume"])):
                start = time.perf_counter()
                main_process, worker = _peaks([*command, *more])
                seconds = time.perf_counter() - start
                print(f"| {count:,} | {run} | {seconds:.0f} | {main_process} | {worker} |", flush=True)
            with output.open(encoding="utf-8") as rows:
                assert sum(1 for _ in rows) == count


def _make(folder: Path, count: int) -> Path:
    """A list of so many files, each of its own."""
    small = []
    with Image.open(PHOTOGRAPH) as image:
        for side in SIDES:
            file = io.BytesIO()
            image.convert("RGB").resize((side * image.width // image.height, side)).save(file, "JPEG", quality=85)
            small.append(file.getvalue())
    paths = [folder / "pictures" / f"{i // 1000:04}" / f"{i:07}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(small[i % len(small)])
    listed = folder / f"{count}.txt"
    listed.write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
    return listed


def _peaks(words: Sequence[str]) -> list[int]:
    """Of a run: MB of the main process, and of the largest of its workers."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return list(map(int, done.stdout.split()))


if __name__ == "__main__":
    main()
