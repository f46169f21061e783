"""Packing, order and batching: which features share a step, and where each lies in its rows."""

import collections
import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flaxbert.data import batching, growing
from flaxbert.data.batching import MAX_SHAPES, Batches
from flaxbert.data.features import Features
from flaxbert.data.packing import ShapeCosts, choose_bucket_sizes, pack
from flaxbert.data.shuffle import permutation
from flaxbert.types import TaskOutputs

RNG_SEEDS = range(20)


def some_lengths(seed: int, count: int = 40, longest: int = 32) -> list[int]:
    chance = random.Random(seed)
    return [chance.randint(1, longest) for _ in range(count)]


# --- pack --------------------------------------------------------------------------------------


def packed_rows(lengths: list[int], row_length: int, segments: int) -> list[list[int]]:
    """The items of each row, packed longest first; equals keep their order."""
    order = sorted(range(len(lengths)), key=lambda item: -lengths[item])
    numbers = pack([lengths[item] for item in order], row_length, segments)
    rows: list[list[int]] = [[] for _ in range(max(numbers, default=-1) + 1)]
    for item, row in zip(order, numbers, strict=True):
        rows[row].append(item)
    return rows


@pytest.mark.parametrize("seed", RNG_SEEDS)
def test_pack_places_every_item_once_within_capacity(seed: int) -> None:
    lengths = some_lengths(seed)
    segments = seed % 5 + 1
    rows = packed_rows(lengths, 32, segments)
    assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
    assert all(1 <= len(row) <= segments for row in rows)
    assert all(sum(lengths[item] for item in row) <= 32 for row in rows)


def test_one_segment_puts_one_item_in_a_row() -> None:
    assert packed_rows([1, 1, 1], 32, 1) == [[0], [1], [2]]


def test_pack_places_the_longest_first_and_keeps_the_order_of_equals() -> None:
    # Longest first: 7 (item 1), 5 (items 0 and 3, in that order), 3 (item 2). Capacity 10:
    # [1] leaves 3; [0] leaves 5; item 3 fits next to item 0; item 2 fits next to item 1.
    assert packed_rows([5, 7, 3, 5], 10, 8) == [[1, 2], [0, 3]]


def test_pack_chooses_the_row_with_the_least_room() -> None:
    # 6 leaves 4 and 7 leaves 3: the 3 goes to the second row, although the first has room too.
    assert pack([6, 7, 3], 10, 8) == [0, 1, 1]


def best_fit(lengths: list[int], row_length: int, segments: int) -> list[int]:
    """Best fit by its definition: every row is looked at."""
    rows: list[list[int]] = []
    numbers = []
    for length in lengths:
        rooms = {n: row_length - sum(row) for n, row in enumerate(rows) if len(row) < segments}
        fitting = {n: room for n, room in rooms.items() if room >= length}
        number = min(fitting, key=lambda n: fitting[n], default=len(rows))
        rows += [[]] if number == len(rows) else []
        rows[number].append(length)
        numbers.append(number)
    return numbers


def for_all(**strategies: Any) -> Callable[[Any], Any]:
    """Run a property for many values, the same in every run."""
    fixed = settings(max_examples=200, deadline=None, derandomize=True, database=None)
    return lambda check: fixed(given(**strategies)(check))


def tokens_of_rows(lengths: list[int], numbers: list[int]) -> list[int]:
    """The tokens of each row."""
    tokens = [0] * len(set(numbers))
    for number, length in zip(numbers, lengths, strict=True):
        tokens[number] += length
    return tokens


@for_all(
    lengths=st.lists(st.integers(0, 30), max_size=60),
    row_length=st.integers(30, 70),
    segments=st.integers(1, 6) | st.just(100),
)
def test_pack_is_deterministic_and_overfills_no_row(
    lengths: list[int], row_length: int, segments: int
) -> None:
    numbers = pack(lengths, row_length, segments)
    assert numbers == pack(lengths, row_length, segments)
    assert list(dict.fromkeys(numbers)) == list(range(len(set(numbers))))  # in order of opening
    assert max(collections.Counter(numbers).values(), default=0) <= segments
    assert max(tokens_of_rows(lengths, numbers), default=0) <= row_length
    if segments == 1:
        assert numbers == list(range(len(lengths)))
    if segments == 100:  # otherwise rows of equal room may differ in the number of their items
        expected = best_fit(lengths, row_length, segments)
        rooms = [sorted(tokens_of_rows(lengths, rows)) for rows in (numbers, expected)]
        assert rooms[0] == rooms[1]


@for_all(lengths=st.lists(st.integers(1, 40), max_size=60), room=st.integers(40, 90))
def test_no_two_packed_rows_fit_in_one(lengths: list[int], room: int) -> None:
    rows = packed_rows(lengths, room, len(lengths))
    tokens = [sum(lengths[item] for item in row) for row in rows]
    assert all(sum(pair) > room for pair in itertools.combinations(tokens, 2))


@for_all(lengths=st.lists(st.integers(1, 20), max_size=200), room=st.integers(80, 200))
def test_pack_needs_few_more_rows_than_the_tokens_fill(lengths: list[int], room: int) -> None:
    # A row is opened for an item if no other has room for it: all but the last are 3/4 full.
    rows = packed_rows(lengths, room, len(lengths))
    fewest = math.ceil(sum(lengths) / room)
    assert fewest <= len(rows) <= sum(lengths) / (0.75 * room) + 1


@pytest.mark.parametrize("seed", RNG_SEEDS)
def test_pack_of_many_short_items_leaves_almost_no_room(seed: int) -> None:
    lengths = sorted(some_lengths(seed, count=500, longest=40), reverse=True)
    assert len(set(pack(lengths, 64, 64))) <= 1.02 * sum(lengths) / 64 + 1


def test_pack_of_nothing_is_nothing() -> None:
    assert pack([], 10, 4) == []


# --- choose_bucket_sizes -----------------------------------------------------------------------


def total_rows(needed: list[int], sizes: tuple[int, ...]) -> int:
    return sum(min(size for size in sizes if size >= need) for need in needed)


def lowest_cost(needed: list[int], multiple: int, limit: int, program_cost: int) -> int:
    """Brute force: every set of at most `limit` multiples that holds the largest need."""
    top = -(-max(needed) // multiple) * multiple
    lower = range(multiple, top, multiple)
    return min(
        total_rows(needed, (*others, top)) + program_cost * (size + 1)
        for size in range(limit)
        for others in itertools.combinations(lower, size)
    )


@pytest.mark.parametrize("seed", RNG_SEEDS)
@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("program_cost", [0, 3, 1000])
def test_bucket_sizes_compute_as_few_rows_as_any_choice(
    seed: int, limit: int, program_cost: int
) -> None:
    chance = random.Random(seed)
    multiple = chance.choice([1, 2, 3])
    needed = [chance.randint(1, 15) for _ in range(chance.randint(1, 12))]
    chosen = choose_bucket_sizes(needed, multiple, limit, program_cost)
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= limit
    assert all(size % multiple == 0 for size in chosen)
    cost = total_rows(needed, tuple(chosen)) + program_cost * len(chosen)
    assert cost == lowest_cost(needed, multiple, limit, program_cost)
    assert program_cost < 1000 or len(chosen) == 1


def test_a_step_without_rows_still_has_a_bucket() -> None:
    assert choose_bucket_sizes([0], 4, 3) == [4]


# --- shuffle -----------------------------------------------------------------------------------


def philox(key: tuple[int, int], count: int) -> list[int]:
    """Philox4x64-10 of Salmon et al. (2011), figure 2 and table 2, with numpy's counter from 1."""
    mask = 2**64 - 1
    words: list[int] = []
    for counter in range(1, count // 4 + 2):
        c, (k0, k1) = (counter, 0, 0, 0), key
        for _ in range(10):
            a, b = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
            c = ((b >> 64) ^ c[1] ^ k0, b & mask, (a >> 64) ^ c[3] ^ k1, a & mask)
            k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
        words += c
    return words[:count]


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (0, 1), (7, 2), (2**40, 3), (-1, 0)])
def test_order_equals_philox_in_pure_python(seed: int, epoch: int) -> None:
    keys = philox((seed % 2**64, epoch), 11)
    assert permutation(11, seed, epoch).tolist() == sorted(range(11), key=keys.__getitem__)


def test_order_of_a_small_case_never_changes() -> None:
    # From the pure-Python `philox` above; a change here breaks the resumption of older runs.
    assert permutation(8, seed=0, epoch=0).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]


@pytest.mark.parametrize("size", [0, 1, 2, 1000])
def test_order_is_a_permutation_and_a_pure_function(size: int) -> None:
    order = permutation(size, seed=3, epoch=1)
    assert sorted(order.tolist()) == list(range(size))
    np.random.seed(0)  # the global generator must not matter
    assert np.array_equal(order, permutation(size, seed=3, epoch=1))


def test_order_differs_by_epoch_and_by_seed() -> None:
    orders = {tuple(permutation(50, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


# --- batching ----------------------------------------------------------------------------------


def make_features(lengths: list[int]) -> Features:
    """Token 100 * feature + place, so that every value says where it came from."""
    return Features.build(
        {"input_ids": [[100 * f + t for t in range(n)] for f, n in enumerate(lengths)]},
        token_indices={"last": [n - 1 for n in lengths]},
        per_sequence={"label": [f + 1 for f in range(len(lengths))]},
    )


def make_batches(lengths: list[int], **changes: object) -> Batches:
    settings = {"batch_size": 6, "row_length": 20, "segments": 3, "data_parallelism": 2, "steps": 7}
    return Batches(make_features(lengths), **(settings | changes))  # type: ignore[arg-type]


LENGTHS = some_lengths(1, count=20, longest=15)  # 20 = 3 batches of 6, and 2


@pytest.mark.parametrize("seed", [None, 5])
def test_every_feature_occurs_once_per_epoch(seed: int | None) -> None:
    batches = make_batches(LENGTHS, seed=seed)
    assert batches.steps_per_epoch == 4
    for epoch in range(2):
        steps = range(4 * epoch, 4 * epoch + 4)
        seen = [int(f) for step in steps for f in batches.step_features(step)]
        assert sorted(seen) == list(range(20))
        assert (seen == list(range(20))) == (seed is None)
        assert len(batches.step_features(steps[-1])) == 2  # the partial batch is kept


def test_packing_never_changes_which_features_share_a_step() -> None:
    packed, single = (make_batches(LENGTHS, seed=5, segments=k) for k in (3, 1))
    for step in range(4):
        assert np.array_equal(packed.step_features(step), single.step_features(step))
        members = sorted(itertools.chain(*packed.rows(step)))
        assert members == sorted(itertools.chain(*single.rows(step)))


def test_a_row_holds_its_sequences_end_to_end() -> None:
    batch = make_batches([3, 2, 4]).build([[2, 0], [1], []])
    pad = [0] * 13
    assert batch.input_ids[0].tolist() == [200, 201, 202, 203, 0, 1, 2, *pad]
    assert batch.position_ids[0].tolist() == [0, 1, 2, 3, 0, 1, 2, *pad]  # restart per segment
    assert batch.segment_ids[0].tolist() == [1, 1, 1, 1, 2, 2, 2, *pad]
    assert batch.cls_position.tolist() == [[0, 4, 0], [0, 0, 0], [0, 0, 0]]
    assert batch.extra["last"].tolist() == [
        [3, 6, 0],
        [1, 0, 0],
        [0, 0, 0],
    ]  # shifted by the offset
    assert batch.label.tolist() == [[3, 1, 0], [2, 0, 0], [0, 0, 0]]
    assert batch.weight.tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 0]]  # empty slots weigh 0
    assert not batch.segment_ids[2].any()
    assert batch.input_ids.shape == batch.segment_ids.shape == (3, 20)


def test_values_per_sequence_keep_their_further_axes() -> None:
    pairs = {"pair": [[1, 2], [3, 4]]}
    features = Features.build({"input_ids": [[1, 2], [3]]}, per_sequence=pairs)
    batches = Batches(features, 2, row_length=4, segments=2, data_parallelism=1, steps=1)
    assert batches.build([[0, 1]]).extra["pair"].tolist() == [[[1, 2], [3, 4]]]


def test_a_host_builds_its_rows_as_in_the_whole_batch() -> None:
    batches = make_batches(LENGTHS, seed=1)
    rows = batches.padded_rows(0)
    whole = batches.build(rows)
    for first, last in itertools.combinations(range(len(rows) + 1), 2):
        part = batches.build(rows[first:last])
        expected = jax.tree.map(lambda array, a=first, b=last: array[a:b], whole)
        assert jax.tree.structure(part) == jax.tree.structure(expected)
        for built, cut in zip(jax.tree.leaves(part), jax.tree.leaves(expected), strict=True):
            assert np.array_equal(built, cut)
            assert built.dtype == cut.dtype


@pytest.mark.parametrize("seed", RNG_SEEDS)
def test_all_steps_fit_few_buckets_of_the_right_multiple(seed: int) -> None:
    batches = make_batches(some_lengths(seed, 50, 20), batch_size=7, data_parallelism=3, seed=seed)
    assert len(batches.bucket_sizes) <= MAX_SHAPES
    assert all(count % 3 == 0 for count in batches.bucket_sizes)
    for step in range(batches.steps):
        rows, full = batches.rows(step), batches.padded_rows(step)
        assert len(full) in batches.bucket_sizes
        assert full == rows + [[]] * (len(full) - len(rows))


def test_padding_share_by_hand() -> None:
    # Batches {5, 5} and {5}, K = 1, rows of 10 in multiples of 2: 2 rows each time, so 40 places
    # are computed for 15 tokens. With K = 2 the first batch is one row; two rows again: the same.
    single = make_batches([5, 5, 5], batch_size=2, row_length=10, segments=1, steps=2)
    assert single.padding_share() == pytest.approx(1 - 15 / 40)
    # Multiples of 1: with K = 2 rows 1 + 1, 20 places. With K = 1 rows 2 + 1, 30 places; but if a
    # program costs more than the 10 places that the smaller bucket saves, it is 2 + 2 again.
    for segments, program, places in ((2, 11, 20), (1, 11, 40), (1, 9, 30)):
        batches = make_batches(
            [5, 5, 5],
            batch_size=2,
            row_length=10,
            data_parallelism=1,
            segments=segments,
            steps=2,
            costs=ShapeCosts(program=program),
        )
        assert batches.padding_share() == pytest.approx(1 - 15 / places)


@pytest.mark.parametrize(
    ("examples", "epochs", "batch_size", "row_length", "typical", "most"),
    [(552, 5, 32, 64, 24, 0.10), (3000, 2, 16, 384, 170, 0.13), (8600, 3, 32, 128, 27, 0.09)],
    ids=["quick start", "SQuAD", "movie reviews"],
)
def test_buckets_cost_little_padding(
    examples: int, epochs: int, batch_size: int, row_length: int, typical: int, most: float
) -> None:
    """Runs of some minutes, with lengths as those of real data: skewed, cut at a maximum."""
    chance = np.random.Generator(np.random.Philox(1))
    lengths = chance.lognormal(np.log(typical), 0.35, examples).astype(int).clip(6, row_length)
    batches = make_batches(
        lengths.clip(max=256).tolist(),
        batch_size=batch_size,
        row_length=row_length,
        segments=row_length,
        data_parallelism=1,
        steps=epochs * -(-examples // batch_size),
        seed=0,
        costs=ShapeCosts(program=1700),
    )
    assert batches.padding_share() <= most


# --- row lengths and slots ---------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("tile", [1, 8, 128])
def test_chosen_rows_hold_the_longest_sequence_in_whole_tiles(tile: int, seed: int | None) -> None:
    for longest in (1, 8, 15, 100):
        lengths = [*some_lengths(1, 50, longest), longest]
        batches = make_batches(lengths, row_length=512, seed=seed, costs=ShapeCosts(tile=tile))
        chosen = batches.with_cheapest_row_length().row_length
        assert chosen % tile == 0
        lowest = -(-longest // tile) * tile
        assert lowest <= chosen <= 2 * lowest
        assert chosen == batches.with_cheapest_row_length().row_length


def test_costly_attention_makes_rows_short_and_many_devices_make_them_long() -> None:
    lengths = some_lengths(2, count=400, longest=64)

    def chosen(attention: float, devices: int) -> int:
        costs = ShapeCosts(program=100, attention=attention)
        settings = {"batch_size": 32, "segments": 100, "seed": 0, "steps": 13, "costs": costs}
        batches = make_batches(lengths, row_length=128, data_parallelism=devices, **settings)
        return batches.with_cheapest_row_length().row_length

    assert chosen(attention=1.0, devices=1) == 64
    # 32 texts of 32 tokens on average are 16 rows of 64, which 15 devices compute as 30.
    assert chosen(attention=0.0, devices=15) > 64


def test_a_data_set_without_features_has_rows_of_one_tile() -> None:
    batches = make_batches([], steps=0).with_cheapest_row_length()
    assert batches.row_length == 8
    assert batches.bucket_sizes == [2]


def test_a_row_has_places_for_as_many_sequences_as_the_fullest_row_holds() -> None:
    batches = make_batches(LENGTHS, segments=20, seed=5, steps=8)
    fullest = max(len(row) for step in range(8) for row in batches.rows(step))
    assert 1 < fullest < 20
    assert batches.slots == fullest
    assert batches.build(batches.padded_rows(0)).weight.shape[1] == fullest
    # A step beyond the schedule keeps the shape.
    assert max(map(len, batches.rows(9))) <= fullest
    assert make_batches(LENGTHS, segments=1).slots == 1
    requests = make_batches(LENGTHS, segments=7, power_of_two_buckets=True)
    assert requests.slots == 7  # the same for all requests, which share programs


def test_a_feature_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="a sequence of 21 tokens, but rows of 20"):
        make_batches([21])


# --- unpack ------------------------------------------------------------------------------------


@pytest.mark.parametrize("segments", [1, 3])
def test_unpack_is_the_inverse_of_build(segments: int) -> None:
    batches = make_batches(LENGTHS, segments=segments, steps=4)
    outputs = TaskOutputs()
    for step in range(batches.steps):
        rows = batches.padded_rows(step)
        batch = batches.build(rows, step)
        per_sequence = {"label": batch.label, "last": batch.extra["last"] - batch.cls_position}
        batches.unpack(rows, TaskOutputs(per_sequence, {"ids": batch.input_ids}), outputs)
    features = batches.features
    assert np.array_equal(outputs.per_token["ids"], features.per_token["input_ids"])
    assert np.array_equal(outputs.per_sequence["label"], features.per_sequence["label"])
    assert np.array_equal(outputs.per_sequence["last"], features.token_indices["last"])


# --- buckets of powers of two --------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5, 13, 40])
def test_requests_of_any_size_share_buckets_of_powers_of_two(count: int) -> None:
    batches = make_batches([15] * count, batch_size=64, steps=1, power_of_two_buckets=True)
    (size,) = batches.bucket_sizes
    units = size // batches.data_parallelism
    assert units * batches.data_parallelism == size
    assert units & (units - 1) == 0
    assert count <= size < 2 * max(count, 2)


@pytest.mark.parametrize("steps", [0, 1, 4, 7])
@pytest.mark.parametrize("settings", [{}, {"microbatches": 2}, {"segments": 1}])
def test_the_plan_does_not_depend_on_how_much_of_it_is_made_at_a_time(
    settings: dict[str, int], steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan() -> tuple[Any, ...]:
        batches = make_batches(LENGTHS, seed=3, steps=steps, **settings)
        rows = [batches.padded_rows(step) for step in range(steps)]
        return rows, batches.bucket_sizes, batches.slots, batches.padding_share()

    whole = plan()
    monkeypatch.setattr(growing, "IN_MEMORY", 100)
    for size in (1, 6, 13, 30):
        monkeypatch.setattr(batching, "PLANNED", size)
        assert plan() == whole


def test_packing_is_planned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(batching, "pack", lambda *args: calls.append(1) or pack(*args))
    batches = make_batches(LENGTHS, steps=4)
    assert batches.bucket_sizes
    for step in range(batches.steps):
        batches.padded_rows(step)
    batches.padding_share()
    assert len(calls) == batches.steps
