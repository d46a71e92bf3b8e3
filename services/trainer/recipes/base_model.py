"""Loads `in/base/`, the model a recipe starts from; knows no task."""

from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from services.trainer.recipes.failures import BadInput


def load_base(folder: Path) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and float32 weights of a Hugging Face causal model. Raises BadInput otherwise."""
    if not (folder / "config.json").is_file():
        raise BadInput("in/base is not a Hugging Face model folder: it has no config.json.")
    try:
        # Said, or transformers asks on the terminal whether the folder's own code shall run.
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput("in/base cannot be loaded as a causal language model with its tokenizer.") from error
    return tokenizer, model
