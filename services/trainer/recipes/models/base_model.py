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

from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import JobDir
from services.trainer.recipes.models.quantization import steady
from services.trainer.recipes.models.stored import as_stored, is_packed, stored_in


def load_base(
    folder: Path, quantization: BitsAndBytesConfig | None = None, shared: dict[str, Any] | None = None
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and weights of a Hugging Face causal model, as float32 or quantized. Raises BadInput otherwise.

    Weights that its files hold in few bits stay so, whatever `quantization` says, which `trainer_arguments` refuses.
    `shared` is what `distribution.loading` says of how its matrices are shared out.
    """
    if not (folder / "config.json").is_file():
        raise BadInput("in/base is not a Hugging Face model folder: it has no config.json.")
    stored = stored_in(folder)
    given = {**(shared or {}), **({} if quantization is None or stored else {"quantization_config": quantization})}
    try:
        # Said, or transformers asks on the terminal whether the folder's own code shall run.
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = as_stored(AutoModelForCausalLM, folder, "float32", **given)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput("in/base cannot be loaded as a causal language model with its tokenizer.") from error
    steady(model)
    return tokenizer, model


def have_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    """Has a tokenizer that has no token to pad with take the one that ends texts; what is padded counts for nothing."""
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token


def longest_of(asked: int | None, default: int, *models: PreTrainedModel) -> int:
    """The most tokens of a row: what is asked for or else `default`, as far as the positions of all models go."""
    positions = (model.config.get_text_config().max_position_embeddings for model in models)
    return min(asked or default, *positions)


def load_beside(
    job: JobDir, role: str, kind: type = AutoModelForCausalLM
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Tokenizer and weights, as float32 and frozen, of what the spec names for `role`; an adapter is merged in, or lies
    on a base that is packed.

    `kind` is the class of transformers that loads it. Raises BadInput.
    """
    folder = job.model(role)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = as_stored(kind, folder, "float32")
        if (adapter := folder.with_name(f"{role}-adapter")).is_dir():
            model = PeftModel.from_pretrained(model, adapter)
            model = model if is_packed(model) else model.merge_and_unload()
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"in/{role} cannot be loaded as a {kind.__name__} with its tokenizer.") from error
    return tokenizer, model.eval().requires_grad_(False)
