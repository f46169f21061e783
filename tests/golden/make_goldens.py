"""Make the golden files of tests/pretrained/test_parity.py with PyTorch and transformers.

    python -m pip install torch 'transformers>=5,<6'
    python tests/golden/make_goldens.py

Writes four files next to this script, all from one small random BERT:

    weights.npz   `config` (config.json) and all tensors by their Hugging Face names, including the
                  heads of classification and question answering.
    ladder.npz    one padded batch, the output of every module of transformers for it, and the
                  gradients of both tasks' losses, `gradient/TASK/NAME`.
    training.npz  sequences of different lengths, labels, spans, and each task's losses over 20
                  steps of an optimizer set up as in transformers' `Trainer`, with more decay.
    heads.npz     the output layers of token classification, multiple choice and pre-training,
                  `tensor/TASK/NAME`; labels for the batch of ladder.npz; the scores of each layer;
                  and the gradients of its mean loss, `gradient/TASK/NAME`.

The numbers depend slightly on the version of torch. Make the files again only if their content has
to change, never to make a test pass.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    get_linear_schedule_with_warmup,
)

HERE = Path(__file__).parent

# Odd sizes: no two dimensions are equal, so a transposition cannot hide.
SIZES = {
    "vocab_size": 101,
    "hidden_size": 24,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 37,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
LABELS = 3
STEPS, BATCH_SIZE, LEARNING_RATE = 20, 6, 1e-3
WEIGHT_DECAY = 1.0  # a hundred times the usual: 0.01 over 20 steps would not show in the losses

Arrays = dict[str, np.ndarray]


def randomize(model: torch.nn.Module, rng: np.random.Generator) -> None:
    """Set all parameters to large values: with BERT's initial ones, most errors hardly show."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = rng.normal(0.0, 0.3, tuple(parameter.shape))
            values += 1.0 if name.endswith("LayerNorm.weight") else 0.0
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))


def random_sequences(lengths: list[int], rng: np.random.Generator) -> Arrays:
    """Return padded sequences. Only padding has id 0; token type 1 begins at a random position."""
    shape = (len(lengths), max(lengths))
    positions = np.arange(shape[1])
    mask = positions < np.array(lengths)[:, None]
    second = positions >= rng.integers(1, np.array(lengths))[:, None]
    start = rng.integers(0, lengths)
    return {
        "input_ids": np.where(mask, rng.integers(1, SIZES["vocab_size"], shape), 0),
        "token_type_ids": np.where(mask, second, 0).astype(np.int64),
        "attention_mask": mask.astype(np.int64),
        "label": rng.integers(0, LABELS, len(lengths)),
        "start": start,
        "end": rng.integers(start, lengths),
    }


def inputs(batch: Arrays, members: slice | int, length: int | None = None) -> dict:
    """Return some sequences as keyword arguments of a model."""
    names = ("input_ids", "token_type_ids", "attention_mask")
    return {name: torch.from_numpy(batch[name][members][..., :length]) for name in names}


def classification_loss(model: torch.nn.Module, batch: Arrays, members: slice) -> torch.Tensor:
    """Return the mean cross-entropy of a padded batch."""
    return model(**inputs(batch, members), labels=torch.from_numpy(batch["label"][members])).loss


def span_loss(model: torch.nn.Module, batch: Arrays, members: slice) -> torch.Tensor:
    """Return the mean loss over sequences, each run on its own without padding.

    In a padded batch, transformers normalizes over the scores of padding too, so the loss of a
    sequence depends on the length of the others.
    """
    losses = []
    for i in range(len(batch["label"]))[members]:
        one = slice(i, i + 1)
        spans = {
            f"{side}_positions": torch.from_numpy(batch[side][one]) for side in ("start", "end")
        }
        length = int(batch["attention_mask"][i].sum())
        losses.append(model(**inputs(batch, one, length), **spans).loss)
    return torch.stack(losses).mean()


def ladder(classifier: torch.nn.Module, qa: torch.nn.Module, batch: Arrays) -> Arrays:
    """Return the output of each module, from ids to logits."""
    rungs: Arrays = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: object, output: object) -> None:
            value = output if isinstance(output, torch.Tensor) else output[0]
            rungs[name] = value.detach().numpy()

        return hook

    bert = classifier.bert
    modules = {
        "embeddings": bert.embeddings,
        "attention": bert.encoder.layer[0].attention.output.dense,  # before residual, LayerNorm
        "attention_block": bert.encoder.layer[0].attention,  # after them
        "layer_0": bert.encoder.layer[0],
        "layer_1": bert.encoder.layer[1],
        "pooled": bert.pooler,
    }
    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    with torch.no_grad():
        rungs["logits"] = classifier(**inputs(batch, slice(None))).logits.numpy()
        spans = qa(**inputs(batch, slice(None)))
    for handle in handles:
        handle.remove()
    return rungs | {
        "start_logits": spans.start_logits.numpy(),
        "end_logits": spans.end_logits.numpy(),
    }


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> Arrays:
    """Return {name: gradient} of all parameters that the loss depends on."""
    model.zero_grad()
    loss.backward()
    named = {
        name: p.grad.numpy().copy() for name, p in model.named_parameters() if p.grad is not None
    }
    model.zero_grad()
    return named


IGNORED = -100
"""The label that transformers' losses ignore."""


def token_loss(model: torch.nn.Module, batch: Arrays, labels: Arrays) -> torch.Tensor:
    """Return the mean cross-entropy at the first pieces of words."""
    tags = np.where(labels["first"] == 1, labels["tag"], IGNORED)
    return model(**inputs(batch, slice(None)), labels=torch.from_numpy(tags)).loss


QUESTIONS = (slice(0, 3), slice(3, 5))
"""The sequences of each question, one for each choice."""


def choice_scores(model: torch.nn.Module, batch: Arrays, members: slice) -> torch.Tensor:
    """Return the scores [1, choices] of one question."""
    choices = {name: values[None] for name, values in inputs(batch, members).items()}
    return model(**choices).logits


def choice_loss(model: torch.nn.Module, batch: Arrays, labels: Arrays) -> torch.Tensor:
    """Return the mean loss over questions, each run on its own: the numbers of choices differ."""
    losses = []
    for members in QUESTIONS:
        right = torch.from_numpy(np.flatnonzero(labels["right"][members]))
        scores = choice_scores(model, batch, members)
        losses.append(torch.nn.functional.cross_entropy(scores, right))
    return torch.stack(losses).mean()


def words(labels: Arrays) -> torch.Tensor:
    """Return the words to predict at masked positions, and `IGNORED` elsewhere."""
    return torch.from_numpy(np.where(labels["masked"] == 1, labels["word"], IGNORED))


def pretraining_loss(model: torch.nn.Module, batch: Arrays, labels: Arrays) -> torch.Tensor:
    """Return the mean over masked positions plus the mean over sequences."""
    follows = torch.from_numpy(labels["follows"])
    everything = inputs(batch, slice(None))
    return model(**everything, labels=words(labels), next_sentence_label=follows).loss


def masked_loss(model: torch.nn.Module, batch: Arrays, labels: Arrays) -> torch.Tensor:
    """Return the mean over masked positions."""
    return model(**inputs(batch, slice(None)), labels=words(labels)).loss


def head_labels(batch: Arrays, rng: np.random.Generator) -> Arrays:
    """Return labels of all tasks for the sequences of ladder.npz, [R, T] or [R]."""
    mask = batch["attention_mask"]
    masked = np.zeros_like(mask)
    for row, count in enumerate((3, 2, 1, 2, 1)):
        masked[row, rng.choice(int(mask[row].sum()), count, replace=False)] = 1
    return {
        "first": mask * rng.integers(0, 2, mask.shape),
        "tag": mask * rng.integers(0, LABELS, mask.shape),
        "question": np.array([0, 0, 0, 1, 1]),
        "right": np.array([0, 0, 1, 1, 0]),
        "masked": masked,
        "word": mask * rng.integers(1, SIZES["vocab_size"], mask.shape),
        "follows": np.array([0, 1, 1, 0, 1]),
    }


def heads(bert: torch.nn.Module, config: Callable[[int], BertConfig], batch: Arrays) -> Arrays:
    """Return tensors, scores and gradients of the other output layers on the same encoder."""
    rng = np.random.default_rng(21)  # separate, so that the other files do not change
    models: dict[str, tuple[torch.nn.Module, Callable]] = {
        "token_classification": (BertForTokenClassification(config(LABELS)), token_loss),
        "multiple_choice": (BertForMultipleChoice(config(1)), choice_loss),
        "pretraining": (BertForPreTraining(config(2)), pretraining_loss),
        "masked_lm": (BertForMaskedLM(config(2)), masked_loss),
    }
    labels = head_labels(batch, rng)
    arrays = dict(labels)
    for name, (model, _) in models.items():
        model.eval()
        randomize(model, rng)
        model.bert.load_state_dict(bert.state_dict(), strict=False)  # some have no pooler
        if name == "masked_lm":
            predictions = models["pretraining"][0].cls.predictions
            model.cls.predictions.load_state_dict(predictions.state_dict())
            continue  # it has no other tensors
        tensors = {k: v for k, v in model.state_dict().items() if not k.startswith("bert.")}
        # The decoder is tied to the word-embedding table, and its bias to cls.predictions.bias.
        tensors = {k: v for k, v in tensors.items() if ".decoder." not in k}
        arrays |= {f"tensor/{name}/{k}": v.numpy().copy() for k, v in tensors.items()}
    everything = inputs(batch, slice(None))
    with torch.no_grad():
        tagger, chooser, pretrained, masked = (model for model, _ in models.values())
        scores = [choice_scores(chooser, batch, members)[0] for members in QUESTIONS]
        outputs = pretrained(**everything)
        arrays |= {
            "token_logits": tagger(**everything).logits.numpy(),
            "choice_scores": torch.cat(scores).numpy(),
            "mlm_logits": outputs.prediction_logits.numpy(),
            "nsp_logits": outputs.seq_relationship_logits.numpy(),
        }
        np.testing.assert_array_equal(arrays["mlm_logits"], masked(**everything).logits.numpy())
    for name, (model, loss_of) in models.items():
        for parameter, value in gradients(model, loss_of(model, batch, labels)).items():
            arrays[f"gradient/{name}/{parameter}"] = value
    return arrays


def train(model: torch.nn.Module, loss_of: Callable, batch: Arrays) -> np.ndarray:
    """Return the loss before each of `STEPS` steps; the last batch of an epoch is smaller."""
    decayed, others = [], []
    for name, parameter in model.named_parameters():
        (others if name.endswith("bias") or "LayerNorm" in name else decayed).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": WEIGHT_DECAY},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=LEARNING_RATE,
        betas=(0.9, 0.999),
        eps=1e-8,
    )
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(0.1 * STEPS), STEPS)
    count = len(batch["label"])
    starts = range(0, count, BATCH_SIZE)
    losses = []
    for step in range(STEPS):
        start = starts[step % len(starts)]
        loss = loss_of(model, batch, slice(start, min(start + BATCH_SIZE, count)))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return np.array(losses, np.float32)


def main() -> None:
    """Write the four files."""
    rng = np.random.default_rng(20)

    def config(outputs: int) -> BertConfig:
        return BertConfig(**SIZES, num_labels=outputs, attn_implementation="eager")

    classifier = BertForSequenceClassification(config(LABELS)).eval()
    qa = BertForQuestionAnswering(config(2)).eval()  # start, end
    randomize(classifier, rng)
    randomize(qa.qa_outputs, rng)
    qa.bert.load_state_dict(classifier.bert.state_dict(), strict=False)  # it has no pooler

    tensors = {k: v.numpy().copy() for k, v in classifier.state_dict().items()}
    tensors |= {k: v.numpy().copy() for k, v in qa.state_dict().items() if "qa_outputs" in k}
    text = json.dumps({"model_type": "bert", **SIZES})
    np.savez_compressed(HERE / "weights.npz", config=np.array(text), **tensors)

    batch = random_sequences([11, 7, 4, 9, 2], rng)
    rungs = ladder(classifier, qa, batch)
    for task, model, loss_of in (
        ("classification", classifier, classification_loss),
        ("question_answering", qa, span_loss),
    ):
        loss = loss_of(model, batch, slice(None))
        for name, value in gradients(model, loss).items():
            rungs[f"gradient/{task}/{name}"] = value
    np.savez_compressed(HERE / "ladder.npz", **batch, **rungs)
    np.savez_compressed(HERE / "heads.npz", **heads(classifier.bert, config, batch))

    # 22 sequences in batches of 6: an epoch has four steps, the last with four sequences.
    examples = random_sequences([int(n) for n in rng.integers(3, 17, 22)], rng)
    results = {
        "learning_rate": np.array(LEARNING_RATE),
        "weight_decay": np.array(WEIGHT_DECAY),
        "classification_losses": train(classifier, classification_loss, examples),
        "question_answering_losses": train(qa, span_loss, examples),
    }
    np.savez_compressed(HERE / "training.npz", **examples, **results)

    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    for name, losses in results.items():
        print(name, np.array2string(losses, precision=4))
    for file in sorted(HERE.glob("*.npz")):
        print(file.name, file.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
