"""Judging in other processes, one image at a time each, so that nothing an image does can end or stop a run.

An image that takes too long or takes its process down with it costs its own answer only. Workers end with the process
that started them, however that ends: each watches for its end, and on Linux the kernel is asked to see to it as well.
At most `AHEAD` images a worker are judged, or wait for their turn to be given out, so memory is bounded.
"""

import atexit
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from faceauth.errors import FaceAuthError

AHEAD = 8
STARTING = 600.0  # seconds in which a worker has to have opened its model, on the slowest of disks
LONGEST = 86_400.0  # seconds of one wait, for the system counts its milliseconds in 32 bits
SLICE = 0.2  # seconds between looks at the clock, where a wait cannot be interrupted

Job = TypeVar("Job")
Answer = TypeVar("Answer")
THREAD = "faceauth job"


def abandoned() -> bool:
    """Whether a thread of this process is still in the middle of a job, which was given up then."""
    return any(thread.name == THREAD for thread in threading.enumerate())


def answers(
    jobs: Iterable[Job],
    start: Callable[[Any], Callable[[Job], Answer]],
    arguments: Any,
    failed: Callable[[Job, str], Answer],
    workers: int = 1,
    timeout: float | None = None,
    *,
    work: Callable[[Job], Answer] | None = None,
) -> Generator[Answer, None, None]:
    """One answer a job, in order, from this process alone or from a `Pool`; close the iterator to end it early.

    Args:
        start, arguments, failed, timeout: as of `Pool`.
        workers: processes; 1 for this one, as long as no job takes more than `timeout` seconds.
        work: what `start` returns, where this process has it already.
    """
    pool: Callable[[int], Pool[Job, Answer]] = partial(
        Pool, start=start, arguments=arguments, failed=failed, timeout=timeout
    )
    if workers > 1:
        with pool(workers) as started:
            yield from started.answers(jobs)
    elif timeout is None:
        yield from map(work or start(arguments), jobs)
    else:
        yield from in_thread(jobs, work or start(arguments), timeout, failed, partial(pool, 1))


def in_thread(
    jobs: Iterable[Job],
    work: Callable[[Job], Answer],
    timeout: float,
    failed: Callable[[Job, str], Answer],
    pool: Callable[[], "Pool[Job, Answer]"],
) -> Iterator[Answer]:
    """Answers in order, worked out in a thread of this process, which saves the start of another.

    A thread cannot be ended: once one has taken more than `timeout` seconds, it is left alone, and the jobs after it
    go to the worker processes of `pool`.
    """
    iterator = iter(jobs)
    for job in iterator:
        task = _Task(work, job)
        if not task.wait(timeout):
            yield failed(job, too_long(timeout))
            break
        yield task.answer()
    else:
        return
    with pool() as rest:
        yield from rest.answers(iterator)


def too_long(timeout: float) -> str:
    """What is said of an image that was given up."""
    return f"not judged: it took more than {timeout:g} s (raise --timeout)"


class _Task(Generic[Job, Answer]):
    """One call in a thread of its own."""

    def __init__(self, work: Callable[[Job], Answer], job: Job) -> None:
        self._done = threading.Event()
        self._result: tuple[Answer] | None = None
        self._error: BaseException | None = None
        self._work, self._job = work, job
        threading.Thread(target=self._run, name=THREAD, daemon=True).start()

    def _run(self) -> None:
        try:
            self._result = (self._work(self._job),)
        except BaseException as error:
            self._error = error
        self._done.set()

    def wait(self, timeout: float) -> bool:
        """Whether it is done within so many seconds."""
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            if self._done.wait(min(SLICE, left)):
                return True
        return self._done.is_set()

    def answer(self) -> Answer:
        """What the call returned, or raised."""
        if self._result is None:
            raise self._error or RuntimeError("the thread has not ended")
        return self._result[0]


class _Worker:
    """A worker process as its parent sees it: `job` is the number of the image that it has, None where it is free."""

    def __init__(self, start: Callable[[Any], Callable[[Any], Any]], arguments: Any, lasting: bool) -> None:
        context = multiprocessing.get_context("spawn")  # forking a process that holds onnxruntime's threads hangs
        self.connection, theirs = context.Pipe()
        tied = lasting or threading.current_thread() is threading.main_thread()
        self.process: BaseProcess = context.Process(
            target=_serve, args=(theirs, start, arguments, tied, os.getpid()), name="faceauth worker", daemon=True
        )
        self.process.start()
        theirs.close()
        self.ready = False
        self.job: int | None = None
        self.since = time.monotonic()

    def end(self) -> None:
        """Kill it, if need be."""
        self.process.kill()
        self.connection.close()


class Pool(Generic[Job, Answer]):
    """Worker processes; use as a context, or close it."""

    def __init__(
        self,
        count: int,
        start: Callable[[Any], Callable[[Job], Answer]],
        arguments: Any,
        failed: Callable[[Job, str], Answer],
        timeout: float | None = None,
        *,
        lasting: bool = False,
    ) -> None:
        """Start `count` processes.

        Args:
            count: how many.
            start: called once in each process with `arguments`; returns what is called with each job. Both have to
                be picklable, so does every job and answer.
            arguments: for `start`.
            failed: makes the answer to a job that was given up, from the reason in words.
            timeout: seconds that a job may take, from when a process has it; None for ever.
            lasting: the threads that start and collect live as long as the pool.
        """
        self._start, self._arguments, self._failed, self._timeout = start, arguments, failed, timeout
        self._workers: list[_Worker] = []
        self._lasting = lasting
        self._given: dict[int, Job] = {}  # by number, what the workers have
        self._end = weakref.finalize(self, _end_all, self._workers)
        atexit.register(self._end)  # before multiprocessing's own, which waits for processes that ignore SIGTERM
        for _ in range(count):
            self._workers.append(_Worker(start, arguments, lasting))

    def answers(self, jobs: Iterable[Job]) -> Iterator[Answer]:
        """One answer a job, in order. Raises FaceAuthError where no process can be started."""
        iterator = enumerate(jobs)
        ready: dict[int, Answer] = {}
        following = 0
        exhausted = False
        while True:
            while not exhausted and self.free() and len(self._given) + len(ready) < AHEAD * len(self._workers):
                number, job = next(iterator, (None, None))
                if number is None:
                    exhausted = True
                else:
                    self.give(number, job)  # type: ignore[arg-type]  # a job, as there is a number
            if following in ready:
                yield ready.pop(following)
                following += 1
                ready |= self.collect(0)
            elif exhausted and not self._given:
                return
            else:
                ready |= self.collect()

    def free(self) -> int:
        """How many processes have started and are without a job."""
        return sum(worker.ready and worker.job is None for worker in self._workers)

    def running(self) -> list[int]:
        """The ids of the processes that have started."""
        return [worker.process.pid for worker in self._workers if worker.ready and worker.process.pid]

    def give(self, number: int, job: Job) -> None:
        """Hand a job to a process that is free; its answer is collected under `number`, which no other job has."""
        worker = next(worker for worker in self._workers if worker.ready and worker.job is None)
        worker.job, worker.since = number, time.monotonic()
        self._given[number] = job
        try:
            worker.connection.send(job)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has died; `collect` reads the end of the pipe, and says so
        except Exception as error:  # a job that cannot be pickled: nothing was sent
            raise FaceAuthError(f"cannot be handed to another process: {error}", "use workers=1") from error

    def collect(self, patience: float | None = None, wake: "Connection[Any, Any] | None" = None) -> dict[int, Answer]:
        """Wait until a process has something to say, and return the answers that have come, by their numbers.

        Processes that have died or taken too long are replaced, and what `failed` makes is the answer to their jobs.

        Args:
            patience: seconds to wait at most; None for as long as it takes, or `LONGEST`.
            wake: ends the wait when it can be read; it is left unread.

        Raises:
            FaceAuthError: where a process could not be started.
        """
        ready: dict[int, Answer] = {}
        deadline = self._patience()
        patience = min((p for p in (patience, deadline) if p is not None), default=None)
        open_ = {worker.connection: worker for worker in self._workers}
        for connection in _wait([*open_, *([wake] if wake else [])], patience):
            if connection in open_:
                self._take(open_[connection], ready)
        now = time.monotonic()
        for worker in list(self._workers):
            deadline = self._deadline(worker)
            if deadline is not None and deadline <= now and not worker.connection.poll():
                reason = too_long(self._timeout or 0) if worker.ready else "it did not start"
                self._replace(worker, ready, reason)
        return ready

    def _patience(self) -> float | None:
        """Seconds until the first deadline."""
        ends = [end for worker in self._workers if (end := self._deadline(worker)) is not None]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _deadline(self, worker: _Worker) -> float | None:
        if not worker.ready:
            return worker.since + STARTING
        return worker.since + self._timeout if self._timeout is not None and worker.job is not None else None

    def _take(self, worker: _Worker, ready: dict[int, Answer]) -> None:
        """Read what a worker has sent."""
        try:
            message, value = worker.connection.recv()
        except (EOFError, OSError):
            self._replace(worker, ready, _died(worker.process))
            return
        if message == "failed":
            raise value
        if message == "answer":
            assert worker.job is not None
            ready[worker.job] = value
            del self._given[worker.job]
        worker.ready, worker.job = True, None

    def _replace(self, worker: _Worker, ready: dict[int, Answer], reason: str) -> None:
        worker.end()
        if not worker.ready:
            hint = "out of memory? try fewer --workers; in a script, keep the call below: if __name__ == '__main__'"
            raise FaceAuthError(f"a worker process could not be started: {reason}", hint)
        if worker.job is not None:
            ready[worker.job] = self._failed(self._given.pop(worker.job), reason)
        self._workers[self._workers.index(worker)] = _Worker(self._start, self._arguments, self._lasting)

    def close(self) -> None:
        """End the processes, whatever they are at."""
        self._end()
        atexit.unregister(self._end)

    def __enter__(self) -> "Pool[Job, Answer]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _end_all(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.end()
    until = time.monotonic() + 1
    for worker in workers:
        worker.process.join(max(0.0, until - time.monotonic()))
    workers.clear()


def _wait(connections: "list[Connection[Any, Any]]", patience: float | None) -> list[Any]:
    """Those of the connections that can be read, maybe none after `LONGEST`.

    Waits in slices where a wait cannot be interrupted.
    """
    if sys.platform != "win32":
        return wait(connections, None if patience is None else min(patience, LONGEST))
    end = None if patience is None else time.monotonic() + patience
    while True:
        left = SLICE if end is None else min(SLICE, max(0.0, end - time.monotonic()))
        found = wait(connections, left)
        if found or (end is not None and time.monotonic() >= end):
            return found


def _died(process: BaseProcess) -> str:
    process.join(1)
    code = process.exitcode
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else str(-code)
        more = ", perhaps for want of memory" if name == "SIGKILL" else ""
        return f"not judged: the process at it was ended by {name}{more}"
    return f"not judged: the process at it ended with code {code}"


def _serve(
    connection: "Connection[Any, Any]",
    start: Callable[[Any], Callable[[Any], Any]],
    arguments: Any,
    tied: bool,
    parent: int,
) -> None:
    """What a worker process does: answer until nobody asks any more."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the parent ends the run
        signal.signal(number, signal.SIG_IGN)
    _end_with_parent(tied, parent)
    _silence()
    try:
        work = start(arguments)
    except Exception as error:
        connection.send(("failed", error if isinstance(error, FaceAuthError) else FaceAuthError(repr(error))))
        return
    connection.send(("ready", None))
    while True:
        try:
            job = connection.recv()
        except (EOFError, OSError):
            return
        try:
            connection.send(("answer", work(job)))
        except (BrokenPipeError, ConnectionResetError):
            return


def _end_with_parent(tied: bool, parent: int) -> None:
    """End this process when its parent has ended in any way, also in the middle of an image.

    `tied` asks the Linux kernel for it (prctl(2), PR_SET_PDEATHSIG), which cannot be held up by a library that does
    not let other threads run. It goes by the thread that started this process, so it is only for one that lasts.
    """
    started_by = multiprocessing.parent_process()
    assert started_by is not None

    def watch() -> None:
        wait([started_by.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if tied and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before it could be watched
            os._exit(1)


def _silence() -> None:
    """Send what C libraries write to standard error nowhere: what is wrong with an image is in its row."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
