"""Every task with every family that can do it: trained, evaluated, exported, packed or not."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import pytest
import toy
import zoo
from conftest import vocabulary

from flaxbert.commands.modes import evaluate
from flaxbert.pipeline.datasets import read_table
from flaxbert.pipeline.evaluator import Evaluator
from flaxbert.pipeline.pipeline import Pipeline
from flaxbert.runtime import sharding
from flaxbert.tasks import TASKS
from flaxbert.training.trainer import train

FAMILIES = (
    "roberta",
    "xlm_roberta_xl",
    "distilbert",
    "electra",
    "albert",
    "modernbert",
    "modernbert_mean",
)
MODEL_TYPES = {"modernbert_mean": "modernbert", "xlm_roberta_xl": "xlm-roberta-xl"}
WORDPIECE = ("distilbert", "electra")

QUICK = {("roberta", "token_classification")}  # words by byte-level BPE; all take many minutes


def write_checkpoint(directory: Path, family: str) -> Path:
    """config.json and tokenizer of a small encoder; weights come from `init`."""
    _, sizes, _ = zoo.MODELS[family]
    directory.mkdir(parents=True, exist_ok=True)
    count = write_tokenizer(directory, family)
    special = {"vocab_size": count, "max_position_embeddings": 66, "pad_token_id": 1}
    config = {"model_type": MODEL_TYPES.get(family, family), **sizes, **special}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def write_tokenizer(directory: Path, family: str) -> int:
    """WordPiece, byte-level BPE (RoBERTa, ModernBERT) or SentencePiece's unigrams (ALBERT)."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import BertTokenizerFast, PreTrainedTokenizerFast

    if family in WORDPIECE:
        (directory / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
        tokenizer = BertTokenizerFast.from_pretrained(directory)
        tokenizer.save_pretrained(directory)
        return len(tokenizer)
    texts = [" ".join([*toy.FILLERS, *toy.PLACES, "where is the king?"])]
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    if family == "albert":
        built = Tokenizer(models.Unigram())
        built.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer: Any = trainers.UnigramTrainer(
            vocab_size=200, special_tokens=special, unk_token="<unk>"
        )
    else:
        built = Tokenizer(models.BPE())
        built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=320, special_tokens=special, initial_alphabet=alphabet
        )
    built.train_from_iterator(texts, trainer)
    built.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    PreTrainedTokenizerFast(
        tokenizer_object=built,
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    ).save_pretrained(directory)
    return built.get_vocab_size()


CASES = [
    pytest.param(family, task, marks=() if (family, task) in QUICK else pytest.mark.slow)
    for family in FAMILIES
    for task in TASKS
]


@pytest.mark.parametrize(("family", "task"), CASES)
@pytest.mark.usefixtures("one_device")
def test_a_task_runs_with_a_family(
    family: str, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flaxbert.models.families import read_config
    from flaxbert.models.heads import NoHead, PoolerHead
    from flaxbert.models.model import Model
    from flaxbert.pretrained import mapping
    from flaxbert.pretrained.formats import read_json

    checkpoint = write_checkpoint(tmp_path / "checkpoint", family)
    encoder = read_config(read_json(checkpoint / "config.json"))
    bare = PoolerHead if family in ("roberta", "xlm_roberta_xl", "albert") else NoHead
    model = Model.create(encoder, bare)
    params = jax.tree.map(lambda x: x * 10 if x.ndim == 2 else x, model.init(0))
    mapping.save(model, params, checkpoint)

    config = toy.make_config(task, checkpoint, tmp_path, count=12)
    config.train = dataclasses.replace(config.train, max_steps=2, eval_every=0)
    if task == "pretraining" and family != "albert":
        config.options = TASKS[task].options_type(next_sentence=False)
    if task == "classification":
        config.options = TASKS[task].options_type(long_texts="windows")
    results = train(config, tmp_path / "run").results
    assert results["step"] == 2

    # A finished run's export is evaluated alike, by another layout of rows.
    config.data = dataclasses.replace(config.data, packing=False)
    pipeline = Pipeline.build(
        config.task, config.model, config.data, config.options, init=str(tmp_path / "run")
    )
    table = read_table(config.data, "eval")
    examples = pipeline.task.examples(table, labeled=True)
    size = config.train.eval_batch_size
    data = pipeline.tokenize(examples, table.source, batch_size=size, labeled=True)
    params = sharding.shard_params(pipeline.load_params(trained=True), pipeline.mesh)
    found = Evaluator(pipeline, data).run(params).metrics
    for name, value in found.items():
        if not name.startswith("perf/"):
            tolerance = 1e-5 if "loss" in name or name == "perplexity" else 1e-4
            assert value == pytest.approx(results[name], rel=tolerance, abs=1e-6), name


def test_a_checkpoint_of_transformers_is_evaluated_without_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from test_families import write

    directory = tmp_path / "tagger"
    directory.mkdir()
    write("distilbert/ForTokenClassification", directory)
    words = vocabulary()[: zoo.WORDS]
    (directory / "vocab.txt").write_text("\n".join(words) + "\n")
    config_file = directory / "config.json"
    config = json.loads(config_file.read_text())
    names = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    config["id2label"] = {str(number): name for number, name in enumerate(names)}
    config_file.write_text(json.dumps(config))
    run_config = toy.make_config("token_classification", directory, tmp_path, count=5)
    evaluate(run_config, tmp_path / "work")
    found = json.loads((tmp_path / "work/eval_results.json").read_text())
    assert {"f1", "f1_LOC", "loss"} <= found.keys()
    lines = (tmp_path / "work/eval_results_predictions.jsonl").read_text().splitlines()
    assert len(lines) == 5
    assert {tag for line in lines for tag in json.loads(line)["tags"]} <= set(names)
