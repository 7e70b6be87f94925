"""`faceauth detect --engine ray`: blocks of images as a Ray Data pipeline, with the detector in actors.

Ray Data gives out the blocks, starts and restarts actors, and tries again what was lost with one. A block's rows are
written whole under a name of its own, so neither a second try nor a second run can double or lose any.
"""

import logging
import os
import pickle
import secrets
import signal
import socket
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from faceauth.console import Ended, Interrupted, notice, progress
from faceauth.errors import FaceAuthError, MissingExtra, UsageError

if TYPE_CHECKING:
    from faceauth.detector import Detector
    from faceauth.scale.blocks import Block, Input
    from faceauth.scale.storage import Storage

STORE = 100_000_000  # bytes of shared memory for what passes between processes: names of files, and counts
TRIES = 5  # of a block whose actor dies; one that always ends it must not be tried for ever
TASKS = 1_000  # that Ray Data has to keep account of at most; each is of as many blocks as it takes
GO_ON = "finished parts stay; go on with --resume"


def detect(
    detector: "Detector",
    images: list[str],
    output: str,
    workers: int,
    timeout: float,
    address: str | None,
    *,
    resume: bool,
    overwrite: bool,
) -> tuple["Counter[str]", list[str]]:
    """Judge all pictures that the arguments mean, and write their rows as Parquet parts, one a block.

    Args:
        images: paths and addresses (s3://bucket/prefix) of pictures, tar shards and Parquet files of image bytes.
        output: folder or address, ending in a slash.
        workers: actors; 0 for one a CPU of the cluster.
        timeout: seconds an image may take.
        address: of a Ray cluster; None starts a local one.
        resume: keep the parts that are finished. overwrite: replace all parts.

    Returns:
        The tally of all images in the output (`faceauth.output.count`), and notes on what was passed over.

    Raises:
        MissingExtra: Ray is not installed.
        UsageError: no picture, or an output that holds other files, or parts that are of other inputs or settings.
        FaceAuthError: Ray or the storage gave up; --resume goes on.
    """
    needs_ray()
    from faceauth.scale.blocks import found
    from faceauth.scale.storage import Storage

    storage = Storage(output)
    inputs, notes = found(images, detector.limits.max_bytes)
    inputs = [one for one in inputs if not one.path.startswith(f"{storage.root}/")]
    work = planned(detector, inputs)
    before = _parts(storage)
    others = sorted(before - {block.name for block in work})
    _check(output, before, others, resume=resume, overwrite=overwrite)
    if resume:
        notice(f"{len(before)} of {len(work)} parts are in the output already")
    with connected(address):
        tally = judged(detector, work, output, workers, timeout, again=overwrite)
    for old in others:
        storage.remove(f"{storage.root}/{old}")
    return tally, notes


def planned(detector: "Detector", inputs: "list[Input]") -> "list[Block]":
    """The inputs in blocks, named after them and after what a row depends on beside its picture."""
    from faceauth import __version__
    from faceauth.detector import row_details
    from faceauth.scale.blocks import blocks

    details = row_details(detector)
    settings = {
        "version": __version__, "model": detector.model.sha256, "threshold": float(detector.fake_from),
        "learned": details["learned_sha256"], "finder": details["face_finder"], "whole": detector.whole_image,
        "recheck": detector.recheck, "limits": asdict(detector.limits),
    }  # fmt: skip
    return blocks(inputs, settings)


def _parts(storage: "Storage") -> set[str]:
    """The parts that the output holds. Raises UsageError where it holds other files."""
    names = {path.removeprefix(f"{storage.root}/") for path, _, _ in storage.files()}
    names = {name for name in names if not name.startswith(".")}  # of a run that was killed while it wrote
    if others := sorted(n for n in names if not (n.startswith("part-") and n.endswith(".parquet"))):
        raise UsageError(f"the output holds other files, {others[0]!r} among them", "name a new or empty folder")
    return names


def _check(output: str, before: set[str], others: list[str], *, resume: bool, overwrite: bool) -> None:
    """Raises UsageError where parts in the output stand against what is wanted."""
    if resume and overwrite:
        raise UsageError("--resume and --overwrite exclude each other", "give one of the two")
    if before and not (resume or overwrite):
        raise UsageError(f"{output!r} holds parts already", "--resume to go on, or --overwrite to replace them")
    if resume and others:
        raise UsageError(
            f"{output!r} holds {others[0]}, of other images or settings",
            "give the same again, --overwrite, or name another folder",
        )


def judged(
    detector: "Detector", work: "list[Block]", output: str, workers: int, timeout: float, *, again: bool = False
) -> "Counter[str]":
    """Judge blocks in the cluster that is connected, and write their parts.

    Args:
        again: also those whose parts are there. The others are as for `detect`.

    Returns:
        The tally of all images of the blocks.

    Raises:
        FaceAuthError: Ray or the storage gave up, or the run was interrupted.
    """
    import ray
    import ray.data

    from faceauth.detector import row_details
    from faceauth.scale.judge import Job, Judge
    from faceauth.scale.storage import is_remote

    ray.data.DataContext.get_current().enable_progress_bars = False  # ours stands on standard error
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # its tracebacks; errors are raised as well
    folder = output if is_remote(output) else os.path.abspath(output)
    model = detector.model.card.name, detector.model.sha256
    job = Job(detector.arguments, model, row_details(detector), timeout, folder, again)
    most = workers or int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
    if not most:
        raise FaceAuthError("the Ray cluster has no processors", "wait for its machines, or give --workers")
    actors = ray.data.ActorPoolStrategy(size=min(most, len(work)), max_tasks_in_flight_per_actor=2)
    items = ray.data.from_items([{"block": pickle.dumps(b)} for b in work], override_num_blocks=min(len(work), TASKS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray 2.60 has deprecated `max_task_retries`, and has nothing in its place
        answers = items.map(
            Judge, fn_constructor_args=(job,), compute=actors, num_cpus=1, max_task_retries=TRIES  # type: ignore[arg-type]
        )  # fmt: skip
    tally: Counter[str] = Counter()
    try:
        for row in progress(answers.iter_rows(), len(work), "blocks"):
            answer = pickle.loads(row["answer"])
            if isinstance(answer, FaceAuthError):
                raise answer
            tally.update(answer)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1][:200]
        raise FaceAuthError(f"Ray gave up: {reason}", GO_ON) from error
    except Interrupted as asked:
        raise Ended(asked.number, f"interrupted; {GO_ON}") from asked
    return tally


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
