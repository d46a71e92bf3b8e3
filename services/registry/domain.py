"""What projects, keys, models and versions are and may become; pure, time is an argument."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from kit.auth import Principal
from kit.rpc.errors import Denied, Invalid, NotFound, StateConflict
from kit.rpc.names import id_of, parent_of, project_of, slug
from sluice import lifecycle
from sluice.errors import v1 as errors
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types

ALL_PROJECTS = "projects/-"
STABLE = "stable"
REFUSED = (registry.MODEL_VERSION_STATE_REJECTED, registry.MODEL_VERSION_STATE_INCONCLUSIVE)
OPEN_TO_THE_GATE = (registry.MODEL_VERSION_STATE_PENDING, registry.MODEL_VERSION_STATE_INCONCLUSIVE)
NOT_JUDGED = (
    "it was imported to be trained from, without rows that an evaluation could ask; "
    "a waiver lets it serve: `sluice models approve --waiver`"
)
#: Why an evaluation that met no fault gave no report.
GIVEN_UP: dict[int, str] = {
    types.JOB_STATE_CANCELLED: "it was cancelled",
    types.JOB_STATE_EXPIRED: "it waited too long",
}


def new_project(wanted: registry.Project) -> registry.Project:
    """A project under the slug of its name."""
    return registry.Project(name=f"projects/{slug(wanted.display_name)}", display_name=wanted.display_name)


def new_key(parent: str, wanted: registry.ApiKey, prefix: str, giver: Principal, now: datetime) -> registry.ApiKey:
    """A key as the caller wants it. Raises Denied when the caller would give what it does not have, and Invalid."""
    if wanted.HasField("expire_time") and wanted.expire_time.ToDatetime(UTC) <= now:
        raise Invalid(
            "expire_time is over already, so the key would never work; give a later one",
            violations=[("api_key.expire_time", "is in the past")],
        )
    for binding in wanted.role_bindings:
        if not giver.has_role(binding.project, [types.ROLE_ADMIN]):
            where = "all projects" if binding.project == ALL_PROJECTS else f"`{binding.project}`"
            raise Denied(f"only an administrator of {where} can give roles there; ask one")
    key = registry.ApiKey(
        name=f"{parent}/apiKeys/{slug(wanted.display_name)}",
        display_name=wanted.display_name,
        role_bindings=wanted.role_bindings,
        prefix=prefix,
    )
    if wanted.HasField("expire_time"):
        key.expire_time.CopyFrom(wanted.expire_time)
    return key


def check_import(header: registry.ImportHeader) -> None:
    """Raises Invalid when the base or the rows are not in the project of the model."""
    for field, name in (("base_model_version", header.base_model_version), ("dataset_version", header.dataset_version)):
        if name and project_of(name) != project_of(header.parent):
            raise Invalid(
                f"header.{field} is not in `{project_of(header.parent)}`; name one of the same project",
                violations=[(f"header.{field}", "is of another project than the model")],
            )


def check_stored(missing: Collection[str]) -> None:
    """Raises StateConflict where files that an import leaves out are not stored."""
    if missing:
        raise StateConflict(f"{len(missing)} files that the import leaves out are not stored; import again")


def file_of(version: registry.ModelVersion, path: str, offset: int) -> types.ArtifactFile:
    """A file of a version. Raises NotFound when it has none of that path, Invalid when it ends before ``offset``."""
    for file in version.artifact.files:
        if file.path == path:
            if offset > file.size_bytes:
                raise Invalid(
                    f"`{path}` has {file.size_bytes} bytes, so none at {offset}; begin at 0",
                    violations=[("offset", "is beyond the end of the file")],
                )
            return file
    raise NotFound(f"`{version.name}` has no file `{path}`; its artifact names those it has")


def check_may_revoke(key: registry.ApiKey, by: Principal) -> None:
    """Raises Denied when the key has roles in projects that the caller does not administrate."""
    for binding in key.role_bindings:
        if not by.has_role(binding.project, [types.ROLE_ADMIN]):
            where = "all projects" if binding.project == ALL_PROJECTS else f"`{binding.project}`"
            raise Denied(f"`{key.name}` has a role in {where}; only an administrator there can revoke it")


def new_model(parent: str, wanted: registry.Model) -> registry.Model:
    """A model without versions, of a task type that may be used."""
    model_id = slug(wanted.display_name)
    return registry.Model(
        name=f"{parent}/models/{model_id}",
        display_name=wanted.display_name,
        task_type=wanted.task_type,
        endpoint=wanted.endpoint or model_id,
        gate_policy=wanted.gate_policy,
    )


def model_of_job(event: trainer.TrainingJobSucceeded, task_type: registry.TaskType) -> registry.Model:
    """The model that a job's result becomes a version of, for when it does not exist yet."""
    chosen = event.spec.gate_policy  # the trainer writes the one of the task type where the job named none
    return registry.Model(
        name=f"{project_of(event.training_job)}/models/{event.spec.model}",
        display_name=event.spec.model,
        task_type=event.spec.task_type,
        endpoint=event.spec.endpoint or event.spec.model,
        gate_policy="" if chosen == task_type.gate_policy else chosen,
    )


def next_version(model: registry.Model, task_type: registry.TaskType, policy: str = "") -> registry.ModelVersion:
    """A pending version, the next of its model; counts it in the model.

    The gate policy is the model's, which a job cannot put aside, else ``policy``, else the task type's.
    """
    model.latest_version += 1
    return registry.ModelVersion(
        name=f"{model.name}/versions/{model.latest_version}",
        version=model.latest_version,
        state=registry.MODEL_VERSION_STATE_PENDING,
        task_type=model.task_type,
        endpoint=model.endpoint or id_of(model.name),
        gate_policy=model.gate_policy or policy or task_type.gate_policy,
        interface=task_type.interface,
    )


def describe_training(version: registry.ModelVersion, event: trainer.TrainingJobSucceeded) -> None:
    """Writes into a version where it came from."""
    version.artifact.CopyFrom(event.result.artifact)
    if event.spec.base_model_version and event.result.artifact.kind == types.ARTIFACT_KIND_ADAPTER:
        version.base_model_version = event.spec.base_model_version
    if event.result.HasField("parity"):
        version.parity.CopyFrom(event.result.parity)
    version.endpoint = event.spec.endpoint or version.endpoint
    version.task_type = event.spec.task_type
    version.lineage.CopyFrom(
        registry.Lineage(
            training_job=event.training_job,
            dataset_version=event.spec.dataset_version,
            dataset_digest=event.result.dataset_digest,
            recipe=event.spec.WhichOneof("recipe") or "",
            training_metrics=event.result.metrics,
            environment=event.result.environment,
            creator=event.creator,
            source_model_version=event.spec.base_model_version,
            read_model_versions=event.result.read_model_versions,
        )
    )


def enter(version: registry.ModelVersion, state: registry.ModelVersionState) -> None:
    """Moves a version on. Raises StateConflict when its life cycle does not allow it."""
    if not lifecycle.can(lifecycle.MODEL_VERSION, version.state, state):
        raise StateConflict(f"`{version.name}` is {word(version.state)} and cannot become {word(state)}")
    version.state = state


def apply_decision(version: registry.ModelVersion, decision: registry.GateDecision, now: datetime) -> None:
    """Lets the gate's word take effect."""
    decision.time.FromDatetime(now)
    version.gate_decision.CopyFrom(decision)
    version.lineage.evaluation = decision.evaluation
    state = {
        registry.VERDICT_PASS: registry.MODEL_VERSION_STATE_APPROVED,
        registry.VERDICT_FAIL: registry.MODEL_VERSION_STATE_REJECTED,
        registry.VERDICT_INCONCLUSIVE: registry.MODEL_VERSION_STATE_INCONCLUSIVE,
    }[decision.verdict]
    if state == registry.MODEL_VERSION_STATE_APPROVED and not enough_approvals(version):
        state = registry.MODEL_VERSION_STATE_AWAITING_APPROVAL
    if state != version.state:
        enter(version, state)


def approve(version: registry.ModelVersion, by: str, reason: str, waiver: bool, now: datetime) -> None:
    """One person's yes. Raises Denied for the author, Invalid for a waiver without reason, StateConflict.

    A waiver lets through what the gate refused; it never stands in for the second person that the policy wants, nor
    for the gate itself.
    """
    check_other_person(by, version.lineage.creator, version.name)
    if waiver and not reason.strip():
        raise Invalid("a waiver needs a reason; it stays visible for ever", violations=[("reason", "is empty")])
    if waiver and version.state not in REFUSED:
        raise StateConflict(f"`{version.name}` is {word(version.state)}; a waiver is for what the gate refused")
    if not waiver and version.state != registry.MODEL_VERSION_STATE_AWAITING_APPROVAL:
        hint = "; a waiver lets it through" if version.state in REFUSED else ""
        raise StateConflict(f"`{version.name}` is {word(version.state)} and awaits no approval{hint}")
    if waiver or not has_approved(version, by):
        version.approvals.append(approval(by, reason, now, waiver=waiver))
    if enough_approvals(version):
        enter(version, registry.MODEL_VERSION_STATE_APPROVED)
    elif waiver:
        enter(version, registry.MODEL_VERSION_STATE_AWAITING_APPROVAL)


def check_other_person(by: str, author: str, name: str) -> None:
    """Raises Denied for who made something and would approve it alone."""
    if by == author:
        raise Denied(f"`{by}` made `{name}` and cannot approve it; another approver can")


def approval(by: str, reason: str, now: datetime, *, waiver: bool = False) -> registry.Approval:
    """One person's yes."""
    given = registry.Approval(principal=by, reason=reason, waiver=waiver)
    given.time.FromDatetime(now)
    return given


def has_approved(version: registry.ModelVersion, by: str) -> bool:
    """Whether this person's yes is there already."""
    return any(approval.principal == by for approval in version.approvals)


def enough_approvals(version: registry.ModelVersion) -> bool:
    """Whether as many people said yes as the policy wants."""
    people = {approval.principal for approval in version.approvals}  # one may waive again after a second verdict
    return len(people) >= version.gate_decision.policy.approvals_required


def realias(model: registry.Model, serving: str) -> bool:
    """Moves ``stable`` to the version that has all the traffic, or away; returns whether anything changed."""
    before = model.aliases.get(STABLE, 0)
    after = int(id_of(serving)) if serving and parent_of(serving) == model.name else 0
    if before == after:
        return False
    if after:
        model.aliases[STABLE] = after
    else:
        del model.aliases[STABLE]
    return True


def word(state: int) -> str:
    """``APPROVED`` for its number."""
    return registry.ModelVersionState.Name(state).removeprefix("MODEL_VERSION_STATE_")


def unknown_policy(name: str) -> NotFound:
    """For a gate policy that is neither built in nor the project's own."""
    return NotFound(
        f"gate policy `{name}` does not exist; create it, or leave it out for the one of the task type",
        reason=errors.ERROR_REASON_NOT_FOUND,
        resource=("GatePolicy", name),
    )
