"""Name the process that makes a run or a trial, and find out whether it is still running."""

import os
import socket

import psutil  # type: ignore[import-untyped]

PROCESS = "pipeline.process"
"""Tag of every run and attribute of every trial: the process that makes it."""


def this_process() -> str:
    """Return the name of this process: host, start in seconds since 1970, process id."""
    return f"{socket.gethostname()}:{psutil.Process().create_time():.0f}:{os.getpid()}"


def is_dead(process: str) -> bool:
    """Whether a process, named by :func:`this_process`, ran on this machine and has ended."""
    name, _, number = process.rpartition(":")
    host, _, started = name.rpartition(":")
    if host != socket.gethostname() or not number.isdigit():
        return False
    try:
        # Another process may have the same id by now; the clock may have been corrected slightly.
        return bool(abs(psutil.Process(int(number)).create_time() - float(started)) > 5)
    except psutil.NoSuchProcess:
        return True
