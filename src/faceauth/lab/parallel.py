"""Many jobs in worker processes, which end with the process that started them, with a progress bar."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from faceauth.errors import DataError, FaceAuthError
from faceauth.lab.progress import tracked
from faceauth.workers import Pool

Job = TypeVar("Job")
Answer = TypeVar("Answer")


def parallel(
    start: Callable[[Any], Callable[[Job], Answer]], arguments: Any, jobs: Sequence[Job], workers: int, name: str
) -> Iterator[Answer]:
    """What `start(arguments)` gives for each job, in order; worked out in this process where `workers` is 1.

    Args:
        start: of a module, as it is called once in each process; `arguments`, jobs and answers can be pickled.
        name: of the progress bar.

    Raises:
        FaceAuthError: what a job raised.
        DataError: a process ended in the middle of a job.
    """
    if workers <= 1 or not jobs:
        yield from tracked(map(start(arguments), jobs), len(jobs), name)
        return
    with Pool[Job, Any](min(workers, len(jobs)), _begin, (start, arguments), _ended) as pool:
        for answer in tracked(pool.answers(jobs), len(jobs), name):
            if isinstance(answer, FaceAuthError):
                raise answer
            yield answer


def _begin(given: tuple[Callable[[Any], Callable[[Any], Any]], Any]) -> Callable[[Any], Any]:
    start, arguments = given
    work = start(arguments)

    def attempt(job: Any) -> Any:
        try:
            return work(job)
        except FaceAuthError as error:
            return error

    return attempt


def _ended(job: Any, reason: str) -> DataError:
    return DataError(f"{str(job)[:200]}: {reason}", "give fewer workers, and run the same command again")
