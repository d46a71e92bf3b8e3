"""What a task type lets happen, in the words that every service says it in; pure, it reads no store and asks nobody."""

from __future__ import annotations

from typing import Literal

from kit.auth import Principal
from kit.rpc.errors import Denied, StateConflict
from kit.rpc.names import id_of
from sluice.errors import v1 as errors
from sluice.registry import v1 as registry
from sluice.types import v1 as types

_WHY_NOT = {
    registry.TASK_TYPE_STATE_PROPOSED: "waits for another person's approval: `sluice tasks approve {id}`",
    registry.TASK_TYPE_STATE_DECLINED: "was declined; propose it again, or take another",
    registry.TASK_TYPE_STATE_RETIRED: "was retired and takes nothing new; take another: `sluice tasks list`",
}
#: How long is trained is said in one of two ways.
_DURATIONS: tuple[Literal["max_steps", "epochs"], ...] = ("max_steps", "epochs")


def over(base: registry.TrainingDefaults, own: registry.TrainingDefaults) -> registry.TrainingDefaults:
    """What ``own`` says, and where it says nothing what ``base`` does."""
    merged = registry.TrainingDefaults()
    merged.CopyFrom(base)
    if any(own.optimization.HasField(field) for field in _DURATIONS):
        for field in _DURATIONS:
            merged.optimization.ClearField(field)
    merged.MergeFrom(own)
    return merged


def check_usable(task_type: registry.TaskType) -> None:
    """Raises StateConflict for a task type that nothing new may be made with."""
    if task_type.state in _WHY_NOT:
        id_ = id_of(task_type.name)
        raise StateConflict(
            f"task type `{id_}` {_WHY_NOT[task_type.state].format(id=id_)}", resource=("TaskType", task_type.name)
        )


def check_submitter(task_type: registry.TaskType, project: str, by: Principal) -> None:
    """Raises Denied (ROLE_REQUIRED) for who may not submit training jobs with a task type; administrators may."""
    roles, people = list(task_type.submit_roles), list(task_type.submit_principals)
    if not (roles or people) or by.name in people or by.has_role(project, [*roles, types.ROLE_ADMIN]):
        return
    who = [_word(role) for role in roles] + [f"`{name}`" for name in people]
    raise Denied(
        f"`{by.name}` may not submit jobs of task type `{id_of(task_type.name)}`; it is for {' or '.join(who)}",
        reason=errors.ERROR_REASON_ROLE_REQUIRED,
        metadata={"project": project, "roles": ",".join(map(_word, roles)), "principals": ",".join(people)},
    )


def _word(role: int) -> str:
    return types.Role.Name(types.Role.ValueType(role)).removeprefix("ROLE_").lower()
