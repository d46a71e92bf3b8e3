"""How frozen weights are held in fewer bits while an adapter is trained (QLoRA); knows no task and saves nothing."""

from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from services.trainer.recipes.job.failures import BadInput
from services.trainer.recipes.learning.optimization import use_bfloat16
from services.trainer.refusals import Asked


def quantization_config(parameters: dict[str, Any]) -> BitsAndBytesConfig | None:
    """What `from_pretrained` shall do with the base, None for floats. Raises BadInput.

    nf4 is that of Dettmers et al. 2023 (arXiv:2305.14314), its constants quantized too; int8 that of Dettmers et al.
    2022 (arXiv:2208.07339).
    """
    asked = Asked.of(parameters).quantization
    if not asked:
        return None
    if asked == "nf4":
        compute = torch.bfloat16 if use_bfloat16(parameters) else torch.float32
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        )
    if asked == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    raise BadInput(f"lora.quantization is {asked!r}; it must be nf4 or int8.")


def is_quantized(model: PreTrainedModel) -> bool:
    """Whether the model, or the base under its adapter, is held in fewer bits."""
    return any(getattr(model, name, False) for name in ("is_loaded_in_4bit", "is_loaded_in_8bit"))


def steady(model: PreTrainedModel) -> None:
    """Makes a model of 4 bits compute alike in training and in evaluation.

    On CPUs with bfloat16 bitsandbytes 0.50 packs the weights anew the first time that it evaluates, rounds their
    constants to bfloat16 for good, and takes only matrices of certain sizes.
    """
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False


def as_floats(model: PreTrainedModel) -> None:
    """What is trained of a quantized model, back in float32.

    TRL holds it in bfloat16, whose 8 bits swallow updates that are smaller than a 256th of a weight.
    """
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
