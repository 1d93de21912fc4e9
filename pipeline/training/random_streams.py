"""Give every purpose a random stream of its own."""

import hashlib

import numpy as np


def random_stream(seed: int, purpose: str, *place: int) -> np.random.Generator:
    """Return the random generator for one purpose and place.

    Streams of different seeds, purposes or places are independent: adding a number to a seed, or
    leaving a place out, does not lead to another stream's numbers.

    Parameters
    ----------
    seed : int
        From ``params.yaml``, below 2 ** 32.
    purpose : str
        Purpose of the numbers, such as ``shuffle``.
    *place : int
        Where they are needed, such as the epoch and the batch; each below 2 ** 32.

    Returns
    -------
    numpy.random.Generator
        The same for the same arguments, on every machine.
    """
    # SHA-256, because Python's own hash of a word differs from one process to the next
    words = np.frombuffer(hashlib.sha256(purpose.encode()).digest()[:16], "<u4").tolist()
    # the length comes first, because SeedSequence ignores zeros at the end: (1, 0) would be (1,)
    return np.random.default_rng(np.random.SeedSequence([*words, seed, len(place), *place]))


def derived_seed(seed: int, purpose: str, *place: int) -> int:
    """Return a seed for a library that takes a number below 2 ** 32 instead of a generator.

    Two of these seeds are equal only by chance, once in 2 ** 32 pairs.

    Parameters
    ----------
    seed, purpose, *place
        As for :func:`random_stream`.

    Returns
    -------
    int
    """
    return int(random_stream(seed, purpose, *place).integers(2**32))
