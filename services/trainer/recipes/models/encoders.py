"""Bases of models that answer with numbers: their heads, their lengths, how texts are padded; knows no task."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.job.jobdir import JobDir, Spec
from services.trainer.recipes.models.device import device_type
from services.trainer.recipes.models.tuning import adapter_config, check_targets
from services.trainer.refusals import Asked

MAX_LENGTH = 512
BATCH = 32

Columns = dict[str, Any]  # `input_ids`, `attention_mask`, perhaps `token_type_ids`, of one text or one pair


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hugging Face model folder. Raises BadInput."""
    if not (folder / "config.json").is_file():
        raise BadInput("in/base is not a Hugging Face model folder: it has no config.json.")
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput("in/base has no tokenizer that can be loaded.") from error


def load_classifier(
    folder: Path,
    names: Sequence[str],
    problem_type: str | None = None,
    kind: Any = AutoModelForSequenceClassification,
) -> PreTrainedModel:
    """Float32 weights with a value for each name on top, of a text or, as `kind` says, of each token. A head of as many
    is kept; another one is replaced by a new one, which torch's seed decides. Raises BadInput where the architecture
    can have no such head.
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        return kind.from_pretrained(
            folder,
            num_labels=len(names),
            id2label=dict(enumerate(names)),
            label2id={name: place for place, name in enumerate(names)},
            problem_type=problem_type,
            ignore_mismatched_sizes=config.num_labels != len(names),
            dtype="float32",
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError) as error:
        raise BadInput("in/base cannot be loaded as a text model with a head for classes on top.") from error


def read_again(job: JobDir, kind: Any = AutoModelForSequenceClassification) -> PreTrainedModel:
    """The classifier that `tuning.save` left, in float32: what an engine has, whatever the training was computed in."""
    found = kind.from_pretrained(job.out_model, dtype="float32", trust_remote_code=False)
    return found.to(device_type()).eval()


def chosen_adapter(spec: Spec, task_type: str) -> PeftConfig | None:
    """The adapter that the spec asks for; all weights, which is None, where it names no tuner. Raises BadInput."""
    if Asked.of(spec.parameters, spec.recipe).tuner == "full":
        return None
    return adapter_config(spec.parameters, task_type)


def adapted(model: PreTrainedModel, adapter: PeftConfig | None, arguments: dict[str, Any]) -> Any:
    """The model as it is trained with these arguments of a trainer. Raises BadInput as `check_targets` does."""
    if adapter is None:
        return model
    check_targets(model, adapter)
    if arguments["gradient_checkpointing"]:
        model.enable_input_require_grads()  # else nothing before the first adapter asks for a gradient
    return get_peft_model(model, adapter)


def freeze_pooler(model: torch.nn.Module) -> None:
    """Vectors of an encoder's tokens are not made of it, so no gradient comes to it."""
    for name, weight in model.named_parameters():
        if "pooler" in name.split("."):
            weight.requires_grad_(False)


def longest(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, asked: int | None) -> int:
    """The most tokens of a text: what is asked for, as far as tokenizer and model go."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(int(most) for most in (asked or MAX_LENGTH, tokenizer.model_max_length, positions) if most)


def choose_pad(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, last_ids: Iterable[int]) -> None:
    """Have both pad with a token that ends no text: transformers reads a causal model's head at the last token that is
    not padding, an engine at the last one. Raises BadInput where there is no such token.
    """
    taken = set(last_ids)
    for token in (tokenizer.pad_token, tokenizer.eos_token, *tokenizer.all_special_tokens):
        if token is not None and tokenizer.convert_tokens_to_ids(token) not in taken:
            tokenizer.pad_token = token
            model.config.get_text_config().pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id
            return
    raise BadInput("The base model's tokenizer has no token to pad with that ends no text; give it one.")


def padded(tokenizer: PreTrainedTokenizerBase, several: Sequence[Columns]) -> dict[str, Tensor]:
    """One batch: (texts, tokens of the longest) of each column."""
    return dict(tokenizer.pad(list(several), return_tensors="pt"))


@torch.no_grad()
def logits(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, several: Sequence[Columns]
) -> Tensor:
    """What the head makes of each text: (texts, values) float32 on the CPU."""
    model.eval()
    found = [
        model(**{name: column.to(model.device) for name, column in padded(tokenizer, several[i : i + BATCH]).items()})
        for i in range(0, len(several), BATCH)
    ]
    return torch.cat([each.logits.float().cpu() for each in found]) if found else torch.empty(0, 0)
