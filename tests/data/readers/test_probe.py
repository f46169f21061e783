"""Checkpoints whose tokenizers are not what they seem: read as they are stored, or refused."""

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import kinds
import pytest
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

from flaxbert.config import Config, DataConfig, ModelConfig
from flaxbert.data.readers import probe
from flaxbert.data.tokenization import id_count, load_tokenizer, needs_blank, save
from flaxbert.errors import WeightsError
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.tasks.classification import ClassificationOptions as ClassificationOptions
from flaxbert.tasks.pretraining import PreTraining
from flaxbert.tasks.pretraining import PreTrainingOptions as PreTrainingOptions
from flaxbert.tasks.question_answering import QuestionAnswering, QuestionAnsweringOptions
from flaxbert.tasks.question_answering import QuestionExample as Question

LONG = " ".join(kinds.SENTENCES)


def edited(directory: Path, **parts: Any) -> Path:
    """Change parts of a directory's tokenizer.json."""
    file = directory / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | parts))
    return directory


def rebuilt(directory: Path, **parts: Any) -> Path:
    """Change parts of a directory's tokenizer.json, as objects of the tokenizers library."""
    built = Tokenizer.from_file(str(directory / "tokenizer.json"))
    for name, part in parts.items():
        setattr(built, name, part)
    built.save(str(directory / "tokenizer.json"))
    return directory


def answered(tokenizer: Any, context: str, answer: str, **lengths: int) -> list[str]:
    """The texts of the gold spans, window by window, of those that hold the answer."""
    task = QuestionAnswering.create(
        DataConfig(**({"max_length": 64, "overlap": 8} | lengths)),
        QuestionAnsweringOptions(),
        None,
        {},
    )
    example = Question("q", "who?", context, ((answer, context.index(answer)),), None, "x.json:1")
    features = task.featurize([example], tokenizer, labeled=True)
    texts = []
    for window, first in enumerate(features.sequence_start[:-1]):
        start, end = (int(features.token_indices[side][window]) for side in ("start", "end"))
        if start > 0:
            begin, stop = (features.per_token[f"char_{side}"] for side in ("start", "end"))
            record = task._record(example, (0.0, begin[first + start], stop[first + end]), 0.0)
            assert context[record["start"] : record["end"]] == record["answer"]
            texts.append(record["answer"])
    return texts


# --- the file's own tokens ---------------------------------------------------------------------


@pytest.mark.parametrize("name", kinds.KINDS)
@pytest.mark.parametrize("settings", [True, False])
def test_texts_get_the_tokens_of_tokenizer_json(name: str, settings: bool, tmp_path: Path) -> None:
    directory = kinds.write_tokenizer(name, tmp_path)
    if not settings:
        (directory / "tokenizer_config.json").unlink()
    loaded = load_tokenizer(directory)
    stored = Tokenizer.from_file(str(directory / "tokenizer.json"))
    stored.encode_special_tokens = True
    for text in (*kinds.SENTENCES, *probe.TEXTS):
        encoding, expected = loaded([text]).encodings[0], stored.encode(text)
        assert (encoding.tokens, encoding.offsets) == (expected.tokens, expected.offsets)


def test_a_cased_tokenizer_json_beside_a_vocabulary_stays_cased(tmp_path: Path) -> None:
    directory = kinds.write_tokenizer("cased", tmp_path)
    vocab = json.loads((directory / "tokenizer.json").read_text())["model"]["vocab"]
    (directory / "vocab.txt").write_text("\n".join(sorted(vocab, key=vocab.__getitem__)) + "\n")
    (directory / "tokenizer_config.json").unlink()
    assert load_tokenizer(directory).tokenize("The Queen") != load_tokenizer(directory).tokenize(
        "the queen"
    )


def test_what_tokenizer_config_says_of_case_counts(tmp_path: Path) -> None:
    directory = kinds.write_tokenizer("cased", tmp_path, do_lower_case=True)
    tokenizer = load_tokenizer(directory)
    assert tokenizer.tokenize("The KING") == tokenizer.tokenize("the king")


@pytest.mark.parametrize(("words", "pieces"), [(("schön",), ["schön"]), ((), ["schon"])])
def test_accents_that_a_bare_vocabulary_has_stay(
    words: tuple[str, ...], pieces: list[str], tmp_path: Path
) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join([*kinds.BERT, "schon", *words]) + "\n")
    assert load_tokenizer(tmp_path).tokenize("Schön") == pieces


# --- special tokens ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cased", "roberta", "modernbert", "albert"])
def test_a_tokenizer_without_special_tokens_around_a_text_is_refused(
    name: str, tmp_path: Path
) -> None:
    directory = edited(kinds.write_tokenizer(name, tmp_path), post_processor=None)
    with pytest.raises(WeightsError, match="adds no special token before or after a text"):
        load_tokenizer(directory)


@pytest.mark.parametrize(
    ("single", "pair", "message"),
    [
        ("[CLS] $A", "[CLS] $A $B", "before or after"),
        ("$A [SEP]", "$A [SEP] $B [SEP]", "before or after"),
        ("[CLS] $A [SEP]", "[CLS] $A $B [SEP]", "between two texts"),
        ("[SEP] $A [CLS]", "[SEP] $A [CLS] $B [CLS]", "cls_token='\\[CLS\\]', but .* '\\[SEP\\]'"),
        ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:2 [SEP]:2", "token types up to 2"),
    ],
)
def test_special_tokens_in_other_places_are_refused(
    single: str, pair: str, message: str, tmp_path: Path
) -> None:
    directory = kinds.write_tokenizer("modernbert", tmp_path)
    ids = [("[CLS]", 2), ("[SEP]", 3)]
    template = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)
    with pytest.raises(WeightsError, match=message):
        load_tokenizer(rebuilt(directory, post_processor=template))


def test_special_tokens_that_tokenizer_json_alone_names_are_found(tmp_path: Path) -> None:
    directory = kinds.write_tokenizer("modernbert", tmp_path)
    (directory / "tokenizer_config.json").unlink()
    tokenizer = load_tokenizer(directory)
    assert (tokenizer.cls_token_id, tokenizer.sep_token_id) == (2, 3)


def test_pre_training_without_a_mask_token_is_refused(tmp_path: Path) -> None:
    directory = kinds.write_tokenizer("modernbert", tmp_path)
    (directory / "tokenizer_config.json").unlink()
    task = PreTraining.create(DataConfig(), PreTrainingOptions(next_sentence=False), None, {})
    with pytest.raises(WeightsError, match=r'no mask token.*"mask_token"'):
        task.resampler(load_tokenizer(directory))


# --- offsets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("context", ["the river runs by paris", "paris by the river"])
@pytest.mark.parametrize("prefix", [True, False])
def test_offsets_that_are_trimmed_twice_are_repaired(
    context: str, prefix: bool, tmp_path: Path
) -> None:
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    directory = kinds.write_tokenizer("roberta_prefix", tmp_path, **settings)
    steps = [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=True)]
    ends = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=prefix)
    rebuilt(directory, pre_tokenizer=pre_tokenizers.Sequence(steps), post_processor=ends)
    assert answered(load_tokenizer(directory), context, "paris") == ["paris"]


def test_offsets_that_are_wrong_are_refused(tmp_path: Path) -> None:
    directory = kinds.write_tokenizer("cased", tmp_path)
    rebuilt(directory, normalizer=normalizers.Replace("pa", ""))
    with pytest.raises(WeightsError, match="the tokens of 'paris' say that they are 'ris'"):
        load_tokenizer(directory)


# --- windows, sides ----------------------------------------------------------------------------


def test_windows_that_leave_text_out_are_refused(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(kinds.write_tokenizer("cased", tmp_path))

    class Losing:
        """As tokenizers 0.23.1, which cuts the first window off and keeps one more."""

        def __call__(self, *texts: Any, **settings: Any) -> Any:
            encoded = tokenizer(*texts, **settings)
            del encoded.encodings[2:]
            return encoded

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

    probe.check(tokenizer, tmp_path)
    with pytest.raises(WeightsError, match=r"windows of a long text do not cover it .* installed"):
        probe.check(Losing(), tmp_path)


def test_releases_whose_windows_leave_text_out_are_not_installed() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    (bound,) = [each for each in project["dependencies"] if each.startswith("tokenizers")]
    assert {"!=0.23.1", "!=0.23.2"} <= set(bound.removeprefix("tokenizers").split(","))


@pytest.mark.parametrize("name", kinds.KINDS)
def test_stored_sides_change_nothing(name: str, tmp_path: Path) -> None:
    plain = load_tokenizer(kinds.write_tokenizer(name, tmp_path / "plain"))
    said = kinds.write_tokenizer(
        name, tmp_path / "said", truncation_side="left", padding_side="left"
    )
    stored = kinds.write_tokenizer(name, tmp_path / "stored")
    built = Tokenizer.from_file(str(stored / "tokenizer.json"))
    built.enable_truncation(16, direction="left")
    built.enable_padding(direction="left", length=16)
    built.save(str(stored / "tokenizer.json"))
    for directory in (said, stored):
        tokenizer = load_tokenizer(directory)
        for settings in ({}, {"stride": 4, "return_overflowing_tokens": True}):
            encoded, expected = (
                each([LONG], truncation=True, max_length=24, **settings)["input_ids"]
                for each in (tokenizer, plain)
            )
            assert encoded == expected
        save(tokenizer, tmp_path / "out")
        assert "left" not in (tmp_path / "out" / "tokenizer_config.json").read_text().lower()


# --- ids ---------------------------------------------------------------------------------------


def configured(directory: Path) -> Config:
    options = ClassificationOptions(labels=("bad", "good"))
    model = ModelConfig(init=str(directory))
    data = DataConfig(max_length=32)
    return Config(task="classification", model=model, data=data, options=options)


def built(directory: Path) -> Pipeline:
    config = configured(directory)
    return Pipeline.build(config.task, config.model, config.data, config.options)


def test_a_word_that_stands_twice_in_the_vocabulary_is_named(
    checkpoint: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(checkpoint, tmp_path / "twice")
    words = (directory / "vocab.txt").read_text().splitlines()
    (directory / "vocab.txt").write_text("\n".join([*words[:50], words[20], *words[50:]]) + "\n")
    message = (
        rf"vocab.txt:51: '{words[20]}' is in line 21 too, .* up to {len(words)}, but .*size is"
    )
    with pytest.raises(WeightsError, match=message):
        built(directory)
    config = json.loads((directory / "config.json").read_text())
    rows = json.dumps(config | {"vocab_size": len(words) + 1})
    (directory / "config.json").write_text(rows)  # as trained with: a row for each line
    pipeline = built(directory)
    assert id_count(pipeline.tokenizer) == pipeline.model.config.vocab_size


def test_an_id_without_embedding_stops_before_training(checkpoint: Path) -> None:
    from flaxbert.data.table import Record, Table

    pipeline = built(checkpoint)
    table = Table("x.tsv", [Record({"text": "a king", "label": "bad"}, "x.tsv:2")])
    examples = pipeline.task.examples(table, labeled=True)
    pipeline.tokenizer.add_tokens(["king"])  # the vocabulary has it: no new id
    pipeline.featurize(examples, table.source, labeled=True)
    size = pipeline.model.config.vocab_size
    template = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", size), ("[SEP]", 3)]
    )
    pipeline.tokenizer.backend_tokenizer.post_processor = template
    with pytest.raises(
        WeightsError, match=f"gives the id {size}, but the model has embeddings only for ids below"
    ):
        pipeline.featurize(examples, table.source, labeled=True)


# --- export ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", kinds.KINDS)
@pytest.mark.parametrize("extra", [{}, {"additional_special_tokens": ["[E1]"]}])
def test_a_saved_tokenizer_is_of_a_class_that_every_transformers_has(
    name: str, extra: dict[str, Any], tmp_path: Path
) -> None:
    source = kinds.write_tokenizer(name, tmp_path / "source", **extra)
    tokenizer = load_tokenizer(source)
    save(tokenizer, tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] in (kinds.KINDS[name][1], "PreTrainedTokenizerFast")
    assert not [key for key in config if key.startswith("_")]
    assert not {"backend", "is_local", "local_files_only"} & config.keys()
    assert not isinstance(config.get("extra_special_tokens"), list)  # 4 expects a dict
    shutil.copy(source / "config.json", tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert len(again) == len(tokenizer)
    if extra:
        assert tokenizer.tokenize("[E1]")[-1] == "[E1]"
    for text in (*kinds.SENTENCES, *probe.TEXTS, "the [E1] king"):
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    pair = again("a king", "a queen", return_token_type_ids=True)
    types = tokenizer("a king", "a queen", return_token_type_ids=True)["token_type_ids"]
    assert pair["token_type_ids"] == types


@pytest.mark.parametrize("name", ["albert", "roberta"])
def test_an_export_has_token_types_if_the_model_has(name: str, tmp_path: Path) -> None:
    directory = kinds.write_tokenizer(name, tmp_path)
    config = {"model_type": kinds.KINDS[name][0], "type_vocab_size": 1 + (name == "albert")}
    (directory / "config.json").write_text(json.dumps(config))
    save(load_tokenizer(directory), tmp_path / "saved")
    shutil.copy(directory / "config.json", tmp_path / "saved")
    pair = AutoTokenizer.from_pretrained(tmp_path / "saved")("a king", "a queen")
    assert ("token_type_ids" in pair) == (name == "albert")


@pytest.mark.parametrize("name", kinds.KINDS)
def test_which_tokenizers_tell_a_word_by_the_blank_before_it(name: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(kinds.write_tokenizer(name, tmp_path))
    assert needs_blank(tokenizer) == (name in ("roberta", "modernbert"))


def test_the_regex_of_a_split_is_no_reason_to_refuse(tmp_path: Path) -> None:
    directory = kinds.write_tokenizer("modernbert", tmp_path)
    steps = [
        pre_tokenizers.Split(Regex(r"\d"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ]
    rebuilt(directory, pre_tokenizer=pre_tokenizers.Sequence(steps))
    assert answered(load_tokenizer(directory), "in 1999 the king", "1999") == ["1999"]
