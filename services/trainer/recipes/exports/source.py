"""What is exported: a version's weights with its adapter, their size and the rows that measure it; knows no format."""

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from services.trainer.exporting import CAUSAL
from services.trainer.recipes.data.conversations import tokenize
from services.trainer.recipes.data.rows import (
    Message,
    read_classified,
    read_conversations,
    read_feedback,
    read_preferences,
    read_retrieval,
    read_texts,
)
from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import JobDir, Spec
from services.trainer.refusals import enum_word

#: Held-out rows that are looked at, and the most tokens of one.
ROWS = 64
MAX_LENGTH = 512
#: What safetensors and torch call a number.
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}

Columns = dict[str, list[int]]  # `input_ids`, `attention_mask`, perhaps `token_type_ids`, of one text or one pair


@dataclass(frozen=True)
class Source:
    """A version as it is: `dtype` is that of its base's files, `size` the bytes of all its weights in them."""

    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel | PeftModel
    dtype: str
    size: int


def asked(job: JobDir, *formats: str) -> Spec:
    """The spec, which asks for one of these formats. Raises BadInput otherwise."""
    spec = job.spec()
    word = enum_word(spec.parameters.get("format"), "EXPORT_FORMAT_")
    if spec.recipe != "export" or word not in formats:
        raise BadInput(
            f"spec.json asks for the recipe {spec.recipe!r} and the format {word!r}; this is export of "
            f"{' or '.join(formats)}."
        )
    return spec


def load(job: JobDir, recipe: str, *, merge: bool = True) -> Source:
    """Tokenizer and float32 weights of what `recipe` trained; an adapter is merged in, or stays on top of its base.

    Raises BadInput.
    """
    job.report("phase", message="reading", step=1, total_steps=4)
    dtype = check_floats(job.base)
    kind = AutoModelForCausalLM if recipe in CAUSAL else AutoModelForSequenceClassification
    adapter = job.model("base-adapter")
    try:
        tokenizer = AutoTokenizer.from_pretrained(job.base, trust_remote_code=False)
        model = kind.from_pretrained(job.base, dtype="float32", trust_remote_code=False)
        if adapter.is_dir():
            model = PeftModel.from_pretrained(model, adapter)
            model = model.merge_and_unload() if merge else model
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BadInput(f"in/base cannot be loaded as a {kind.__name__} with its tokenizer.") from error
    return Source(tokenizer, model.eval().requires_grad_(False), dtype, source_bytes(job))


def check_floats(folder: Path) -> str:
    """The dtype that a model folder is stored in, as torch calls it. Raises BadInput for one that is quantized."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        first = min(folder.glob("*.safetensors"))
        with first.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        found = {tensor["dtype"] for name, tensor in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise BadInput("in/base is not a Hugging Face model folder with safetensors.") from error
    if "quantization_config" in config:
        raise BadInput("in/base is quantized already; export the version that it was made from.")
    floats = [name for stored, name in DTYPES.items() if stored in found]
    if not floats:
        raise BadInput(
            f"in/base is stored in {', '.join(sorted(found))}; an export takes {', '.join(DTYPES.values())}."
        )
    return floats[0]


def source_bytes(job: JobDir) -> int:
    """Bytes of the weights of the version: of its base, and of the adapter on it."""
    return weight_bytes(job.base) + weight_bytes(job.model("base-adapter"))


def weight_bytes(folder: Path, *suffixes: str) -> int:
    """Bytes of the files with these endings in a folder, `.safetensors` where none are named; 0 where there is none."""
    return sum(file.stat().st_size for file in folder.glob("*") if file.suffix in (suffixes or (".safetensors",)))


def told_size(job: JobDir, source_dtype: str, before: int, after: int) -> dict[str, float]:
    """`size_ratio`, what the export's weights take over what the source's do in its own dtype, and both in bytes."""
    job.notes["source_dtype"] = source_dtype
    return {"size_ratio": after / before, "source_bytes": float(before), "export_bytes": float(after)}


def held_out(job: JobDir) -> Path:
    """The file of rows that measure the export, and a note of which split they are."""
    found = job.validation_rows if job.validation_rows.exists() else job.train_rows
    job.notes["measured_on"] = found.stem
    return found


def conversations(path: Path, recipe: str) -> list[list[Message]]:
    """The conversation of every row, the better one of two. Raises BadInput."""
    if recipe in ("kto",):
        return [[*row.prompt, row.completion] for row in read_feedback(path) if row.good]
    if recipe in ("dpo", "orpo", "cpo", "simpo", "rm"):
        return [[*row.prompt, row.chosen] for row in read_preferences(path)]
    return read_conversations(path)


def columns(path: Path, recipe: str, tokenizer: PreTrainedTokenizerBase, max_length: int, most: int) -> list[Columns]:
    """The first rows of at most `max_length` tokens as the model sees them. Raises BadInput where none fits."""
    made = READERS.get(recipe, _of_conversations)(path, recipe, tokenizer)
    found: list[Columns] = []
    for each in made:
        if len(found) == most:
            break
        if 1 < len(each["input_ids"]) <= max_length:
            found.append(each)
    if not found:
        raise BadInput(f"No row of in/{path.name} has between 2 and {max_length} tokens; raise max_length.")
    return found


def _of_conversations(path: Path, recipe: str, tokenizer: PreTrainedTokenizerBase) -> Iterator[Columns]:
    for messages in conversations(path, recipe):
        ids = tokenize(tokenizer, messages).input_ids
        yield {"input_ids": ids, "attention_mask": [1] * len(ids)}


def _of_texts(path: Path, recipe: str, tokenizer: PreTrainedTokenizerBase) -> Iterator[Columns]:
    rows = read_texts(path) if recipe == "pretrain" else (row.text for row in read_classified(path))
    yield from (dict(tokenizer(text)) for text in rows)


def _of_retrieval(path: Path, recipe: str, tokenizer: PreTrainedTokenizerBase) -> Iterator[Columns]:
    for row in read_retrieval(path):
        if recipe == "reranker":
            yield from (dict(tokenizer(row.query, text)) for text in (*row.positive, *row.negatives))
        else:
            yield from (dict(tokenizer(text)) for text in (row.query, *row.positive))


READERS: dict[str, Callable[[Path, str, PreTrainedTokenizerBase], Iterator[Columns]]] = {
    "pretrain": _of_texts,
    "sequence_classification": _of_texts,
    "embedding": _of_retrieval,
    "reranker": _of_retrieval,
}


def longest(tokenizer: PreTrainedTokenizerBase, model: Any, wanted: int | None) -> int:
    """The most tokens of a row: what is asked for, as far as tokenizer and model go."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(int(most) for most in (wanted or MAX_LENGTH, tokenizer.model_max_length, positions) if most)
