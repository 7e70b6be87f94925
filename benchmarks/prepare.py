"""Print how fast a data set is prepared and how much memory that takes: `python benchmarks/prepare.py`.

The images are made here: photographs of samples/ shifted, scaled, lit and saved anew at 512 px, no two alike, half
of them called real and half fake. Each count is prepared in a process of its own, whose peak memory must not grow with
it beyond the lists of names. Then a manifest is written and read.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
PHOTOGRAPHS = ("grace-hopper.jpg", "astronaut.jpg")
SIDE = 512


def main() -> None:
    """Make, prepare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="*", default=[1000, 10_000], help="image counts")
    parser.add_argument("--rows", type=int, default=120_000, help="rows of the manifest")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.prepare:
        _prepare(args.prepare, args.workers)
        return
    print(f"JPEG photographs of {SIDE} px, {args.workers} workers, {os.cpu_count()} cores\n")
    print("| images | seconds | images/s | images per CPU second | peak memory, MB: main process | largest worker |")
    print("|---|---|---|---|---|---|")
    for count in args.images:
        with tempfile.TemporaryDirectory() as name:
            _make(Path(name), count)
            command = [sys.executable, __file__, "--prepare", name, "--workers", str(args.workers)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        prepared, seconds, cpu, memory, worker = done.split()
        rates = f"{count / float(seconds):.1f} | {count / float(cpu):.1f}"
        print(f"| {int(prepared):,} | {float(seconds):.1f} | {rates} | {memory} | {worker} |", flush=True)
    _manifest(args.rows)


def _make(root: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    photographs = [Image.open(SAMPLES / name).convert("RGB") for name in PHOTOGRAPHS]
    for k in range(count):
        folder = root / ("real" if k % 2 else "fake")
        folder.mkdir(exist_ok=True)
        image = photographs[k // 2 % len(photographs)]
        side = min(image.size) * rng.uniform(0.8, 1)
        left, top = (rng.uniform(0, (v - side) / 2) for v in image.size)
        cut = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
        lit = np.asarray(cut, np.float32) * rng.uniform(0.7, 1.1) + rng.integers(0, 12, (SIDE, SIDE, 1))
        Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8)).save(folder / f"{k:06}.jpg", quality=90)


def _prepare(root: Path, workers: int) -> None:
    """Prepare in this process, and print images, seconds, CPU seconds, and peak memory of it and of a worker."""
    from faceauth.lab.data.prepare import PrepareConfig, prepare

    start = time.perf_counter()
    config = PrepareConfig(data={"cam": f"{root / 'real'}:real", "gan": f"{root / 'fake'}:fake"})
    manifest = prepare(config, root / "prepared", workers, say=lambda line: None)
    seconds = time.perf_counter() - start
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(u.ru_utime + u.ru_stime for u in used)
    print(len(manifest.rows), seconds, cpu, *(u.ru_maxrss // 1024 for u in used))


def _since(start: tuple[float, float]) -> str:
    return f"{time.perf_counter() - start[0]:.1f} | {time.process_time() - start[1]:.1f}"


def _manifest(count: int) -> None:
    from faceauth.lab.data.dataset import ImageRow, read_dataset
    from faceauth.lab.data.storing import write_manifest

    rows = [
        ImageRow(
            f"images/wiki{k % 2}/{k % 100:02}_{k:08}.jpg", f"wiki{k % 2}", ("fake", "real")[k % 2], "real",
            f"wiki{k % 2}", f"wiki:{k}", f"wiki{k % 2}", f"{k:064x}", ("train", "test", "dev")[k % 3],
            (29.54, 29.54, 226.46, 226.46), f"/data/wiki/{k % 100:02}/{k:08}_1960-01-01_2001.jpg", 512, 512,
        )
        for k in range(count)
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        for row in rows:
            (Path(name) / row.path).parent.mkdir(parents=True, exist_ok=True)
            (Path(name) / row.path).touch()
        print(f"\n| manifest of {count:,} rows | seconds | CPU seconds | MB |\n|---|---|---|---|")
        start = time.perf_counter(), time.process_time()
        written = write_manifest(Path(name), rows)
        size = sum(p.stat().st_size for p in Path(name).glob("manifest.*")) / 1e6
        print(f"| write .xlsx and .parquet | {_since(start)} | {size:.1f} |")
        for suffix in ("xlsx", "parquet"):
            path = Path(name) / f"manifest.{suffix}"
            start = time.perf_counter(), time.process_time()
            assert read_dataset(path).sha256 == written.sha256
            print(f"| read and check .{suffix} | {_since(start)} | {path.stat().st_size / 1e6:.1f} |")


if __name__ == "__main__":
    main()
