"""Small byte-level tokenizers that split texts as those of known models do, and texts on which they differ."""

import json
from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from services.trainer.recipes.models.fresh_model import END, PAD, TURN
from tests.recipes.jobs import conversations, texts

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
HARD = (
    "Row 12345: it's 2026, and I'LL keep 100 000 apart, where is my card 7?",
    "  two before, two after  ",
    "a\r\n\r\n b\n\n\n  c\t\td \n",
    "naïve 银行½ ١٢٣ ＡＢ１２ x² 👩‍🏫🇩🇪",
    f"{TURN}user\nwhy this fee 3?{END}\n{TURN}assistant\n",
    "don't 'tis we've O'Neill's!!! (loan_question)...",
)
#: A token that no merge makes: only a tokenizer to which a piece that is a token needs none gives it.
WHOLE = "Ġcard"


def tokenizers() -> Iterator[tuple[str, PreTrainedTokenizerFast]]:
    """Each with llama.cpp's name of how it splits."""
    own = pre_tokenizers.ByteLevel(add_prefix_space=False)
    yield "gpt-2", _trained(own)
    yield "smollm", _trained(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), own]))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for name, digits, whole in (
        ("qwen2", r"\p{N}", False),
        ("llama-bpe", r"\p{N}{1,3}", True),
        ("dbrx", r"\p{N}{1,3}", False),
    ):
        split = pre_tokenizers.Split(Regex(WORDS + digits + REST), behavior="isolated", invert=False)
        yield name, _trained(pre_tokenizers.Sequence([split, level]), whole)


def _trained(splitting: pre_tokenizers.PreTokenizer, whole: bool = False) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE(ignore_merges=whole))
    bpe.pre_tokenizer = splitting
    rows = [row["text"] for row in texts()] + [row["messages"][0]["content"] for row in conversations()] + list(HARD)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[PAD, TURN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(rows, trainer)
    told = json.loads(bpe.to_str())
    told["model"]["merges"] = [pair for pair in told["model"]["merges"] if "".join(pair) != WHOLE]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(told)),
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[TURN],
        model_max_length=128,
        clean_up_tokenization_spaces=False,
    )
