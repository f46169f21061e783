"""Masked words, and the chance behind them: how many, which, what stands there instead."""

import math
import random
from collections import Counter

import numpy as np
import pytest

from flaxbert.data.masking import CONTINUATION, SPECIAL, START, mask
from flaxbert.data.shuffle import permutation, uniform

MASK_ID, VOCABULARY = 4, 50


def masked(
    kinds: list[int],
    draws: np.ndarray,
    *,
    rate: float = 0.15,
    whole_words: bool = False,
    ids: list[int] | None = None,
    mask_id: int = MASK_ID,
    vocab_size: int = VOCABULARY,
) -> tuple[list[int], list[int]]:
    """New ids, and the chosen places; ids are 100, 101, ... unless given: none is in the draw."""
    before = np.array(ids or range(100, 100 + len(kinds)), np.int32)
    after, chosen = mask(
        before,
        np.array(kinds, np.int32),
        np.array([len(kinds)]),
        draws,
        rate=rate,
        whole_words=whole_words,
        mask_id=mask_id,
        vocab_size=vocab_size,
    )
    assert after.dtype == chosen.dtype == np.int32
    assert after.shape == chosen.shape == before.shape
    return after.tolist(), chosen.tolist()


def some_draws(length: int, index: int, *, seed: int = 0, epoch: int = 0) -> np.ndarray:
    return uniform(3, np.array([length]), seed, epoch, np.array([index]))


def some_kinds(seed: int) -> list[int]:
    """[CLS], words of up to six pieces, [SEP], words, [SEP]."""
    chance = random.Random(seed)
    kinds = [SPECIAL]
    for _ in range(2):
        for _ in range(chance.randint(1, 9)):
            kinds += [START] + [CONTINUATION] * chance.choice([0, 0, 0, 1, 2, 5])
        kinds.append(SPECIAL)
    return kinds


def words_of(kinds: list[int]) -> list[list[int]]:
    """The places of each word."""
    words: list[list[int]] = []
    for place, kind in enumerate(kinds):
        if kind == START:
            words.append([place])
        elif kind == CONTINUATION:
            words[-1].append(place)
    return words


# --- by hand -----------------------------------------------------------------------------------

FOUR = [SPECIAL, START, START, START, START, SPECIAL]


def test_the_smallest_draws_choose_the_places() -> None:
    # Two of six tokens at a rate of a third. [CLS] and [SEP] drew less, but are never chosen.
    draws = np.array([[0.0, 0.9, 0.2, 0.6, 0.3, 0.1], [0.5] * 6, [0.0] * 6])
    after, chosen = masked(FOUR, draws, rate=1 / 3)
    assert chosen == [0, 0, 1, 0, 1, 0]
    assert after == [100, 101, MASK_ID, 103, MASK_ID, 105]


def test_the_second_draw_says_what_stands_there_and_the_third_which_token() -> None:
    # All four words: 0.79 and below [MASK], below 0.9 the token of the third draw, else as it was.
    draws = np.array(
        [[0.5] * 6, [0.0, 0.79, 0.81, 0.89, 0.91, 0.0], [0.0, 0.5, 0.0, 0.999, 0.5, 0]]
    )
    after, chosen = masked(FOUR, draws, rate=4 / 6)
    assert chosen == [0, 1, 1, 1, 1, 0]
    assert after == [100, MASK_ID, 0, VOCABULARY - 1, 104, 105]


def test_a_whole_word_takes_the_draw_of_its_first_piece() -> None:
    # Words [1], [2, 3], [4]; two of six tokens. Piece 3 drew least of all, its word does not.
    kinds = [SPECIAL, START, START, CONTINUATION, START, SPECIAL]
    draws = np.array([[0.0, 0.2, 0.8, 0.1, 0.5, 0.0], [0.5] * 6, [0.0] * 6])
    assert masked(kinds, draws, rate=1 / 3, whole_words=True)[1] == [0, 1, 0, 0, 1, 0]
    assert masked(kinds, draws, rate=1 / 3)[1] == [0, 1, 0, 1, 0, 0]
    draws[0, 2] = 0.15  # now it does, and fills the number wanted
    assert masked(kinds, draws, rate=1 / 3, whole_words=True)[1] == [0, 0, 1, 1, 0, 0]


def test_a_word_too_long_for_what_is_left_is_passed_over() -> None:
    # Three of nine tokens: the word of one piece, not that of three, then that of two.
    kinds = [SPECIAL, START, START, *[CONTINUATION] * 2, START, CONTINUATION, START, SPECIAL]
    draws = np.array([[0.0, 0.1, 0.2, 0, 0, 0.3, 0, 0.4, 0], [0.5] * 9, [0.0] * 9])
    assert masked(kinds, draws, rate=1 / 3, whole_words=True)[1] == [0, 1, 0, 0, 0, 1, 1, 0, 0]


def test_nothing_is_chosen_where_nothing_can_be() -> None:
    draws = np.full((3, 3), 0.5)
    assert masked([SPECIAL] * 3, draws) == ([100, 101, 102], [0, 0, 0])
    long = [SPECIAL, START, CONTINUATION]  # a word of two pieces, and one place wanted
    assert masked(long, draws, whole_words=True) == ([100, 101, 102], [0, 0, 0])


@pytest.mark.parametrize("before", [[], [START]], ids=["at the start", "after another text"])
def test_the_rest_of_a_word_that_begins_a_text_is_a_unit_of_its_own(before: list[int]) -> None:
    # A sentence longer than half a sequence is divided, if need be inside a word.
    rest = [CONTINUATION, CONTINUATION]
    kinds = [SPECIAL, *before, *([SPECIAL] if before else []), *rest, SPECIAL]
    length, first = len(kinds), len(kinds) - 3
    draws = np.array([[0.9] * length, [0.5] * length, [0.0] * length])
    draws[0, first] = 0.1
    chosen = masked(kinds, draws, rate=2 / length, whole_words=True)[1]
    assert chosen == [0] * first + [1, 1, 0]


@pytest.mark.parametrize("whole_words", [False, True])
def test_sequences_are_masked_as_each_of_them_alone(whole_words: bool) -> None:
    kinds = [*map(some_kinds, range(40)), [SPECIAL] * 2, [CONTINUATION] * 3, [START]]
    lengths = np.array([len(row) for row in kinds])
    draws = uniform(3, lengths, 0, 0, np.arange(len(kinds)))
    flat = np.concatenate(kinds).astype(np.int32)
    ids = np.arange(100, 100 + len(flat), dtype=np.int32)
    settings = {"rate": 0.3, "whole_words": whole_words, "mask_id": MASK_ID, "vocab_size": 50}
    after, chosen = mask(ids, flat, lengths, draws, **settings)
    starts = np.cumsum(lengths) - lengths
    for row, start, length in zip(kinds, starts, lengths, strict=True):
        here = slice(start, start + length)
        alone = masked(row, draws[:, here], ids=ids[here].tolist(), **settings)
        assert (after[here].tolist(), chosen[here].tolist()) == alone


# --- how many, and which -----------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.01, 0.15, 0.4, 0.99])
def test_as_many_places_as_the_rate_asks_for_special_ones_never(rate: float) -> None:
    for seed in range(100):
        kinds = some_kinds(seed)
        chosen = masked(kinds, some_draws(len(kinds), seed), rate=rate)[1]
        ordinary = [place for place, kind in enumerate(kinds) if kind != SPECIAL]
        # The share is of all tokens, as in the original; but at least one, and at most all words.
        wanted = max(1, round(rate * len(kinds)))
        assert sum(chosen) == min(wanted, len(ordinary))
        assert {place for place, one in enumerate(chosen) if one} <= set(ordinary)


@pytest.mark.parametrize("rate", [0.01, 0.15, 0.4, 0.99])
def test_whole_words_are_complete_and_no_other_would_fit(rate: float) -> None:
    seen = set()
    for seed in range(100):
        kinds = some_kinds(seed)
        chosen = masked(kinds, some_draws(len(kinds), seed), rate=rate, whole_words=True)[1]
        words = words_of(kinds)
        marks = [{chosen[place] for place in word} for word in words]
        assert all(len(values) == 1 for values in marks)
        left = max(1, round(rate * len(kinds))) - sum(chosen)
        assert left >= 0
        assert all(len(w) > left for w, m in zip(words, marks, strict=True) if m == {0})
        assert sum(chosen) == sum(len(w) for w, m in zip(words, marks, strict=True) if m == {1})
        seen |= {len(w) for w, m in zip(words, marks, strict=True) if m == {1}}
    if rate > 0.1:
        assert {1, 2, 3} <= seen  # long words have their chance


def test_places_that_are_not_chosen_stay_as_they_are() -> None:
    for seed in range(100):
        kinds = some_kinds(seed)
        after, chosen = masked(kinds, some_draws(len(kinds), seed), rate=0.4)
        kept = [(place, new) for place, new in enumerate(after) if not chosen[place]]
        assert all(new == 100 + place for place, new in kept)


# --- many draws --------------------------------------------------------------------------------


def spread(count: int, share: float) -> float:
    """Five standard deviations of a binomial share: one failure in a million, were it random."""
    return 5 * math.sqrt(share * (1 - share) / count)


def test_of_chosen_places_80_percent_are_masks_10_random_10_as_they_were() -> None:
    length = 400  # one long sequence an epoch; ids lie outside the vocabulary drawn from
    kinds = [START] * length
    counts: Counter[str] = Counter()
    drawn: Counter[int] = Counter()
    for epoch in range(100):
        after, chosen = masked(kinds, some_draws(length, 0, epoch=epoch), rate=0.5)
        for place in np.flatnonzero(chosen):
            if after[place] == 100 + place:
                counts["kept"] += 1
            elif after[place] == MASK_ID:
                counts["mask"] += 1
            else:
                counts["random"] += 1
                drawn[after[place]] += 1
    total = counts.total()
    assert total == 100 * 200
    # A random token is [MASK] itself in one case of fifty.
    for name, share in (("mask", 0.802), ("random", 0.098), ("kept", 0.1)):
        assert counts[name] / total == pytest.approx(share, abs=spread(total, share)), name
    # Every token of the vocabulary alike, and none outside: chi-squared of 48 degrees of freedom.
    assert drawn.keys() == set(range(VOCABULARY)) - {MASK_ID}
    expected = counts["random"] / 49
    assert sum((n - expected) ** 2 / expected for n in drawn.values()) < 48 + 5 * math.sqrt(2 * 48)


@pytest.mark.parametrize("whole_words", [False, True])
def test_every_place_is_chosen_as_often_and_what_stands_there_does_not_depend_on_it(
    whole_words: bool,
) -> None:
    kinds, times = [SPECIAL, *[START] * 18, SPECIAL], 2000
    chosen, kept = np.zeros(20), np.zeros(20)
    for epoch in range(times):
        after, marks = masked(kinds, some_draws(20, 7, epoch=epoch), whole_words=whole_words)
        chosen += marks
        pairs = enumerate(zip(after, marks, strict=True))
        kept += [mark and new == 100 + n for n, (new, mark) in pairs]
    assert chosen[0] == chosen[-1] == 0
    assert chosen[1:-1] / times == pytest.approx(3 / 18, abs=spread(times, 3 / 18))
    assert kept[1:-1] / chosen[1:-1] == pytest.approx(0.1, abs=spread(int(chosen[1:-1].min()), 0.1))


# --- uniform -----------------------------------------------------------------------------------


ONES = 2**64 - 1


def mix(state: int) -> int:
    """SplitMix64's output for a state (Steele et al. 2014)."""
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & ONES
    state = (state ^ state >> 27) * 0x94D049BB133111EB & ONES
    return state ^ state >> 31


def splitmix(seed: int, number: int) -> int:
    """The output of the given number, from 0, of SplitMix64 with a seed."""
    return mix(seed + (number + 1) * 0x9E3779B97F4A7C15 & ONES)


def numbers(count: int, seed: int, epoch: int, index: int, stream: int = 0) -> list[float]:
    """One stream of the numbers of one sequence."""
    rows = uniform(stream + 1, np.array([count]), seed, epoch, np.array([index]))
    values: list[float] = rows[stream].tolist()
    return values


ARGUMENTS = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (7, 2, 3), (2**40, 3, 10**9), (-1, 0, 0)]


@pytest.mark.parametrize("stream", [0, 2])
@pytest.mark.parametrize(("seed", "epoch", "index"), ARGUMENTS)
def test_numbers_are_the_upper_53_bits_of_splitmix64(
    seed: int, epoch: int, index: int, stream: int
) -> None:
    key = splitmix(splitmix(mix(seed & ONES), epoch), index)
    raw = [splitmix(key, 16 * place + stream) for place in range(11)]
    assert numbers(11, seed, epoch, index, stream) == [word // 2**11 / 2**53 for word in raw]


def test_splitmix64_is_the_published_one() -> None:
    # The first outputs for seed 1234567, from the reference implementation in C.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [splitmix(1234567, number) for number in range(3)] == expected


def test_numbers_of_a_small_case_never_change() -> None:
    # From the pure-Python `splitmix` above; a change here breaks the resumption of older runs.
    assert numbers(3, seed=0, epoch=0, index=0) == [
        0.13870941014555427,
        0.007263122769445074,
        0.09044841532929715,
    ]


def test_numbers_are_a_pure_function_of_seed_epoch_and_index() -> None:
    before = {arguments: numbers(9, *arguments) for arguments in ARGUMENTS}
    np.random.seed(0)  # the global generators must have no say
    random.seed(0)
    for arguments in reversed(ARGUMENTS):
        assert numbers(9, *arguments) == before[arguments]
    assert numbers(4, 7, 2, 3) == before[7, 2, 3][:4]  # a longer one begins the same
    assert len({tuple(values) for values in before.values()}) == len(ARGUMENTS)


def test_no_two_streams_share_a_number_the_permutations_included() -> None:
    seeds = epochs = range(3)
    size = 600
    seen: Counter[float] = Counter()
    for seed in seeds:
        for epoch in epochs:
            raw = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(size)
            assert np.array_equal(np.argsort(raw), permutation(size, seed, epoch))
            seen.update((raw >> np.uint64(11)) * 2.0**-53)
            for index in range(5):
                for stream in range(3):
                    seen.update(numbers(size, seed, epoch, index, stream))
    assert seen.total() == len(seen) == 9 * 16 * size


def test_numbers_do_not_depend_on_the_other_sequences() -> None:
    lengths, indices = np.array([3, 1, 0, 5, 2]), np.array([9, 4, 7, 0, 10**9])
    together = np.split(uniform(3, lengths, 7, 2, indices), np.cumsum(lengths)[:-1], axis=1)
    for length, index, values in zip(lengths, indices, together, strict=True):
        alone = [numbers(length, 7, 2, index, stream) for stream in range(3)]
        assert values.tolist() == alone
    assert uniform(3, np.array([], int), 7, 2, np.array([], int)).shape == (3, 0)


def test_numbers_are_uniform() -> None:
    values = np.concatenate([numbers(1000, 0, 0, index) for index in range(20)])
    assert values.min() >= 0
    assert values.max() < 1
    counts = np.histogram(values, 16, (0, 1))[0]
    chi = np.sum((counts - 1250) ** 2 / 1250)
    assert 1 < chi < 15 + 5 * math.sqrt(2 * 15)
    # Nor do numbers follow those before them: of another sequence, stream, epoch, seed or place.
    size = 20_000
    first = numbers(size, 0, 0, 0)
    others = [numbers(size, *case) for case in ((0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0, 1))]
    for second in [*others, numbers(size + 1, 0, 0, 0)[1:]]:
        assert abs(np.corrcoef(first, second)[0, 1]) < 5 / math.sqrt(size)
    # The first numbers of consecutive sequences, which decide what is masked in short texts.
    short = uniform(1, np.ones(size, int), 0, 0, np.arange(size))[0]
    counts = np.histogram(short, 16, (0, 1))[0]
    assert 1 < np.sum((counts - size / 16) ** 2 / (size / 16)) < 15 + 5 * math.sqrt(2 * 15)
    assert abs(np.corrcoef(short[1:], short[:-1])[0, 1]) < 5 / math.sqrt(size)
