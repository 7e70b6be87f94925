"""Many jobs in worker processes, which end with the process that started them, or on Ray, with a progress bar."""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from faceauth.errors import DataError, FaceAuthError
from faceauth.lab.progress import tracked
from faceauth.scale.cluster import answers
from faceauth.workers import Pool

Job = TypeVar("Job")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class OnRay:
    """Actors of the Ray cluster that is connected, in place of processes: so many, 0 for one a processor."""

    actors: int = 0


Workers = int | OnRay


def parallel(
    start: Callable[[Any], Callable[[Job], Answer]], arguments: Any, jobs: Sequence[Job], workers: Workers, name: str
) -> Iterator[Answer]:
    """What `start(arguments)` gives for each job, in order; worked out in this process where `workers` is 1.

    Args:
        start: of a module, as it is called once in each process; `arguments`, jobs and answers can be pickled. Files
            are those of this process's folder, which on a cluster all machines have to share.
        name: of the progress bar.

    Raises:
        FaceAuthError: what a job raised; Ray gave up.
        DataError: a process ended in the middle of a job; a machine of the cluster lacks the folder.
    """
    if not jobs or (isinstance(workers, int) and workers <= 1):
        yield from tracked(map(start(arguments), jobs), len(jobs), name)
        return
    given = start, arguments, os.getcwd()
    if isinstance(workers, OnRay):
        yield from tracked(answers(_begin, given, jobs, workers.actors, "run the same command again"), len(jobs), name)
        return
    with Pool[Job, Any](min(workers, len(jobs)), _begin, given, _ended) as pool:
        for answer in tracked(pool.answers(jobs), len(jobs), name):
            if isinstance(answer, FaceAuthError):
                raise answer
            yield answer


def as_it_is(work: Callable[[Job], Answer]) -> Callable[[Job], Answer]:
    """A `start` of `parallel` for work that needs nothing made ready."""
    return work


def _begin(given: tuple[Callable[[Any], Callable[[Any], Any]], Any, str]) -> Callable[[Any], Any]:
    start, arguments, folder = given
    try:
        os.chdir(folder)  # Ray's processes begin elsewhere
    except OSError as error:
        hint = "run the command in a folder that all machines of the cluster share"
        raise DataError(f"no folder {folder!r} on {socket.gethostname()}", hint) from error
    work = start(arguments)

    def attempt(job: Any) -> Any:
        try:
            return work(job)
        except FaceAuthError as error:
            return error

    return attempt


def _ended(job: Any, reason: str) -> DataError:
    return DataError(f"{str(job)[:200]}: {reason}", "give fewer workers, and run the same command again")
