"""Everything wrong or doubtful in data is found, with its place, and stops a run or is counted."""

import dataclasses
import json
import logging
from pathlib import Path

import pytest
from toy import make_config

import flaxbert
from flaxbert import lint
from flaxbert.config import Config, DataConfig, ModelConfig
from flaxbert.data.findings import MALFORMED
from flaxbert.errors import DataError
from flaxbert.tasks import TASKS, classification, question_answering

ROOT = Path(__file__).parents[1]

TSV = "text\tlabel\ngood film\tgood\nbad film\tbad\n"
CSV = "text,label\ngood film,good\nbad film,bad\n"
JSONL = '{"text": "good film", "label": "good"}\n{"text": "bad film", "label": "bad"}\n'
CONLL = "the O\nking B-PER\nof I-PER\nparis I-PER\n\nthe O\nriver O\n\n"
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


def found_in(checkpoint, directory, task, contents: dict[str, tuple[str, str | bytes]], **options):
    """Findings in files given as {key: (ending, content)}."""
    files = {}
    for key, (ending, content) in contents.items():
        files[key] = directory / f"{key}.{ending}"
        if isinstance(content, bytes):
            files[key].write_bytes(content)
        else:
            files[key].write_bytes(content.encode("utf-8", "surrogatepass"))
    return lint.lint(config(checkpoint, task, files, **options))


# Task, ending, content, the kind of the finding, what its message begins with and contains.
CASES = {
    # --- what cannot be parsed
    "tsv, too few columns": ("classification", "tsv", TSV + "a film\n", MALFORMED, ":4: 1 columns"),
    "tsv, too many columns": ("classification", "tsv", TSV + "a\tgood\tx\n", MALFORMED, ":4: 3 c"),
    "tsv, column twice": ("classification", "tsv", "text\ttext\na\tb\n", MALFORMED, ":1: colu"),
    "tsv, latin-1": ("classification", "tsv", TSV.encode() + "caf\xe9\tgood\n".encode("latin-1"),
                     MALFORMED, ":4: not UTF-8; convert the file, for example with iconv"),
    "tsv, utf-16": ("classification", "tsv", TSV.encode("utf-16"), MALFORMED, ":1: not UTF-8"),
    "tsv, empty": ("classification", "tsv", "", MALFORMED, "holds no rows"),
    "tsv, a header alone": ("classification", "tsv", "text\tlabel\n", MALFORMED, "holds no rows"),
    "csv, quote left open": ("classification", "csv", CSV + '"a film,good\n', MALFORMED, ":4: "),
    "csv, too few columns": ("classification", "csv", CSV + "a film\n", MALFORMED, ":4: 1 columns"),
    "jsonl, not JSON": ("classification", "jsonl", JSONL + "{text: a}\n", MALFORMED, ":3: not v"),
    "jsonl, cut": ("classification", "jsonl", JSONL + '{"text": "a', MALFORMED, ":3: not valid"),
    "jsonl, a list": ("classification", "jsonl", JSONL + "[1]\n", MALFORMED, ":3: expected a JSON"),
    "json, not JSON": ("classification", "json", '[{"text": "a"\n', MALFORMED, "not valid JSON"),
    "json, an object": ("classification", "json", '{"text": "a"}', MALFORMED, "expected a list"),
    "parquet, not Parquet": ("classification", "parquet", b"PAR1...", MALFORMED, "not a readable"),
    "conll, a column less": ("token_classification", "conll", CONLL + "queen\n", MALFORMED,
                             ":9: columns: 1; expected 2, as in line 1"),
    "conll, no tag": ("token_classification", "conll", CONLL.replace(" ", "\t") + "queen\t\n",
                      MALFORMED, ":9: "),
    "conll, old Mac": ("token_classification", "conll", CONLL + "a O\rb O\n", MALFORMED,
                       ":9: a carriage return"),
    "squad, not SQuAD": ("question_answering", "json",
                         '{"data": [{"paragraphs": [{"context": "a"}]}]}', MALFORMED, "SQuAD"),
    # --- columns
    "tsv, no label column": ("classification", "tsv", "text\tlab\na\tb\n", MALFORMED,
                             "no column 'label'; its columns are ['text', 'lab']"),
    "jsonl, no text column": ("classification", "jsonl",
                              '{"a": "b", "label": "x"}\n{"a": "b", "label": "y"}\n', MALFORMED,
                              "no column 'text'"),
    "jsonl, a key less": ("classification", "jsonl",
                          '{"id": 1, "text": "a", "label": "x"}\n' + JSONL, "other columns",
                          ":2: lacks ['id'], unlike the first row"),
    "jsonl, a key more": ("classification", "jsonl",
                          JSONL + '{"text": "a", "label": "bad", "x": 1}\n', "other columns",
                          ":3: has ['x'] besides"),
    # --- values
    "jsonl, null text": ("classification", "jsonl", JSONL + '{"text": null, "label": "bad"}\n',
                         MALFORMED, ":3: text is None; expected a text"),
    "jsonl, number for text": ("classification", "jsonl", JSONL + '{"text": 5, "label": "bad"}\n',
                               MALFORMED, ":3: text is 5"),
    "jsonl, null label": ("classification", "jsonl", JSONL + '{"text": "a", "label": null}\n',
                          MALFORMED, ":3: label None is none of"),
    "jsonl, list for label": ("classification", "jsonl", JSONL + '{"text": "a", "label": [1]}\n',
                              MALFORMED, ":3: label [1]"),
    "jsonl, half a surrogate pair": ("classification", "jsonl",
                                     JSONL + '{"text": "a \\ud800", "label": "bad"}\n', MALFORMED,
                                     "surrogate"),
    "jsonl, NUL": ("classification", "jsonl", JSONL + '{"text": "a\\u0000b", "label": "bad"}\n',
                   "NUL", ":3: a NUL at character 1"),
    "tsv, empty text": ("classification", "tsv", TSV + "  \tgood\n", "empty text", ":4: a text wi"),
    "tsv, ten million characters": ("classification", "tsv", TSV + "a" * 10_000_000 + "\tgood\n",
                                    "very long text", ":4: a text of 10,000,000 characters"),
    "tsv, byte-order mark": ("classification", "tsv", b"\xef\xbb\xbf" + TSV.encode(),
                             "byte-order mark", ":1: is left out"),
    "tsv, mixed line ends": ("classification", "tsv", TSV + "a film\tbad\r\n", "mixed line ends",
                             ":4: 1 \\r\\n, 3 \\n"),
    "tsv, duplicate": ("classification", "tsv", TSV + "good film\tgood\n", "duplicate", ":4: as "),
    "tsv, contradiction": ("classification", "tsv", TSV + "good film\tbad\n", "contradiction",
                           "but with another answer: 'good film'"),
    "tsv, cut text": ("classification", "tsv", TSV + "film " * 40 + "\tgood\n", "cut texts",
                      "1 of 3 examples (33.3%) are cut to 32 tokens"),
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
                          "invalid tag sequence", ":9: an I- tag that continues no entity"),
    "tags, misspelt": ("token_classification", "conll", CONLL.lower().replace(" o", " O"),
                       MALFORMED, "tags such as 'b-per'; expected B-PER"),
    "tags, fewer than words": ("token_classification", "jsonl",
                               '{"tokens": ["a", "b"], "tags": ["O", "B-X"]}\n'
                               '{"tokens": ["a", "b"], "tags": ["O"]}\n', MALFORMED,
                               ":2: 2 words, but 1 tags"),
    "tags, no words": ("token_classification", "jsonl",
                       '{"tokens": ["a"], "tags": ["B-X"]}\n{"tokens": [], "tags": []}\n',
                       MALFORMED, ":2: tokens is empty"),
    # --- answers
    "answer elsewhere": ("question_answering", "json", squad(("paris", 3)), MALFORMED,
                         "'paris' is not at character 3; it stands at 16"),
    "answer nearest": ("question_answering", "json", squad(("was in", 30)), MALFORMED,
                       "it stands at 36"),
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
def test_what_is_wrong_is_found_with_its_place(checkpoint, tmp_path, name):
    task, ending, content, kind, message = CASES[name]
    found = found_in(checkpoint, tmp_path, task, {"train": (ending, content)})
    told = [str(finding) for finding in found if finding.kind == kind]
    assert any(message in text and f"train.{ending}" in text for text in told), found
    # And nothing besides, but for what follows from the first: a file that cannot be read at all.
    assert {finding.kind for finding in found} <= {kind, "duplicate", "mixed line ends",
                                                   "other columns"}  # fmt: skip


COMPARED = {
    "leak": ("classification", "tsv", TSV, "text\tlabel\nbad film\tbad\n", "leak",
             "eval.tsv:2: is in the training data too ("),
    "unknown label": ("classification", "tsv", TSV, "text\tlabel\na film\tfine\n", MALFORMED,
                      "eval.tsv:2: label 'fine' is none of ['bad', 'good']"),
    "unseen tag": ("token_classification", "conll", CONLL.replace("I-", "B-"), CONLL[2:],
                   "unseen label", "label 'I-PER' is in no training example"),
    "leaked question": ("question_answering", "json", squad(("paris", 16)), squad(("paris", 16)),
                        "leak", "question q1: is in the training data too"),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPARED)
def test_what_shows_between_train_and_eval_is_found(checkpoint, tmp_path, name):
    task, ending, train, held, kind, message = COMPARED[name]
    contents = {"train": (ending, train), "eval": (ending, held)}
    found = found_in(checkpoint, tmp_path, task, contents)
    assert any(message in str(finding) for finding in found if finding.kind == kind), found


def test_an_answer_that_no_window_holds_is_found(checkpoint, tmp_path):
    words = " ".join(["the"] * 40)
    content = json.dumps(
        {"data": [{"paragraphs": [{"context": words, "qas": [
            {"id": "q", "question": "who?", "answers": [{"text": words, "answer_start": 0}]}]}]}]}
    )  # fmt: skip
    found = found_in(checkpoint, tmp_path, "question_answering", {"train": ("json", content)})
    assert [finding.kind for finding in found] == ["answer in no window"]


def test_without_the_model_all_but_lengths_is_checked(tmp_path):
    broken = tmp_path / "model"
    broken.mkdir()
    found = found_in(
        broken, tmp_path, "classification", {"train": ("tsv", TSV + "good film\tbad\n")}
    )
    assert {finding.kind for finding in found} == {"without tokenizer", "contradiction"}


@pytest.mark.parametrize("task", sorted(TASKS))
def test_clean_data_gives_no_finding(checkpoint, tmp_path, task):
    made = make_config(task, checkpoint, tmp_path, count=8)
    kinds = {finding.kind for finding in lint.lint(made)}
    assert not kinds - {"duplicate", "leak", "contradiction", "cut texts"}  # texts made by chance


def test_the_examples_are_clean(checkpoint):
    for file in sorted((ROOT / "examples" / "data").glob("*_train.*")):
        task, options = {
            ".json": ("question_answering", question_answering.Options(unanswerable=True)),
            ".conll": ("token_classification", None),
        }.get(file.suffix, ("classification", classification.Options()))
        data = DataConfig(train=str(file), eval=str(file).replace("_train", "_eval"))
        data.max_length = 160
        model = ModelConfig(init=str(checkpoint), positions=160)
        found = lint.lint(Config(task=task, model=model, data=data, options=options))
        assert not [str(f) for f in found if f.kind not in ("cut texts", "answer in no window")]


def run_lint(capsys, *arguments: str) -> tuple[int, str]:
    code = lint.main(["lint", f"--config={ROOT}/configs/sentiment.py", *arguments])
    return code, capsys.readouterr().out


def test_the_command_groups_counts_and_tells_by_its_exit_code(checkpoint, tmp_path, capsys):
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
    assert run_lint(capsys, *flags, "--config.data.malformed=skip")[0] == 0  # a run would go on


def test_a_run_counts_what_it_leaves_out_and_warns_in_a_line_a_kind(checkpoint, tmp_path, caplog):
    made = make_config("classification", checkpoint, tmp_path, count=16)
    made.train.max_steps = 1
    train, held = Path(made.data.train), Path(made.data.eval)
    lines = train.read_text().splitlines(keepends=True)
    train.write_text("".join([*lines, "{\n", '{"text": null, "label": "positive"}\n', *lines]))
    held.write_text(held.read_text() + "{\n" + lines[0])
    with pytest.raises(DataError, match=r"train\.jsonl:17: not valid JSON"):
        flaxbert.train(made, tmp_path / "refused")
    made.data = dataclasses.replace(made.data, malformed="skip")
    with caplog.at_level(logging.WARNING):
        results = flaxbert.train(made, tmp_path / "run")
    assert results["data/train/malformed"] == 2
    assert results["data/eval/malformed"] == 1
    told = [record.getMessage() for record in caplog.records]
    assert len([text for text in told if text.startswith("duplicate: ")]) == 1
    assert len([text for text in told if text.startswith("leak: ")]) == 1
    assert any("more; python -m flaxbert.lint --config=... lists all)" in text for text in told)
