"""Loads `in/base/`, the model a recipe starts from, and models it reads beside it; knows no task."""

from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from services.trainer.recipes.failures import BadInput
from services.trainer.recipes.jobdir import JobDir
from services.trainer.recipes.quantization import steady


def load_base(
    folder: Path, quantization: BitsAndBytesConfig | None = None, shared: dict[str, Any] | None = None
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and weights of a Hugging Face causal model, as float32 or quantized. Raises BadInput otherwise.

    `shared` is what `distribution.loading` says of how its matrices are shared out.
    """
    if not (folder / "config.json").is_file():
        raise BadInput("in/base is not a Hugging Face model folder: it has no config.json.")
    given = {**(shared or {}), **({} if quantization is None else {"quantization_config": quantization})}
    try:
        # Said, or transformers asks on the terminal whether the folder's own code shall run.
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", trust_remote_code=False, **given)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput("in/base cannot be loaded as a causal language model with its tokenizer.") from error
    steady(model)
    return tokenizer, model


def load_beside(
    job: JobDir, role: str, kind: type = AutoModelForCausalLM
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and weights, as float32 and frozen, of what the spec names for `role`; an adapter is merged in.

    `kind` is the class of transformers that loads it. Raises BadInput.
    """
    folder = job.model(role)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = kind.from_pretrained(folder, dtype="float32", trust_remote_code=False)
        if (adapter := folder.with_name(f"{role}-adapter")).is_dir():
            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"in/{role} cannot be loaded as a {kind.__name__} with its tokenizer.") from error
    return tokenizer, model.eval().requires_grad_(False)
