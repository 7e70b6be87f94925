"""The worker processes, as asynchronous callers see them: one job in, one answer out, in whatever order they end."""

import asyncio
import logging
import threading
from collections import deque
from functools import partial
from multiprocessing import Pipe

from faceauth.errors import FaceAuthError
from faceauth.server import work
from faceauth.server.settings import Settings
from faceauth.server.work import Answer, GivenUp, Job
from faceauth.workers import Pool, too_long

PAUSE = 1.0  # seconds before processes that could not be started are tried again
log = logging.getLogger("faceauth.server")


Waiting = tuple[int, Job, "asyncio.Future[Answer]"]


class Judges:
    """A `Pool`, driven by a thread of its own.

    Attributes:
        given_up: how many jobs have been without an answer so far.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._queue: deque[Waiting] = deque()
        self._running: dict[int, asyncio.Future[Answer]] = {}
        self._numbers = 0
        self._ears, self._mouth = Pipe(duplex=False)
        self._closing = threading.Event()
        self._pool: Pool[Job, Answer] | None = None
        self.given_up = 0

    def open(self) -> None:
        """Start the processes; call it in the event loop of the callers."""
        self._loop = asyncio.get_running_loop()
        self._pool = self._start()
        self._thread = threading.Thread(target=self._run, name="faceauth judges", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """End the processes; jobs that are left are given up."""
        self._closing.set()
        self._wake()
        await asyncio.to_thread(self._thread.join)
        if self._pool:
            self._pool.close()
        self._give_all_up("the service ends")

    def ready(self) -> list[int]:
        """The ids of the processes that can judge, or do."""
        return self._pool.running() if self._pool else []

    async def answer(self, job: Job) -> Answer:
        """The answer to a job; one whose caller is cancelled before it is handed to a process is never judged."""
        future: asyncio.Future[Answer] = self._loop.create_future()
        with self._lock:
            self._numbers += 1
            self._queue.append((self._numbers, job, future))
        self._wake()
        return await future

    def _start(self) -> Pool[Job, Answer]:
        timeout = self._settings.timeout
        late = too_long(timeout)

        def failed(_: Job, reason: str) -> Answer:
            if reason == late:  # whose advice is the operator's to follow
                return GivenUp(f"not judged: it took more than {timeout:g} s", late=True)
            return GivenUp(reason)

        return Pool(self._settings.workers, work.start, self._settings, failed, timeout, lasting=True)

    def _wake(self) -> None:
        self._mouth.send_bytes(b".")

    def _run(self) -> None:
        """What the thread does: hand jobs to free processes, hand answers back."""
        while not self._closing.is_set():
            try:
                if self._pool is None:
                    self._pool = self._start()
                self._round(self._pool)
            except Exception as error:  # no process can be started: no memory, no descriptors, the model is gone
                reason = str(error) if isinstance(error, FaceAuthError) else type(error).__name__
                log.error("workers cannot be started", extra={"fields": {"reason": reason}})
                if self._pool:
                    self._pool.close()
                self._pool = None
                self._give_all_up("no worker process can be started")
                self._closing.wait(PAUSE)

    def _round(self, pool: Pool[Job, Answer]) -> None:
        while pool.free() and (waiting := self._next()):
            number, job, future = waiting
            self._running[number] = future
            pool.give(number, job)
        for number, answer in pool.collect(wake=self._ears).items():
            self._hand_back(self._running.pop(number), answer)
        while self._ears.poll():
            self._ears.recv_bytes()

    def _next(self) -> Waiting | None:
        """The first job that somebody still waits for."""
        with self._lock:
            while self._queue:
                waiting = self._queue.popleft()
                if not waiting[2].cancelled():
                    return waiting
        return None

    def _give_all_up(self, reason: str) -> None:
        with self._lock:
            futures = [*self._running.values(), *(future for _, _, future in self._queue)]
            self._queue.clear()
        self._running.clear()
        for future in futures:
            self._hand_back(future, GivenUp(f"not judged: {reason}"))

    def _hand_back(self, future: "asyncio.Future[Answer]", answer: Answer) -> None:
        self.given_up += isinstance(answer, GivenUp)
        self._loop.call_soon_threadsafe(partial(_settle, future, answer))


def _settle(future: "asyncio.Future[Answer]", answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)
