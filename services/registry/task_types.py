"""What can be done to task types: one function an intent, inside a unit of the caller; built-in ones stay."""

from __future__ import annotations

from difflib import get_close_matches

from sqlmodel.ext.asyncio.session import AsyncSession

from kit.rpc.errors import AlreadyExists, Invalid, NotFound, StateConflict
from kit.rpc.names import id_of, parent_of, project_of
from kit.store import Unit
from services.registry import domain, extending, store
from services.registry.catalog import Catalog
from services.registry.policies import find_policy
from sluice import lifecycle
from sluice.labels import check_usable
from sluice.registry import v1 as registry

PROPOSED, APPROVED = registry.TASK_TYPE_STATE_PROPOSED, registry.TASK_TYPE_STATE_APPROVED
DECLINED, RETIRED = registry.TASK_TYPE_STATE_DECLINED, registry.TASK_TYPE_STATE_RETIRED


async def find_task_type(session: AsyncSession, catalog: Catalog, parent: str, task_type: str) -> registry.TaskType:
    """A task type of the project or a built-in one, in whatever state. Raises NotFound with the nearest known name."""
    name = f"{parent}/taskTypes/{task_type}"
    own = await store.TASK_TYPES.find(session, name=name) if parent else []
    if own:
        return own[0]
    if task_type in catalog.task_types:
        return catalog.task_types[task_type]
    known = [*catalog.task_types, *(id_of(each.name) for each in await list_own(session, parent))]
    near = get_close_matches(task_type, known, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"it is one of {', '.join(sorted(known))}"
    raise NotFound(f"task type `{task_type}` does not exist; {hint}", resource=("TaskType", name.lstrip("/")))


async def list_own(session: AsyncSession, parent: str) -> list[registry.TaskType]:
    """The task types of a project, in whatever state."""
    return await store.TASK_TYPES.find(session, parent=parent) if parent else []


async def propose(unit: Unit, catalog: Catalog, request: registry.CreateTaskTypeRequest, by: str) -> registry.TaskType:
    """Writes a task type down whole, for another person to approve; one that was declined is proposed anew."""
    await store.PROJECTS.get(unit.session, request.parent)
    name, wanted = f"{request.parent}/taskTypes/{request.task_type_id}", request.task_type
    if request.task_type_id in catalog.task_types:
        raise AlreadyExists(f"`{request.task_type_id}` is built in; choose another id", resource=("TaskType", name))
    if not wanted.extends:
        known = ", ".join(catalog.task_types)
        raise Invalid(
            f"task_type.extends is empty; name what it is a kind of, such as {known}",
            violations=[("task_type.extends", "is empty")],
        )
    base = await find_task_type(unit.session, catalog, request.parent, wanted.extends)
    check_usable(base)
    made = extending.extended(name, base, wanted)
    policy = await find_policy(unit.session, catalog, request.parent, made.gate_policy)
    extending.check_metrics(made, policy, catalog.task_types.values())
    await _check_keys(unit.session, request.parent, wanted)
    made.creator = by
    made = await _write(unit, made)
    unit.emit(registry.TaskTypeProposed(task_type=made), made.name)
    return made


async def approve(unit: Unit, catalog: Catalog, request: registry.ApproveTaskTypeRequest, by: str) -> registry.TaskType:
    """Gives the other person's approval; who gave it before changes nothing."""
    found = await _own(unit.session, catalog, request.name)
    if found.state == APPROVED and found.approval.principal == by:
        return found
    domain.check_other_person(by, found.creator, found.name)
    check_usable(await find_task_type(unit.session, catalog, parent_of(found.name), found.extends))
    _enter(found, APPROVED)
    found.approval.CopyFrom(domain.approval(by, request.reason, unit.now))
    found = await store.TASK_TYPES.update(unit, found, request.etag)
    unit.emit(registry.TaskTypeApproved(task_type=found), found.name)
    return found


async def retire(unit: Unit, catalog: Catalog, request: registry.RetireTaskTypeRequest) -> registry.TaskType:
    """Ends new use of a task type; one that is over already stays as it is."""
    found = await _own(unit.session, catalog, request.name)
    if found.state in (DECLINED, RETIRED):
        return found
    _enter(found, DECLINED if found.state == PROPOSED else RETIRED)
    found.reason = request.reason
    found = await store.TASK_TYPES.update(unit, found, request.etag)
    kind = registry.TaskTypeDeclined if found.state == DECLINED else registry.TaskTypeRetired
    unit.emit(kind(task_type=found.name, reason=request.reason), found.name)
    return found


async def _write(unit: Unit, made: registry.TaskType) -> registry.TaskType:
    """A new row, or the one of a proposal that was declined."""
    for former in await store.TASK_TYPES.find(unit.session, name=made.name, state=DECLINED):
        _enter(former, PROPOSED)
        return await store.TASK_TYPES.update(unit, made)
    return await store.TASK_TYPES.insert(unit, made)


async def _own(session: AsyncSession, catalog: Catalog, name: str) -> registry.TaskType:
    if id_of(name) in catalog.task_types and not await store.TASK_TYPES.find(session, name=name):
        raise StateConflict(f"`{id_of(name)}` is built in and stays as it is", resource=("TaskType", name))
    return await store.TASK_TYPES.get(session, name)


async def _check_keys(session: AsyncSession, parent: str, wanted: registry.TaskType) -> None:
    """Raises NotFound for a mistyped key of the project itself, which would let nobody in."""
    for name in wanted.submit_principals:
        if project_of(name) == parent:
            await store.keys().get(session, name)


def _enter(task_type: registry.TaskType, state: registry.TaskTypeState) -> None:
    if not lifecycle.can(lifecycle.TASK_TYPE, task_type.state, state):
        what = f"task type `{id_of(task_type.name)}` is {_word(task_type.state)} and cannot become {_word(state)}"
        raise StateConflict(what, resource=("TaskType", task_type.name))
    task_type.state = state


def _word(state: int) -> str:
    return registry.TaskTypeState.Name(registry.TaskTypeState.ValueType(state)).removeprefix("TASK_TYPE_STATE_")
