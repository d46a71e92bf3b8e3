"""A tiny BERT that knows nothing, and the rows of the tasks it learns."""

from pathlib import Path
from typing import Any

from tests.recipes.jobs import ASKED, LABELS

#: What fits what, nothing of which can be guessed from the words.
FITS = ("order a new one in the app", "our branches open at nine", "the rate is four percent", "it costs two euros")
THINGS = ("lost card", "visit today", "house loan", "wire abroad")


def tiny_bert(folder: Path) -> Path:
    """Makes `folder` a base: two layers of 32, WordPiece, [CLS] and [SEP]."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, BertTokenizer, set_seed

    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = dict.fromkeys(" ".join([*ASKED, *FITS, *THINGS, "and ?"]).split())
    digits = [*map(str, range(10)), *(f"##{digit}" for digit in range(10))]
    vocabulary = {word: place for place, word in enumerate([*marks, *words, *digits])}
    tokens = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokens.normalizer, tokens.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokens.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = BertTokenizer(tokenizer_object=tokens, model_max_length=64)
    set_seed(1)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=0,
        initializer_range=0.2,  # large, as so few weights learn little from a start near 0
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def classified(start: int = 0, count: int = 48) -> list[dict[str, Any]]:
    return [{"text": f"{ASKED[i % 3]} {i}?", "label": [LABELS[i % 3]]} for i in range(start, start + count)]


def several(start: int = 0, count: int = 64) -> list[dict[str, Any]]:
    """Each text asks for the things whose bits its number has: none, some or all of three."""
    return [
        {
            "text": " and ".join([str(i), *(ASKED[k] for k in range(3) if i >> k & 1)]),
            "label": [LABELS[k] for k in range(3) if i >> k & 1],
        }
        for i in range(start, start + count)
    ]


def fitting(start: int = 0, count: int = 48, negatives: bool = True, kinds: int = 4) -> list[dict[str, Any]]:
    """Queries of some kinds, each with the one text that fits its kind, and another one."""
    return [
        {
            "query": f"{THINGS[i % kinds]} {i}",
            "positive": [FITS[i % kinds]],
            "negatives": [FITS[(i + 1 + i // kinds % (kinds - 1)) % kinds]] if negatives else [],
        }
        for i in range(start, start + count)
    ]


def named(start: int = 0, count: int = 48) -> list[dict[str, Any]]:
    """A question that names nothing, a number, and a thing whose words the questions have too."""
    rows = []
    for i in range(start, start + count):
        text = f"{ASKED[i % 3]} {i} and {THINGS[i % 4]} ?"
        number, thing = len(ASKED[i % 3]) + 1, text.index(THINGS[i % 4])
        spans = [(number, number + len(str(i)), "NUMBER"), (thing, thing + len(THINGS[i % 4]), "THING")]
        rows.append(
            {"text": text, "entities": [{"start": start, "end": end, "label": label} for start, end, label in spans]}
        )
    return rows
