"""Reproducible randomness: the order of an epoch, and random numbers for each of its sequences.

The order is built on the raw output of Philox (Salmon et al. 2011), a counter-based generator whose
stream numpy guarantees; `Generator.permutation` and similar methods may change between numpy
releases. Numbers for sequences are SplitMix64 (Steele et al. 2014), in which each number is a hash
of its place: those of all sequences of a step are computed at once.
"""

import numpy as np

GOLDEN = 0x9E3779B97F4A7C15
"""The increment of SplitMix64: 2^64 over the golden ratio."""

ONES = 2**64 - 1


def permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    """Return a uniformly random order of `range(size)`, equal on every host and platform.

    Returns:
      [size] int64.
    """
    key = np.array([seed & ONES, epoch], np.uint64)
    keys = np.random.Philox(key=key).random_raw(size)
    return np.argsort(keys, kind="stable")


def uniform(
    streams: int, lengths: np.ndarray, seed: int, epoch: int, indices: np.ndarray
) -> np.ndarray:
    """Return numbers in [0, 1) for each place of some sequences.

    A number is a function of (seed, epoch, index, place, stream) alone: it does not depend on the
    other sequences, on the length, or on the number of streams.

    Args:
      streams: numbers for each place, at most 16.
      lengths: [S] places of each sequence.
      seed: any integer.
      epoch: from 0.
      indices: [S] the index of each sequence in its data set.

    Returns:
      [streams, sum of lengths] float64, the sequences end to end.
    """
    run = np.array([seed & ONES], np.uint64)
    keys = _mix(_mix(_mix(run) + _steps(np.array([epoch]))) + _steps(indices))
    ends = np.cumsum(lengths)
    places = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    counters = np.repeat(keys, lengths) + _steps(16 * places)
    rows = [_mix(counters + np.uint64(stream * GOLDEN & ONES)) for stream in range(streams)]
    return (np.stack(rows) >> np.uint64(11)) * 2.0**-53


def _steps(numbers: np.ndarray) -> np.ndarray:
    """Return how far SplitMix64's state advances in `numbers` + 1 steps, modulo 2^64."""
    return (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(GOLDEN)


def _mix(state: np.ndarray) -> np.ndarray:
    """Return SplitMix64's output for each state; arithmetic is modulo 2^64."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
