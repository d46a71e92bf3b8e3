"""What a spec means where it says nothing; the numbers of an optimization are left to the recipes, which know them."""

from __future__ import annotations

from kit.rpc.errors import Invalid
from kit.rpc.names import project_of
from services.trainer.domain import DEFAULT_ATTEMPTS, DEFAULT_TIME_LIMIT
from sluice.trainer import v1 as trainer

DEFAULT_LORA_RANK = 16
#: What vLLM's attention kernel for CPUs was built for (0.32, asked by `cpu_attn_get_scheduler_metadata`); those for
#: CUDA take all of these as well.
HEAD_SIZES = (32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256)


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


def check_project(parent: str, spec: trainer.TrainingJobSpec) -> None:
    """Raises Invalid when the rows or the base are of another project than the job: who may read what a job of this
    project leaves has no right to them."""
    for field, name in (("dataset_version", spec.dataset_version), ("base_model_version", spec.base_model_version)):
        if name and project_of(name) != parent:
            raise Invalid(
                f"spec.{field} is not in `{parent}`; name one of the same project",
                violations=[(f"training_job.spec.{field}", f"is not in `{parent}`")],
            )


def check_shape(shape: trainer.ModelShape) -> None:
    """Raises Invalid for the shape of a model that could not be built, or be trained but not be served."""
    field = "training_job.spec.pretrain.shape"
    width, heads = shape.hidden_size, shape.heads
    if width % heads or width // heads not in HEAD_SIZES:
        known = ", ".join(map(str, HEAD_SIZES))
        raise Invalid(
            f"spec.pretrain.shape has hidden_size {width} over {heads} heads, and no engine serves heads of "
            f"{width / heads:g}; choose them so that hidden_size / heads is one of {known}",
            violations=[(f"{field}.hidden_size", f"/ heads is not one of {known}")],
        )
    if shape.kv_heads and heads % shape.kv_heads:
        raise Invalid(
            f"spec.pretrain.shape has {shape.kv_heads} kv_heads, which must divide its {heads} heads",
            violations=[(f"{field}.kv_heads", "does not divide heads")],
        )
