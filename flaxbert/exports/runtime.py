"""The reader of an export: texts in, predictions out, with numpy and tokenizers alone.

    from flaxbert.exports.runtime import load

    model = load("DIR")                  # needs onnxruntime
    model.predict(["a great film"])

This is the reference for programs in other languages: it follows decision.json, which holds all
that lies between a text and an answer and is not in the graph. docs/export.md describes the file.
Neither JAX nor transformers is imported. Shape letters: models/layers.py.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flaxbert.data import spans, tag_schemes, windows
from flaxbert.data.encoding import Encoded, encode, encode_head_and_tail
from flaxbert.data.features import Features
from flaxbert.errors import ConfigError, DataError, WeightsError
from flaxbert.metrics import entities

VERSION = 1
"""The version of decision.json; readers refuse any other."""
DECISION, MODEL, STABLEHLO = "decision.json", "model.onnx", "model.stablehlo"

Arrays = dict[str, np.ndarray]
Run = Callable[[Arrays], Mapping[str, np.ndarray]]
"""Runs the graph: {input: int64 [R, T]} to {output: float32}."""


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """The tokenizer of an export, with what `data/encoding.py` reads of one of transformers."""

    backend_tokenizer: Any
    split_special_tokens: bool
    """Whether "[SEP]" in a text is text."""
    cls_token_id: int
    sep_token_id: int
    pad_token_id: int

    @classmethod
    def load(cls, directory: Path, settings: Mapping[str, Any]) -> "Tokenizer":
        """Read the file that decision.json names."""
        from tokenizers import Tokenizer as Backend

        ids = {name: settings[name] for name in ("cls_token_id", "sep_token_id", "pad_token_id")}
        backend = Backend.from_file(str(directory / settings["file"]))
        return cls(backend, settings["split_special_tokens"], **ids)

    def num_special_tokens_to_add(self, pair: bool) -> int:
        """Return the number of tokens that are added to a text, or to a pair."""
        return int(self.backend_tokenizer.num_special_tokens_to_add(pair))


def read_decision(directory: Path) -> dict[str, Any]:
    """Return the content of decision.json.

    Raises:
      WeightsError: if it is missing, malformed, or of another version.
    """
    path = directory / DECISION
    try:
        decision: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = decision.get("version")
    except (OSError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"{path}: cannot be read ({error}); give the directory that `flaxbert export` wrote."
        ) from None
    if version != VERSION:
        raise WeightsError(
            f"{path}: version {version!r}, but this release of flaxbert reads version {VERSION}. "
            "Export the model again with it, or install the release that wrote the file."
        )
    return decision


def load(directory: str | Path, *, threads: int = 0) -> "Runtime":
    """Load an export.

    Args:
      directory: what `flaxbert export` wrote, as ONNX (needs onnxruntime) or StableHLO (needs JAX).
      threads: those of onnxruntime; 0 for one per core.

    Raises:
      ConfigError: if onnxruntime is not installed.
      WeightsError: for another directory, or another version of decision.json.
    """
    directory = Path(directory).expanduser()
    read_decision(directory)
    if (directory / STABLEHLO).is_file():
        from flaxbert.exports import stablehlo

        return Runtime(directory, stablehlo.runner(directory))
    return Runtime(directory, onnx_runner(directory / MODEL, threads))


def onnx_runner(path: Path, threads: int = 0) -> Run:
    """Return the function that runs an ONNX graph on the CPU.

    Raises:
      ConfigError: if onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            f"{path}: needs the package onnxruntime ({error}); install it: "
            'pip install "flaxbert[onnx]"'
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


class Runtime:
    """An exported model that predicts as the model that it was made from does."""

    def __init__(self, directory: Path, run: Run, *, batch_size: int = 32, pad_to: int = 1):
        """Create a reader.

        Args:
          directory: the export.
          run: runs its graph.
          batch_size: sequences of a batch.
          pad_to: rows are padded to a multiple of this, which bounds the number of shapes.
        """
        self.decision = read_decision(directory)
        self.tokenizer = Tokenizer.load(directory, self.decision["tokenizer"])
        self._run, self._batch_size, self._pad_to = run, batch_size, pad_to

    def predict(self, inputs: Sequence[Any], *, top_k: int = 1) -> list[dict[str, Any]]:
        """Predict for texts, as `flaxbert.load(...).predict` does.

        Args:
          inputs: one per prediction, in the task's form: a text; (text, second text); (question,
            context); a sentence, or the list of its words; (question, choices).
          top_k: the number of answers per input; more than 1 only for question answering.

        Raises:
          ConfigError: for a `top_k` that the task does not have.
          DataError: for an input of another form, or a question that leaves no room for a text.
        """
        _require_list(inputs)
        task = self.decision["task"]
        if top_k != 1 and (task != "question_answering" or top_k < 1):
            raise ConfigError(f"top_k={top_k}: expected 1, or more for question answering.")
        if task == "question_answering":
            return self._answers(inputs, top_k)
        records = self.records(inputs)
        if task == "token_classification" and tag_schemes.mark_entities(self.decision["labels"]):
            for item, record in zip(inputs, records, strict=True):
                text, places = self._words(item)
                record["entities"] = entities.in_text(
                    text, places, record["tags"], record["probability"]
                )
        return records

    def records(self, inputs: Sequence[Any]) -> list[dict[str, Any]]:
        """Predict for texts, as `flaxbert predict` writes it to predictions.jsonl, without ids."""
        _require_list(inputs)
        if not inputs:
            return []
        decide: Mapping[str, Callable[[Sequence[Any]], list[dict[str, Any]]]] = {
            "classification": self._classify,
            "multi_label": self._classify,
            "regression": self._classify,
            "token_classification": self._tag,
            "question_answering": lambda items: self._answer(items)[0],
            "multiple_choice": self._choose,
        }
        return decide[self.decision["task"]](inputs)

    # --- the graph -----------------------------------------------------------------------------

    def forward(self, features: Features) -> Arrays:
        """Return the graph's outputs, [M, ...] per sequence or [total tokens, ...] per token."""
        outputs: Arrays = {}
        order = np.argsort(features.lengths, kind="stable")  # less padding
        starts, total = features.sequence_start, int(features.lengths.sum())
        for first in range(0, len(order), self._batch_size):
            chosen = order[first : first + self._batch_size].tolist()
            for name, values in self._run(self.batch(features, chosen)).items():
                per_token = self.decision["outputs"][name] == "token"
                shape = (total if per_token else len(order), *values.shape[1 + per_token :])
                store = outputs.setdefault(name, np.zeros(shape, np.float32))
                for row, sequence in enumerate(chosen):
                    if per_token:
                        length = features.lengths[sequence]
                        store[starts[sequence] : starts[sequence + 1]] = values[row, :length]
                    else:
                        store[sequence] = values[row]
        return outputs

    def batch(self, features: Features, sequences: Sequence[int]) -> Arrays:
        """Return the inputs for some sequences, one in each row."""
        lengths = features.lengths[list(sequences)]
        width = -(-int(lengths.max()) // self._pad_to) * self._pad_to
        width = min(width, self.decision["max_length"])
        inputs = {
            name: np.zeros((len(sequences), width), np.int64) for name in self.decision["inputs"]
        }
        inputs["input_ids"] += self.tokenizer.pad_token_id
        for row, sequence in enumerate(sequences):
            tokens = features.tokens_of(sequence) | {"attention_mask": np.int64(1)}
            for name, array in inputs.items():
                array[row, : lengths[row]] = tokens[name]
        if self.decision["task"] == "multiple_choice":  # one choice of a question in each row
            return {name: array[:, None] for name, array in inputs.items()}
        return inputs

    # --- texts ---------------------------------------------------------------------------------

    def _encode_texts(self, firsts: list[str], seconds: list[str] | None) -> Encoded:
        length, overlap = self.decision["max_length"], self.decision["overlap"]
        match self.decision["long_texts"]:
            case "head_tail":
                return encode_head_and_tail(self.tokenizer, firsts, length)
            case "windows":
                if seconds is not None:
                    self._require_room(firsts, "the first text")
                return encode(
                    self.tokenizer,
                    firsts,
                    seconds,
                    truncation="only_first" if seconds is None else "only_second",
                    max_length=length,
                    overlap=overlap,
                )
            case _:
                return encode(self.tokenizer, firsts, seconds, max_length=length)

    def _require_room(self, texts: list[str], what: str) -> None:
        """Raise for texts that are repeated in every window, and leave no room in it."""
        length, overlap = self.decision["max_length"], self.decision["overlap"]
        problems = windows.too_long(texts, what, self.tokenizer, max_length=length, overlap=overlap)
        for number, problem in problems.items():
            raise DataError(f"inputs:{number + 1}: {problem}")

    def _classify(self, inputs: Sequence[Any]) -> list[dict[str, Any]]:
        """Decide for texts or pairs; the logits of windows are averaged."""
        paired = self.decision["pair"]
        form = "(first text, second text)" if paired else "a text"
        pairs = [_texts(item, n, 2, form) if paired else _texts((item,), n, 1, form)
                 for n, item in enumerate(inputs, 1)]  # fmt: skip
        seconds = [pair[1] for pair in pairs] if paired else None
        encoded = self._encode_texts([pair[0] for pair in pairs], seconds)
        features = _features(encoded)
        logits = self.forward(features)["logits"]
        counts = np.bincount(features.example_index, minlength=len(inputs))
        sums = np.zeros((len(inputs), logits.shape[1]), np.float32)
        np.add.at(sums, features.example_index, logits)
        means = sums / counts[:, None].astype(np.float32)
        keys = ("text", "pair")[: 1 + paired]
        return [
            {**dict(zip(keys, pair, strict=True)), **self._decide(mean)}
            for pair, mean in zip(pairs, means, strict=True)
        ]

    def _decide(self, logits: np.ndarray) -> dict[str, Any]:
        """Return the answer for the logits [C] of a text."""
        activation, labels = self.decision["activation"], self.decision["labels"]
        if activation == "none":
            return {"value": float(logits[0])}
        # This form of the sigmoid cannot overflow.
        probs = softmax(logits) if activation == "softmax" else np.exp(-np.logaddexp(0, -logits))
        probability = {name: float(p) for name, p in zip(labels, probs, strict=True)}
        if activation == "softmax":
            return {"label": labels[int(np.argmax(logits))], "probability": probability}
        least = zip(labels, self.decision["thresholds"], strict=True)
        given = [name for name, threshold in least if probability[name] >= threshold]
        return {"labels": given, "probability": probability}

    # --- words ---------------------------------------------------------------------------------

    def _words(self, item: Any) -> tuple[str, list[tuple[int, int]]]:
        """Return a sentence and the characters of its words; a list is joined by blanks."""
        if isinstance(item, str):
            pattern = re.compile(self.decision["word_pattern"])
            return item, [match.span() for match in pattern.finditer(item)]
        ends = list(itertools.accumulate(len(word) + 1 for word in item))
        places = [(end - 1 - len(w), end - 1) for w, end in zip(item, ends, strict=True)]
        return " ".join(item), places

    def _tag(self, inputs: Sequence[Any]) -> list[dict[str, Any]]:
        """Decide for sentences: a word has the tag of its first piece."""
        sentences = []
        for number, item in enumerate(inputs, 1):
            if not isinstance(item, str):
                form = "a sentence, or a list of words"
                _texts(item, number, len(item) if isinstance(item, list | tuple) else 0, form)
            text, places = self._words(item)
            if not places:
                raise DataError(f"inputs:{number}: no words; leave it out.")
            sentences.append([text[a:b] for a, b in places])
        encoded = encode(
            self.tokenizer,
            sentences,
            split=True,
            truncation="only_first",
            max_length=self.decision["max_length"],
            overlap=self.decision["overlap"],
            words=True,
        )
        pieces, owners = windows.first_pieces(encoded, self.decision["overlap"])
        logits = self.forward(_features(encoded))["logits"][pieces]
        return tag_schemes.tagged_words(
            sentences,
            owners,
            encoded.per_token["word"][pieces],
            [self.decision["labels"][best] for best in np.argmax(logits, axis=-1).tolist()],
            softmax(logits).max(axis=-1),
            self.decision["outside"],
        )

    # --- questions -----------------------------------------------------------------------------

    def _answer(
        self, inputs: Sequence[Any]
    ) -> tuple[list[dict[str, Any]], Features, spans.Candidates]:
        """Decide for questions: the best span of all windows, or no answer.

        Returns:
          The predictions, the windows, and the candidates of these.
        """
        form = "(question, context)"
        pairs = [_texts(item, number, 2, form) for number, item in enumerate(inputs, 1)]
        questions, contexts = ([pair[n] for pair in pairs] for n in (0, 1))
        self._require_room(questions, "the question")
        encoded = encode(
            self.tokenizer,
            questions,
            contexts,
            truncation="only_second",
            max_length=self.decision["max_length"],
            overlap=self.decision["overlap"],
            characters=True,
        )
        placed = windows.Windows.of(encoded, contexts)
        marks = placed.max_context(self.decision["overlap"])
        features = _features(encoded)
        outputs = self.forward(features)
        firsts = features.sequence_start[:-1]
        null = outputs["start_logits"][firsts] + outputs["end_logits"][firsts]
        scored = self._candidates(
            features, outputs, {"start": marks > 0, "end": placed.starts >= 0}
        )
        best: list[tuple[float, int, int]] = [(-np.inf, 0, 0)] * len(pairs)
        least = np.full(len(pairs), np.inf)
        for window, owner in enumerate(features.example_index.tolist()):
            here = {name: values[window] for name, values in scored.items()}
            score, first, last = spans.best_span(here, self.decision["max_answer_length"])
            least[owner] = min(least[owner], null[window])
            if score > best[owner][0]:
                best[owner] = (score, *spans.characters(features, window, first, last))
        records = [
            self._with_null(pair, span, float(odds))
            for pair, span, odds in zip(pairs, best, least, strict=True)
        ]
        return records, features, scored

    def _candidates(
        self, features: Features, outputs: Arrays, allowed: Mapping[str, np.ndarray]
    ) -> spans.Candidates:
        """Return the `n_best` starts and ends of each window; see `spans.Candidates`."""
        count, size = len(features.lengths), self.decision["n_best"]
        lowest = np.finfo(np.float32).min
        scored: Arrays = {}
        for side, places in allowed.items():
            scored[f"{side}_score"] = np.full((count, size), lowest, np.float32)
            scored[f"{side}_place"] = np.zeros((count, size), np.int64)
            logits = np.where(places, outputs[f"{side}_logits"], lowest)
            for window, (a, b) in enumerate(itertools.pairwise(features.sequence_start.tolist())):
                order = np.argsort(-logits[a:b], kind="stable")[:size]
                scored[f"{side}_score"][window, : len(order)] = logits[a:b][order]
                scored[f"{side}_place"][window, : len(order)] = order
        return scored

    def _with_null(
        self, pair: tuple[str, ...], best: tuple[float, int, int], null: float
    ) -> dict[str, Any]:
        """Return the prediction for a question: its span, or none if [CLS] scores higher."""
        question, context = pair
        score, (start, end) = best[0], windows.trim(context, *best[1:])
        text, finite = context[start:end], np.isfinite(score)
        record: dict[str, Any] = {"question": question, "answer": text, "start": start, "end": end}
        record["score"] = score if finite else None
        if self.decision["unanswerable"]:
            odds = null - score if finite else float(np.finfo(np.float32).max)
            record |= {"span": text, "null_odds": odds}
            if odds > self.decision["null_threshold"]:
                record |= {"answer": "", "start": 0, "end": 0}
        return record

    def _answers(self, inputs: Sequence[Any], top_k: int) -> list[dict[str, Any]]:
        """Return the best span of each context; with `top_k`, `answers` has the best ones."""
        if not inputs:
            return []
        records, features, scored = self._answer(inputs)
        keys = ("score", "start", "end", "answer")
        answers: list[dict[str, Any]] = [{key: record[key] for key in keys} for record in records]
        if top_k == 1:
            return answers
        contexts = [context for _, context in inputs]
        count, longest = top_k + self.decision["n_best"], self.decision["max_answer_length"]
        ranked = spans.ranked(contexts, features, scored, longest=longest, count=count)
        for answer, context, scores in zip(answers, contexts, ranked, strict=True):
            answer["answers"] = spans.best(context, scores, top_k)
        return answers

    # --- choices -------------------------------------------------------------------------------

    def _choose(self, inputs: Sequence[Any]) -> list[dict[str, Any]]:
        """Decide for questions with choices."""
        for number, item in enumerate(inputs, 1):
            is_pair = isinstance(item, list | tuple) and len(item) == 2
            texts = (item[0], *item[1]) if is_pair and isinstance(item[1], list | tuple) else None
            _texts(texts, number, len(texts or ()), "(question, choices)")
            if len(item[1]) < 2:
                raise DataError(f"inputs:{number}: {len(item[1])} choices; at least 2 are needed.")
        owners = [n for n, (_, choices) in enumerate(inputs) for _ in choices]
        encoded = encode(
            self.tokenizer,
            [inputs[n][0] for n in owners],
            [choice for _, choices in inputs for choice in choices],
            max_length=self.decision["max_length"],
        )
        scores = self.forward(_features(encoded))["logits"][:, 0]
        bounds = np.cumsum([0, *(len(choices) for _, choices in inputs)]).tolist()
        records = []
        for (question, choices), (a, b) in zip(inputs, itertools.pairwise(bounds), strict=True):
            best, probs = int(np.argmax(scores[a:b])), softmax(scores[a:b]).tolist()
            record = {"question": question, "choice": choices[best], "index": best}
            records.append(record | {"probability": probs})
        return records


def _features(encoded: Encoded) -> Features:
    return Features.build(
        encoded.per_token, lengths=encoded.lengths, example_index=encoded.example_index
    )


def _require_list(inputs: Any) -> None:
    if isinstance(inputs, str | bytes | Mapping):
        raise DataError("inputs: expected a list. To predict for one input: [input].")


def _texts(item: Any, number: int, count: int, form: str) -> tuple[str, ...]:
    """Return an input as texts.

    Raises:
      DataError: if it is not `count` texts.
    """
    is_list = isinstance(item, list | tuple)
    if not is_list or len(item) != count or not all(isinstance(text, str) for text in item):
        raise DataError(f"inputs:{number}: expected {form}.")
    return tuple(item)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return the softmax over the last axis."""
    powers: np.ndarray = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
