"""A Ray cluster, and jobs given out to actors in it by Ray Data, which starts them again where they die."""

import logging
import os
import pickle
import secrets
import signal
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from faceauth.errors import FaceAuthError, MissingExtra

STORE = 100_000_000  # bytes of shared memory for what passes between processes: names of files, and counts
TRIES = 5  # of a job whose actor dies; one that always ends it must not be tried for ever
TASKS = 1_000  # that Ray Data has to keep account of at most; each is of as many jobs as it takes


class Actor:
    """Answers jobs, one at a time; a FaceAuthError that is raised is an answer too, for Ray would lose what it says."""

    def __init__(self, start: Callable[[Any], Callable[[Any], Any]], arguments: Any) -> None:
        self._start, self._arguments = start, arguments
        self._work: Callable[[Any], Any] | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """The answer to `row["job"]`, both pickled."""
        try:
            self._work = self._work or self._start(self._arguments)
            answer = self._work(pickle.loads(row["job"]))
        except FaceAuthError as error:
            answer = error
        return {"answer": pickle.dumps(answer)}


def answers(
    start: Callable[[Any], Callable[[Any], Any]], arguments: Any, jobs: Sequence[Any], workers: int, go_on: str
) -> Iterator[Any]:
    """What `start(arguments)` gives for each job, in order, from actors of the cluster that is connected.

    Args:
        start: of a module, as it is called once in each actor; arguments, jobs and answers can be pickled. A job is
            given again where its actor died.
        workers: actors at most; 0 for one a CPU that the cluster has now.
        go_on: what to do where Ray gives up, in words.

    Raises:
        FaceAuthError: what a job or `start` raised; Ray gave up; the cluster has no processors.
    """
    import ray
    import ray.data

    if not jobs:
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # ours stands on standard error
    context.execution_options.preserve_order = True
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # its tracebacks; errors are raised as well
    most = workers or int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
    if not most:
        raise FaceAuthError("the Ray cluster has no processors", "wait for its machines, or give --workers")
    actors = ray.data.ActorPoolStrategy(size=min(most, len(jobs)), max_tasks_in_flight_per_actor=2)
    items = ray.data.from_items([{"job": pickle.dumps(job)} for job in jobs], override_num_blocks=min(len(jobs), TASKS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray 2.60 has deprecated `max_task_retries`, and has nothing in its place
        given = items.map(
            Actor, fn_constructor_args=(start, arguments), compute=actors, num_cpus=1, max_task_retries=TRIES  # type: ignore[arg-type]
        )  # fmt: skip
    try:
        for row in given.iter_rows():
            answer = pickle.loads(row["answer"])
            if isinstance(answer, FaceAuthError):
                raise answer
            yield answer
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1][:200]
        raise FaceAuthError(f"Ray gave up: {reason}", go_on) from error


def needs_ray() -> None:
    """Raises MissingExtra. Ray reads its settings when it is imported, so they are made here."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_worker_niceness", "0")  # else 15, and beside other work actors start in minutes
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong is raised as well
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of a change to come
    try:
        import ray.data  # noqa: F401  # with pyarrow
    except ImportError as error:
        raise MissingExtra("--engine ray needs Ray Data", "scale") from error


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection to a Ray cluster, or a local one, which ends with the block.

    Without an address one that is there already is used. Raises FaceAuthError where there is no such cluster.
    """
    import ray

    from faceauth.cpus import usable_cpus

    if ray.is_initialized() and not address:
        yield
        return
    local: dict[str, Any] = {} if address else {
        "include_dashboard": False, "num_cpus": usable_cpus(), "object_store_memory": STORE,
    }  # fmt: skip
    if not address:  # it listens on the network; a token of Ray's own would lie in the user's folder, for all to read
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ended = signal.getsignal(signal.SIGTERM)  # Ray puts its own handler there
    try:
        if address:
            _reach(address)
        with _silent():
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise FaceAuthError(f"no Ray cluster at {address or 'this machine'}: {reason}", "check --address") from error
    signal.signal(signal.SIGTERM, ended)
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Raises OSError where nothing answers at HOST:PORT, which Ray would find out after minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "://" not in address:
        socket.create_connection((host, int(port)), timeout=10).close()


@contextmanager
def _silent() -> Iterator[None]:
    """No standard error while it lasts: Ray's libraries say there that they were told to say nothing."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
