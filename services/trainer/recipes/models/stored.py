"""Models whose files hold weights in few bits: loaded as they are, and told apart; knows no task."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from services.trainer.recipes.job.failures import BadInput
from services.trainer.refusals import READ
from sluice.fewbits import FOREIGN, UNREAD, described, few_bits

#: What engines compute such weights in: with float32 vLLM 0.32 dies at its first request.
SERVED_IN = "bfloat16"


def stored_in(folder: Path) -> str:
    """How the files of a base hold its weights: `int4 in groups of 32`, or empty for floats. Raises BadInput for bits
    that no recipe can read.
    """
    try:
        found = few_bits(json.loads((folder / "config.json").read_text("utf-8")))
    except (OSError, ValueError, AttributeError):
        return ""  # loading it will say what is wrong
    if found.endswith(UNREAD):
        raise BadInput(f"in/base holds its weights in {found}; {READ}.")
    return found


def as_stored(kind: type, folder: Path, dtype: str, **given: Any) -> PreTrainedModel:
    """A model of the class `kind`, computing in `dtype`; what its files hold in few bits stays so (`packed.py`).

    Raises BadInput, and what transformers does.
    """
    stored = stored_in(folder)
    if not stored:
        return kind.from_pretrained(folder, dtype=dtype, trust_remote_code=False, **given)
    from services.trainer.recipes.models import foreign, packed  # a second of imports that few jobs need

    if stored.split()[0] in FOREIGN:
        model = foreign.load_foreign(kind, folder, dtype, **given)
    else:
        model = kind.from_pretrained(folder, dtype=dtype, trust_remote_code=False, **given)
    packed.keep_packed(model)
    return model


def check_whole(info: dict[str, Any], folder: Path, head: str | None = None) -> None:
    """Raises BadInput where weights, other than those of a `head`, are not in the files: they would be random."""
    if missing := sorted(name for name in info["missing_keys"] if head is None or not name.startswith(head)):
        raise BadInput(
            f"in/{folder.name} lacks {len(missing)} of the weights of its architecture, such as {missing[0]}; "
            "import it whole."
        )


def packed_layers(model: torch.nn.Module) -> Iterator[torch.nn.Linear]:
    """The layers of a model, or of the base under its adapter, whose weights are packed as in its files."""
    return (module for module in model.modules() if hasattr(module, "weight_packed"))


def is_packed(model: torch.nn.Module) -> bool:
    """Whether the files of the model, or of the base under its adapter, hold it in fewer bits."""
    return next(packed_layers(model), None) is not None


def number_of_weights(model: PreTrainedModel) -> int:
    """How many weights a model has; packed ones as many as they stand for."""
    return int(model.num_parameters()) + unseen(model)


def unseen(model: torch.nn.Module) -> int:
    """How many more weights there are than torch counts tensors' numbers: packed ones hide some."""
    return sum(
        layer.in_features * layer.out_features
        - sum(tensor.numel() for name, tensor in layer.named_parameters(recurse=False) if name != "bias")
        for layer in packed_layers(model)
    )


def held_as(model: torch.nn.Module) -> dict[str, str]:
    """`base_held`, which matrices of a frozen base are held in fewer bits and how; nothing where none is."""
    kinds = (_kind(module) for module in model.modules())
    found = Counter(kind for kind in kinds if kind)
    told = ", ".join(f"{number} matrices in {kind}" for kind, number in sorted(found.items()))
    return {"base_held": told} if told else {}


def _kind(module: torch.nn.Module) -> str:
    if hasattr(module, "weight_packed"):
        return described(module.quantization_scheme.weights.model_dump())
    weight = module._parameters.get("weight")
    if getattr(weight, "quant_type", None):  # bitsandbytes' Params4bit
        return str(weight.quant_type)
    return "int8" if type(weight).__name__ == "Int8Params" else ""
