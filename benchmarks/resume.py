"""Memory and time of `detect --resume` for an output of many rows: `python benchmarks/resume.py --rows 1000000`.

An output of so many images of one face each is written, then read as `--resume` reads it, in a process of its own, and
every image is looked up. The pictures themselves are not there: a run reads each once, as fast as the disk gives them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from faceauth.output import rows
from faceauth.output.resume import Kept, Settings
from faceauth.verdict import Face, Verdict

SETTINGS = Settings("0.1.0", "m", "f" * 64, 0.6, None, None)


def write(path: Path, count: int) -> None:
    """An output of so many images; every thousandth could not be read."""
    face = Face(0, (1, 2, 30, 40), "fake", 0.75, "a", 0.6, 0.05, stability=1.0)
    good = json.dumps(rows(Verdict("NAME", (face,), "m", "f" * 64, "HASH", version="0.1.0"))[0]) + "\n"
    bad = json.dumps(rows(Verdict("NAME", (), "m", "f" * 64, error="broken", version="0.1.0"))[0]) + "\n"
    ident = json.loads(bad)["path_id"]
    with open(path, "w", encoding="utf-8") as file:
        for i in range(count):
            text = bad if i % 1000 == 500 else good
            file.write(text.replace("NAME", f"p/{i}.png").replace("HASH", f"{i:064x}").replace(ident, f"{i:016x}"))


def peak() -> int:
    """The largest memory of this process so far, in MB; Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))


def measure(path: Path) -> None:
    """Print one line of a table."""
    start, before = time.process_time(), peak()
    kept = Kept(path, SETTINGS)
    read, with_index = time.process_time() - start, peak()
    names = [f"p/{i}.png" for i in range(len(kept))]
    start, with_names = time.process_time(), peak()
    kept.split(names, 200_000_000)
    found = time.process_time() - start
    megabytes = os.path.getsize(path) / 1e6
    cells = (f"{len(kept):,}", f"{megabytes:,.0f}", f"{read:.0f}", with_index - before, f"{found:.0f}")
    print("|", " | ".join(map(str, (*cells, peak() - with_names))), "|")


def main() -> None:
    """Write, then measure in a process that has done nothing else."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    words.add_argument("--rows", type=int, default=100_000)
    words.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    asked = words.parse_args()
    if asked.read:
        measure(asked.read)
        return
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "o.jsonl")
        write(path, asked.rows)
        print("| images | output, MB | reading it, s | memory, MB | looking all up, s | memory, MB |", flush=True)
        print("|---|---|---|---|---|---|", flush=True)
        subprocess.run([sys.executable, __file__, "--read", str(path)], check=True)


if __name__ == "__main__":
    main()
