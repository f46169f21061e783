"""Tokenizers of every kind that encoders come with, trained on a small corpus of many scripts."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

SENTENCES = (
    "the old king of paris built a bridge by the river",
    "The Queen visited London and the City in 1999",
    "what is it? where was she, and who built the (old) bridge!",
    "schön über Straße größer, naïve café déjà vu",
    "мост через реку построил старый король",
    "ο βασιλιάς έχτισε μια γέφυρα",
    "الملك القديم بنى جسرا فوق النهر",
    "המלך הזקן בנה גשר מעל הנהר",
    "राजा ने नदी पर पुल बनाया",
    "พระราชาสร้างสะพานข้ามแม่น้ำ",
    "国王在河上建了一座桥 東京 大阪",
    "王さまは川に橋をかけました",
    "왕은 강에 다리를 놓았다",
)

BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
ROLES = {
    BERT: ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"),
    FAIRSEQ: ("cls_token", "pad_token", "sep_token", "unk_token", "mask_token"),
}


def _template(built: Tokenizer, *, types: bool, double: bool) -> Any:
    """[CLS] $A [SEP], and of a pair the types and separators of its family."""
    first, sep = ("<s>", "</s>") if built.token_to_id("<s>") is not None else ("[CLS]", "[SEP]")
    middle = f"{sep} {sep}" if double else sep
    second = f"$B:1 {sep}:1" if types else f"$B {sep}"
    ids = [(token, built.token_to_id(token)) for token in (first, sep)]
    return processors.TemplateProcessing(
        single=f"{first} $A {sep}", pair=f"{first} $A {middle} {second}", special_tokens=ids
    )


def _wordpiece(**normalizer: Any) -> Tokenizer:
    built = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    built.normalizer = normalizers.BertNormalizer(**normalizer)
    built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=420, special_tokens=list(BERT), show_progress=False
    )
    built.train_from_iterator(SENTENCES * 2, trainer)
    built.post_processor = _template(built, types=True, double=False)
    built.decoder = decoders.WordPiece()
    return built


def _byte_level(special: tuple[str, ...], *, prefix: bool) -> Tokenizer:
    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    built.train_from_iterator(SENTENCES * 3, trainer)
    built.decoder = decoders.ByteLevel()
    return built


def _roberta(*, prefix: bool) -> Tokenizer:
    built = _byte_level(FAIRSEQ, prefix=prefix)
    ends = [(token, built.token_to_id(token)) for token in ("</s>", "<s>")]
    built.post_processor = processors.RobertaProcessing(*ends, add_prefix_space=prefix)
    return built


def _modernbert() -> Tokenizer:
    built = _byte_level(BERT, prefix=False)
    built.normalizer = normalizers.NFC()
    built.post_processor = _template(built, types=False, double=False)
    return built


def _unigram(special: tuple[str, ...], unknown: str, steps: list[Any]) -> Tokenizer:
    built = Tokenizer(models.Unigram())
    built.normalizer = normalizers.Sequence(steps)
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=[*special, *pieces], unk_token=unknown, show_progress=False
    )
    built.train_from_iterator(SENTENCES * 3, trainer)
    state = json.loads(built.to_str())
    state["model"]["byte_fallback"] = True
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in special]
    built = Tokenizer.from_str(json.dumps(state))
    built.decoder = decoders.Metaspace()
    return built


def _xlm_roberta() -> Tokenizer:
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    built = _unigram(FAIRSEQ, "<unk>", [normalizers.Nmt(), normalizers.NFKC(), spaces])
    built.post_processor = _template(built, types=False, double=True)
    return built


def _camembert() -> Tokenizer:
    # Ids 0, 2 and 4 are unused, and the mask token comes after all pieces (see _stored).
    special = ("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>")
    built = _unigram(special, "<unk>", [normalizers.Nmt(), normalizers.NFKC()])
    built.post_processor = _template(built, types=False, double=True)
    return built


def _albert() -> Tokenizer:
    steps = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(),
             normalizers.StripAccents(), normalizers.Lowercase()]  # fmt: skip
    built = _unigram(BERT, "[UNK]", steps)
    built.post_processor = _template(built, types=True, double=False)
    return built


KINDS: dict[str, tuple[str, str, tuple[str, ...], Callable[[], Tokenizer]]] = {
    "cased": ("bert", "BertTokenizer", BERT, lambda: _wordpiece(lowercase=False)),
    "uncased": ("bert", "BertTokenizer", BERT, lambda: _wordpiece(lowercase=True)),
    "chinese": ("bert", "BertTokenizer", BERT,
                lambda: _wordpiece(lowercase=True, strip_accents=False)),
    "roberta": ("roberta", "RobertaTokenizer", FAIRSEQ, lambda: _roberta(prefix=False)),
    "roberta_prefix": ("roberta", "RobertaTokenizer", FAIRSEQ, lambda: _roberta(prefix=True)),
    "modernbert": ("modernbert", "PreTrainedTokenizerFast", BERT, _modernbert),
    "xlm_roberta": ("xlm-roberta", "XLMRobertaTokenizer", FAIRSEQ, _xlm_roberta),
    "camembert": ("camembert", "CamembertTokenizer", FAIRSEQ, _camembert),
    "albert": ("albert", "AlbertTokenizer", BERT, _albert),
}  # fmt: skip
"""Name -> (model_type, class in tokenizer_config.json, special tokens, how it is made)."""


@functools.cache
def _stored(name: str) -> str:
    """A kind's tokenizer.json; trained once, since no two trainings give the same pieces."""
    *_, special, make = KINDS[name]
    built = make()
    if special is FAIRSEQ:
        built.add_special_tokens([AddedToken(special[-1], lstrip=True, special=True)])
    return built.to_str()


def write_tokenizer(name: str, directory: Path, **settings: Any) -> Path:
    """Write a kind's tokenizer.json, tokenizer_config.json and a config.json beside them."""
    model_type, class_name, special, _ = KINDS[name]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(_stored(name))
    roles = dict(zip(ROLES[special], special, strict=True))
    if special is FAIRSEQ:
        roles |= {"bos_token": "<s>", "eos_token": "</s>"}
    own: dict[str, Any] = {"tokenizer_class": class_name, "model_max_length": 512, **roles}
    if model_type == "bert":
        own["do_lower_case"] = name != "cased"
    if name == "roberta_prefix":
        own["add_prefix_space"] = True
    (directory / "tokenizer_config.json").write_text(json.dumps(own | settings))
    (directory / "config.json").write_text(json.dumps({"model_type": model_type}))
    return directory
