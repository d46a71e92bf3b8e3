"""Loads `in/base/`, the model a recipe starts from; knows no task."""

from pathlib import Path

from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from services.trainer.recipes.failures import BadInput
from services.trainer.recipes.quantization import steady


def load_base(
    folder: Path, quantization: BitsAndBytesConfig | None = None
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and weights of a Hugging Face causal model, as float32 or quantized. Raises BadInput otherwise."""
    if not (folder / "config.json").is_file():
        raise BadInput("in/base is not a Hugging Face model folder: it has no config.json.")
    given = {} if quantization is None else {"quantization_config": quantization}
    try:
        # Said, or transformers asks on the terminal whether the folder's own code shall run.
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", trust_remote_code=False, **given)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput("in/base cannot be loaded as a causal language model with its tokenizer.") from error
    steady(model)
    return tokenizer, model
