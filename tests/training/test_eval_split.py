"""The part of the training data that is held out for evaluation, and `data.max_examples`."""

import collections
import dataclasses
import random
from pathlib import Path

import pytest
from toy import load_data, make_config, write_lines

from flaxbert import DataConfig
from flaxbert.config import Config, validate
from flaxbert.data.table import Reading
from flaxbert.errors import ConfigError
from flaxbert.pipeline.datasets import limited, read_examples, read_table, split_for_evaluation
from flaxbert.tasks import TASKS
from flaxbert.tasks.questions import QuestionExample
from flaxbert.tasks.texts import TextExample


def reading(*texts: str, pairs: bool = False) -> Reading[TextExample]:
    examples = [
        TextExample(text, f"{text} again" if pairs else None, 0, None, f"x:{n}")
        for n, text in enumerate(texts)
    ]
    return Reading("x", examples, total=len(examples))


TEXTS = tuple(f"text {n}" for n in range(40))


@pytest.mark.parametrize(("share", "count"), [(0.1, 4), (0.25, 10), (0.5, 20), (0.001, 1)])
def test_the_share_counts_different_texts_and_both_parts_keep_the_order(share, count):
    kept, held_out = split_for_evaluation(reading(*TEXTS), share)
    assert (len(kept), len(held_out)) == (40 - count, count)
    for part in (kept, held_out):
        numbers = [int(example.text.split()[1]) for example in part]
        assert numbers == sorted(numbers)
    assert {e.text for e in kept} | {e.text for e in held_out} == set(TEXTS)


def test_the_same_texts_are_held_out_whatever_their_order():
    shuffled = random.Random(0).sample(TEXTS, 40)
    parts = [split_for_evaluation(reading(*texts), 0.25)[1] for texts in (TEXTS, shuffled)]
    assert {e.text for e in parts[0]} == {e.text for e in parts[1]}
    assert [e.text for e in parts[0]] != list(TEXTS[:10])


def test_few_texts_change_sides_when_rows_are_added():
    before = {e.text for e in split_for_evaluation(reading(*TEXTS), 0.25)[1]}
    more = (*TEXTS, "one more", "another")
    after = {e.text for e in split_for_evaluation(reading(*more), 0.25)[1]}
    assert len(before - after) <= 1


def test_equal_texts_stay_together_whatever_their_case_and_blanks():
    spellings = [*TEXTS, *(f" {text.upper()}" for text in TEXTS), *TEXTS[:5]]
    for share in (0.1, 0.25, 0.5):
        kept, held_out = split_for_evaluation(reading(*spellings), share)
        words = [{" ".join(e.text.lower().split()) for e in part} for part in (kept, held_out)]
        assert len(words[1]) == round(share * 40)
        assert not words[0] & words[1]


def test_a_pair_and_its_reverse_stay_together():
    examples = list(reading(*TEXTS, pairs=True))
    swapped = [dataclasses.replace(e, text=e.pair, pair=e.text) for e in examples]
    kept, held_out = split_for_evaluation(Reading("x", examples + swapped, total=80), 0.25)
    assert len(held_out) == 20
    assert not {frozenset(e.texts) for e in kept} & {frozenset(e.texts) for e in held_out}


def test_questions_on_one_context_stay_together():
    questions = [
        QuestionExample(f"q{n}", f"what {n}?", f"context {n % 8}", (), None, f"x:{n}")
        for n in range(32)
    ]
    kept, held_out = split_for_evaluation(Reading("x", questions, total=32), 0.25)
    assert sorted(collections.Counter(e.context for e in held_out).values()) == [4, 4]
    assert not {e.context for e in kept} & {e.context for e in held_out}


def test_a_split_that_leaves_nothing_to_train_on_is_refused():
    with pytest.raises(ConfigError, match=r"data\.eval_split=0\.5 leaves nothing of x.* 1 differ"):
        split_for_evaluation(reading("a", "A"), 0.5)


def test_a_limit_takes_examples_from_everywhere():
    chosen = limited(reading(*TEXTS), 4)
    assert [e.text for e in chosen] == ["text 0", "text 10", "text 20", "text 30"]
    assert len(limited(reading(*TEXTS), None)) == len(limited(reading(*TEXTS), 100)) == 40


# --- in a run ------------------------------------------------------------------------------------


@pytest.fixture
def config(checkpoint: Path, tmp_path: Path) -> Config:
    config = make_config("classification", checkpoint, tmp_path)
    rows = [{"text": f"good film {n}", "label": "rare" if n == 7 else "usual"} for n in range(40)]
    train = str(write_lines(tmp_path / "one.jsonl", rows))
    config.options = type(config.options)()
    config.data = dataclasses.replace(config.data, train=train, eval=None, eval_split=0.25)
    return config


def test_a_run_trains_on_one_part_and_evaluates_on_the_other(config):
    pipeline, data = load_data(config)
    assert (len(data.train.examples), len(data.eval.examples)) == (30, 10)
    assert pipeline.task.labels == ("rare", "usual")  # those of all rows
    texts = [{e.text for e in part.examples} for part in (data.train, data.eval)]
    assert not texts[0] & texts[1]
    # --mode=eval reads the same part.
    table = read_table(config.data, "eval")
    examples = read_examples(config.task, table, config.data, config.options, labeled=True)
    again = pipeline.tokenize_in_order(
        table, examples, batch_size=8, labeled=True, held_out=config.data.eval_split
    )
    assert [e.origin for e in again.examples] == [e.origin for e in data.eval.examples]


def test_a_file_for_evaluation_takes_the_place_of_the_split(config):
    config.data = dataclasses.replace(config.data, eval=config.data.train)
    _, data = load_data(config)
    assert (len(data.train.examples), len(data.eval.examples)) == (40, 40)


def test_a_limit_holds_for_both_parts_but_not_for_the_labels(config):
    config.data = dataclasses.replace(config.data, max_examples=3)
    pipeline, data = load_data(config)
    assert (len(data.train.examples), len(data.eval.examples)) == (3, 3)
    assert pipeline.task.labels == ("rare", "usual")


def test_the_evaluation_data_have_a_name():
    assert DataConfig(train="a.tsv").evaluated is None
    assert DataConfig(train="a.tsv", eval="b.tsv", eval_split=0.1).evaluated == "b.tsv"
    assert DataConfig(train="a.tsv", eval_split=0.1).evaluated == "10% of a.tsv, held out"


def test_a_split_allows_what_needs_evaluations(config):
    config.train.keep_best = "accuracy"
    validate(config, TASKS)
    config.data.eval_split = 0.7
    with pytest.raises(ConfigError, match=r"data\.eval_split=0\.7: expected 0 to 0\.5"):
        validate(config, TASKS)
