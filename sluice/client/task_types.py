"""Task types: what rows, jobs and models are of; built in, or a project's own that extend one."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterable
from typing import Literal

from kit.rpc.errors import Invalid
from sluice.client import names
from sluice.client.access import role
from sluice.client.connection import Connection, gather
from sluice.registry import v1 as registry

ID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
#: What is replaced, and not added to, by what is given.
LISTS: tuple[Literal["metrics", "submit_roles", "submit_principals"], ...] = (
    "metrics",
    "submit_roles",
    "submit_principals",
)


class TaskTypes:
    """``client.task_types``. One goes by its id, such as `sft` or `radiology-report`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._task_types = registry.TaskTypeServiceStub(connection.channel)

    async def propose(
        self,
        task_type: str,
        extends: str = "",
        *,
        wanted: registry.TaskType | None = None,
        description: str = "",
        metrics: Iterable[str] = (),
        suite_max_rows: int = 0,
        suite_max_tokens: int = 0,
        gate_policy: str = "",
        submit_roles: Iterable[str] = (),
        submit_keys: Iterable[str] = (),
    ) -> registry.TaskType:
        """Proposes a task type of the project, which another person approves; what is left out is that of ``extends``.

        ``wanted`` holds more of the contract, such as defaults; what else is given wins over it. ``submit_roles`` and
        ``submit_keys`` say who may submit training jobs with it. Raises AlreadyExists, and Invalid naming the field.
        """
        if not ID.fullmatch(task_type):
            raise Invalid(f"`{task_type}` names no task type; take lower-case words with hyphens: radiology-report")
        asked = registry.TaskType()
        asked.CopyFrom(wanted or registry.TaskType())
        project = self._connection.project
        given = registry.TaskType(
            extends=extends,
            description=description,
            metrics=[*metrics],
            suite_max_rows=suite_max_rows,
            suite_max_tokens=suite_max_tokens,
            gate_policy=gate_policy,
            submit_roles=[role(word) for word in submit_roles],
            submit_principals=[names.api_key(project, key) for key in submit_keys],
        )
        for field in LISTS:
            if getattr(given, field):
                asked.ClearField(field)
        asked.MergeFrom(given)
        request = registry.CreateTaskTypeRequest(parent=project, task_type_id=task_type, task_type=asked)
        answer: registry.CreateTaskTypeResponse = await self._connection.call(self._task_types.CreateTaskType, request)
        return answer.task_type

    async def get(self, task_type: str) -> registry.TaskType:
        """One task type, in whatever state; raises NotFound with the nearest name."""
        request = registry.GetTaskTypeRequest(name=names.task_type(self._connection.project, task_type))
        answer: registry.GetTaskTypeResponse = await self._connection.call(self._task_types.GetTaskType, request)
        return answer.task_type

    async def list(self, limit: int = 0) -> builtins.list[registry.TaskType]:
        """The task types of the project and the built-in ones, in whatever state."""
        request = registry.ListTaskTypesRequest(parent=self._connection.project)
        method = self._task_types.ListTaskTypes
        return await gather(self._connection.pages(method, request, lambda page: page.task_types, limit=limit))

    async def approve(self, task_type: str, etag: str, reason: str = "") -> registry.TaskType:
        """Gives this key's approval to what was read with ``etag``.

        Raises Denied for the key that proposed it, and Stale where it was proposed anew since.
        """
        name = names.task_type(self._connection.project, task_type)
        request = registry.ApproveTaskTypeRequest(name=name, reason=reason, etag=etag)
        answer: registry.ApproveTaskTypeResponse = await self._connection.call(
            self._task_types.ApproveTaskType, request
        )
        return answer.task_type

    async def retire(self, task_type: str, reason: str, etag: str = "") -> registry.TaskType:
        """Ends new uploads and jobs with it; what exists goes on. One that is only proposed is declined."""
        name = names.task_type(self._connection.project, task_type)
        request = registry.RetireTaskTypeRequest(name=name, reason=reason, etag=etag)
        answer: registry.RetireTaskTypeResponse = await self._connection.call(self._task_types.RetireTaskType, request)
        return answer.task_type
