import multiprocessing
import os
import signal
import time

import pytest

from pipeline import cpus
from pipeline.errors import UserError
from pipeline.training import workers


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def interrupted() -> None:
    with workers.workers(1) as executor:
        executor.submit(os.getpid).result()
        executor.submit(time.sleep, 600)
        raise KeyboardInterrupt


def test_a_process_ended_from_outside_is_one_sentence() -> None:
    with pytest.raises(UserError, match="ended from outside"), workers.workers(1) as executor:
        executor.submit(die).result()


def test_an_interruption_ends_what_runs() -> None:
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not multiprocessing.active_children()


def test_there_are_never_more_processes_than_work() -> None:
    assert workers.size(None, 1) == 1
    assert workers.size(8, 3) == 3
    assert 1 <= workers.size(None, 100) == cpus.available()
