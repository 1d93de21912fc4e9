"""Several trainings at a time: processes with a share of the cores each.

Two processes with a core each train 1.6 times as much as one with two: the networks are too small
to keep several threads busy.
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


def size(wanted: int | None, most: int) -> int:
    """Say how many processes to start: as many as `wanted`, else one a core; `most` at most."""
    return max(1, min(wanted or cpus.available(), most))


@contextmanager
def workers(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Start processes that train; they end with this one, however it ends.

    Parameters
    ----------
    processes : int

    Yields
    ------
    ProcessPoolExecutor
        An interruption ends what runs in it at once.

    Raises
    ------
    UserError
        When one of the processes is ended from outside.
    """
    pool = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),  # a forked TensorFlow hangs
        initializer=_begin,
        initargs=(max(1, cpus.available() // processes),),
    )
    try:
        yield pool
    except BaseException as error:
        for child in multiprocessing.active_children():
            child.kill()
        pool.shutdown(cancel_futures=True)  # waits until they are gone
        if isinstance(error, BrokenProcessPool):
            raise UserError(
                "a process that trained was ended from outside, for want of memory perhaps: what is"
                " finished is kept; start again, with fewer workers if need be."
            ) from error
        raise
    pool.shutdown()


def _begin(threads: int) -> None:
    # Ctrl-C reaches all processes of a terminal; the one that started the others ends them.
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
