"""What can be done to projects, keys, models and versions: one function an intent, inside a unit of the caller."""

from __future__ import annotations

from google.protobuf.field_mask_pb2 import FieldMask

from kit.auth import Principal, new_key
from kit.rpc import masks
from kit.rpc.interceptors.validation import validate
from kit.rpc.names import id_of, parent_of, project_of
from kit.store import BookmarkRow, Unit
from kit.telemetry import current_traceparent, span
from services.registry import domain, imports, store
from services.registry.catalog import Catalog
from services.registry.gates import decide_gate, undecided
from services.registry.policies import find_policy
from services.registry.task_types import find_task_type
from sluice.evaluator import v1 as evaluator
from sluice.fewbits import HELD
from sluice.labels import check_usable
from sluice.registry import v1 as registry
from sluice.trainer import v1 as trainer
from sluice.types import v1 as types


async def create_project(unit: Unit, wanted: registry.Project) -> registry.Project:
    """Creates a project."""
    created = await store.PROJECTS.insert(unit, domain.new_project(wanted))
    unit.emit(registry.ProjectCreated(project=created.name), created.name)
    return created


async def first_start(unit: Unit, first_key_sha256: str) -> None:
    """Gives an empty registry its first project and, when its hash is known, its first administrator."""
    if await store.PROJECTS.count(unit.session):
        return
    project = await create_project(unit, registry.Project(display_name="default"))
    if first_key_sha256:
        key = registry.ApiKey(name=f"{project.name}/apiKeys/first", display_name="first", prefix="sk-sluice-")
        key.role_bindings.add(project=domain.ALL_PROJECTS, role=types.ROLE_ADMIN)
        await store.keys(bytes.fromhex(first_key_sha256)).insert(unit, key)
        unit.emit(registry.ApiKeyCreated(api_key=key.name), key.name)


async def create_key(unit: Unit, parent: str, wanted: registry.ApiKey, giver: Principal) -> tuple[registry.ApiKey, str]:
    """Makes a key; returns it and its secret, which is nowhere else."""
    await store.PROJECTS.get(unit.session, parent)
    secret, sha256, prefix = new_key()
    key = await store.keys(sha256).insert(unit, domain.new_key(parent, wanted, prefix, giver, unit.now))
    unit.emit(registry.ApiKeyCreated(api_key=key.name), key.name)
    return key, secret


async def revoke_key(unit: Unit, name: str, etag: str, by: Principal) -> registry.ApiKey:
    """Ends a key; one that was ended before stays as it is."""
    key = await store.keys().get(unit.session, name)
    domain.check_may_revoke(key, by)
    if key.HasField("revoke_time"):
        return key
    key.revoke_time.FromDatetime(unit.now)
    keys = store.keys(await store.key_hash(unit.session, name))
    key = await keys.update(unit, key, etag)
    unit.emit(registry.ApiKeyRevoked(api_key=name), name)
    return key


async def create_model(unit: Unit, catalog: Catalog, parent: str, wanted: registry.Model) -> registry.Model:
    """Creates a model without versions."""
    await store.PROJECTS.get(unit.session, parent)
    check_usable(await find_task_type(unit.session, catalog, parent, wanted.task_type))
    model = domain.new_model(parent, wanted)
    if model.gate_policy:
        await find_policy(unit.session, catalog, parent, model.gate_policy)
    return await _insert_model(unit, model)


async def update_model(unit: Unit, catalog: Catalog, wanted: registry.Model, mask: FieldMask) -> registry.Model:
    """Changes where the versions of a model serve, or what judges them."""
    present = await store.MODELS.get(unit.session, wanted.name)
    masks.apply(present, wanted, mask, ("display_name", "endpoint", "gate_policy"))
    validate(present)
    if present.gate_policy:
        await find_policy(unit.session, catalog, parent_of(present.name), present.gate_policy)
    return await _update_model(unit, present, wanted.etag)


async def register_training(unit: Unit, catalog: Catalog, event: trainer.TrainingJobSucceeded) -> None:
    """Makes the one version that a finished training job leads to; one that repeats another job, or left a package to
    take away, leads to none, and its files stay all the same.
    """
    project = project_of(event.training_job)
    if event.reproduces or event.result.artifact.kind == types.ARTIFACT_KIND_PACKAGE:
        await store.hold(unit, project, [file.digest for file in event.result.artifact.files])
        return
    if await store.VERSIONS.find(unit.session, training_job=event.training_job):
        return
    task_type = await find_task_type(unit.session, catalog, project, event.spec.task_type)
    wanted = domain.model_of_job(event, task_type)
    found = await store.MODELS.find(unit.session, name=wanted.name)
    model = found[0] if found else await _insert_model(unit, wanted)
    version = domain.next_version(model, task_type, event.spec.gate_policy)
    domain.describe_training(version, event)
    await _insert_version(unit, model, version)


async def register_import(
    unit: Unit, catalog: Catalog, header: registry.ImportHeader, creator: str, held: str = ""
) -> registry.ModelVersion:
    """Makes a version of imported weights; the same weights, of an adapter on the same base, give the same version.
    ``held`` is how their files hold them where that is in few bits.
    """
    model = await store.MODELS.get(unit.session, header.parent)
    found = await store.VERSIONS.find(unit.session, parent=model.name, digest=header.artifact.digest)
    if same := [version for version in found if imports.repeats(version, header)]:
        version = imports.repeated(same, header)
        await store.hold(unit, project_of(version.name), [file.digest for file in version.artifact.files])
        return await store.VERSIONS.update(unit, version) if imports.name_source(version, header) else version
    task_type = await find_task_type(unit.session, catalog, project_of(model.name), model.task_type)
    version = domain.next_version(model, task_type)
    version.artifact.CopyFrom(header.artifact)
    version.base_model_version = header.base_model_version
    version.lineage.dataset_version = header.dataset_version
    version.lineage.recipe = "import"
    version.lineage.creator = creator
    if held:
        version.lineage.environment[HELD] = held
    version.source_id = header.source_id
    version = await _insert_version(unit, model, version)
    if not header.dataset_version:
        policy = await find_policy(unit.session, catalog, project_of(version.name), version.gate_policy)
        await _decide(unit, version, undecided(policy, domain.NOT_JUDGED))
    return version


async def judge(unit: Unit, catalog: Catalog, event: evaluator.EvaluationCompleted) -> None:
    """Runs the gate on a report. Only the evaluation that the version itself caused is read."""
    version = await store.VERSIONS.get(unit.session, event.model_version)
    if not event.automatic or version.state not in domain.OPEN_TO_THE_GATE:
        return
    policy = await find_policy(unit.session, catalog, project_of(version.name), version.gate_policy)
    with span("gate", model_version=version.name, policy=policy.name) as gate:
        decision = decide_gate(
            policy,
            event.report,
            event.incumbent,
            comparable=version.HasField("parity"),
            figures=version.lineage.training_metrics,
        )
        gate.set_attribute("verdict", registry.Verdict.Name(decision.verdict))
    decision.evaluation = event.evaluation
    await _decide(unit, version, decision)


async def leave_undecided(unit: Unit, catalog: Catalog, event: evaluator.EvaluationFailed) -> None:
    """Says on the version that its evaluation failed, so that nobody waits for it in the dark."""
    version = await store.VERSIONS.get(unit.session, event.model_version)
    if not event.automatic or version.state not in domain.OPEN_TO_THE_GATE:
        return
    if version.gate_decision.results:  # a report was judged meanwhile: the event of an earlier failure comes late
        return
    policy = await find_policy(unit.session, catalog, project_of(version.name), version.gate_policy)
    why = event.failure.message or domain.GIVEN_UP.get(event.state, "it ended")
    fix = f"`sluice eval retry {id_of(event.evaluation)}` runs it again"
    decision = undecided(policy, f"the evaluation gave no report: {why}; {fix}")
    decision.evaluation = event.evaluation
    await _decide(unit, version, decision)


async def approve(unit: Unit, request: registry.ApproveModelVersionRequest, by: str) -> registry.ModelVersion:
    """Gives one person's approval; who gave it before changes nothing."""
    version = await store.VERSIONS.get(unit.session, request.name)
    before = version.state
    if before == registry.MODEL_VERSION_STATE_APPROVED and domain.has_approved(version, by):
        return version
    domain.approve(version, by, request.reason, request.waiver, unit.now)
    version = await store.VERSIONS.update(unit, version, request.etag)
    if version.state != before:
        unit.emit(registry.ModelVersionApproved(model_version=version.name, endpoint=version.endpoint), version.name)
    return version


async def note_download(unit: Unit, version: registry.ModelVersion, file: types.ArtifactFile, offset: int) -> None:
    """Tells that a file leaves the suite; with whom, the event says."""
    told = registry.ModelVersionDownloaded(
        model_version=version.name, path=file.path, digest=file.digest, offset=offset
    )
    unit.emit(told, version.name)


async def revoke(unit: Unit, request: registry.RevokeModelVersionRequest) -> registry.ModelVersion:
    """Takes a version's right to serve away; one that lost it before stays as it is."""
    version = await store.VERSIONS.get(unit.session, request.name)
    if version.state == registry.MODEL_VERSION_STATE_REVOKED:
        return version
    domain.enter(version, registry.MODEL_VERSION_STATE_REVOKED)
    version = await store.VERSIONS.update(unit, version, request.etag)
    unit.emit(registry.ModelVersionRevoked(model_version=version.name, reason=request.reason), version.name)
    return version


async def note_rollout(unit: Unit, rollout: str, model_version: str) -> None:
    """Adds a rollout to the lineage of its version."""
    version = await store.VERSIONS.get(unit.session, model_version)
    if rollout not in version.lineage.rollouts:
        version.lineage.rollouts.append(rollout)
        await store.VERSIONS.update(unit, version)


async def follow_route(unit: Unit, endpoint: str, serving: str, revision: int) -> None:
    """Moves ``stable`` to the version that has all the traffic of an endpoint, if one has.

    ``revision`` is the route's: an event that comes late never undoes what a newer one did.
    """
    seen = await unit.session.get(BookmarkRow, f"route {endpoint}") or BookmarkRow(key=f"route {endpoint}", value="0")
    if revision <= int(seen.value):
        return
    seen.value = str(revision)
    unit.session.add(seen)
    if not serving:
        return
    models = await store.MODELS.find(unit.session, parent=project_of(endpoint), endpoint=id_of(endpoint))
    if all(model.name != parent_of(serving) for model in models):
        models += await store.MODELS.find(unit.session, name=parent_of(serving))
    for model in models:
        if domain.realias(model, serving):
            await _update_model(unit, model)


async def _decide(unit: Unit, version: registry.ModelVersion, decision: registry.GateDecision) -> None:
    domain.apply_decision(version, decision, unit.now)
    version = await store.VERSIONS.update(unit, version)
    unit.emit(
        registry.ModelVersionDecided(
            model_version=version.name, gate_decision=version.gate_decision, state=version.state
        ),
        version.name,
    )
    if version.state == registry.MODEL_VERSION_STATE_APPROVED:
        unit.emit(registry.ModelVersionApproved(model_version=version.name, endpoint=version.endpoint), version.name)


async def _insert_model(unit: Unit, model: registry.Model) -> registry.Model:
    model = await store.MODELS.insert(unit, model)
    unit.emit(registry.ModelCreated(model=model.name), model.name)
    return model


async def _update_model(unit: Unit, model: registry.Model, etag: str = "") -> registry.Model:
    model = await store.MODELS.update(unit, model, etag)
    unit.emit(registry.ModelUpdated(model=model.name), model.name)
    return model


async def _insert_version(unit: Unit, model: registry.Model, version: registry.ModelVersion) -> registry.ModelVersion:
    version.traceparent = current_traceparent()
    version = await store.VERSIONS.insert(unit, version)
    await store.hold(unit, project_of(version.name), [file.digest for file in version.artifact.files])
    await store.MODELS.update(unit, model)
    unit.emit(registry.ModelVersionCreated(model_version=version), version.name)
    return version
