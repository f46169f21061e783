"""`flaxbert convert`: what it writes, its ledger, its refusals, and the certificate."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import zoo
from safetensors.numpy import load_file, save_file
from test_families import write
from test_formats import FLAX, assert_same, copied, load

import flaxbert
from flaxbert.commands.convert import main
from flaxbert.config import Config, DataConfig, ModelConfig
from flaxbert.data.tokenization import load_tokenizer
from flaxbert.models.families import read_config
from flaxbert.models.heads import PoolerHead
from flaxbert.models.model import Model
from flaxbert.pretrained import parity
from flaxbert.pretrained.model_card import model_card


def test_a_checkpoint_becomes_a_hugging_face_directory(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(checkpoint), str(tmp_path / "out")]) == 0
    assert f"written: {tmp_path / 'out'}" in capsys.readouterr().out
    assert_same(load(tmp_path / "out"), load(checkpoint))
    text = "the king read a good book"
    before, after = (load_tokenizer(each)(text) for each in (checkpoint, tmp_path / "out"))
    assert before["input_ids"] == after["input_ids"]


def test_flax_files_become_safetensors(tmp_path: Path) -> None:
    source = tmp_path / "flax"
    source.mkdir()
    for ending, name in (("msgpack", "flax_model.msgpack"), ("json", "config.json")):
        (source / name).write_bytes(
            (FLAX / f"roberta_ForSequenceClassification.{ending}").read_bytes()
        )
    assert main([str(source), str(tmp_path / "out")]) == 0
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["architectures"] == ["RobertaForSequenceClassification"]
    assert config["model_type"] == "roberta"
    assert_same(load(tmp_path / "out"), load(source))


def test_the_architecture_can_be_chosen(checkpoint: Path, tmp_path: Path) -> None:
    directory = write("bert/ForSequenceClassification", tmp_path)
    out = tmp_path / "out"
    assert main([str(directory), str(out), "--architecture=BertModel"]) == 0
    assert "classifier.weight" not in load_file(out / "model.safetensors")
    assert json.loads((out / "config.json").read_text())["architectures"] == ["BertModel"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{checkpoint}", "{checkpoint}/config.json"], "is a file; name a new directory"),
        (["{checkpoint}", "{checkpoint}/config.json/out"], ".partial: Not a directory"),
        (["{checkpoint}", "."], "is the current directory; name a new one"),
        (["{checkpoint}", "{checkpoint}"], "is not empty; name a new directory"),
        (["{checkpoint}/nothing", "{out}"], "no such directory"),
        (
            ["{checkpoint}", "{out}", "--architecture=BertForQuestionAnswering"],
            "there is no qa_outputs.bias, qa_outputs.weight",
        ),
        (
            ["{checkpoint}", "{out}", "--architecture=BertForCats"],
            "architectures names BertForCats",
        ),
    ],
)
def test_a_failed_conversion_is_one_message(
    arguments: list[str],
    message: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"checkpoint": checkpoint, "out": tmp_path / "out"}
    assert main([argument.format(**places) for argument in arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_inspect_lists_every_tensor(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(checkpoint), "--inspect"]) == 0
    out = capsys.readouterr().out
    for name in load_file(checkpoint / "model.safetensors"):
        assert name in out
    assert "encoder/layers/1/attention/query/kernel" in out
    assert "24 x 24" in out
    assert "39 loaded" in out

    directory = copied(checkpoint, tmp_path)
    tensors = load_file(directory / "model.safetensors")
    tensors["extra"] = np.zeros(3, np.float32)
    del tensors["pooler.dense.weight"], tensors["pooler.dense.bias"]
    save_file(tensors, directory / "model.safetensors")
    assert main([str(directory), "--inspect"]) == 2
    out = capsys.readouterr().out
    assert "unexpected: extra [3]" in out
    assert "(bert.pooler.dense.bias)" in out
    assert "2 new, 1 problem" in out


def without_pooler(checkpoint: Path, tmp_path: Path) -> Path:
    directory = copied(checkpoint, tmp_path)
    tensors = load_file(directory / "model.safetensors")
    del tensors["pooler.dense.weight"], tensors["pooler.dense.bias"]
    save_file(tensors, directory / "model.safetensors")
    return directory


def test_an_encoder_without_a_pooler_gets_none(checkpoint: Path, tmp_path: Path) -> None:
    directory = without_pooler(checkpoint, tmp_path)
    model, params = flaxbert.from_pretrained(str(directory))
    assert params.keys() == {"encoder"}
    ids = np.arange(5)[None]
    whole, its_params = flaxbert.from_pretrained(str(checkpoint))
    ours, theirs = model(params, {"input_ids": ids}), whole(its_params, {"input_ids": ids})
    assert ours.keys() == {"hidden_states"}
    assert np.array_equal(ours["hidden_states"], theirs["hidden_states"])
    assert main([str(directory), str(tmp_path / "out")]) == 0
    assert_same(load(tmp_path / "out"), load(directory))
    assert json.loads((tmp_path / "out/config.json").read_text())["architectures"] == ["BertModel"]


@pytest.mark.slow
def test_the_certificate_of_an_encoder_without_a_pooler_has_none(
    checkpoint: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    directory = without_pooler(checkpoint, tmp_path)
    certificate = parity.certify(directory)
    assert certificate["passed"]
    assert certificate["outputs"].keys() == {"hidden_states"}


@pytest.mark.slow
def test_the_certificate_covers_more_than_local_attention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    directory = write("modernbert/Model", tmp_path)
    config = json.loads((directory / "config.json").read_text())
    config |= {"max_position_embeddings": 200, "local_attention": 70}
    (directory / "config.json").write_text(json.dumps(config))
    certificate = parity.certify(directory)
    assert certificate["passed"]
    assert certificate["batch"]["length"] == 140
    model, params = flaxbert.from_pretrained(str(directory))
    wide = Model.create(dataclasses.replace(model.config, local_attention=80), model.make_head)
    monkeypatch.setattr(parity, "from_pretrained", lambda directory: (wide, params))
    assert not parity.certify(directory)["passed"]


def test_certificates_pad_with_the_id_that_positions_count_from() -> None:
    model = Model.create(read_config({"model_type": "roberta", **zoo.SIZES}), PoolerHead)
    batch = parity.random_batch(model, {}, 2, 9, 0)
    assert np.array_equal(batch["input_ids"] == 1, batch["attention_mask"] == 0)


def test_help_shows_both_usages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert "--inspect" in out
    assert "package://NAME" in out


def test_the_hub_library_reads_the_model_card(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import ModelCard

    config = Config(
        task="classification",
        model=ModelConfig(init="google-bert/bert-base-uncased"),
        data=DataConfig(train="a|b.tsv", eval="e.tsv"),
    )
    model = Model.create(read_config({"model_type": "bert", **zoo.SIZES}), PoolerHead)
    command = ["python", "-m", "flaxbert.run", "--config=configs/spam.py", "--workdir=my run"]
    monkeypatch.setattr(sys, "orig_argv", command)
    results = {"accuracy": 0.875, "perf/step_seconds": 1.0}
    card = ModelCard(model_card(model, config.to_dict(), results, {"data.eval": "0123abc"}))
    assert card.data.base_model == "google-bert/bert-base-uncased"
    assert card.data.tags == ["flaxbert", "classification"]
    assert "| accuracy | 0.875 |" in card.text
    assert "| trained on | a&#124;b.tsv |" in card.text
    assert "On e.tsv (commit 0123abc)." in card.text
    assert "python -m flaxbert.run --config=configs/spam.py '--workdir=my run'" in card.text
    assert "perf/" not in card.text

    monkeypatch.chdir(tmp_path)
    Path("google-bert/bert-base-uncased").mkdir(parents=True)
    assert ModelCard(model_card(model, config.to_dict(), {})).data.base_model is None


def test_certify_without_torch_names_the_extra(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main([str(checkpoint), str(tmp_path / "out"), "--certify"]) == 2
    assert "flaxbert[torch]" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("name", "head"), zoo.CASES)
def test_every_model_and_output_layer_passes_the_certificate(
    name: str, head: str, tmp_path: Path
) -> None:
    """Also that transformers loads what we export, with equal outputs."""
    pytest.importorskip("torch")
    directory = write(f"{name}/{head}", tmp_path)
    assert main([str(directory), str(tmp_path / "out")]) == 0
    certificate = parity.certify(tmp_path / "out", rows=2, length=23)
    assert certificate["passed"], certificate
    assert json.loads((tmp_path / "out" / parity.FILE).read_text()) == certificate
    assert {"hidden_states"} <= certificate["outputs"].keys()


@pytest.mark.slow
def test_the_certificate_fails_for_different_weights(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    assert main([str(checkpoint), str(tmp_path / "out")]) == 0
    model, params = flaxbert.from_pretrained(str(tmp_path / "out"))
    bias = params["encoder"]["layers"][0]["output"]["bias"]
    params["encoder"]["layers"][0]["output"]["bias"] = bias.at[0].add(1e-2)
    monkeypatch.setattr(parity, "from_pretrained", lambda directory: (model, params))
    assert not parity.certify(tmp_path / "out")["passed"]
