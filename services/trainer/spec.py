"""What a spec means where it says nothing; the numbers of an optimization are left to the recipes, which know them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from google.protobuf.json_format import MessageToDict
from google.protobuf.unknown_fields import UnknownFieldSet

from kit.rpc.errors import Invalid, StateConflict
from kit.rpc.names import project_of
from services.trainer import exporting
from services.trainer.domain import DEFAULT_ATTEMPTS, DEFAULT_TIME_LIMIT
from services.trainer.judging import judge_versions
from services.trainer.refusals import ALL_WEIGHTS, Asked, Refusal, refusals
from sluice.errors import v1 as errors
from sluice.fewbits import HELD
from sluice.labels import over
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

DEFAULT_LORA_RANK = 16
#: What the name of a field ends with that names a model version.
MODEL_VERSION = "_model_version"
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
    if filled.WhichOneof("tuner") is None and not spec.HasField("export"):
        if filled.WhichOneof("recipe") in ALL_WEIGHTS:
            filled.full.SetInParent()
        else:
            filled.lora.rank = DEFAULT_LORA_RANK
    if filled.HasField("lora") and not filled.lora.alpha:
        filled.lora.alpha = 2 * filled.lora.rank
    return filled


def with_task_defaults(spec: trainer.TrainingJobSpec, task_type: registry.TaskType) -> trainer.TrainingJobSpec:
    """The spec with the defaults of its task type where it says nothing; again gives the same. Exports have none."""
    if not task_type.HasField("defaults") or spec.HasField("export"):
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
    if given == "export":
        return _with_source(spec, task_type.recipe)
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


def _with_source(spec: trainer.TrainingJobSpec, recipe: str) -> trainer.TrainingJobSpec:
    """An export, which there is for every task type, with the recipe that says what weights and rows are."""
    found = trainer.TrainingJobSpec()
    found.CopyFrom(spec)
    found.export.trained_by = recipe
    return found


def command_name(spec: trainer.TrainingJobSpec) -> str:
    """The name under which an agent finds what runs a job: its recipe, of an export with its format."""
    return exporting.command_of(str(spec.WhichOneof("recipe")), _format(spec))


def _format(spec: trainer.TrainingJobSpec) -> str:
    return trainer.ExportFormat.Name(spec.export.format).removeprefix("EXPORT_FORMAT_").lower()


def models_of(spec: trainer.TrainingJobSpec) -> dict[str, str]:
    """The model versions that a job reads, by what each is for: `base`, and what its recipe names beside it.

    A field `teacher_model_version` of a recipe names the one for `teacher`. Those that are not named are left out.
    """
    found = {"base": spec.base_model_version}
    if (recipe := spec.WhichOneof("recipe")) is not None:
        for field, value in getattr(spec, recipe).ListFields():
            if field.name.endswith(MODEL_VERSION):
                found[field.name.removesuffix(MODEL_VERSION)] = value
    return {role: name for role, name in found.items() if name}


def read_models(spec: trainer.TrainingJobSpec) -> dict[str, str]:
    """The model versions that a job learns from beside its base, by what each is for: `teacher`, `judge-{endpoint}`."""
    judges = {f"judge-{endpoint}": version for endpoint, version in judge_versions(spec).items()}
    return {role: name for role, name in models_of(spec).items() if role != "base"} | judges


def rename_model(spec: trainer.TrainingJobSpec, role: str, name: str) -> None:
    """Writes a model version's name where `models_of` found one for ``role``."""
    part = spec if role == "base" else getattr(spec, str(spec.WhichOneof("recipe")))
    setattr(part, role + MODEL_VERSION, name)


def model_field(spec: trainer.TrainingJobSpec, role: str) -> str:
    """Where a spec names the model version for ``role``, below ``spec``."""
    return ("" if role == "base" else f"{spec.WhichOneof('recipe')}.") + role + MODEL_VERSION


def check_known(spec: trainer.TrainingJobSpec) -> None:
    """Raises Invalid for a spec with fields that this version does not have: what they ask for would not be done."""
    parts = [(f"spec.{field.name}", value) for field, value in spec.ListFields() if field.message_type]
    for where, part in [("spec", spec), *parts]:
        if strange := UnknownFieldSet(part):
            raise Invalid(
                f"{where} has a field of another version of Sluice, number {strange[0].field_number}, "
                "which this one does not know; submit the job with a client of this version"
            )


def check_possible(spec: trainer.TrainingJobSpec, device: str, devices: int = 0, held: str = "") -> None:
    """Raises Invalid for what cannot be done on so many of ``device``, 0 for any number, of what is asked; ``held`` is
    how the base holds its weights, empty for floats.
    """
    said, recipe = MessageToDict(spec, preserving_proto_field_name=True), str(spec.WhichOneof("recipe"))
    asked = Asked.of(said, recipe, device, devices, held)
    _refuse(refusals(asked))


def check_export(
    spec: trainer.TrainingJobSpec, source: registry.ModelVersion, below: str, device: str, python: Path
) -> None:
    """Raises Invalid for what an export of ``source`` cannot do; ``below`` is how the base of an adapter holds its
    weights, empty for floats, and ``python`` that of the quantization.
    """
    asked = exporting.Asked(
        MessageToDict(spec, preserving_proto_field_name=True),
        tuner=str(spec.WhichOneof("tuner") or ""),
        device=device,
        adapter=source.artifact.kind == types.ARTIFACT_KIND_ADAPTER,
        task_type=source.task_type,
        held=source.lineage.environment.get(HELD, ""),
        below=below,
        python=python,
    )
    _refuse(exporting.refusals(asked))


def _refuse(found: Sequence[Refusal]) -> None:
    """Raises Invalid where anything stands in the way."""
    if found:
        raise Invalid(
            f"spec.{found[0].field} {found[0].what}",
            violations=[(f"training_job.spec.{each.field}", each.what) for each in found],
        )


def check_project(parent: str, spec: trainer.TrainingJobSpec) -> None:
    """Raises Invalid when the rows or a model are of another project than the job: who may read what a job of this
    project leaves has no right to them."""
    named = {model_field(spec, role): name for role, name in models_of(spec).items()}
    for field, name in {"dataset_version": spec.dataset_version, **named}.items():
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
