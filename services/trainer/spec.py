"""What a spec means where it says nothing; the numbers of an optimization are left to the recipes, which know them."""

from __future__ import annotations

from google.protobuf.json_format import MessageToDict
from google.protobuf.unknown_fields import UnknownFieldSet

from kit.rpc.errors import Invalid, StateConflict
from kit.rpc.names import project_of
from services.trainer.domain import DEFAULT_ATTEMPTS, DEFAULT_TIME_LIMIT
from services.trainer.refusals import ALL_WEIGHTS, Asked, refusals
from sluice.errors import v1 as errors
from sluice.labels import over
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

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
    if filled.WhichOneof("tuner") is None:
        if filled.WhichOneof("recipe") in ALL_WEIGHTS:
            filled.full.SetInParent()
        else:
            filled.lora.rank = DEFAULT_LORA_RANK
    if filled.HasField("lora") and not filled.lora.alpha:
        filled.lora.alpha = 2 * filled.lora.rank
    return filled


def with_task_defaults(spec: trainer.TrainingJobSpec, task_type: registry.TaskType) -> trainer.TrainingJobSpec:
    """The spec with the defaults of its task type where it says nothing; again gives the same."""
    if not task_type.HasField("defaults"):
        return spec
    own = registry.TrainingDefaults(optimization=spec.optimization, max_length=spec.max_length)
    merged = over(task_type.defaults, own)
    found = trainer.TrainingJobSpec()
    found.CopyFrom(spec)
    found.optimization.CopyFrom(merged.optimization)
    found.max_length = merged.max_length
    return found


def with_recipe(spec: trainer.TrainingJobSpec, task_type: registry.TaskType) -> trainer.TrainingJobSpec:
    """The spec, its recipe that of its task type where it names none. Raises Invalid (TASK_TYPE_MISMATCH)."""
    given = spec.WhichOneof("recipe")
    if given not in (None, task_type.recipe):
        what = f"is `{given}`, but task_type `{spec.task_type}` takes `{task_type.recipe}`"
        raise Invalid(
            f"spec.recipe {what}",
            reason=errors.ERROR_REASON_TASK_TYPE_MISMATCH,
            violations=[("training_job.spec.recipe", what)],
        )
    found = trainer.TrainingJobSpec()
    found.CopyFrom(spec)
    getattr(found, task_type.recipe).SetInParent()
    return found


def check_known(spec: trainer.TrainingJobSpec) -> None:
    """Raises Invalid for a spec with fields that this version does not have: what they ask for would not be done."""
    parts = [(f"spec.{field.name}", value) for field, value in spec.ListFields() if field.message_type]
    for where, part in [("spec", spec), *parts]:
        if strange := UnknownFieldSet(part):
            raise Invalid(
                f"{where} has a field of another version of Sluice, number {strange[0].field_number}, "
                "which this one does not know; submit the job with a client of this version"
            )


def check_possible(spec: trainer.TrainingJobSpec, device: str) -> None:
    """Raises Invalid for a tuner or an optimizer that cannot do on ``device`` what is asked of it."""
    asked = Asked.of(MessageToDict(spec, preserving_proto_field_name=True), str(spec.WhichOneof("recipe")), device)
    if found := refusals(asked):
        raise Invalid(
            f"spec.{found[0].field} {found[0].what}",
            violations=[(f"training_job.spec.{each.field}", each.what) for each in found],
        )


def check_project(parent: str, spec: trainer.TrainingJobSpec) -> None:
    """Raises Invalid when the rows or the base are of another project than the job: who may read what a job of this
    project leaves has no right to them."""
    for field, name in (("dataset_version", spec.dataset_version), ("base_model_version", spec.base_model_version)):
        if name and project_of(name) != parent:
            raise Invalid(
                f"spec.{field} is not in `{parent}`; name one of the same project",
                violations=[(f"training_job.spec.{field}", f"is not in `{parent}`")],
            )


def check_repeats(original: trainer.TrainingJob, spec: trainer.TrainingJobSpec) -> None:
    """Raises StateConflict where the job to reproduce has not succeeded, Invalid where the spec is not its own."""
    if original.state != types.JOB_STATE_SUCCEEDED:
        state = types.JobState.Name(original.state).removeprefix("JOB_STATE_")
        raise StateConflict(
            f"training job `{original.name}` is {state}; only one that is SUCCEEDED can be reproduced",
            resource=("TrainingJob", original.name),
        )
    if spec != original.spec:
        raise Invalid(
            f"spec is not that of `{original.name}`, or means something else by now; a job that reproduces it takes "
            "its spec as it is, so submit this one without `reproduces`",
            violations=[("training_job.spec", "is not that of the job to reproduce")],
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
