"""Packed training takes the same steps as PyTorch's AdamW on padded batches. Needs torch; slow."""

from pathlib import Path

import jax
import numpy as np
import pytest
from tolerance import assert_close
from toy import load_data, make_config

from flaxbert.pipeline.loader import Loader
from flaxbert.training.optim import make_optimizer
from flaxbert.training.state import init_state
from flaxbert.training.step import make_train_step

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_device")]


def test_a_run_without_dropout_has_the_losses_and_weights_of_pytorch(
    checkpoint: Path, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    import transformers

    config = make_config("classification", checkpoint, tmp_path, count=64)
    config.model.dropout, config.train.batch_size, config.train.epochs = 0.0, 8, 6.0
    config.optim.learning_rate = 5e-3
    pipeline, data = load_data(config)
    batches = data.train.batches
    assert any(len(row) > 1 for row in batches.rows(0))  # some rows hold several texts
    optimizer, schedule = make_optimizer(config.optim, batches.steps)
    params = pipeline.load_params()
    pipeline.export(params, tmp_path / "start")
    state = init_state(params, optimizer, pipeline.mesh, pipeline.task.loss_names)
    train_step = make_train_step(
        pipeline.model, pipeline.task, optimizer, state, pipeline.mesh,
        accumulation_steps=1, seed=0, log_every=1,
    )  # fmt: skip
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "start", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    groups: dict[bool, list[object]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        groups[not name.endswith("bias") and "LayerNorm" not in name].append(parameter)
    optim = config.optim
    adamw = torch.optim.AdamW(
        [
            {"params": groups[True], "weight_decay": optim.weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ],
        betas=(optim.b1, optim.b2),
        eps=optim.eps,
    )
    features = batches.features
    ends = np.cumsum(features.lengths)
    losses = []
    with Loader(batches, pipeline.mesh) as loader:
        for number in range(batches.steps):
            state, report = train_step(state, loader.batch(number))
            members = [int(n) for n in batches.step_features(number)]
            ids = [
                torch.tensor(
                    features.per_token["input_ids"][ends[n] - features.lengths[n] : ends[n]]
                )
                for n in members
            ]
            padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True).long()
            mask = torch.nn.utils.rnn.pad_sequence(
                [torch.ones_like(part) for part in ids], batch_first=True
            )
            labels = torch.tensor([int(features.per_sequence["label"][n]) for n in members])
            loss = model(input_ids=padded, attention_mask=mask, labels=labels).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), optim.clip_norm)
            for group in adamw.param_groups:
                group["lr"] = float(schedule(number))
            adamw.step()
            adamw.zero_grad()
            losses.append((float(report.sums.losses["loss"].mean), loss.item()))
    ours, theirs = np.asarray(losses).T
    assert theirs[-4:].mean() < 0.5 * theirs[:4].mean()  # it learns
    assert_close(ours, theirs, 1e-4)
    trained = jax.tree.map(np.asarray, state.params)
    words = model.bert.embeddings.word_embeddings.weight.detach().numpy()
    assert_close(trained["encoder"]["embeddings"]["word"]["embedding"], words, 1e-3)
