"""What the registry says of task types of a project; it decides nothing, and asks only for what is not built in."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NoReturn

import grpc

from kit.rpc.errors import Fault, NotFound, from_rpc_error
from kit.rpc.names import project_of
from sluice.dataset import v1 as dataset
from sluice.labels import check_usable
from sluice.registry import v1 as registry
from sluice.rows import ROWS_OF_TASK

PEER_TIMEOUT_S = 5.0
#: Gives the row schema, or raises the fault that stands in the way: inside the unit, so that a request that is
#: repeated gets its first answer all the same.
Asked = Callable[[], str]


def built_in() -> str:
    """The answer where no registry was asked."""
    return ""


class Labels:
    """Task types that a project has beside the built-in ones."""

    def __init__(self, task_types: registry.TaskTypeServiceAsyncStub | None = None) -> None:
        """Without a registry to ask there are none."""
        self._task_types = task_types

    async def ask(self, parent: str, task_type: str) -> Asked:
        """The row schema of a task type of the project of ``parent``; empty where it is built in, or is not there.

        What is given raises StateConflict for one that nothing new may be made with, and Unavailable.
        """
        try:
            schema = await self._row_schema(parent, task_type)
        except Fault as fault:
            return partial(_refuse, fault)
        return partial(str, schema)

    async def ask_of(self, of: dataset.Dataset) -> Asked:
        """The same of a dataset that is there: whether its task type takes more rows."""
        return await self.ask(of.name, of.task_type if of.row_schema else "")

    async def _row_schema(self, parent: str, task_type: str) -> str:
        if self._task_types is None or not task_type or task_type in ROWS_OF_TASK:
            return ""
        request = registry.GetTaskTypeRequest(name=f"{project_of(parent)}/taskTypes/{task_type}")
        try:
            answer = await self._task_types.GetTaskType(request, timeout=PEER_TIMEOUT_S)
        except grpc.RpcError as error:
            fault = from_rpc_error(error, "the registry")
            if isinstance(fault, NotFound):
                return ""
            raise fault from error
        check_usable(answer.task_type)
        return answer.task_type.row_schema


def _refuse(fault: Fault) -> NoReturn:
    raise fault
