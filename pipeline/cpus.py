"""Count the CPUs that this process may use."""

import math
import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""The CPU limit of a container on Linux: microseconds of CPU time per period, and the period."""


def available() -> int:
    """Return how many CPUs this process may use.

    A container may have fewer than the machine: ``os.cpu_count`` counts those of the machine.

    Returns
    -------
    int
        At least 1; a fraction of a CPU is rounded up.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpus = cpus or 1
    try:
        quota, period = QUOTA.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cpus
    return cpus if quota == "max" else max(1, min(cpus, math.ceil(int(quota) / int(period))))
