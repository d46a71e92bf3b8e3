"""A tokenizer in llama.cpp's words: a byte-level BPE, how it splits texts, its chat template; knows no weights."""

import json
import re
from dataclasses import dataclass
from typing import Any

import gguf
from transformers import PreTrainedTokenizerBase

from services.trainer.recipes.job.failures import BadInput

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
#: llama.cpp's names of how a text is split before its pieces are merged, by the patterns of those tokenizers and by
#: whether a piece that is a token needs no merges.
SPLITS = {
    (_WORDS + r"\p{N}" + _REST, False): "qwen2",
    (_WORDS + r"\p{N}{1,3}" + _REST, True): "llama-bpe",
    (_WORDS + r"\p{N}{1,3}" + _REST, False): "dbrx",
}
#: Around what a model says itself, for training; not every reader of GGUF knows these tags.
MARKED = re.compile(r"{%([-+]?)\s*(end)?generation\s*([-+]?)%}")


@dataclass(frozen=True)
class Words:
    """A byte-level BPE as GGUF has it; `split` is llama.cpp's name of how it splits, empty where none is known, and
    `note` what llama.cpp does otherwise.
    """

    tokens: list[str]
    types: list[int]
    merges: list[str]
    split: str
    note: str


def words_of(tokenizer: PreTrainedTokenizerBase, size: int) -> Words:
    """The tokens in their order, `size` of them, what each is, and the merges. Raises BadInput for other tokenizers."""
    told = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {"model": {}}
    merges, steps = told["model"].get("merges"), _steps(told.get("pre_tokenizer"))
    if not merges or all(step["type"] != "ByteLevel" for step in steps):
        raise BadInput(
            "The base's tokenizer is no byte-level BPE, and no other is written as GGUF; take merged or onnx."
        )
    names = {number: token for token, number in tokenizer.get_vocab().items()}
    added = {int(number): token for number, token in tokenizer.added_tokens_decoder.items()}
    kinds = gguf.TokenType
    types = [
        kinds.UNUSED
        if number not in names
        else kinds.NORMAL
        if number not in added
        else (kinds.CONTROL if added[number].special else kinds.USER_DEFINED)
        for number in range(size)
    ]
    pairs = [" ".join(pair) if isinstance(pair, list) else pair for pair in merges]
    split = _split(steps, bool(told["model"].get("ignore_merges")))
    note = "" if split else "has no name for how this tokenizer splits texts"
    if told.get("normalizer"):
        note = note or f"does not normalize texts as this tokenizer does ({told['normalizer']['type']})"
    return Words([names.get(number, f"[PAD{number}]") for number in range(size)], types, pairs, split, note)


def _steps(told: dict[str, Any] | None) -> list[dict[str, Any]]:
    if told is None:
        return []
    return list(told["pretokenizers"]) if told["type"] == "Sequence" else [told]


def _split(steps: list[dict[str, Any]], whole: bool) -> str:
    level = steps[-1]
    words = level.get("use_regex", True) and not whole  # GPT-2's own pattern
    if level.get("add_prefix_space"):
        return ""
    match [step["type"] for step in steps]:
        case ["ByteLevel"] if words:
            return "gpt-2"
        case ["Digits", "ByteLevel"] if words and steps[0]["individual_digits"]:
            return "smollm"
        case ["Split", "ByteLevel"] if not level.get("use_regex", True) and steps[0]["behavior"] == "Isolated":
            return SPLITS.get((steps[0]["pattern"].get("Regex", ""), whole), "")
    return ""


def spoken(template: str) -> str:
    """The chat template without what only training wants of it: a marked block becomes one that is always there."""
    return MARKED.sub(
        lambda tag: f"{{%{tag[1]} {'endif' if tag[2] else 'if true'} {tag[3]}%}}",  # the same whitespace around it
        template,
    )
