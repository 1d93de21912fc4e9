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
    with workers.pool(1) as executor:
        executor.submit(os.getpid).result()
        executor.submit(time.sleep, 600)
        raise KeyboardInterrupt


def test_a_training_process_that_was_killed_is_one_sentence() -> None:
    with (
        pytest.raises(UserError, match=r"^A training process was killed"),
        workers.pool(1) as executor,
    ):
        executor.submit(die).result()


def test_an_interruption_ends_the_trainings_and_no_other_child_of_the_process() -> None:
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    other.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert multiprocessing.active_children() == [other]
    finally:
        other.kill()
        other.join()


def test_there_are_never_more_processes_than_work() -> None:
    assert workers.process_count(None, 1) == 1
    assert workers.process_count(8, 3) == 3
    assert 1 <= workers.process_count(None, 100) == cpus.available()
