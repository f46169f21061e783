"""Data and models at URLs: they are read as local ones, and have their URL in every name."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_store
import pyarrow.parquet
import pytest
from fake_store import Store
from test_formats import assert_same, load
from toy import load_data, make_config

import flaxbert
from flaxbert.commands import config_file, convert, export, init, lint, push, serve
from flaxbert.config import DataConfig
from flaxbert.data import readers
from flaxbert.data.checks import MALFORMED, UNUSABLE
from flaxbert.data.readers import parallel
from flaxbert.errors import ConfigError, DataError, RemoteError, WeightsError
from flaxbert.pipeline import stored
from flaxbert.pretrained.source import local, resolve

ROWS = [{"text": "good film", "label": "good"}, {"text": "bad film", "label": "bad"}]
FILES = {
    "a.tsv": "text\tlabel\ngood film\tgood\nbad film\tbad\n",
    "a.csv": "text,label\ngood film,good\nbad film,bad\n",
    "a.json": json.dumps(ROWS),
    "a.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
    "a.conll": "the O\nking B-PER\n\nthe O\nriver O\n\n",
    "a.txt": "A text.\n\nAnother one.\n",
    "without_ending": "text\tlabel\ngood film\tgood\nbad film\tbad\n",
}
TASK = "classification"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with fake_store.opened(tmp_path / "cache") as store:
        yield store


def read(spec: str, **data: Any) -> readers.Table:
    return readers.read(spec, DataConfig(feature_cache=None, **data), split="train")


def assert_read_as_local(url: str, path: str) -> None:
    """The tables are equal except for the URL in place of the path."""
    ours, theirs = read(url), read(path)
    assert ours.source == url
    assert [row.values | {"file": ""} for row in ours.rows] == [
        row.values | {"file": ""} for row in theirs.rows
    ]
    assert [row.origin for row in ours.rows] == [
        row.origin.replace(path, url) for row in theirs.rows
    ]
    assert all(row.values.get("file", url) == url for row in ours.rows)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_every_format_is_read_as_a_local_one(name, store, tmp_path):
    (tmp_path / name).write_text(FILES[name])
    assert_read_as_local(store.put(name, FILES[name]), str(tmp_path / name))


def test_parquet_is_read_as_a_local_file(store, tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert_read_as_local(store.put("a.parquet", path.read_bytes()), str(path))


def test_a_pattern_reads_all_shards_in_order(store):
    for n in range(3):
        store.put(f"part-{n}.jsonl", json.dumps({"text": f"text {n}"}) + "\n")
    table = read("store://bucket/part-*.jsonl")
    assert [row.values["text"] for row in table.rows] == ["text 0", "text 1", "text 2"]
    assert table.rows[1].origin == "store://bucket/part-1.jsonl:1"
    with pytest.raises(DataError, match=r"\*.csv: no file matches; store://bucket/ has part-0"):
        read("store://bucket/*.csv")


def test_texts_and_labels_side_by_side_are_read(store, tmp_path):
    texts, labels = store.put("train.texts", "good\nbad\n"), store.put("train.labels", "a\nb\n")
    store.put("other.texts", "")
    store.put("a+b.txt", "A text.\n")
    table = read(f"{texts}+{labels}")
    assert [row.values for row in table.rows] == [
        {"text": "good", "label": "a"},
        {"text": "bad", "label": "b"},
    ]
    assert table.rows[1].origin == f"{texts}:2"
    assert parallel.sibling(texts) == f"{texts}+{labels}"
    assert parallel.sibling("store://bucket/other.texts") is None
    assert parallel.parts("store://bucket/a+b.txt") == []
    (tmp_path / "mine.txt").write_text("good\nbad\n")
    assert len(read(f"{tmp_path / 'mine.txt'}+{labels}").rows) == 2


def test_errors_name_the_url_and_the_line(store):
    url = store.put("a.tsv", "text\tlabel\ngood film\tgood\nbad\n")
    with pytest.raises(DataError, match=r"^store://bucket/a.tsv:3: "):
        read(url)
    latin = store.put("b.csv", "text,label\ncafé,a\n".encode("latin1"))
    with pytest.raises(DataError, match=r"^store://bucket/b.csv:2: not UTF-8"):
        read(latin)
    with pytest.raises(RemoteError, match=r"^store://bucket/c.csv: no such file"):
        read("store://bucket/c.csv")


def test_features_and_fingerprints_do_not_depend_on_the_cache(
    one_layer, store, tmp_path, monkeypatch
):
    config = make_config(TASK, one_layer, tmp_path, count=8, most_words=6)
    for key in ("train", "eval"):
        path = Path(getattr(config.data, key))
        setattr(config.data, key, store.put(path.name, path.read_bytes()))
    config.model.init = store.put_directory("model", one_layer)
    prints = []
    for cache in ("one", "two"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
        pipeline, data = load_data(config)
        prints.append(data.train.fingerprint(pipeline.task.labels))
        assert data.train.origin(0).startswith("store://bucket/")
    assert prints[0] == prints[1]


def test_the_linter_reads_urls_and_reports_those_that_are_not_there(one_layer, store, tmp_path):
    config = make_config(TASK, one_layer, tmp_path, count=4, most_words=6)
    good = '{"text": "good film", "label": "good"}\r\n{"text": "bad film", "label": "bad"}\n'
    config.data.train = store.put("train.jsonl", good + '{"text": "a film"}\n')
    config.data.eval = "store://bucket/evil.jsonl"
    issues = lint.lint(config)
    kinds = {issue.kind: str(issue) for issue in issues}
    assert "store://bucket/train.jsonl" in kinds["mixed line ends"]
    assert "evil.jsonl: no such file or directory" in kinds[UNUSABLE]
    assert "store://bucket/train.jsonl:3" in kinds[MALFORMED]


def test_init_writes_a_configuration_with_the_url(store, tmp_path, capsys):
    rows = "".join(f"a text with number {n},{'ab'[n % 2]}\n" for n in range(20))
    url = store.put("reviews.csv", f"review,stars\n{rows}")
    assert init.main([url, f"--output={tmp_path / 'made.py'}"]) == 0
    config = config_file.load_config(str(tmp_path / "made.py"))
    assert (config.data.train, config.options.text) == (url, "review")
    assert "20 examples" in capsys.readouterr().out
    texts = store.put("train.texts", "good film\nbad film\n" * 9)
    store.put("train.labels", "a\nb\n" * 9)
    assert init.main([texts, f"--output={tmp_path / 'made.py'}", "--force"]) == 0
    config = config_file.load_config(str(tmp_path / "made.py"))
    assert config.data.train == f"{texts}+store://bucket/train.labels"


def test_of_a_model_only_the_weights_of_one_format_are_fetched(one_layer, store):
    url = store.put_directory("model", one_layer)
    for name in ("pytorch_model.bin", "flax_model.msgpack", "optimizer.pt", "deep/x.json"):
        store.put(f"model/{name}", "x")
    names = {path.name for path in resolve(f"{url}/").iterdir()}
    assert names == {path.name for path in one_layer.iterdir()}
    assert_same(load(resolve(url)), load(one_layer))
    assert len(store.fetched) == len(names)


def test_a_model_without_weights_in_the_usual_format_is_fetched_too(store):
    for name in ("bert_config.json", "vocab.txt", "bert_model.ckpt.index", "notes.md"):
        store.put(f"model/{name}", "{}")
    names = {path.name for path in local("store://bucket/model").iterdir()}
    assert names == {"bert_config.json", "vocab.txt", "bert_model.ckpt.index"}


def test_what_is_no_model_is_named(store):
    store.put("runs/a/checkpoints/10/x", "")
    store.put("runs/b/notes.md", "")
    with pytest.raises(WeightsError, match=r"runs/a: a run that has not finished \(no export/\)"):
        resolve("store://bucket/runs/a")
    with pytest.raises(WeightsError, match=r"runs/b: no config.json; it has notes.md\."):
        resolve("store://bucket/runs/b")
    with pytest.raises(RemoteError, match=r"runs/c: no such file or directory; .* has a, b"):
        resolve("store://bucket/runs/c")
    with pytest.raises(WeightsError, match="only models of the hub have revisions"):
        resolve("store://bucket/runs/a", "main")
    with pytest.raises(RemoteError, match="directories of web servers cannot be listed"):
        resolve("https://host/model")
    with pytest.raises(ConfigError, match="for the hub, give the id"):
        resolve("https://huggingface.co/google-bert/bert-base-uncased")


@pytest.fixture(scope="module")
def run(
    one_device: None, one_layer: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Store, Path]]:
    """A store with a finished run at runs/a, whose inputs are in it, and the local workdir."""
    directory = tmp_path_factory.mktemp("run")
    with fake_store.opened(directory / "cache") as store:
        config = make_config(TASK, one_layer, directory, count=16, most_words=6)
        config.data.train = store.put("train.jsonl", Path(str(config.data.train)).read_bytes())
        config.data.eval = store.put("eval.jsonl", Path(str(config.data.eval)).read_bytes())
        config.model.init = store.put_directory("model", one_layer)
        flaxbert.train(config, directory / "run")
        store.put_directory("runs/a", directory / "run")
        yield store, directory / "run"


URL = "store://bucket/runs/a"


def test_a_run_keeps_the_urls_of_its_inputs(run):
    store, workdir = run
    config = json.loads((workdir / "config.json").read_text())
    urls = config["data"]["train"], config["data"]["eval"], config["model"]["init"]
    assert urls == tuple(
        f"store://bucket/{name}" for name in ("train.jsonl", "eval.jsonl", "model")
    )
    assert store.fetched.count("train.jsonl") == store.fetched.count("model.safetensors") == 1


def test_a_run_at_a_url_predicts_as_the_local_one(run):
    texts = ["the film was good", "awful"]
    expected = flaxbert.load(run[1]).predict(texts)
    assert flaxbert.load(URL).predict(texts) == expected
    assert flaxbert.load(f"{URL}/export").config.task == TASK
    assert local(URL).name != "export"
    names = {path.name for path in local(URL).iterdir()}
    assert names == {"config.json", "results.json", "export", "checkpoints"}
    assert list(local(URL).glob("checkpoints/*/*")) == []


def test_a_run_at_a_url_is_a_model_to_start_from(run, caplog):
    assert_same(load(resolve(URL)), load(run[1] / "export"))
    config = stored.config_of(run[1])
    config.model.init, config.data.max_length = URL, 16
    stored.warn_about_differences(config)
    assert "was trained with data.max_length=32 (here 16)" in caplog.text


def test_a_run_that_went_on_after_its_export_is_named(run, caplog):
    run[0].put("runs/a/checkpoints/999/x", "")
    assert resolve(URL).name == "export"
    what = "its export is older than its checkpoint of step 999. Run the same command again"
    assert [message.startswith(f"{URL}: {what}") for message in caplog.messages] == [True]
    run[0].files.rm("/bucket/runs/a/checkpoints/999", recursive=True)


def test_a_run_at_a_url_that_has_not_finished_is_converted(run, tmp_path, caplog):
    store, workdir = run
    for path in sorted(workdir.rglob("*")):
        name = path.relative_to(workdir)
        if path.is_file() and name.parts[0] in ("config.json", ".model", "checkpoints"):
            store.put(f"runs/b/{name.as_posix()}", path.read_bytes())
    with pytest.raises(WeightsError, match=r"runs/b: a run that has not finished \(no export/\)"):
        resolve("store://bucket/runs/b")
    assert convert.main(["store://bucket/runs/b", str(tmp_path / "out")]) == 0
    assert_same(load(tmp_path / "out"), load(workdir / "export"))
    assert "reading its checkpoint of step 2" in caplog.text


def test_the_commands_that_read_runs_read_those_at_urls(run, tmp_path, capsys):
    assert convert.main([URL, str(tmp_path / "out")]) == 0
    assert_same(load(tmp_path / "out"), load(run[1] / "export"))
    assert convert.main([URL, "--inspect"]) == 0
    assert export.data_of(URL, None).eval == "store://bucket/eval.jsonl"
    assert serve._name_of(URL) == serve._name_of(f"{URL}/export") == "a"
    run[0].put("runs/a/export/onnx/decision.json", "{}")
    capsys.readouterr()
    assert push.main([URL, "me/toy", "--dry-run"]) == 0
    names = {line.split()[-1] for line in capsys.readouterr().out.splitlines()[:-1]}
    assert {"README.md", "config.json", "model.safetensors", "onnx/decision.json"} <= names


def test_the_export_that_a_run_in_a_bucket_points_to_is_read(store):
    store.put("run/config.json", "{}")
    for name in ("export", "export.new"):
        store.put(f"run/{name}/config.json", f'{{"from": "{name}"}}')
    for name in ("export", "export.new"):
        store.put("run/.export.json", json.dumps({"directory": name, "files": {}}))
        for url in ("store://bucket/run", "store://bucket/run/export"):
            assert json.loads((resolve(url) / "config.json").read_text()) == {"from": name}
    store.put("run/.export.json", '{"directory": null, "files": {}}')
    store.put("run/checkpoints/1/x", "")
    with pytest.raises(WeightsError, match=r"/run: a run that has not finished"):
        resolve("store://bucket/run")
