"""What a spec means where it says nothing; the numbers of an optimization are left to the recipes, which know them."""

from __future__ import annotations

from services.trainer.domain import DEFAULT_ATTEMPTS, DEFAULT_TIME_LIMIT
from sluice.trainer import v1 as trainer

DEFAULT_LORA_RANK = 16


def with_defaults(spec: trainer.TrainingJobSpec, gate_policy: str) -> trainer.TrainingJobSpec:
    """The spec with what was left to the trainer filled in; ``gate_policy`` is that of the task type."""
    filled = trainer.TrainingJobSpec()
    filled.CopyFrom(spec)
    filled.endpoint = spec.endpoint or spec.model
    filled.gate_policy = spec.gate_policy or gate_policy
    filled.max_attempts = spec.max_attempts or DEFAULT_ATTEMPTS
    if not spec.HasField("time_limit"):
        filled.time_limit.FromTimedelta(DEFAULT_TIME_LIMIT)
    if filled.HasField("sft"):
        if filled.sft.WhichOneof("tuner") is None:
            filled.sft.lora.rank = DEFAULT_LORA_RANK
        if filled.sft.HasField("lora") and not filled.sft.lora.alpha:
            filled.sft.lora.alpha = 2 * filled.sft.lora.rank
    return filled
