"""How many processors this process may use: by its affinity and by the limit of its container."""

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cpus() -> int:
    """Processors that this process may run on, at least 1: what `taskset`, a job scheduler or a container leaves it."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity
        count = os.cpu_count() or 1
    quota = _quota()
    return max(1, min(count, math.ceil(quota)) if quota else count)


def _quota() -> float | None:
    """Processors' worth of time that the control group allows; None without a limit.

    `cpu.max` of version 2 is "QUOTA PERIOD" in microseconds, with "max" for none; version 1 has a file for each, -1 for
    none: https://docs.kernel.org/admin-guide/cgroup-v2.html
    """
    try:
        if (_CGROUP / "cpu.max").exists():
            quota, period = (_CGROUP / "cpu.max").read_text().split()
        else:
            quota, period = ((_CGROUP / "cpu" / f"cpu.cfs_{n}_us").read_text() for n in ("quota", "period"))
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
