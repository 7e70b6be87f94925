"""Print how the service holds up beside the library: `python benchmarks/service.py`.

Everything is done in one run on this machine, with as many workers as cores, on photographs made from samples/. In
turns, so that other work on the machine burdens both, the library's own pool judges them, and clients keep the service
busy; the median of the ratios counts. Then requests come at 0.7 of what it gave, at even distances; then at 3 times
what it gave. Every request has an id of its own, and every id has to come back, with a verdict or with 429. The clients
run on the same cores, so the ratios are a little low.
"""

import argparse
import http.client
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from faceauth.cpus import usable_cpus
from faceauth.detector import Detector
from faceauth.errors import FaceAuthError

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
ROUNDS = 3  # of library and service in turns
THROUGHPUT, TAIL, BUSY, FLOOD, GROWTH = 0.85, 4.0, 0.7, 3.0, 1.2  # the targets, and the loads they are asked at


@dataclass(frozen=True, slots=True)
class Answer:
    """One request: its status, seconds it took, and whether its id and a verdict came back."""

    status: int
    seconds: float
    whole: bool


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fast", help="a model file, or accurate or fast; fast")
    parser.add_argument("--workers", type=int, default=usable_cpus(), help="processes that judge; one a core")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each part")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        photos = _photos(Path(name))
        with _service(args.model, args.workers) as (port, memory):
            ask = _asking(port, [p.read_bytes() for p in photos])
            _closed(ask, 2 * args.workers, 2)  # warm
            rounds = []
            for _ in range(ROUNDS):
                library = _library(args.model, photos, args.workers, args.seconds / ROUNDS)
                rounds.append((library, *_closed(ask, 2 * args.workers, args.seconds / ROUNDS)))
            served = statistics.median(rate for _, rate, _ in rounds)
            answers = [answer for _, _, found in rounds for answer in found]
            busy = _open(ask, BUSY * served, args.seconds)
            before = memory()
            flood = _open(ask, FLOOD * served, args.seconds)
            after = memory()
        _print(
            [(library, rate) for library, rate, _ in rounds], [*answers, *busy, *flood], busy, flood, (before, after)
        )


def _photos(folder: Path) -> list[Path]:
    """Two photographs, 1024 px, JPEG 90."""
    made = []
    for name in ("grace-hopper.jpg", "astronaut.jpg"):
        with Image.open(SAMPLES / name) as image:
            k = 1024 / max(image.size)
            size = round(image.width * k), round(image.height * k)
            image.convert("RGB").resize(size).save(folder / name, quality=90)
        made.append(folder / name)
    return made


def _library(model: str, photos: Sequence[Path], workers: int, seconds: float) -> float:
    """Images a second of the library's own pool, warm."""
    end = time.monotonic() + 1e9

    def cycle() -> Iterator[Path]:
        for path in itertools.cycle(photos):
            if time.monotonic() > end:
                return
            yield path

    count, begin = 0, 0.0
    for number, _ in enumerate(Detector(model, learned=False).stream(cycle(), workers=workers)):
        if number == 2 * workers:  # every worker has opened the model
            count, begin = number, time.monotonic()
            end = begin + seconds
        last, done = number, time.monotonic()
    return (last - count) / (done - begin)


@contextmanager
def _service(model: str, workers: int) -> Iterator[tuple[int, Callable[[], float]]]:
    """A service that is ready: its port, and what says how many MB it and its workers have in memory."""
    words = ["serve", "--port", "0", "--workers", str(workers), "--model", model, "--no-learned"]
    process = subprocess.Popen(
        [sys.executable, "-m", "faceauth", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    if not first.startswith("listening at "):
        raise SystemExit(first + process.stderr.read())
    threading.Thread(target=process.stderr.read, daemon=True).start()
    port = int(first.partition(";")[0].rpartition(":")[2])
    try:
        while _get(port, "/readyz") != 200:
            time.sleep(0.1)
        yield port, lambda: _megabytes(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def _get(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    return connection.getresponse().status


def _megabytes(pid: int) -> float:
    """Of a process and its children, shared pages counted in each (Linux)."""
    pids = [pid, *(int(p) for f in Path(f"/proc/{pid}/task").glob("*/children") for p in f.read_text().split())]
    pages = [int(Path(f"/proc/{p}/statm").read_text().split()[1]) for p in pids]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _asking(port: int, bodies: Sequence[bytes]) -> Callable[[int], Answer]:
    """What sends one request, over a connection of its own thread, and waits for the answer."""
    own = threading.local()

    def ask(number: int) -> Answer:
        begin = time.monotonic()
        sent = f"request-{number}"
        connection = getattr(own, "connection", None)
        if connection is None:
            connection = own.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        headers = {"Content-Type": "image/jpeg", "X-Request-ID": sent}
        connection.request("POST", "/v1/detect", bodies[number % len(bodies)], headers)
        response = connection.getresponse()
        body = response.read()
        same = response.headers["X-Request-ID"] == sent
        judged = response.status != 200 or json.loads(body)[0]["score"] is not None
        return Answer(response.status, time.monotonic() - begin, same and judged)

    return ask


_numbers = itertools.count()


def _closed(ask: Callable[[int], Answer], clients: int, seconds: float) -> tuple[float, list[Answer]]:
    """So many clients, each asking again as soon as it is answered: images a second, and the answers."""
    begin = time.monotonic()

    def client() -> list[Answer]:
        answers = []
        while time.monotonic() < begin + seconds:
            answers.append(ask(next(_numbers)))
        return answers

    with ThreadPoolExecutor(clients) as pool:
        futures = [pool.submit(client) for _ in range(clients)]
        answers = [answer for future in futures for answer in future.result()]
    return len(answers) / (time.monotonic() - begin), answers


def _open(ask: Callable[[int], Answer], rate: float, seconds: float) -> list[Answer]:
    """So many requests a second at even distances, however long the answers take."""
    begin = time.monotonic()
    with ThreadPoolExecutor(256) as pool:
        futures = []
        for k in range(round(rate * seconds)):
            time.sleep(max(0.0, begin + k / rate - time.monotonic()))
            futures.append(pool.submit(ask, next(_numbers)))
        return [future.result() for future in futures]


def _print(
    rounds: Sequence[tuple[float, float]], everything: Sequence[Answer], busy: Sequence[Answer],
    flood: Sequence[Answer], memory: tuple[float, float],
) -> None:  # fmt: skip
    seconds = sorted(a.seconds for a in busy)
    median, tail = statistics.median(seconds), seconds[min(len(seconds) - 1, int(0.99 * len(seconds)))]
    statuses = Counter(a.status for a in flood)
    others = {status: n for status, n in Counter(a.status for a in everything).items() if status not in {200, 429}}
    for library, served in rounds:
        print(f"library's own pool: {library:.2f} images/s; service: {served:.2f} images/s")
    ratio = statistics.median(served / library for library, served in rounds)
    print("| | measured | target |\n|---|---|---|")
    print(f"| service, in times of the library | {ratio:.2f} | at least {THROUGHPUT} |")
    print(f"| at {BUSY} of that load, 99th percentile in times of the median ({median * 1000:.0f} ms) | "
          f"{tail / median:.1f} | at most {TAIL:.0f} |")  # fmt: skip
    print(f"| at {FLOOD:.0f} times the load: judged | {statuses[200]} of {len(flood)} | |")
    print(f"| at {FLOOD:.0f} times the load: 429 | {statuses[429]} | all others |")
    print(f"| memory after that, in times of before ({memory[0]:.0f} MB) | {memory[1] / memory[0]:.2f} | "
          f"at most {GROWTH} |")  # fmt: skip
    print(
        f"| requests without their id or verdict, of {len(everything)} | {sum(not a.whole for a in everything)} | 0 |"
    )
    print(f"| statuses other than 200 and 429 | {others or 'none'} | none |")


if __name__ == "__main__":
    try:
        main()
    except FaceAuthError as error:
        raise SystemExit(f"error: {error}") from None
