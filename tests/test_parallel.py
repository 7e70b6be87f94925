"""Jobs in worker processes."""

import pytest

from faceauth.lab.parallel import parallel


def start(factor):
    return lambda number: number * factor


@pytest.mark.parametrize("workers", [1, 2])
def test_answers_are_in_order(workers):
    assert list(parallel(start, 3, [1, 2, 5], workers, "test")) == [3, 6, 15]


@pytest.mark.parametrize("workers", [1, 2])
def test_no_jobs_give_no_answers(workers):
    """With workers and nothing to do, it waited for ever."""
    assert list(parallel(start, 3, [], workers, "test")) == []
