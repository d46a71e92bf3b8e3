"""The built-in task types and gate policies as messages of the contract, read once from ``tasks/``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.json_format import ParseDict

import tasks
from sluice.registry import v1 as registry

APPROVED = "TASK_TYPE_STATE_APPROVED"


@dataclass(frozen=True)
class Catalog:
    """Task types and gate policies by id."""

    task_types: Mapping[str, registry.TaskType]
    policies: Mapping[str, registry.GatePolicy]

    @classmethod
    def built_in(cls) -> Catalog:
        """What ``tasks/`` holds. Raises google.protobuf's ParseError for a field the contract does not know."""
        return cls(
            {
                name: ParseDict({**fields, "name": f"taskTypes/{name}", "state": APPROVED}, registry.TaskType())
                for name, fields in tasks.task_types().items()
            },
            {name: ParseDict(fields, registry.GatePolicy()) for name, fields in tasks.gate_policies().items()},
        )

    def policy(self, parent: str, policy: str) -> registry.GatePolicy | None:
        """A built-in policy as it appears in a project, or None."""
        if policy not in self.policies:
            return None
        found = registry.GatePolicy()
        found.CopyFrom(self.policies[policy])
        found.name = f"{parent}/gatePolicies/{policy}"
        return found
