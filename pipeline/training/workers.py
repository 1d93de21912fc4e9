"""Run several trainings at a time, in processes that share the CPUs.

Two processes with one CPU each train 1.6 times as fast as one process with two, because the
networks are too small to keep several threads busy.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from pipeline import cpus
from pipeline.errors import UserError


def process_count(wanted: int | None, most: int) -> int:
    """Return how many processes to start: `wanted`, or else one per CPU, but at most `most`."""
    return max(1, min(wanted or cpus.available(), most))


@contextmanager
def pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Start processes for trainings. They end when this process ends, for whatever reason.

    Parameters
    ----------
    processes : int

    Yields
    ------
    ProcessPoolExecutor
        An exception inside the ``with`` block kills its processes at once.

    Raises
    ------
    UserError
        When one of the processes was killed.
    """
    executor = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),  # a forked TensorFlow hangs
        initializer=_begin,
        initargs=(max(1, cpus.available() // processes),),
    )
    try:
        yield executor
    except BaseException as error:
        # only its own: the caller, a notebook for example, may have other children
        for process in list((executor._processes or {}).values()):  # from Python 3.14: kill_workers
            process.kill()
        executor.shutdown(cancel_futures=True)  # waits until they are gone
        if isinstance(error, BrokenProcessPool):
            raise UserError(
                "A training process was killed, possibly because memory ran out. Finished work is"
                " kept: start again, with fewer workers if it happens again."
            ) from error
        raise
    executor.shutdown()


def _begin(threads: int) -> None:
    # Ctrl-C reaches every process of a terminal; the one that started these ends them
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    from pipeline import backend, stage

    stage.quiet()
    with backend.silent():
        import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
