"""The sides of PyTorch in `compare.py`: the Trainer of transformers, as its guides use it."""

import json
import shutil
import tempfile
import time
from collections import deque
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import rates
import turns
from turns import Work


def train(connection: Connection, side: str, directory: str, began: float) -> None:
    """Train in turns.

    Args:
      connection: the end of a pipe to the parent.
      side: "trainer" pads to the longest sequence of the batch, "grouped" also groups sequences of
        similar length, "max_length" pads all to the same length.
      directory: holds the data; receives the trained weights.
      began: the time at which the process was started.
    """
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(rates.threads())
    cuda = torch.cuda.is_available()
    settings = json.loads((Path(directory) / "settings.json").read_text(encoding="utf-8"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(settings["weights"])
    model = make_model(settings)
    collator = Collator(settings, tokenizer, pad_to_longest=side != "max_length")
    trainer = transformers.Trainer(
        model,
        training_arguments(settings, side, use_cpu=not cuda),
        train_dataset=examples(settings, Path(directory) / "data.npz"),
        data_collator=collator,
        callbacks=[
            _callback(connection, settings["steps"], began, collator, settings["dtype"], cuda=cuda)
        ],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    peak = torch.cuda.max_memory_allocated() if cuda else rates.peak_rss()
    connection.send({"peak_memory": peak})
    finished = trainer.state.global_step == settings["steps"]
    if finished:
        target = Path(directory) / side
        model.save_pretrained(target)
        for file in Path(settings["weights"]).glob("*"):  # the tokenizer as flaxbert loads it
            if file.suffix in (".txt", ".json", ".model") and not (target / file.name).exists():
                shutil.copy(file, target)
    connection.send({"exported": finished})


def make_model(settings: dict[str, Any]) -> Any:
    """Return the model of transformers with the weights and labels of the run."""
    import transformers

    transformers.set_seed(settings["seed"])  # of the new output layer
    names = settings["labels"]
    options: dict[str, Any] = {"problem_type": settings["problem_type"]}
    if names:
        options["id2label"] = dict(enumerate(names))
        options["label2id"] = {name: index for index, name in enumerate(names)}
    if settings["dropout"] is not None:
        rates = ("hidden_dropout_prob", "attention_probs_dropout_prob")
        options |= dict.fromkeys(rates, settings["dropout"])
    kind = getattr(transformers, settings["architecture"])
    return kind.from_pretrained(settings["weights"], **options)


def training_arguments(settings: dict[str, Any], side: str, *, use_cpu: bool) -> Any:
    """Return the arguments of the Trainer that match a configuration of flaxbert."""
    import transformers

    optim = settings["optim"]
    return transformers.TrainingArguments(
        output_dir=tempfile.mkdtemp(prefix="compare-"),
        per_device_train_batch_size=settings["batch_size"],
        num_train_epochs=settings["epochs"],
        learning_rate=optim["learning_rate"],
        warmup_steps=optim["warmup"],
        weight_decay=optim["weight_decay"],
        max_grad_norm=optim["clip_norm"],
        adam_beta1=optim["b1"],
        adam_beta2=optim["b2"],
        adam_epsilon=optim["eps"],
        train_sampling_strategy="group_by_length" if side == "grouped" else "random",
        bf16=settings["dtype"] == "bfloat16",
        seed=settings["seed"],
        logging_steps=settings["log_every"],
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=use_cpu,
    )


def examples(settings: dict[str, Any], data: Path) -> list[dict[str, Any]]:
    """Return the features of a run as the Trainer takes them."""
    arrays = dict(np.load(data))
    ends = np.cumsum(arrays["lengths"])
    rows = []
    for index, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        row: dict[str, Any] = {
            name: arrays[name][start:end].tolist() for name in ("input_ids", "token_type_ids")
        }
        if settings["architecture"].endswith("ForTokenClassification"):
            first, label = arrays["first"][start:end], arrays["label"][start:end]
            row["labels"] = np.where(first == 1, label, -100).tolist()
        elif settings["architecture"].endswith("ForQuestionAnswering"):
            for name in ("start", "end"):
                place = int(arrays[name][index])
                # A place after the end counts in no loss, as -1 in flaxbert.
                row[f"{name}_positions"] = place if place >= 0 else settings["max_length"]
        else:
            row["labels"] = arrays["label"][index].tolist()
        rows.append(row)
    return rows


class Collator:
    """A collator of transformers that also counts the work of each batch."""

    def __init__(self, settings: dict[str, Any], tokenizer: Any, *, pad_to_longest: bool):
        """Choose the collator that the guides of transformers use for the task."""
        import transformers

        tags = settings["architecture"].endswith("ForTokenClassification")
        kind = "DataCollatorForTokenClassification" if tags else "DataCollatorWithPadding"
        self._collate = getattr(transformers, kind)(
            tokenizer,
            padding="longest" if pad_to_longest else "max_length",
            max_length=settings["max_length"],
        )
        self.work: deque[Work] = deque()
        """Of batches that are made and not trained on yet: the loader makes one ahead."""

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        batch = self._collate(rows)
        lengths = batch["attention_mask"].sum(1)
        sums = int(lengths.sum()), batch["input_ids"].numel(), int((lengths**2).sum())
        self.work.append(Work(1, len(rows), *sums))
        return batch


def _callback(
    connection: Connection, steps: int, began: float, collator: Collator, dtype: str, *, cuda: bool
) -> Any:
    """Return a callback of the Trainer that takes steps in turn."""
    import torch
    import transformers

    device = "cuda" if cuda else "cpu"

    def wait() -> None:
        if cuda:
            torch.cuda.synchronize()

    def peak() -> float:
        size = 8192 if cuda else 2048
        matrix = torch.ones(size, size, dtype=getattr(torch, dtype), device=device)

        def multiply() -> None:
            matrix @ matrix
            wait()

        return rates.best_rate(multiply, size)

    class TakeTurns(transformers.TrainerCallback):
        turn: turns.Turns | None = None

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            work = collator.work.popleft()
            if self.turn is None:
                wait()
                startup = time.time() - began
                connection.send({"startup_seconds": startup, "matrix_peak": peak()})
                self.turn = turns.Turns(connection, steps - 1, wait)
            else:
                self.turn.end(work)
            if not self.turn.begin():
                control.should_training_stop = True
            return control

    return TakeTurns()
