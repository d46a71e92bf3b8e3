"""Weights that processes hold in shares, put together again in a model of the leader; knows no task."""

from copy import deepcopy
from typing import Any

import torch
from peft import PeftModel
from torch.distributed.tensor import DTensor
from torch.nn import Module, Parameter
from transformers import PreTrainedModel, Trainer
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from services.trainer.distribution import ZERO, Distribution
from services.trainer.recipes.job.jobdir import JobDir

Model = PreTrainedModel | PeftModel


def shell(model: Model) -> Model:
    """The model without its weights, as no engine has touched it; it takes next to no memory."""
    nothing = torch.zeros(())
    empty = {
        id(weight): Parameter(nothing.to(weight.dtype).expand(weight.shape), requires_grad=weight.requires_grad)
        for weight in model.parameters()
    }
    found = deepcopy(model, empty)
    for module in found.modules():
        # What trl put in place of a forward pass calls the model that it was made for.
        module.__dict__.pop("forward", None)
    return found


def put_together(trainer: Trainer, asked: Distribution, job: JobDir, empty: Model | None) -> Model | None:
    """The trained model on the leader, on a CPU where it was in shares; a call of all processes. None on the others."""
    if empty is None:
        return trainer.model if job.leads else None
    found = empty if asked.tensor == 1 else type(trainer.model).from_pretrained(job.base, dtype="float32")
    weights = dict(found.named_parameters())
    for name, weight in trainer.model.named_parameters():
        values = _values(weight, asked)
        if job.leads:
            weights.pop(name).data = values.detach().to("cpu", torch.float32)
    if not job.leads:
        return None
    if weights:
        raise RuntimeError(f"{len(weights)} weights were trained by no process")
    unset_hf_deepspeed_config()  # else transformers waits for the others whenever the model answers
    return found


def _values(weight: Parameter, asked: Distribution) -> torch.Tensor:
    """All of a weight, of which this process has a share."""
    if isinstance(weight, DTensor):
        return weight.full_tensor()
    if asked.engine not in ZERO:
        return weight.data
    from deepspeed.runtime.zero import GatheredParameters
    from deepspeed.utils import safe_get_full_fp32_param

    if weight.requires_grad:  # as its optimizer keeps it, also where the model computes in fewer bits
        return safe_get_full_fp32_param(weight)
    with GatheredParameters([weight], enabled=asked.engine == "zero3"):
        return weight.data.clone()


def held(weight: Parameter) -> int:
    """How many numbers of a weight lie in this process between updates."""
    share: Any = getattr(weight, "ds_tensor", None)
    if share is not None:
        return int(share.numel())
    return int((weight.to_local() if isinstance(weight, DTensor) else weight).numel())


def count(model: Module) -> int:
    """How many numbers a model has, shared ones once."""
    return sum(int(getattr(weight, "ds_numel", weight.numel())) for weight in model.parameters())
