"""Every family of encoders with every output layer equals transformers: outputs and gradients."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from conftest import ROOT
from safetensors.numpy import load_file, save_file
from tolerance import assert_close

import flaxbert
from flaxbert.errors import WeightsError
from flaxbert.models.families import FAMILIES, read_config
from flaxbert.models.heads import PreTrainingHead
from flaxbert.models.model import Model
from flaxbert.pretrained import mapping
from flaxbert.pretrained.load import head_of
from flaxbert.types import Params

GOLDEN = np.load(ROOT / "tests/golden/families.npz")
QUICK = {  # BERT is in test_parity.py too; all cases take minutes
    "roberta/ForSequenceClassification",
    "distilbert/ForTokenClassification",
    "electra/ForSequenceClassification",
    "albert/ForMaskedLM",
    "modernbert/ForQuestionAnswering",
    "camembert/ForSequenceClassification",
    "data2vec_text/ForMaskedLM",
    "megatron_bert/ForQuestionAnswering",
    "xlm_roberta_xl/ForTokenClassification",
}
CASES = [
    pytest.param(case, marks=() if case in QUICK else pytest.mark.slow)
    for case in (f"{name}/{head}" for name, head in zoo.CASES)
]
OUTPUTS = ("hidden_states", "pooled", "logits", "start_logits", "end_logits", "mlm_logits")


def golden(case: str) -> dict[str, Any]:
    """Return the arrays of a case in the golden file."""
    prefix = f"{case}/"
    names = [name for name in GOLDEN.files if name.startswith(prefix)]
    return {name.removeprefix(prefix): GOLDEN[name] for name in names}


def write(case: str, directory: Path) -> Path:
    """Write the checkpoint of a case as transformers does."""
    held = golden(case)
    (directory / "config.json").write_text(str(held["config"]))
    shapes = json.loads(str(held["names"]))
    tensors = {name: zoo.tensor(name, tuple(shape)) for name, shape in shapes.items()}
    save_file(tensors, directory / "model.safetensors")
    return directory


def run(model: Model, params: Params, batch: zoo.Arrays) -> dict[str, jax.Array]:
    """Return the outputs, with `mlm_logits` sorted by position."""
    found = dict(model(params, batch))
    if "mlm_logits" in found:
        order = jnp.argsort(found.pop("masked_positions"), axis=1)
        found["mlm_logits"] = jnp.take_along_axis(found["mlm_logits"], order[..., None], axis=1)
    return found


def canonical(name: str, model: Model) -> str:
    """Return a name with its prefix; for a tied tensor, the first of its two names."""
    name = mapping.canonical(name, model.family)
    return name if not model.config.tie_word_embeddings else model.family.tied.get(name, name)


def batch_of(model: Model, config: dict[str, Any]) -> zoo.Arrays:
    """Return the batch that the golden file was made with."""
    types = getattr(model.config, "type_vocab_size", 0)
    return zoo.batch(types, config.get("pad_token_id") or 0)


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_equal_transformers(case: str, tmp_path: Path) -> None:
    held = golden(case)
    directory = write(case, tmp_path)
    model, params = flaxbert.from_pretrained(str(directory))
    config = json.loads(str(held["config"]))
    assert model.architecture == config["architectures"][0]
    batch = batch_of(model, config)
    mask = batch["attention_mask"]

    def total(params: Params) -> tuple[jax.Array, dict[str, jax.Array]]:
        found = run(model, params, batch)
        if case.endswith("/Model"):
            found["hidden_states"] *= mask[..., None]
        sums = [zoo.weighted(name, value, mask, jnp.asarray) for name, value in found.items()]
        return sum(sums, jnp.zeros(())), found

    (_, found), gradients = jax.value_and_grad(total, has_aux=True)(params)
    for name in [name for name in held if name in (*OUTPUTS, "nsp_logits")]:
        ours, theirs = found[name], held[name]
        if theirs.shape[:2] == mask.shape:  # outputs of padding are meaningless
            ours, theirs = ours[mask > 0], theirs[mask > 0]
        assert_close(ours, theirs)

    names = {name: path for path, name in mapping.hf_names(model).items()}
    flat = mapping.flatten(gradients)
    ours = {}
    shapes = json.loads(str(held["names"]))
    for name in shapes:
        full = canonical(name, model)
        if full in names:
            array = np.asarray(flat[names[full]])
            ours[name] = array.T if names[full].endswith("kernel") else array
    assert len(ours) == len(flat)
    expected = dict(zip(shapes, held["gradients"], strict=True))
    unused = [name for name in shapes if name not in ours]
    assert all(np.all(expected[name] == 0) for name in unused), "a parameter that we do not have"
    floor = 1e-4 * np.sqrt(sum(pair[0] ** 2 for pair in expected.values()))
    for name, pair in zoo.fingerprint(ours).items():
        root = np.sqrt(np.prod(shapes[name]))
        # The floor holds for single values (see tolerance.py); these are norms of whole tensors.
        norm = max(float(expected[name][0]), float(floor * root))
        # The rounding error of the dot product grows with the norm of the random array.
        scale = norm * np.array([1.0, root])
        assert np.all(np.abs(pair - expected[name]) <= 1e-4 * scale), (name, pair, expected[name])


@pytest.mark.parametrize("case", CASES)
def test_saved_tensors_equal_loaded_tensors(case: str, tmp_path: Path) -> None:
    directory = write(case, tmp_path)
    model, params = flaxbert.from_pretrained(str(directory))
    out = tmp_path / "out"
    out.mkdir()
    mapping.save(model, params, out)
    before, after = (load_file(each / "model.safetensors") for each in (directory, out))
    first = {canonical(name, model): value for name, value in before.items()}
    again = {canonical(name, model): value for name, value in after.items()}
    # Untied models of transformers 5 have a second bias, which is unused; transformers 4 reads
    # only that one.
    if "untied" in case:
        first["cls.predictions.bias"] = first["cls.predictions.decoder.bias"]
    assert again.keys() == first.keys()
    assert all(np.array_equal(first[name], value) for name, value in again.items())


def test_untied_decoder_bias_of_transformers_4_is_loaded(tmp_path: Path) -> None:
    directory = write("bert_untied/ForMaskedLM", tmp_path)
    file = directory / "model.safetensors"
    tensors = load_file(file)
    tensors["cls.predictions.bias"] = tensors.pop("cls.predictions.decoder.bias")
    save_file(tensors, file)
    _, params = flaxbert.from_pretrained(str(directory))
    assert np.array_equal(params["head"]["word_bias"], tensors["cls.predictions.bias"])


def test_goldens_cover_every_family() -> None:
    configs = [
        json.loads(str(golden(f"{name}/Model")["config"]))
        for name in zoo.MODELS
        if name != "bert_untied"
    ]
    assert {config["model_type"] for config in configs} == set(FAMILIES)


def test_head_that_a_family_lacks_raises() -> None:
    config = read_config({"model_type": "roberta", **zoo.ROBERTA})
    with pytest.raises(WeightsError, match="roberta encoders have no output layer ForPreTraining"):
        Model.create(config, lambda c, rngs: PreTrainingHead(c, 0.15, rngs))


def test_unknown_architecture_raises() -> None:
    with pytest.raises(WeightsError, match="architectures names BertLMHeadModel; flaxbert has"):
        head_of({"model_type": "bert", "architectures": ["BertLMHeadModel"]})
