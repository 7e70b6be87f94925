"""The worker process of an actor: a picture that ends it costs its own answer only."""

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Generic, TypeVar

from faceauth.scale.reading import Picture
from faceauth.workers import Pool

Job = TypeVar("Job")
Answer = TypeVar("Answer")


class Process(Generic[Job, Answer]):
    """A `Pool` of one process, which lives as long as the actor."""

    def __init__(
        self,
        start: Callable[[Any], Callable[[Job], Answer]],
        arguments: Any,
        failed: Callable[[Job, str], Answer],
        timeout: float,
    ) -> None:
        """Start it; see `Pool`."""
        vars(sys.modules["__main__"]).pop("__file__", None)  # Ray's program, which the process would import, with Ray
        self._given = 1, start, arguments, failed, timeout
        self._pool: Pool[Job, Answer] = Pool(*self._given)

    def answers(self, given: Iterable[tuple[Picture, Job]]) -> Generator[tuple[Picture, Answer], None, None]:
        """Each picture with the answer to its job, in order; close it. Raises FaceAuthError and what `given` raises."""
        waiting: deque[Picture] = deque()

        def jobs() -> Iterator[Job]:
            for picture, job in given:
                waiting.append(picture)
                yield job

        try:
            for answer in self._pool.answers(jobs()):
                yield waiting.popleft(), answer
        except BaseException:  # the process may still have some of these jobs, whose answers are not for the next ones
            self._pool.close()
            self._pool = Pool(*self._given)
            raise
