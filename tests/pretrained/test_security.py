"""Downloaded files run no code and reach no other directory; secrets are not written."""

import ast
import contextlib
import json
import shutil
from pathlib import Path

import pytest
from toy import make_config

import flaxbert
from flaxbert.data.tokenization import load_tokenizer
from flaxbert.errors import WeightsError
from flaxbert.pretrained import formats

PACKAGE = Path(flaxbert.__file__).parent

# Functions that run code from a file, or that write to paths named in an archive.
FORBIDDEN = {"eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads",
             "pickle.Unpickler", "marshal.loads", "shelve.open", "yaml.load", "os.system",
             "shutil.unpack_archive", "joblib.load", "np.load"}  # fmt: skip
METHODS = {"extractall", "extract"}
# The configuration file, which --config names, is Python by design: these lines run it.
ALLOWED = {("commands/config_file.py", "compile"), ("commands/config_file.py", "exec")}


def test_no_source_executes_code_from_a_file():
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            allowed = (str(file.relative_to(PACKAGE)), name) in ALLOWED
            allowed |= name == "np.load" and "allow_pickle=False" in ast.unparse(node)
            assert name not in FORBIDDEN or allowed, f"{file}:{node.lineno}"
            assert name.rpartition(".")[2] not in METHODS, f"{file}:{node.lineno}"
            for keyword in node.keywords:
                value = ast.unparse(keyword.value)
                assert (keyword.arg, value) not in {
                    ("trust_remote_code", "True"),
                    ("allow_pickle", "True"),
                    ("weights_only", "False"),
                    ("shell", "True"),
                }, f"{file}:{node.lineno}"


def test_code_of_a_tokenizer_is_not_executed(checkpoint, tmp_path):
    directory = tmp_path / "model"
    shutil.copytree(checkpoint, directory)
    ran = tmp_path / "ran"
    (directory / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    settings |= {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]},
                 "tokenizer_class": "Evil"}  # fmt: skip
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    hf_config = json.loads((directory / "config.json").read_text())
    hf_config["auto_map"] = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}
    (directory / "config.json").write_text(json.dumps(hf_config))
    with contextlib.suppress(WeightsError):  # raising or ignoring the code are both fine
        load_tokenizer(directory)
    flaxbert.from_pretrained(str(directory))
    assert not ran.exists()


@pytest.mark.parametrize("shard", ["../outside.safetensors", "{}/outside.safetensors"])
def test_index_cannot_name_a_file_outside_its_directory(checkpoint, tmp_path, shard):
    directory = tmp_path / "model"
    shutil.copytree(checkpoint, directory)
    (directory / "model.safetensors").rename(tmp_path / "outside.safetensors")
    index = {"weight_map": {"embeddings.word_embeddings.weight": shard.format(tmp_path)}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="missing shards"):
        formats.detect(directory)


def test_secrets_of_the_environment_are_not_written(one_layer, tmp_path, monkeypatch, caplog):
    secret = "hf_" + "s3cr3t" * 5
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY"):
        monkeypatch.setenv(name, secret)
    config = make_config("classification", one_layer, tmp_path, count=16)
    config.train.max_steps = 1
    flaxbert.train(config, tmp_path / "run")
    assert secret not in caplog.text
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert any(file.name == "README.md" for file in files)  # the model card is among them
    for file in files:
        assert secret.encode() not in file.read_bytes(), file
