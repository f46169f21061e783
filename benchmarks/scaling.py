"""Plan encoders on TPU slices and GPUs, and write the table of docs/scaling.md.

    python benchmarks/scaling.py [--only=PATTERN] [--again] [--check] [--list]

Needs the libtpu that belongs to the version of jax (pip install -e '.[tpu]'), for GPUs the plugin
for CUDA (pip install -e '.[cuda]'), and JAX_PLATFORMS=cpu in the environment. Each row is a plan of
`flaxbert plan` without data: full rows of question answering, bfloat16, dropout 0.1, AdamW. The
models are directories with a config.json of the usual sizes and a made-up vocabulary; no weights
are needed. A row takes one to several minutes. Finished rows are kept in docs/scaling.json, and
only the others are compiled; --again compiles all that match. --list prints the names of the rows.

--check compares the rows of BERT-base on 8, 64 and 256 chips of a v5e, and fails unless operations
and memory of a chip are constant within 3 percent (weak scaling).
"""

import argparse
import fnmatch
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from flaxbert.commands.plan import plan
from flaxbert.config import Config, DataConfig, ModelConfig, TrainConfig
from flaxbert.planning import chips, topology

DOCS = Path(__file__).parents[1] / "docs"
RECORDS = DOCS / "scaling.json"
MARKS = "<!-- the table is made by benchmarks/scaling.py -->", "<!-- end of the table -->"

BERT = {"model_type": "bert", "vocab_size": 30522, "max_position_embeddings": 512}
ENCODERS: dict[str, dict[str, Any]] = {
    "BERT-base": BERT
    | {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    | {"intermediate_size": 3072},
    "BERT-large": BERT
    | {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    | {"intermediate_size": 4096},
    "XLM-R XL": {"model_type": "xlm-roberta-xl", "vocab_size": 250880, "type_vocab_size": 1}
    | {"max_position_embeddings": 514, "hidden_size": 2560, "num_hidden_layers": 36}
    | {"num_attention_heads": 32, "intermediate_size": 10240, "pad_token_id": 1},
}

# Encoder, slice or GPUs, tokens of a row, rows of a chip, further keys of `train`.
ROWS: list[tuple[str, str, int, int, dict[str, Any]]] = [
    ("BERT-base", "v5e:2x4", 384, 32, {}),
    ("BERT-large", "v5e:4x4", 384, 32, {}),
    ("BERT-base", "v5e:8x8", 384, 32, {}),
    ("BERT-base", "v5e:16x16", 384, 32, {}),
    ("BERT-large", "v4:2x2x4", 384, 32, {}),
    ("BERT-large", "v6e:4x4", 384, 32, {}),
    ("XLM-R XL", "v6e:8x8", 512, 4, {"fsdp": 16}),
    ("BERT-base", "v5e:2x4", 128, 96, {}),
    ("BERT-base", "v5e:2x4", 512, 24, {}),
    ("BERT-base", "v6e:2x4", 384, 32, {}),
    ("BERT-large", "v5e:4x4", 512, 24, {}),
    ("BERT-base", "h100:8", 384, 32, {}),
    ("BERT-large", "h100:8", 384, 32, {}),
]
WEAK = ("BERT-base v5e:2x4 384", "BERT-base v5e:8x8 384", "BERT-base v5e:16x16 384")
TOLERANCE = 0.03


def main() -> None:
    """Plan the rows that are missing, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="*")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--list", action="store_true")
    flags = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("flaxbert").setLevel(logging.INFO)
    records: dict[str, Any] = {}
    if RECORDS.is_file():
        records = json.loads(RECORDS.read_text(encoding="utf-8"))
    if flags.list:
        print("\n".join(map(name_of, ROWS)))
    elif flags.check:
        sys.exit(check([records[name] for name in WEAK if name in records]))
    else:
        for row in ROWS:
            name = name_of(row)
            if fnmatch.fnmatch(name, flags.only) and (flags.again or name not in records):
                records[name] = planned(row)
                RECORDS.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
                write_table(records)


def name_of(row: tuple[str, str, int, int, dict[str, Any]]) -> str:
    """Return the name of a row."""
    encoder, target, length, _, keys = row
    return " ".join([encoder, target, str(length), *(f"{k}={v}" for k, v in keys.items())])


def planned(row: tuple[str, str, int, int, dict[str, Any]]) -> dict[str, Any]:
    """Return the plan of a row."""
    encoder, target, length, rows, keys = row
    devices = target_flags(target)
    (chosen,) = topology.targets(**devices)
    with tempfile.TemporaryDirectory() as directory:
        write_model(Path(directory), ENCODERS[encoder])
        config = Config(
            task="question_answering",
            model=ModelConfig(init=directory),
            data=DataConfig(max_length=length),
            train=TrainConfig(batch_size=rows * len(chosen.devices), **keys),
        )
        flags = {"price": "", "efficiency": "", "data": "none"}
        ((record,), _) = plan(config, devices | flags)
    return record | {"model": encoder}


def target_flags(target: str) -> dict[str, Any]:
    """Return the flags of `flaxbert plan` for a slice such as v5e:2x4, or GPUs such as h100:8."""
    kind, _, size = target.partition(":")
    if kind in chips.gpus():
        return {"topology": "", "gpu": kind, "count": int(size)}
    return {"topology": target, "gpu": "", "count": 8}


def write_model(directory: Path, sizes: dict[str, Any]) -> None:
    """Write a model directory without weights: config.json, and a tokenizer of single letters."""
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *map(chr, range(97, 123))]
    tokenizer = Tokenizer(models.WordLevel(dict(zip(words, range(31), strict=True)), "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = ("cls_token", "pad_token", "sep_token", "unk_token", "mask_token")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **dict(zip(names, words, strict=False))
    ).save_pretrained(directory)
    config = sizes | {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")


HEAD = (
    *("encoder", "chips", "rows x length of a chip", "memory, GiB", "TFLOP", "HBM, GB"),
    *("sent, GB", "bound by", "roofline, ms", "best MFU", "tokens/s of a chip, at most"),
)


def write_table(records: dict[str, Any]) -> None:
    """Write the table of docs/scaling.md, in the order of ROWS."""
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    lines += [line(records[name]) for name in map(name_of, ROWS) if name in records]
    page = DOCS / "scaling.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    table = "\n".join([MARKS[0], "", *lines, "", MARKS[1]])
    page.write_text(before + table + after, encoding="utf-8")


def line(one: dict[str, Any]) -> str:
    """Return a line of the table."""
    devices, memory = one["devices"], one["memory"]
    shape = f"{one['rows'] // devices} x {one['row_length']}"
    used = f"{memory['peak'] / 2**30:.2f} of {memory['capacity'] / 2**30:.2f}"
    encoder = one["model"] + (f", fsdp {one['fsdp']}" if one["fsdp"] > 1 else "")
    cells = [encoder, f"{one['target']} ({one['chips']:g})", shape, used]
    if "roofline" in one:
        seconds = one["step_seconds"] * one["efficiency"]
        sent = sum(part["bytes"] for part in one["collectives"].values()) / 1e9
        flops = max(one["compiled_flops"], one["model_flops"]) / 1e12
        cells += [f"{flops:.2f}", f"{one['hbm_traffic'] / 1e9:.1f}", f"{sent:.2f}"]
        cells += [one["roofline"]["bound"], f"{1000 * seconds:.1f}"]
        rate = one["rows"] * one["row_length"] / one["chips"] / seconds
        cells += [f"{one['mfu'] / one['efficiency']:.0%}", f"{rate:,.0f}"]
    else:
        cells += ["does not fit: " + "; ".join(one["changes"]), *[""] * 6]
    return f"| {' | '.join(cells)} |"


def check(records: list[dict[str, Any]]) -> str | int:
    """Print operations and memory of a chip for each number of chips; return what differs."""
    problems = []
    for name, value in (
        ("operations", lambda one: one["compiled_flops"]),
        ("memory", lambda one: one["memory"]["peak"]),
    ):
        values = [value(one) for one in records]
        shown = ", ".join(f"{one['chips']:g} chips: {value(one):.6g}" for one in records)
        change = max(values) / min(values) - 1
        print(f"{name} of a chip: {shown}; {change:.2%} apart")
        if len(values) < 2 or change > TOLERANCE:
            problems.append(f"{name} of a chip: more than {TOLERANCE:.0%} apart, or rows missing")
    return "\n".join(problems) or 0


if __name__ == "__main__":
    main()
