"""The order of training examples: a pure function of (seed, epoch)."""

import numpy as np


def permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    """A uniformly random order of `range(size)`, the same on every host, numpy and platform.

    Sorts by the raw output of Philox (Salmon et al. 2011), a counter-based generator whose stream
    numpy guarantees; `Generator.permutation` may change between numpy releases.

    Returns:
      [size] int64.
    """
    keys = np.random.Philox(key=np.array([seed % 2**64, epoch], np.uint64)).random_raw(size)
    return np.argsort(keys, kind="stable")
