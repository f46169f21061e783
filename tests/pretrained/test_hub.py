"""Models and data sets of a hub: private, gated, absent, of a revision, and without a network."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import COMMIT, Hub, serve

from flaxbert.config import DataConfig
from flaxbert.data import readers
from flaxbert.errors import HubError
from flaxbert.pretrained.source import resolve

MODEL = {"config.json": b"{}", "model.safetensors": b"weights", "vocab.txt": b"a\n", "x.bin": b"-"}
LINES = b"".join(b'{"text": "text %d", "label": "a"}\n' % n for n in range(20))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with pytest.MonkeyPatch.context() as patch, serve(patch, str(tmp_path)) as hub:
        hub.files["models/some/model"] = MODEL
        hub.files["datasets/some/data"] = {"train.jsonl": LINES, "test.jsonl": LINES[:99]}
        yield hub


def offline(patch: pytest.MonkeyPatch) -> None:
    import datasets.config
    from huggingface_hub import constants

    for module in (constants, datasets.config):
        patch.setattr(module, "HF_HUB_OFFLINE", True)


def test_a_model_is_downloaded_once_and_then_read_without_network(hub, monkeypatch, capfd):
    directory = resolve("some/model")
    assert directory.name == COMMIT
    assert {path.name for path in directory.iterdir()} == set(MODEL) - {"x.bin"}
    assert resolve("some/model", "main") == directory
    offline(monkeypatch)
    assert resolve("some/model") == directory
    assert "%|" not in capfd.readouterr().err  # no bar in a pipe


def test_a_private_model_needs_a_token_that_the_error_names(hub, monkeypatch):
    hub.denied["models/some/model"] = "RepoNotFound"
    with pytest.raises(HubError, match=r"it is private and HF_TOKEN is not set\. Create a token"):
        resolve("some/model")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubError, match="it is private and HF_TOKEN gives no access to it"):
        resolve("some/model")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert resolve("some/model").name == COMMIT


def test_a_gated_model_names_its_page_and_the_token(hub):
    hub.denied["models/some/model"] = "GatedRepo"
    with pytest.raises(HubError) as caught:
        resolve("some/model")
    for part in ("it is gated", f"{hub.address}/some/model", "set HF_TOKEN"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absent_revision_is_named(hub):
    with pytest.raises(HubError, match=r"'some/model'@v9: it has no such branch, tag or commit"):
        resolve("some/model", "v9")


def test_without_network_a_model_that_is_not_cached_names_variable_and_cache(hub, monkeypatch):
    offline(monkeypatch)
    with pytest.raises(HubError, match=r"'some/model': HF_HUB_OFFLINE is set.*not in the cache /"):
        resolve("some/model")


@pytest.mark.parametrize(
    ("spec", "numbers"),
    [
        ("some/data@train[:10%]", [0, 1]),
        ("some/data@train[10%:20%]+test[:1]", [2, 3, 0]),
        (f"some/data@test#{COMMIT}", [0, 1, 2]),
    ],
)
def test_splits_and_slices_of_a_data_set_are_read(hub, spec, numbers, capfd):
    table = readers.read(spec, DataConfig(), split="train")
    assert [row.values["text"] for row in table.rows] == [f"text {n}" for n in numbers]
    assert table.commit == COMMIT
    assert "%|" not in capfd.readouterr().err


def test_a_gated_data_set_names_its_page_and_the_token(hub, monkeypatch):
    hub.denied["datasets/some/data"] = "GatedRepo"
    with pytest.raises(HubError) as caught:
        readers.read("some/data", DataConfig(), split="train")
    for part in ("it is gated", f"{hub.address}/datasets/some/data", "HF_TOKEN is not set"):
        assert part in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert len(readers.read("some/data", DataConfig(), split="train").rows) == 20


def test_without_network_a_data_set_that_is_not_cached_names_the_variable(hub, monkeypatch):
    offline(monkeypatch)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set, and it is not in the cache"):
        readers.read("some/data", DataConfig(), split="train")
