"""The linter reports every issue of data with its place; runs stop at errors, or count them."""

import dataclasses
import json
import logging
import time
from pathlib import Path

import pyarrow.parquet
import pytest
from toy import load_data, make_config

from flaxbert.commands import lint
from flaxbert.config import Config, DataConfig, ModelConfig
from flaxbert.data import readers
from flaxbert.data.answers import read_answers
from flaxbert.data.checks import MALFORMED, UNUSABLE
from flaxbert.data.table import Record
from flaxbert.errors import DataError
from flaxbert.tasks import TASKS, classification, question_answering

ROOT = Path(__file__).parents[2]

TSV = "text\tlabel\ngood film\tgood\nbad film\tbad\n"
CSV = "text,label\ngood film,good\nbad film,bad\n"
JSONL = '{"text": "good film", "label": "good"}\n{"text": "bad film", "label": "bad"}\n'
CONLL = "the O\nking B-PER\nof I-PER\nparis I-PER\n\nthe O\nriver O\n\n"
PARQUET = [{"text": "good film", "label": "good"}, {"text": "bad film", "label": "bad"}]
CONTEXT = "the king was in paris and the queen was in london"


def squad(*answers: tuple[str, int], question: str = "where is the king?", **more: object) -> str:
    given = [{"text": text, "answer_start": start} for text, start in answers]
    entry = {"id": "q1", "question": question, "answers": given} | more
    paragraph = {"context": CONTEXT, "qas": [entry]}
    return json.dumps({"data": [{"title": "t", "paragraphs": [paragraph]}]})


def config(checkpoint: Path, task: str, files: dict[str, Path], **options: object) -> Config:
    made = TASKS[task].options_type(**options)
    data = DataConfig(**{key: str(file) for key, file in files.items()}, max_length=32, overlap=8)
    return Config(task=task, model=ModelConfig(init=str(checkpoint)), data=data, options=made)


def issues_in(checkpoint, directory, task, contents: dict[str, tuple], **options):
    """Findings in files given as {key: (ending, content)}."""
    files = {}
    for key, (ending, content) in contents.items():
        files[key] = directory / f"{key}.{ending}"
        if isinstance(content, bytes):
            files[key].write_bytes(content)
        elif isinstance(content, list):
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(content), files[key])
        else:
            files[key].write_bytes(content.encode("utf-8", "surrogatepass"))
    return lint.lint(config(checkpoint, task, files, **options))


# Task, ending, content, the kind of the issue, what its message begins with and contains.
CASES = {
    # --- what cannot be parsed
    "tsv, too few columns": ("classification", "tsv", TSV + "a film\n", MALFORMED, ":4: 1 columns"),
    "tsv, too many columns": ("classification", "tsv", TSV + "a\tgood\tx\n", MALFORMED, ":4: 3 c"),
    "tsv, column twice": ("classification", "tsv", "text\ttext\na\tb\n", UNUSABLE, ":1: colu"),
    "tsv, latin-1": ("classification", "tsv", TSV.encode() + "caf\xe9\tgood\n".encode("latin-1"),
                     UNUSABLE, ":4: not UTF-8. The line in other encodings: cp1252 'café"),
    "tsv, cp1252": ("classification", "tsv", TSV.encode() + b"a \x93film\x94\tgood\n", UNUSABLE,
                    ":4: not UTF-8. The line in other encodings: cp1252 'a “film”"),
    "tsv, a broken letter": ("classification", "tsv",
                             f"{TSV}\xe9t\xe9\ufffd\tgood\n".encode() + b"\xe9\n", UNUSABLE,
                             ":5: not UTF-8, as the rest of the file is: '\\xe9'; fix the line"),
    "tsv, utf-16": ("classification", "tsv", TSV.encode("utf-16"), UNUSABLE,
                    ":1: not UTF-8 but UTF-16; set --config.data.encoding=utf-16"),
    "tsv, empty": ("classification", "tsv", "", UNUSABLE, "holds no rows"),
    "tsv, a header alone": ("classification", "tsv", "text\tlabel\n", UNUSABLE, "holds no rows"),
    "tsv, old Mac": ("classification", "tsv", TSV.replace("\n", "\r"), UNUSABLE,
                     ":1: a carriage return within the line"),
    "csv, quote left open": ("classification", "csv", CSV + '"a film,good\n', UNUSABLE, ":4: "),
    "csv, too few columns": ("classification", "csv", CSV + "a film\n", MALFORMED, ":4: 1 columns"),
    "jsonl, not JSON": ("classification", "jsonl", JSONL + "{text: a}\n", MALFORMED, ":3: not v"),
    "jsonl, cut": ("classification", "jsonl", JSONL + '{"text": "a', MALFORMED, ":3: not valid"),
    "jsonl, a list": ("classification", "jsonl", JSONL + "[1]\n", MALFORMED, ":3: expected a JSON"),
    "json, not JSON": ("classification", "json", '[{"text": "a"\n', UNUSABLE, "not valid JSON"),
    "json, an object": ("classification", "json", '{"text": "a"}', UNUSABLE, "expected a list"),
    "parquet, not Parquet": ("classification", "parquet", b"PAR1...", UNUSABLE, "not a readable"),
    "conll, a column less": ("token_classification", "conll", CONLL + "queen\n", MALFORMED,
                             ":9: columns: 1; expected 2, as in line 1"),
    "conll, no tag": ("token_classification", "conll", CONLL.replace(" ", "\t") + "queen\t\n",
                      MALFORMED, ":9: "),
    "conll, old Mac": ("token_classification", "conll", CONLL + "a O\rb O\n", MALFORMED,
                       ":9: a carriage return"),
    "squad, not SQuAD": ("question_answering", "json",
                         '{"data": [{"paragraphs": [{"context": "a"}]}]}', UNUSABLE, "SQuAD"),
    # --- columns
    "tsv, no label column": ("classification", "tsv", "text\tlab\na\tb\n", UNUSABLE,
                             "no column 'label'; its columns are ['text', 'lab']"),
    "jsonl, no text column": ("classification", "jsonl",
                              '{"a": "b", "label": "x"}\n{"a": "b", "label": "y"}\n', UNUSABLE,
                              "no column 'text'"),
    "jsonl, no label in the first row": ("classification", "jsonl", '{"text": "a"}\n' + JSONL,
                                         MALFORMED, ":1: label None is none of"),
    "jsonl, a key less": ("classification", "jsonl",
                          '{"id": 1, "text": "a", "label": "bad"}\n' * 3 + JSONL[:38] + "\n",
                          "other columns", ":4: lacks ['id'], unlike most rows"),
    "jsonl, a key more": ("classification", "jsonl",
                          JSONL + '{"text": "a", "label": "bad", "x": 1}\n', "other columns",
                          ":3: has the extra ['x']"),
    # --- values
    "jsonl, null text": ("classification", "jsonl", JSONL + '{"text": null, "label": "bad"}\n',
                         MALFORMED, ":3: text is None; expected a text"),
    "jsonl, number for text": ("classification", "jsonl", JSONL + '{"text": 5, "label": "bad"}\n',
                               MALFORMED, ":3: text is 5"),
    "jsonl, null label": ("classification", "jsonl", JSONL + '{"text": "a", "label": null}\n',
                          MALFORMED, ":3: label None is none of"),
    "jsonl, list for label": ("classification", "jsonl", JSONL + '{"text": "a", "label": [1, 2]}\n',
                              MALFORMED, ":3: label [1, 2]"),
    "jsonl, half a surrogate pair": ("classification", "jsonl",
                                     JSONL + '{"text": "a \\ud800", "label": "bad"}\n', MALFORMED,
                                     "surrogate"),
    "jsonl, NUL": ("classification", "jsonl", JSONL + '{"text": "a\\u0000b", "label": "bad"}\n',
                   "NUL", ":3: a NUL at character 1"),
    "tsv, empty text": ("classification", "tsv", TSV + "  \tgood\n", "empty text", ":4: a text wi"),
    "tsv, a million characters": ("classification", "tsv", TSV + "a" * 1_000_001 + "\tgood\n",
                                  "very long text", ":4: a text of 1,000,001 characters"),
    "tsv, byte-order mark": ("classification", "tsv", b"\xef\xbb\xbf" + TSV.encode(),
                             "byte-order mark", ":1: is left out"),
    "tsv, mixed line ends": ("classification", "tsv", TSV + "a film\tbad\r\n", "mixed line ends",
                             ":4: 1 \\r\\n, 3 \\n"),
    "tsv, duplicate": ("classification", "tsv", TSV + "good film\tgood\n", "duplicate", ":4: as "),
    "tsv, contradiction": ("classification", "tsv", TSV + "good film\tbad\n", "contradiction",
                           "but with another answer: 'good film'"),
    "csv, mixed line ends": ("classification", "csv", CSV + '"a\nfilm",bad\r\n', "mixed line ends",
                             ":5: 1 \\r\\n, 3 \\n"),
    "tsv, a letter lost": ("classification", "tsv", TSV + "caf\ufffd\tbad\n", "wrong encoding",
                           ":4: U+FFFD at character 3"),
    "tsv, UTF-8 read as latin-1": ("classification", "tsv", TSV + "caf\xc3\xa9\tbad\n",
                                   "wrong encoding", ":4: '\xc3\xa9' at character 3: UTF-8 was"),
    "tsv, UTF-8 read as cp1252": ("classification", "tsv", TSV + "don\xe2\u20ac\u2122t\tbad\n",
                                  "wrong encoding", ":4: '\xe2\u20ac' at character 3: UTF-8 was"),
    "tsv, cp1252 read as latin-1": ("classification", "tsv", TSV + "a \x93film\x94\tbad\n",
                                    "wrong encoding", ":4: '\\x93' at character 2: cp1252 was"),
    "tsv, byte-order mark inside": ("classification", "tsv", TSV + "a \ufefffilm\tbad\n",
                                    "byte-order mark", ":4: at character 2: were files joined?"),
    "tsv, label with a blank": ("classification", "tsv", TSV + "a film\tgood \n", "labels alike",
                                ":4: label 'good ' next to 'good'"),
    "jsonl, NUL in a label": ("classification", "jsonl",
                              JSONL + '{"text": "a", "label": "go\\u0000od"}\n', "labels alike",
                              ":3: label 'go\\x00od' next to 'good'"),
    "jsonl, null row": ("classification", "jsonl", JSONL + "null\n", MALFORMED, ":3: expected a J"),
    "json, a surrogate": ("classification", "json",
                          '[{"text": "a", "label": "x"}, {"text": "b", "label": "y"},'
                          ' {"text": "\\udfff", "label": "x"}]', MALFORMED, ": item 3: '\\udfff'"),
    "parquet, null text": ("classification", "parquet", [*PARQUET, {"text": None, "label": "bad"}],
                           MALFORMED, ": row 3: text is None; expected a text"),
    "parquet, null label": ("classification", "parquet", [*PARQUET, {"text": "a", "label": None}],
                            MALFORMED, ": row 3: label None is none of ['bad', 'good']"),
    "parquet, empty text": ("classification", "parquet", [*PARQUET, {"text": "", "label": "bad"}],
                            "empty text", ": row 3: a text without a word"),
    "parquet, duplicate": ("classification", "parquet", [*PARQUET, PARQUET[0]], "duplicate",
                           ": row 3: as "),
    "tsv, cut text": ("classification", "tsv", TSV + "film " * 40 + "\tgood\n", "cut text",
                      ":4: is cut to 32 tokens, as are 1 of 3 (33.3%)"),
    "regression, a word": ("regression", "jsonl",
                           '{"text": "a", "label": 1.5}\n{"text": "b", "label": "x"}\n', MALFORMED,
                           ":2: label is 'x'; expected a number"),
    "regression, NaN": ("regression", "jsonl",
                        '{"text": "a", "label": 1.5}\n{"text": "b", "label": NaN}\n', MALFORMED,
                        ":2: label is nan"),
    "multi-label, a number": ("multi_label", "jsonl",
                              '{"text": "a", "labels": ["x", "y"]}\n{"text": "b", "labels": 1.5}\n',
                              MALFORMED, ":2: labels is 1.5"),
    "choices, one": ("multiple_choice", "jsonl",
                     '{"question": "a", "choices": ["b", "c"], "label": 0}\n'
                     '{"question": "a", "choices": ["b"], "label": 0}\n', MALFORMED,
                     ":2: 1 choices; at least two"),
    "choices, label too high": ("multiple_choice", "jsonl",
                                '{"question": "a", "choices": ["b", "c"], "label": 0}\n'
                                '{"question": "a", "choices": ["b", "c"], "label": 2}\n', MALFORMED,
                                ":2: label is 2; expected one of 0, 1"),
    "tags, I- behind O": ("token_classification", "conll", CONLL + "queen I-PER\n\n",
                          "invalid tag sequence", ":9: I-PER at the start (word 1, 'queen')"),
    "tags, misspelt": ("token_classification", "conll", CONLL.lower().replace(" o", " O"),
                       "read as", "'b-per' (1 times) as B-per"),
    "tags, one odd": ("token_classification", "conll", CONLL + "old O\nqueen PER\n\n", MALFORMED,
                      ":10: the tag of word 2, 'queen', is 'PER', but most look like B-TYPE"),
    "tags, first": ("token_classification", "conll", "B-X a\nO b\n", UNUSABLE,
                    ":1: the first column holds tags, such as 'B-X'"),
    "tags, numbered": ("token_classification", "conll", "1 a NN B-X\n2 b NN O\n", "read as",
                       "the first column numbers the words and is left out"),
    "tags, no blank lines": ("token_classification", "conll", "a B-X\nb O\n" * 501,
                             "very long sentence", ":1: a sentence of 1,002 words: are blank"),
    "tags, fewer than words": ("token_classification", "jsonl",
                               '{"tokens": ["a", "b"], "tags": ["O", "B-X"]}\n'
                               '{"tokens": ["a", "b"], "tags": ["O"]}\n', MALFORMED,
                               ":2: 2 words, but 1 tags"),
    "tags, no words": ("token_classification", "jsonl",
                       '{"tokens": ["a"], "tags": ["B-X"]}\n{"tokens": [], "tags": []}\n',
                       MALFORMED, ":2: tokens is empty"),
    "tags, entity without end": ("token_classification", "conll", "a S-X\nb B-X\nc O\n",
                                 "invalid tag sequence", ":3: O after B-X (word 3, 'c'); it is"),
    "tags, end of sentence": ("token_classification", "conll", "a S-X\nb B-X\n",
                              "invalid tag sequence", ":2: the sentence ends after B-X, which"),
    "tags, NUL": ("token_classification", "conll", CONLL + "quee\0n O\n", "NUL",
                  ":9: a NUL at character 4"),
    "tags, latin-1": ("token_classification", "conll", CONLL.encode() + b"caf\xe9 O\n", UNUSABLE,
                      ":9: not UTF-8"),
    "choices, empty": ("multiple_choice", "jsonl",
                       '{"question": "a", "choices": ["b", ""], "label": 0}\n', "empty text",
                       ":1: a text without a word"),
    # --- plain text
    "txt, latin-1": ("pretraining", "txt", b"a film\n\ncaf\xe9\n", UNUSABLE, ":3: not UTF-8"),
    "txt, empty": ("pretraining", "txt", "\n \n", UNUSABLE, "holds no rows"),
    "txt, NUL": ("pretraining", "txt", "a film.\n\nthe \0 book.\n", "NUL", ":1: a NUL at char"),
    "txt, mixed line ends": ("pretraining", "txt", "a film.\r\n\r\nthe book.\n",
                             "mixed line ends", ":3: 2 \\r\\n, 1 \\n"),
    "txt, byte-order mark": ("pretraining", "txt", "\ufeffa film.\n", "byte-order mark", ":1: is"),
    # --- answers
    "answer without its place": ("question_answering", "json",
                                 squad(("paris", 16)).replace('"answer_start": 16', '"start": 16'),
                                 MALFORMED, "[0].qas[0]: not in SQuAD's form (KeyError('answer"),
    "question too long": ("question_answering", "json", squad(("paris", 16), question="who " * 60),
                          MALFORMED, "question q1: the question has 60 tokens; with data.max_leng"),
    "answer elsewhere": ("question_answering", "json", squad(("paris", 3)), MALFORMED,
                         "'paris' is not at character 3; it is at 16"),
    "answer nearest": ("question_answering", "json", squad(("was in", 30)), MALFORMED,
                       "it is at 36"),
    "answer alike": ("question_answering", "json", squad(("Paris", 16)), MALFORMED,
                     "does not contain it, but 'aris' at 17"),
    "answer nowhere": ("question_answering", "json", squad(("rome", 16)), MALFORMED,
                       "the context does not contain it"),
    "answer negative": ("question_answering", "json", squad(("the", -1)), MALFORMED, "at -1"),
    "answer absent": ("question_answering", "json", squad(), MALFORMED, "no answer. For SQuAD"),
    "question empty": ("question_answering", "json", squad(("paris", 16), question=" "),
                       "empty text", "a text without a word"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_problem_in_a_file_is_reported_with_its_line(checkpoint, tmp_path, name):
    task, ending, content, kind, message = CASES[name]
    options = {"next_sentence": False, "whole_words": True} if task == "pretraining" else {}
    issues = issues_in(checkpoint, tmp_path, task, {"train": (ending, content)}, **options)
    reports = [str(issue) for issue in issues if issue.kind == kind]
    assert any(message in text and f"train.{ending}" in text for text in reports), issues
    # And nothing besides, but for what follows from the first: a file without any good row.
    assert {issue.kind for issue in issues} <= {kind, "duplicate", "mixed line ends",
                                                   "other columns", "unknown words",
                                                   UNUSABLE}  # fmt: skip


COMPARED = {
    "leak": ("classification", "tsv", TSV, "text\tlabel\nbad film\tbad\n", "leak",
             "eval.tsv:2: is in the training data too ("),
    "unknown label": ("classification", "tsv", TSV, "text\tlabel\na film\tfine\n", MALFORMED,
                      "eval.tsv:2: label 'fine' is none of ['bad', 'good']"),
    "unseen tag": ("token_classification", "conll", CONLL.replace("I-", "B-"), CONLL[2:],
                   "unseen label", "label 'I-PER' is in no training example"),
    "leak with another label": ("classification", "tsv", TSV, "text\tlabel\nbad film\tgood\n",
                                "leak", "train.tsv:3), with another answer: 'bad film'"),
    "leaked choices": ("multiple_choice", "jsonl",
                       '{"question": "a", "choices": ["b", "c"], "label": 0}\n',
                       '{"question": "a", "choices": ["c", "b"], "label": 1}\n', "leak",
                       "train.jsonl:1): 'a | b | c'"),
    "first unknown tag": ("token_classification", "conll", CONLL, "a B-X\n\nb O\n\nc B-Y\n",
                          MALFORMED, "eval.conll:1: label 'B-X' is none of"),
    "second unknown tag": ("token_classification", "conll", CONLL, "a B-X\n\nb O\n\nc B-Y\n",
                           MALFORMED, "eval.conll:5: label 'B-Y' is none of"),
    "duplicate in eval": ("classification", "tsv", TSV, "text\tlabel\nfilm\tbad\nfilm\tbad\n",
                          "duplicate", "eval.tsv:3: as "),
    "contradiction in eval": ("classification", "tsv", TSV,
                              "text\tlabel\nfilm\tbad\nfilm\tgood\n", "contradiction",
                              "but with another answer: 'film'"),
    "leaked context": ("question_answering", "json", squad(("paris", 16)),
                       squad(("paris", 16), question="which city?"), "leaked context",
                       "question q1: its context is in the training data too"),
    "leaked question": ("question_answering", "json", squad(("paris", 16)), squad(("paris", 16)),
                        "leak", "question q1: is in the training data too"),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPARED)
def test_a_problem_between_train_and_eval_is_reported(checkpoint, tmp_path, name):
    task, ending, train, held, kind, message = COMPARED[name]
    contents = {"train": (ending, train), "eval": (ending, held)}
    issues = issues_in(checkpoint, tmp_path, task, contents)
    assert any(message in str(issue) for issue in issues if issue.kind == kind), issues


def test_labels_without_a_training_example_are_reported(checkpoint, tmp_path):
    labels = ("bad", "good", "fine")
    (issue,) = issues_in(
        checkpoint, tmp_path, "classification", {"train": ("tsv", TSV)}, labels=labels
    )
    assert str(issue) == "labels: 'fine' is in no training example, so it cannot be learned"


def questions(*changes: dict) -> str:
    """SQuAD with one good question, and those that differ from it."""
    data = json.loads(squad(("paris", 16)))
    asked = data["data"][0]["paragraphs"][0]["qas"]
    asked += [asked[0] | {"id": f"q{n}", "question": f"who {n}?"} | each
              for n, each in enumerate(changes, start=2)]  # fmt: skip
    return json.dumps(data)


def test_contradicting_ids_and_is_impossible_flags_are_reported(checkpoint, tmp_path):
    content = questions(
        {"id": "q1"}, {"is_impossible": True}, {"is_impossible": False}, {"answers": []},
        {"answers": [], "is_impossible": True}, {"answers": [], "is_impossible": False},
    )  # fmt: skip
    contents = {"train": ("json", content)}
    issues = issues_in(checkpoint, tmp_path, "question_answering", contents, unanswerable=True)
    assert [str(issue).partition(".json: ")[2] for issue in issues if issue.kind == "id twice"] == [
        "question q1: question 2 has the id 'q1', as has question 1; it identifies predictions"
    ]
    assert [str(issue).partition(".json: ")[2] for issue in issues if "imp" in issue.kind] == [
        "question q3: is_impossible is True, but there is an answer, which counts",
        "question q7: is_impossible is False, but there is no answer, which counts",
    ]


def test_all_questions_that_are_too_long_are_reported_with_truncated_texts(checkpoint, tmp_path):
    contents = {"train": ("json", questions({"question": "who " * 40}, {"question": "who " * 50}))}
    issues = issues_in(checkpoint, tmp_path, "question_answering", contents)
    assert [issue.text.partition(": ")[2][:11] for issue in issues if issue.kind == MALFORMED] == [
        "question q2", "question q3"
    ]  # fmt: skip
    made = config(checkpoint, "question_answering", {"train": tmp_path / "train.json"})
    with pytest.raises(DataError, match=r"train\.json: question q2: .* \(and 1 more\)"):
        load_data(made)


def test_a_data_set_that_cannot_be_fetched_does_not_hide_issues_of_another(checkpoint, tmp_path):
    (tmp_path / "train.tsv").write_text(TSV + "a film\n")
    made = config(checkpoint, "classification", {"train": tmp_path / "train.tsv"})
    made.data.eval = "nobody/absent-data"
    assert [each.kind for each in lint.lint(made)] == [UNUSABLE, MALFORMED]


def test_an_answer_that_no_window_contains_is_reported(checkpoint, tmp_path):
    words = " ".join(["the"] * 40)
    content = json.dumps(
        {"data": [{"paragraphs": [{"context": words, "qas": [
            {"id": "q", "question": "who?", "answers": [{"text": words, "answer_start": 0}]}]}]}]}
    )  # fmt: skip
    issues = issues_in(checkpoint, tmp_path, "question_answering", {"train": ("json", content)})
    assert [issue.kind for issue in issues] == ["answer in no window", UNUSABLE]
    assert "nothing to learn from: no window contains a complete answer; raise" in issues[1].text
    assert "no window contains a complete answer (1 of 1 questions)" in issues[0].text


def paragraph(context: str, *questions: tuple[str, list[str]]) -> str:
    """SQuAD's form; answers are where they first stand."""
    qas = [
        {
            "id": f"q{n}",
            "question": question,
            "answers": [{"text": a, "answer_start": context.index(a)} for a in answers],
        }
        for n, (question, answers) in enumerate(questions)
    ]
    return json.dumps({"data": [{"paragraphs": [{"context": context, "qas": qas}]}]})


def test_answers_longer_than_the_longest_prediction_are_reported_and_counted(
    checkpoint, tmp_path, caplog
):
    words = " ".join(["the"] * 20)
    questions = [(f"who {n}?", [words[: 4 * n - 1]]) for n in range(1, 13)]
    path = tmp_path / "train.json"
    path.write_text(paragraph(words, *questions))
    issues = issues_in(
        checkpoint,
        tmp_path,
        "question_answering",
        {"train": ("json", path.read_text())},
        max_answer_length=8,
    )
    assert [issue.kind for issue in issues] == ["answer too long"] * 4
    assert "has 9 tokens, more than options.max_answer_length=8 (4 of 12)" in issues[0].text
    assert issues[0].place.endswith("question q8")
    files = {"train": path, "eval": path}
    made = config(checkpoint, "question_answering", files, max_answer_length=8)
    _, data = load_data(made)
    for key in ("train", "eval"):
        assert data.counts[f"data/{key}/answer_too_long"] == 4
        assert data.counts[f"data/{key}/answer_in_no_window"] == 0
    assert "4 of 12 gold answers are longer than options.max_answer_length=8 tokens" in caplog.text
    assert "the longest has 12: set --config.options.max_answer_length=12." in caplog.text


def test_a_question_is_answerable_if_one_of_its_answers_can_be_predicted(checkpoint, tmp_path):
    words = " ".join(["the"] * 20)
    issues = issues_in(
        checkpoint,
        tmp_path,
        "question_answering",
        {"train": ("json", paragraph(words, ("who?", [words, "the"])))},
        max_answer_length=8,
    )
    assert not issues


def test_data_without_anything_to_learn_stops_before_the_first_step(checkpoint, tmp_path):
    invisible = "\u200b\tO\n\u200b\tB-LOC\n\n"
    words = " ".join(["the"] * 60)
    unmaskable = json.dumps({"file": "a", "text": "qqqqqqqqqqqqqqqqqq"})
    for task, suffix, content, reason in (
        ("question_answering", "json", paragraph(words, ("who?", [words])), "no window contains a"),
        ("token_classification", "conll", invisible, "no word has a visible character"),
        ("pretraining", "jsonl", unmaskable, "no word can be masked"),
    ):
        path = tmp_path / f"nothing.{suffix}"
        path.write_text(content)
        options = {"next_sentence": False, "whole_words": True} if task == "pretraining" else {}
        made = config(checkpoint, task, {"train": path}, **options)
        with pytest.raises(DataError, match=f"nothing.{suffix}: nothing to learn from: {reason}"):
            load_data(made)


@pytest.mark.parametrize(
    ("train", "held", "kinds"),
    [
        (["paris"], ["paris", "in paris", "paris"], ["leak"]),
        (["in paris"], ["in london"], ["leak, with another answer"]),
    ],
)
def test_questions_agree_if_they_have_an_answer_in_common(train, held, kinds, checkpoint, tmp_path):
    context = "the king was in paris and in london"
    files = {
        key: ("json", paragraph(context, ("where?", answers)))
        for key, answers in (("train", train), ("eval", held))
    }
    issues = issues_in(checkpoint, tmp_path, "question_answering", files)
    reported = [
        issue.kind + (", with another answer" if "another" in issue.text else "")
        for issue in issues
    ]
    assert reported == kinds
    twice = paragraph(context, ("where?", train), ("where?", held))
    issues = issues_in(checkpoint, tmp_path, "question_answering", {"train": ("json", twice)})
    assert [issue.kind for issue in issues] == [
        "contradiction" if "another" in kinds[0] else "duplicate"
    ]


CLEAN = {
    "a newline in a cell": ("classification", "csv", 'text,label\r\n"a\nb",x\r\nc,y\r\n'),
    "line ends of Windows": ("classification", "tsv", TSV.replace("\n", "\r\n")),
    "capital letters with accents": ("classification", "tsv", TSV + "\xc9, \xc3 and \xc2\tbad\n"),
    "a column that half of the rows have": ("classification", "jsonl", JSONL + "".join(
        f'{{"text": "film {n}", "label": "good", "more": 1}}\n' for n in range(2))),
    "I- tags in IOB1": ("token_classification", "conll", "a I-X\nb I-X\nc B-X\n\nd I-Y\n"),
    "BIOES": ("token_classification", "conll", "a B-X\nb E-X\nc S-X\n\nd O\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", CLEAN)
def test_valid_data_that_looks_wrong_is_not_reported(checkpoint, tmp_path, name):
    task, ending, content = CLEAN[name]
    assert not issues_in(checkpoint, tmp_path, task, {"train": (ending, content)})


def test_a_row_with_two_mistakes_is_skipped_and_counted_once(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"text": "a", "labels": ["x", "y"]}\n{"text": null, "labels": null}\n'
    )
    table = readers.read(str(tmp_path / "a.jsonl"), DataConfig(on_bad_row="skip"), split="train")
    kind = TASKS["multi_label"]
    data, options = DataConfig(on_bad_row="skip"), kind.options_type()
    raw = kind.read(table, data, options, labeled=True)
    examples = kind.create(data, options, raw, {}).resolve(raw)
    assert len(examples) == 1
    assert table.malformed + examples.malformed == 1


def test_equal_mistakes_are_all_counted(checkpoint, tmp_path):
    content = squad(("paris", 16), ("paris", 3), ("paris", 3))
    issues = issues_in(checkpoint, tmp_path, "question_answering", {"train": ("json", content)})
    assert [issue.kind for issue in issues] == [MALFORMED, MALFORMED]


def test_a_mistake_in_the_configuration_does_not_hide_mistakes_in_the_data(checkpoint, tmp_path):
    content = TSV.replace("bad\n", "good\n") + "a film\n"
    issues = issues_in(checkpoint, tmp_path, "classification", {"train": ("tsv", content)})
    assert [issue.kind for issue in issues] == [UNUSABLE, MALFORMED]
    assert "two labels or more are needed" in issues[0].text


def test_searching_a_long_context_is_fast(tmp_path):
    row = Record(
        {
            "context": "the king was in paris " * 450_000,
            "answers": {"text": ["the kong in rome"] * 9, "answer_start": [16] * 9},
        },
        "a:1",
    )
    start = time.perf_counter()
    with pytest.raises(DataError, match="'the kong in rome' is not at character 16"):
        read_answers(row, unanswerable=False)
    assert time.perf_counter() - start < 5


def test_without_the_model_everything_but_lengths_is_checked(tmp_path):
    broken = tmp_path / "model"
    broken.mkdir()
    issues = issues_in(
        broken, tmp_path, "classification", {"train": ("tsv", TSV + "good film\tbad\n")}
    )
    assert {issue.kind for issue in issues} == {"without tokenizer", "contradiction"}


@pytest.mark.parametrize("task", sorted(TASKS))
def test_clean_data_has_no_issues(checkpoint, tmp_path, task):
    made = make_config(task, checkpoint, tmp_path, count=8)
    kinds = {issue.kind for issue in lint.lint(made)}
    assert not kinds - {"duplicate", "leak", "contradiction", "cut text"}  # texts made by chance


LETTERS = ("cut text", "answer in no window", "answer too long", "words that become one")
"""What comes of the tiny vocabulary, which spells most words letter by letter, without accents."""


def test_how_a_file_is_read_is_a_note_not_a_warning(checkpoint, tmp_path, capsys):
    issues = issues_in(checkpoint, tmp_path, "classification", {"train": ("csv", TSV)})
    assert lint.report(issues, [UNUSABLE, MALFORMED], everything=False) == 0
    printed = capsys.readouterr().out
    assert "note: read as, 1\n" in printed
    assert "tabs separate the columns here, not commas. If that is wrong, set --config." in printed
    assert printed.endswith("0 errors, 0 warnings\n")


def test_the_example_files_have_no_issues(checkpoint):
    for file in sorted((ROOT / "examples" / "data").glob("*_train.*")):
        task, options = {
            ".json": (
                "question_answering",
                question_answering.QuestionAnsweringOptions(unanswerable=True),
            ),
            ".conll": ("token_classification", None),
        }.get(file.suffix, ("classification", classification.ClassificationOptions()))
        data = DataConfig(train=str(file), eval=str(file).replace("_train", "_eval"))
        data.max_length = 160
        model = ModelConfig(init=str(checkpoint), max_position_embeddings=160)
        issues = lint.lint(Config(task=task, model=model, data=data, options=options))
        assert not [str(issue) for issue in issues if issue.kind not in LETTERS]


def run_lint(capsys, *arguments: str) -> tuple[int, str]:
    code = lint.main([f"--config={ROOT}/configs/sentiment.py", *arguments])
    return code, capsys.readouterr().out


def test_the_command_groups_and_counts_issues_and_errors_exit_with_2(checkpoint, tmp_path, capsys):
    file = tmp_path / "train.tsv"
    file.write_text(TSV + "good film\tgood\n" * 7)
    flags = (f"--config.data.train={file}", "--config.data.eval=none",
             f"--config.model.init={checkpoint}", "--config.data.max_length=32",
             "--config.options.labels=('bad','good')")  # fmt: skip
    code, out = run_lint(capsys, *flags)
    assert code == 0
    assert "warning: duplicate, 7\n" in out
    assert out.count("as ") == 5
    assert "... and 2 more (--all)" in out
    assert out.endswith("0 errors, 7 warnings\n")
    assert run_lint(capsys, *flags, "--all")[1].count("as ") == 7
    file.write_text(TSV + "a film\n")
    code, out = run_lint(capsys, *flags)
    assert code == 2
    assert out.startswith("error: malformed, 1\n")
    skip = "--config.data.on_bad_row=skip"
    code, out = run_lint(capsys, *flags, skip)
    assert code == 0  # a run would go on
    assert out == f"warning: malformed, 1\n{out.splitlines()[1]}\n0 errors, 1 warnings\n"
    file.write_bytes(TSV.encode() + b"caf\xe9\tgood\n")
    code, out = run_lint(capsys, *flags, skip)
    assert code == 2  # but not over a file that cannot be decoded
    assert out.startswith("error: unusable, 1\n")


def test_a_run_counts_skipped_rows_and_logs_one_warning_for_each_kind(checkpoint, tmp_path, caplog):
    made = make_config("classification", checkpoint, tmp_path, count=16)
    train, held = Path(made.data.train), Path(made.data.eval)
    lines = train.read_text().splitlines(keepends=True)
    train.write_text("".join([*lines, "{\n", '{"text": null, "label": "positive"}\n', *lines]))
    held.write_text(held.read_text() + "{\n" + lines[0])
    with pytest.raises(DataError, match=r"train\.jsonl:17: not valid JSON"):
        load_data(made)
    made.data = dataclasses.replace(made.data, on_bad_row="skip")
    with caplog.at_level(logging.WARNING):
        _, data = load_data(made)
    assert data.counts == {"data/train/malformed": 2, "data/eval/malformed": 1}
    messages = [record.getMessage() for record in caplog.records]
    assert len([text for text in messages if text.startswith("duplicate: ")]) == 1
    assert len([text for text in messages if text.startswith("leak: ")]) == 1
    assert any("more; flaxbert lint --config=... lists all)" in text for text in messages)


def test_a_question_that_leaves_no_room_is_skipped_and_counted_if_asked(checkpoint, tmp_path):
    made = make_config("question_answering", checkpoint, tmp_path, count=16)
    file = Path(made.data.train)
    document = json.loads(file.read_text())
    document["data"][0]["paragraphs"][3]["qas"][0]["question"] = "who " * 60
    file.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"train\.json.*question q3"):
        load_data(made)
    made.data = dataclasses.replace(made.data, on_bad_row="skip")
    _, data = load_data(made)
    assert data.counts["data/train/malformed"] == 1
    assert len(data.train.examples) == 15


def fingerprints(made: Config) -> dict[str, str]:
    pipeline, data = load_data(made)
    return data.fingerprints(pipeline.task)


@pytest.mark.parametrize("change", ["label names", "reference answers"])
def test_changed_data_with_equal_features_is_different_data(checkpoint, tmp_path, change):
    task = "classification" if change == "label names" else "question_answering"
    made = make_config(task, checkpoint, tmp_path, count=8)
    before = fingerprints(made)
    assert fingerprints(made) == before
    for file in (Path(made.data.train), Path(made.data.eval)):
        text = file.read_text().replace("negative", "bad").replace("positive", "good")
        if task == "question_answering":  # a second reference, of which features hold nothing
            document = json.loads(text)
            for paragraph in document["data"][0]["paragraphs"]:
                paragraph["qas"][0]["answers"] *= 2
                first = paragraph["context"].split()[0]
                paragraph["qas"][0]["answers"][1] = {"text": first, "answer_start": 0}
            text = json.dumps(document)
        file.write_text(text)
    after = fingerprints(made)
    assert {name for name in before if before[name] != after[name]} == {"train", "eval"}
