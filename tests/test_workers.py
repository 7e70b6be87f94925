import itertools
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from command_line import wait_for
from faceauth.errors import FaceAuthError
from faceauth.workers import AHEAD, Pool, in_thread

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow


def started(arguments):
    """What workers of these tests do: jobs that sleep, die, or are answered."""
    if arguments == "broken":
        raise ValueError("no model")
    if arguments == "dying":
        os._exit(7)
    return answered


def answered(job):
    match job:
        case ("sleep", seconds):
            time.sleep(seconds)
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "write":
            os.write(2, b"a C library complains\n")
    return job, os.getpid()


def failed(job, reason):
    return job, reason


def pool(count=2, arguments=None, timeout=None):
    return Pool(count, started, arguments, failed, timeout)


def test_answers_come_in_order_from_several_processes():
    jobs = [("sleep", 0.3), *range(30)]
    with pool() as workers:
        found = list(workers.answers(jobs))
    assert [job for job, _ in found] == jobs
    assert len({pid for _, pid in found}) == 2
    assert os.getpid() not in {pid for _, pid in found}


def test_a_job_that_hangs_or_kills_its_process_costs_its_own_answer():
    with pool(timeout=1) as workers:
        found = dict(workers.answers([1, ("sleep", 600), 2, "die", 3]))
    assert "more than 1 s" in found[("sleep", 600)]
    assert "SIGKILL" in found["die"]
    assert all(isinstance(found[n], int) for n in (1, 2, 3))


@pytest.mark.parametrize("timeout", [float("inf"), 2.2e6])
def test_a_limit_of_weeks_or_none_can_be_waited_for(timeout):
    with pool(1, timeout=timeout) as workers:
        found = list(workers.answers([1, ("sleep", 0.3), 2]))
    assert [job for job, _ in found] == [1, ("sleep", 0.3), 2]


def test_jobs_are_not_taken_far_ahead():
    taken = itertools.count()
    with pool(1) as workers:
        answers = workers.answers(iter(lambda: next(taken), None))
        assert next(answers)[0] == 0
        time.sleep(0.2)
        assert next(answers)[0] == 1
    assert next(taken) <= AHEAD + 2


@pytest.mark.parametrize(("arguments", "told"), [("broken", "no model"), ("dying", "could not be started")])
def test_workers_that_cannot_start_are_an_error(arguments, told):
    with pytest.raises(FaceAuthError, match=told), pool(1, arguments) as workers:
        list(workers.answers([1]))


def test_what_libraries_write_to_standard_error_is_not_shown(capfd):
    with pool(1) as workers:
        list(workers.answers(["write"]))
    assert capfd.readouterr().err == ""


def test_a_thread_that_hangs_is_left_and_processes_go_on():
    def here(job):
        if job == "hang":
            time.sleep(5)
        return job, os.getpid()

    found = list(in_thread([1, "hang", 2, 3], here, 0.5, failed, partial(pool, 1)))
    assert [job for job, _ in found] == [1, "hang", 2, 3]
    assert found[0][1] == os.getpid()
    assert "more than 0.5 s" in found[1][1]
    assert found[2][1] == found[3][1] != os.getpid()


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


PARENT = """
import sys, test_workers
from faceauth.workers import Pool
if __name__ == "__main__":
    workers = test_workers.pool()
    answers = workers.answers([1, 2, 3, 4, ("sleep", 600), ("sleep", 600)])
    print(*{pid for _, pid in [next(answers) for _ in range(4)]}, flush=True)
    MORE
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent_in_the_middle_of_a_job(tmp_path, number):
    (tmp_path / "parent.py").write_text(PARENT.replace("MORE", "list(answers)"))
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    ) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert workers
        assert all(alive(pid) for pid in workers)
        parent.send_signal(number)
        parent.stdout.read()  # ends when nobody holds the pipe any more
        wait_for(lambda: not any(alive(pid) for pid in workers), 30)


@pytest.mark.skipif(sys.platform == "win32", reason="a signal")
def test_a_pool_that_nobody_closed_does_not_hold_up_the_interpreter(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT.replace("MORE", ""))
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, tmp_path / "parent.py"], env=os.environ | {"PYTHONPATH": path}, timeout=300, check=True
    )
