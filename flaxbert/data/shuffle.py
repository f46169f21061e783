"""Reproducible randomness: the order of an epoch, and random numbers for each of its sequences.

Built on the raw output of Philox (Salmon et al. 2011), a counter-based generator whose stream numpy
guarantees; `Generator.permutation` and similar methods may change between numpy releases.
"""

import numpy as np


def permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    """Return a uniformly random order of `range(size)`, equal on every host and platform.

    Returns:
      [size] int64.
    """
    keys = np.random.Philox(key=_key(seed, epoch)).random_raw(size)
    return np.argsort(keys, kind="stable")


def uniform(size: int, seed: int, epoch: int, index: int) -> np.ndarray:
    """Return numbers in [0, 1) that differ for every (seed, epoch, index).

    Returns:
      [size] float64.
    """
    # The second half of the counter: a stream that no permutation and no other index reaches.
    counter = np.array([0, 0, index, 1], np.uint64)
    raw = np.random.Philox(key=_key(seed, epoch), counter=counter).random_raw(size)
    return (raw >> np.uint64(11)) * 2.0**-53


def _key(seed: int, epoch: int) -> np.ndarray:
    return np.array([seed % 2**64, epoch], np.uint64)
